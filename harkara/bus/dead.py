"""Dead letters: reading what could not be done, doing it again, and forgetting it."""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from harkara.bus import headers
from harkara.bus.api import NO_MESSAGE, Api, ApiError
from harkara.bus.errors import BusError, Unavailable
from harkara.bus.messages import Ack, Packet
from harkara.schemas.base import tenant_of

STREAM = "DEAD"

#: What a letter says of its own death, which a copy that lives again must not.
_OF_THE_DEAD = frozenset({headers.STREAM, headers.SEQ, headers.ACTOR, headers.REASON, headers.ATTEMPT, headers.SUBJECT})

_SEQ_BITS = 62


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message that an actor gave up, as it was, and why; `at` is when."""

    seq: int
    at: datetime
    subject: str
    body: bytes
    headers: dict[str, str]

    @property
    def id(self) -> UUID:
        """A UUIDv7 of the time of its death and its place in the stream, which it leads back to (`seq_of`)."""
        milliseconds = int(self.at.timestamp() * 1000)
        return UUID(int=milliseconds << 80 | 0x7 << 76 | 0b10 << _SEQ_BITS | self.seq)

    @property
    def tenant(self) -> str:
        """Whose it is; empty for the system's own."""
        return tenant_of(self.subject)

    @property
    def actor(self) -> str:
        """Who gave it up."""
        return self.headers.get(headers.ACTOR) or self.subject.rpartition(".")[2]

    @property
    def reason(self) -> str:
        return self.headers.get(headers.REASON, "")

    @property
    def attempts(self) -> int:
        text = self.headers.get(headers.ATTEMPT, "")
        return int(text) if text.isdecimal() else 1

    @property
    def was(self) -> str:
        """The subject it was first published to."""
        return self.headers.get(headers.SUBJECT, "")

    @property
    def message_id(self) -> str:
        return self.headers.get(headers.ID, "")

    @property
    def cause(self) -> str:
        return self.headers.get(headers.CAUSE, "")

    def alive(self) -> Packet:
        """The message as it is published to be tried again, with all its attempts before it and its id as it was.

        Work goes back to where it lay. Anything else goes to the retries of the actor that gave it up: others who read
        the same subject have done their part.
        """
        named = {key: value for key, value in self.headers.items() if key not in _OF_THE_DEAD}
        named = {key: value for key, value in named.items() if not key.startswith(headers.OF_THE_BROKER)}
        named[headers.DEDUPE] = f"{self.tenant}.replay.{self.id}"
        tokens = self.was.split(".")
        if tokens[0] != "t" or tokens[2:3] == ["work"]:
            return Packet(self.was, self.body, named)
        named[headers.SUBJECT] = self.was
        return Packet(f"t.{self.tenant}.work.{self.actor}.retry", self.body, named)


def seq_of(id_: UUID) -> int:
    """The place in the stream that the id of a dead letter leads to."""
    return id_.int & ((1 << _SEQ_BITS) - 1)


class DeadLetters:
    """The stream of dead letters, through one connection; `send` stores packets as a publisher does."""

    def __init__(self, api: Api, send: Callable[[Sequence[Packet]], Awaitable[list[Ack | BusError]]]) -> None:
        self._api, self._send = api, send

    async def get(self, id_: UUID) -> DeadLetter | None:
        """The letter of this id, if there is one. Raises Unavailable."""
        found = await self._ask({"seq": seq_of(id_)}) if seq_of(id_) else None
        return found if found is not None and found.id == id_ else None

    async def find(self, tenant: str = "*", actor: str = "*", after: int = 0) -> AsyncIterator[DeadLetter]:
        """The letters of a tenant (`*` for all) and actor behind this place, oldest first. Raises Unavailable."""
        while (letter := await self._ask({"seq": after + 1, "next_by_subj": f"t.{tenant}.dead.{actor}"})) is not None:
            yield letter
            after = letter.seq

    async def replay(self, letter: DeadLetter) -> None:
        """Have it tried again; then it is no dead letter any more. Called twice it is done once.

        Raises Unavailable, Full or Refused: the letter then is where it was.
        """
        (stored,) = await self._send([letter.alive()])
        if isinstance(stored, BusError):
            raise stored
        await self.drop(letter)

    async def drop(self, letter: DeadLetter) -> bool:
        """Forget it for good; whether it was there. Raises Unavailable."""
        try:
            await self._api.call(f"STREAM.MSG.DELETE.{STREAM}", {"seq": letter.seq})
        except ApiError:
            return False
        return True

    async def _ask(self, which: dict[str, Any]) -> DeadLetter | None:
        try:
            message: dict[str, Any] = (await self._api.call(f"STREAM.MSG.GET.{STREAM}", which))["message"]
        except ApiError as error:
            if error.code == NO_MESSAGE:
                return None
            raise Unavailable(str(error)) from error
        return DeadLetter(
            message["seq"],
            msgspec.convert(message["time"], datetime).astimezone(UTC),
            message["subject"],
            b64decode(message.get("data", "")),
            headers.read(b64decode(message.get("hdrs", ""))),
        )
