"""The outbox is emptied for everybody, also while somebody's queue is full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from support import NewTenant

from harkara.actors.herald import MOST, Herald
from harkara.bus.errors import BusError, Full, Unavailable
from harkara.bus.messages import Ack, Packet
from harkara.schemas.commands import SyncTemplates
from harkara.schemas.events import LeadCreated
from harkara.storage import outbox
from harkara.storage.storage import Storage


class Broker:
    """Takes what it is sent, but for queues that are full; `error` is what it says to everything."""

    def __init__(self) -> None:
        self.full: set[str] = set()
        self.error: BusError | None = None
        self.stored: list[str] = []
        self.asked = 0

    async def send(self, packets: Sequence[Packet]) -> list[Ack | BusError]:
        self.asked += 1
        return [self._answer(packet) for packet in packets]

    def _answer(self, packet: Packet) -> Ack | BusError:
        if self.error is not None:
            return self.error
        if packet.subject in self.full:
            return Full("the queue is full: slow down and try again")
        duplicate = packet.headers["Nats-Msg-Id"] in self.stored
        if not duplicate:
            self.stored.append(packet.headers["Nats-Msg-Id"])
        return Ack("EVENTS", len(self.stored), duplicate)


async def put(storage: Storage, tenant: str, *names: str) -> None:
    """An event under each of these names; a command under one that begins with `sync`."""
    async with storage.tenant(tenant) as con:
        for name in names:
            told = (
                SyncTemplates(sender_id="s")
                if name.startswith("sync")
                else LeadCreated(id="l", contact_id="c", stage="new", score=1, source="a")
            )
            await outbox.put(con, tenant, told, name, "cause")


async def left(storage: Storage, tenant: str) -> list[str]:
    async with storage.tenant(tenant) as con:
        return [row["name"] for row in await con.fetch("select name from outbox order by id")]


@pytest.fixture
async def broker(storage: Storage) -> Broker:
    """A broker that has stored what other tests have left."""
    made = Broker()
    while await herald(storage, made).publish():
        pass
    made.stored.clear()
    return made


def herald(storage: Storage, broker: Broker) -> Herald:
    nobody: Any = None
    return Herald(storage, nobody, broker.send)


async def test_a_full_queue_holds_nobody_else_up(storage: Storage, new_tenant: NewTenant, broker: Broker) -> None:
    greedy, other = await new_tenant(), await new_tenant()
    await put(storage, greedy, "a", *(f"sync{number}" for number in range(MOST + 1)), "b")
    await put(storage, other, "a", "sync")
    broker.full = {SyncTemplates.subject_for(SyncTemplates(sender_id="s"), greedy)}
    one = herald(storage, broker)
    while await one.publish() == MOST:
        pass
    assert (len(await left(storage, greedy)), await left(storage, other)) == (MOST + 1, [])
    assert set(broker.stored[-4:]) == {f"{greedy}.a", f"{greedy}.b", f"{other}.a", f"{other}.sync"}
    asked = broker.asked
    assert await one.publish() == 0
    assert broker.asked == asked, "a full queue is asked again before the next tick"

    broker.full = set()
    await one.handle([])
    while await one.publish() == MOST:
        pass
    assert await left(storage, greedy) == []
    assert set(broker.stored) >= {f"{greedy}.sync{number}" for number in range(MOST + 1)}


async def test_all_stays_while_the_broker_is_away(storage: Storage, new_tenant: NewTenant, broker: Broker) -> None:
    tenant = await new_tenant()
    await put(storage, tenant, "a", "b")
    broker.error = Unavailable("away")
    with pytest.raises(Unavailable):
        await herald(storage, broker).publish()
    assert set(await left(storage, tenant)) == {"a", "b"}
