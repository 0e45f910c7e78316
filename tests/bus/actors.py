"""Actors and messages for the bus's own tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Outcome
from harkara.bus.schedule import Schedule
from harkara.schemas.base import Message


class Begin(Message, frozen=True):
    subject: ClassVar[str] = "t.{tenant}.cmd.enrollment.start"

    number: int


class Page(Message, frozen=True):
    subject: ClassVar[str] = "t.{tenant}.work.enrollment.page"

    number: int


class Ship(Message, frozen=True):
    subject: ClassVar[str] = "t.{tenant}.work.send.{sender_id}.{lane}"

    sender_id: str
    lane: str
    number: int


class Begun(Message, frozen=True):
    subject: ClassVar[str] = "t.{tenant}.evt.enrollment.started"

    number: int


class Clerk:
    """Remembers the numbers it was handed, and answers as it is told."""

    name: ClassVar[str] = "enrollment"
    takes: ClassVar[tuple[type[Message], ...]] = (Begin, Page)
    retries: ClassVar[Schedule] = Schedule.seconds(0.05, 0.05)
    batch: ClassVar[int] = 10
    in_flight: ClassVar[int] = 3

    def __init__(self, answer: Callable[[Delivery[Any]], Outcome] = lambda _: Done()) -> None:
        self.answer = answer
        self.seen: list[Delivery[Any]] = []
        self.calls = 0

    async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
        self.calls += 1
        self.seen.extend(batch)
        return [self.answer(one) for one in batch]

    def numbers(self) -> set[int]:
        return {one.message.number for one in self.seen}


class Sender(Clerk):
    """Takes what goes out."""

    name: ClassVar[str] = "sender"
    takes: ClassVar[tuple[type[Message], ...]] = (Ship,)


def begin(number: int, tenant: str = "acme") -> Outgoing:
    return Outgoing(Begin(number=number), tenant, f"b-{number}")


def page(number: int) -> Outgoing:
    return Outgoing(Page(number=number), "acme", f"p-{number}")


def ship(number: int) -> Outgoing:
    return Outgoing(Ship(sender_id="s-1", lane="otp", number=number), "acme", f"s-{number}")
