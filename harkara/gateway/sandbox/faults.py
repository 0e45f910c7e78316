"""What goes wrong on purpose: faults with a rate, a count and filters, repeatable by their seed."""

from __future__ import annotations

from random import Random
from typing import Any, Literal

import msgspec

from harkara.gateway.sandbox.store import Store
from harkara.gateway.sandbox.wire import digits

Kind = Literal[
    "error",
    "failed",
    "http_5xx",
    "drop",
    "hang",
    "slow",
    "webhook_lost",
    "webhook_duplicated",
    "webhook_reordered",
]

#: Whether a message is accepted and recorded although its answer goes wrong, unless the fault says otherwise.
_ACCEPTS = {"error": False, "http_5xx": False, "drop": True, "hang": True}

_WEBHOOK_DELAY_MS = 1000


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """One fault.

    `error` refuses with the Cloud API's `code`; `failed` accepts and later reports the status failed with `code`;
    `http_5xx` answers status `code` (default 503) without JSON; `drop` accepts and closes the connection; `hang`
    accepts and never answers; `slow` answers `delay_ms` late; `webhook_lost`, `webhook_duplicated` and
    `webhook_reordered` (`delay_ms` late, so that later ones overtake it) act on single statuses and inbound messages.
    `accept` overrides whether `error`, `http_5xx`, `drop` and `hang` record the message.
    It happens with probability `rate`, at most `count` times, to whatever matches all given filters: `phone_number_id`,
    `to` (the other party), `type`, `text` (contained in the message), `template` (its name) and `status` (for webhooks:
    `sent`, `delivered`, `read`, `failed` or `inbound`).
    """

    kind: Kind
    code: int | None = None
    rate: float = 1.0
    count: int | None = None
    delay_ms: int | None = None
    accept: bool | None = None
    seed: int | None = None
    phone_number_id: str | None = None
    to: str | None = None
    type: str | None = None
    text: str | None = None
    template: str | None = None
    status: Literal["sent", "delivered", "read", "failed", "inbound"] | None = None
    fired: int = 0
    rolled: int = 0

    def problem(self) -> str | None:
        """What is wrong with this fault, if anything."""
        if not 0 <= self.rate <= 1:
            return "rate must be from 0 to 1"
        if self.count is not None and self.count < 0:
            return "count must not be negative"
        if self.delay_ms is not None and self.delay_ms < 0:
            return "delay_ms must not be negative"
        if self.kind in ("error", "failed") and self.code is None:
            return f"code is needed: the Cloud API's error code that a fault of kind {self.kind} brings"
        if self.kind == "http_5xx" and self.code is not None and not 500 <= self.code <= 599:
            return "code must be an HTTP status from 500 to 599 for http_5xx"
        if self.status is not None and not self.kind.startswith("webhook_"):
            return "status filters webhooks only"
        return None

    @property
    def accepts(self) -> bool:
        """Whether the message is recorded although its answer goes wrong."""
        return _ACCEPTS.get(self.kind, True) if self.accept is None else self.accept


class Subject(msgspec.Struct, frozen=True):
    """What filters look at."""

    number: str
    chat: str
    type: str
    content: bytes
    status: str = ""


class _Active:
    """A fault with its dice."""

    def __init__(self, fault: Fault, place: int) -> None:
        self.fault = fault
        self.fired = fault.fired
        self.rolled = fault.rolled
        self._to = None if fault.to is None else digits(fault.to)
        self._text = None if fault.text is None else msgspec.json.encode(fault.text)[1:-1]
        self._dice = Random(place if fault.seed is None else fault.seed)  # noqa: S311
        for _ in range(self.rolled):
            self._dice.random()

    def strikes(self, subject: Subject) -> bool:
        """Whether this fault happens to the subject, counting it if so."""
        if not self._matches(subject) or self.spent:
            return False
        self.rolled += 1
        if self._dice.random() >= self.fault.rate:
            return False
        self.fired += 1
        return True

    @property
    def spent(self) -> bool:
        return self.fault.count is not None and self.fired >= self.fault.count

    def _matches(self, subject: Subject) -> bool:
        fault = self.fault
        return (
            (fault.phone_number_id is None or fault.phone_number_id == subject.number)
            and (self._to is None or self._to == subject.chat)
            and (fault.type is None or fault.type == subject.type)
            and (fault.status is None or fault.status == subject.status)
            and (self._text is None or self._text in _as_we_write(subject.content))
            and (fault.template is None or fault.template == _template_name(subject))
        )

    def state(self) -> Fault:
        return msgspec.structs.replace(self.fault, fired=self.fired, rolled=self.rolled)


