"""Opening what comes off the bus: which type a subject stands for, and what its headers may be believed."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from harkara.bus import headers
from harkara.bus.messages import Delivery
from harkara.bus.subjects import matches
from harkara.schemas.base import Message, tenant_of

#: Ids of messages that brought none, or one that is no UUID, are derived in this namespace.
_NAMESPACE = uuid.UUID("5b6f0d52-7c1b-4b0e-9d0b-6f6a0d1a6a51")
_KNOWN_SUBJECTS = 10_000
_QUOTED = re.compile(r"""(['"]).*\1""", re.DOTALL)


class Raw(msgspec.Struct, gc=False):
    """One delivery as a carrier has it: nothing decoded, nothing believed yet.

    `stored_ns` is when this copy was stored (nanoseconds since the epoch), `reply` is the carrier's own handle on it,
    `failures` how many of its deliveries failed, as far as this process knows.
    """

    subject: str
    headers: dict[str, str]
    body: bytes
    stream: str
    seq: int
    deliveries: int
    stored_ns: int
    reply: str = ""
    failures: int = 0

    @property
    def internal(self) -> bool:
        """Whether only actors can write this subject, so that its bookkeeping headers can be believed."""
        return is_internal(self.subject)


class Undecodable(Exception):
    """A body that is not what its subject promises. The text names the place, never the content."""


def is_internal(subject: str) -> bool:
    """Whether only actors can write this subject, so that its bookkeeping headers can be believed."""
    return subject.startswith("sys.") or subject.split(".", 3)[2:3] == ["work"]


def original_subject(raw: Raw) -> str:
    """The subject a message was first published to: a parked one says so, if it is its own tenant's."""
    named = raw.headers.get(headers.SUBJECT)
    if named and raw.internal and tenant_of(named) == tenant_of(raw.subject):
        return named
    return raw.subject


def message_id(raw: Raw) -> str:
    """The message's own id: what it names, else one derived from its idempotency key, else from where it lies."""
    named = raw.headers.get(headers.ID)
    if named:
        return named
    tenant = tenant_of(raw.subject)
    key = raw.headers.get(headers.DEDUPE, "").removeprefix(f"{tenant}.")
    try:
        return str(uuid.UUID(key))
    except ValueError:
        return str(uuid.uuid5(_NAMESPACE, f"{tenant}.{key}" if key else f"{raw.stream}.{raw.seq}"))


def attempt_of(raw: Raw) -> int:
    """Which try this is, from 1: after those that failed before it was parked, and those that did since.

    Deliveries are not attempts: one that was mere waiting, that a stopping process gave back or whose ack got lost
    would make the next wait hours instead of seconds.
    """
    before = raw.headers.get(headers.ATTEMPT)
    made = int(before) if before and before.isdecimal() and len(before) < 6 and raw.internal else 0
    return made + raw.failures + 1


def stored_at(raw: Raw) -> datetime:
    """When the message was first stored, however often it was parked since (aware, UTC)."""
    named = raw.headers.get(headers.AT)
    if named and raw.internal:
        try:
            return datetime.fromisoformat(named).astimezone(UTC)
        except ValueError:
            pass
    return datetime.fromtimestamp(raw.stored_ns / 1e9, UTC)


class Intake:
    """Turns raw deliveries into typed ones, for the types one actor takes."""

    def __init__(self, takes: Sequence[type[Message]]) -> None:
        self._decoders: list[tuple[str, msgspec.json.Decoder[Any]]] = [
            (kind.subject_filter(), msgspec.json.Decoder(kind)) for kind in takes
        ]
        self._known: dict[str, msgspec.json.Decoder[Any]] = {}

    def open(self, raw: Raw) -> Delivery[Any]:
        """The typed delivery. Raises Undecodable, whose text names the field but not what was in it."""
        subject = original_subject(raw)
        decoder = self._known.get(subject) or self._find(subject)
        try:
            message = decoder.decode(raw.body or b"{}")
        except UnicodeDecodeError:
            raise Undecodable("the body is not UTF-8") from None
        except (msgspec.MsgspecError, RecursionError) as error:
            raise Undecodable(without_content(str(error))) from None
        named = message_id(raw)
        return Delivery(
            message=message,
            tenant=tenant_of(raw.subject),
            id=named,
            cause=raw.headers.get(headers.CAUSE) or named,
            attempt=attempt_of(raw),
            subject=subject,
            stream=raw.stream,
            seq=raw.seq,
            at=stored_at(raw),
            deliveries=raw.deliveries,
            by=raw.headers.get(headers.BY, ""),
        )

    def _find(self, subject: str) -> msgspec.json.Decoder[Any]:
        for pattern, decoder in self._decoders:
            if matches(pattern, subject):
                if len(self._known) >= _KNOWN_SUBJECTS:
                    self._known.clear()
                self._known[subject] = decoder
                return decoder
        raise Undecodable("no message type of this actor has this subject")


def without_content(text: str) -> str:
    """A decoder's complaint without the value it quotes: what was wrong, and at which field."""
    return _QUOTED.sub("…", text)
