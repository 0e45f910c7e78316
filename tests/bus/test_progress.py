"""How far a reader has come: by what matters to whoever asks, whatever else it can't be done with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import ClassVar

import msgspec
import pytest
from support import until

from harkara.bus import progress
from harkara.bus.connection import Bus
from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Outcome, Retry
from harkara.bus.schedule import PATIENT, Schedule
from harkara.bus.settle import LONGEST_NAK
from harkara.schemas.base import Message
from harkara.schemas.work import Inbound


class Reader:
    """Reads webhooks, each of which is one word, and puts off those that it is told to."""

    name: ClassVar[str] = "receipts"
    takes: ClassVar[tuple[type[Message], ...]] = (Inbound,)
    retries: ClassVar[Schedule] = PATIENT
    batch: ClassVar[int] = 10
    in_flight: ClassVar[int] = 1

    def __init__(self, **put_off: timedelta) -> None:
        self.put_off = put_off
        self.seen: set[str] = set()

    async def handle(self, batch: Sequence[Delivery[Inbound]]) -> Sequence[Outcome]:
        words = [msgspec.json.decode(delivery.message.body, type=str) for delivery in batch]
        self.seen.update(words)
        return [Retry("later", self.put_off[word]) if word in self.put_off else Done() for word in words]


def says(word: str) -> Callable[[bytes], bool]:
    return lambda body: f'"{word}"'.encode() in body


async def stored(bus: Bus, tenant: str, *words: str) -> None:
    for word in words:
        body = msgspec.Raw(msgspec.json.encode(word))
        await bus.publisher.publish(
            Outgoing(Inbound(source="whatsapp", sender_id="1", body=body), tenant, f"{tenant}.{word}")
        )


@pytest.mark.parametrize("again", [timedelta(seconds=20), timedelta(hours=1)], ids=["in hand", "on a schedule"])
async def test_what_is_put_off_keeps_only_those_waiting_to_whom_it_matters(bus: Bus, again: timedelta) -> None:
    reader = Reader(bad=again)
    await bus.start(reader)
    await stored(bus, "acme", "bad", "good")
    await stored(bus, "other", "fine")
    await until(lambda: reader.seen == {"bad", "good", "fine"}, "all was seen")

    async def has_read(tenant: str, word: str) -> bool:
        return await bus.has_read("INBOUND", reader.name, tenant, says(word))

    await until(lambda: has_read("acme", "nothing"), "what does not matter is not waited for")
    assert not await has_read("acme", "bad")
    assert await has_read("other", "bad")
    # Behind what is in hand nobody knows what has been read, until that is put off for longer.
    assert await has_read("other", "fine") == (again > LONGEST_NAK)


async def test_what_nobody_has_seen_yet_is_looked_into(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    running = await bus.start(Reader())
    await running.stop()
    await stored(bus, "acme", "one", "two", "three")
    assert not await bus.has_read("INBOUND", Reader.name, "acme", says("three"))
    assert await bus.has_read("INBOUND", Reader.name, "acme", says("four"))
    monkeypatch.setattr(progress, "_LOOKED_INTO", 2)  # what lies behind that is not known
    assert not await bus.has_read("INBOUND", Reader.name, "acme", says("four"))