def _as_we_write(content: bytes) -> bytes:
    """The same JSON with its characters escaped as little as JSON allows, whatever the client did."""
    return msgspec.json.encode(msgspec.json.decode(content))


class _Named(msgspec.Struct):
    name: str = ""


def _template_name(subject: Subject) -> str:
    if subject.type != "template":
        return ""
    return msgspec.json.decode(subject.content, type=_Named).name


class Faults:
    """The faults in force, in the order given; they survive a restart with their counts."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sending: list[_Active] = []
        self._webhooks: list[_Active] = []
        self._all: list[_Active] = []
        self._activate(store.setting("faults", list[Fault], []))

    def set(self, faults: list[Fault]) -> None:
        """Replace all faults; counting starts anew."""
        self._activate([msgspec.structs.replace(fault, fired=0, rolled=0) for fault in faults])
        self._save()

    def state(self) -> list[Fault]:
        """The faults with how often each has happened."""
        return [active.state() for active in self._all]

    def on_send(self, subject: Subject) -> tuple[Fault | None, int]:
        """What goes wrong with a send, and by how many milliseconds its answer is late."""
        if not self._sending:
            return None, 0
        delay, rolled = 0, self._rolled()
        struck: Fault | None = None
        for active in self._sending:
            slow = active.fault.kind == "slow"
            if (slow or struck is None) and active.strikes(subject):
                if slow:
                    delay += _default(active.fault.delay_ms, _WEBHOOK_DELAY_MS)
                else:
                    struck = active.fault
        self._save_since(rolled)
        return struck, delay

    def on_webhook(self, subject: Subject) -> Fault | None:
        """What goes wrong with reporting one status or inbound message."""
        if not self._webhooks:
            return None
        rolled = self._rolled()
        struck = next((active.fault for active in self._webhooks if active.strikes(subject)), None)
        self._save_since(rolled)
        return struck

    @property
    def on_webhooks(self) -> bool:
        """Whether any fault concerns webhooks."""
        return bool(self._webhooks)

    @property
    def on_sends(self) -> bool:
        """Whether any fault concerns sends."""
        return bool(self._sending)

    def _activate(self, faults: list[Fault]) -> None:
        self._all = [_Active(fault, place) for place, fault in enumerate(faults, 1)]
        self._webhooks = [active for active in self._all if active.fault.kind.startswith("webhook_")]
        self._sending = [active for active in self._all if active not in self._webhooks]

    def _rolled(self) -> int:
        return sum(active.rolled for active in self._all)

    def _save_since(self, rolled: int) -> None:
        """A message that no fault is about costs nothing."""
        if self._rolled() != rolled:
            self._save()

    def _save(self) -> None:
        self._store.save_setting("faults", self.state())


def webhook_delay(fault: Fault) -> int:
    """By how many milliseconds a duplicated or reordered webhook comes late."""
    return _default(fault.delay_ms, _WEBHOOK_DELAY_MS)


def _default(value: int | None, default: int) -> int:
    return default if value is None else value


def decode_faults(body: Any) -> list[Fault]:
    """Faults from a decoded body: a list, an object with `faults`, or one fault. Raises msgspec.ValidationError."""
    if isinstance(body, dict) and "faults" in body:
        return msgspec.convert(body, _Faults).faults
    if isinstance(body, dict):
        return [msgspec.convert(body, Fault)]
    return msgspec.convert(body, list[Fault])


class _Faults(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    faults: list[Fault]
