"""What goes onto the bus and what comes off it, independent of who carries it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

import msgspec

from harkara.bus import headers
from harkara.schemas.base import Message

M = TypeVar("M", bound=Message)

_encoder = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Packet:
    """One message as the broker stores it."""

    subject: str
    body: bytes
    headers: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be published for one tenant (the empty tenant is the system itself).

    `id` is what the broker dedupes on, for two minutes and over the whole stream: two different events about
    one thing need two ids. `cause` is the id of the request or webhook that started it all.
    """

    message: Message
    tenant: str
    id: str
    cause: str = ""

    def packet(self) -> Packet:
        """Subject, headers and encoded body. Raises ValueError if a value cannot be part of the subject."""
        dedupe = f"{self.tenant}.{self.id}" if self.tenant else self.id
        named = {headers.DEDUPE: dedupe, headers.ID: self.id}
        if self.cause:
            named[headers.CAUSE] = self.cause
        return Packet(self.message.subject_for(self.tenant), _encoder.encode(self.message), named)


class Ack(NamedTuple):
    """The broker has stored a message: where, and whether it already had it."""

    stream: str
    seq: int
    duplicate: bool


@dataclass(slots=True)
class Delivery(Generic[M]):
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
