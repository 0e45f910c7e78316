"""What goes onto the bus and what comes off it, independent of who carries it."""

from __future__ import annotations

from datetime import datetime
from typing import Generic, TypeVar

import msgspec

from harkara.bus import headers
from harkara.schemas.base import Message

M = TypeVar("M", bound=Message)

_encoder = msgspec.json.Encoder()


class Packet(msgspec.Struct, frozen=True, gc=False):
    """One message as the broker stores it."""

    subject: str
    body: bytes
    headers: dict[str, str] = msgspec.field(default_factory=dict[str, str])


class Outgoing(msgspec.Struct, frozen=True):
    """A message to be published for one tenant (the empty tenant is the system itself).

    `id` is what the broker dedupes on, for two minutes and over the whole stream: two different events about
    one thing need two ids. `cause` is the id of the request or webhook that started it all, `by` who asked for
    a command, `trace` the span that it comes from, while tracing is on.
    """

    message: Message
    tenant: str
    id: str
    cause: str = ""
    by: str = ""
    trace: str = ""

    def packet(self) -> Packet:
        """Subject, headers and encoded body. Raises ValueError if a value cannot be part of the subject."""
        dedupe = f"{self.tenant}.{self.id}" if self.tenant else self.id
        named = {headers.DEDUPE: dedupe, headers.ID: self.id}
        if self.cause:
            named[headers.CAUSE] = self.cause
        if self.by:
            named[headers.BY] = self.by
        if self.trace:
            named[headers.TRACE] = self.trace
        return Packet(self.message.subject_for(self.tenant), _encoder.encode(self.message), named)


class Ack(msgspec.Struct, frozen=True, gc=False):
    """The broker has stored a message: where, and whether it already had it."""

    stream: str
    seq: int
    duplicate: bool = False


class Delivery(msgspec.Struct, Generic[M], gc=False):
    """One message handed to an actor.

    `attempt` counts the tries that were allowed to fail, from 1. `at` is when the message was first stored:
    waiting on a schedule does not change it. `deliveries` is how often the broker has handed out this copy.
    """

    message: M
    tenant: str
    id: str
    cause: str
    attempt: int
    subject: str
    stream: str
    seq: int
    at: datetime
    deliveries: int
    by: str = ""
