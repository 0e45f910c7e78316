"""A tenant's events, live and from a durable of a key's own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from door_client import Account, Api, make_account
from nats.js.errors import NotFoundError
from partner_client import Join, Partner
from support import until

from harkara.bus.connection import Bus


async def happens(bus: Bus, tenant: str, what: str, *, kind: str = "message.sent") -> int:
    """Something happens to a tenant; its `seq`."""
    body = json.dumps({"message_id": what}).encode()
    return (await bus.js.publish(f"t.{tenant}.evt.{kind}", body)).seq


async def fetched(partner: Partner, count: int) -> list[str]:
    """The next so many events that the partner's durable gives: one request may bring fewer."""
    pull = await partner.client.jetstream().pull_subscribe_bind(partner.durable, stream="EVENTS")
    got = list[str]()
    while len(got) < count:
        for message in await pull.fetch(count - len(got), timeout=30):
            await message.ack_sync(timeout=30)
            got.append(json.loads(message.data)["message_id"])
    await pull.unsubscribe()
    return got


async def left(bus: Bus, partner: Partner) -> int:
    """How many more it has to give."""
    return (await bus.js.consumer_info("EVENTS", partner.durable)).num_pending or 0


async def test_they_come_live(acme: Account, api: Api, bus: Bus, join: Join) -> None:
    partner, other, heard = await join(acme), await make_account(api), list[Any]()

    async def hear(message: Any) -> None:
        heard.append((message.subject, json.loads(message.data)["message_id"]))

    await partner.client.subscribe(f"t.{acme.tenant}.evt.message.*", cb=hear)
    await partner.client.flush()

    async def told() -> list[Any]:  # again if need be: what is heard live comes at most once
        await happens(bus, other.tenant, "not mine")
        await happens(bus, acme.tenant, "not asked for", kind="enrollment.started")
        await happens(bus, acme.tenant, "mine")
        return heard

    await until(told, "the event came", every=0.5)
    assert set(heard) == {(f"t.{acme.tenant}.evt.message.sent", "mine")}


async def test_a_durable_goes_on_where_it_was(acme: Account, api: Api, bus: Bus, join: Join) -> None:
    made, other = await acme.post("/api-keys", {}), await make_account(api)
    partner = await join(acme, made=made)
    await happens(bus, acme.tenant, "before")
    opened = await partner.told("events.open")
    assert opened == {"stream": "EVENTS", "durable": f"partner-{made['id']}"}
    for what in ("one", "two"):
        await happens(bus, other.tenant, "not mine")
        await happens(bus, acme.tenant, what)
    assert await fetched(partner, 1) == ["one"]
    await partner.client.close()
    again = await join(acme, made=made)
    assert await again.told("events.open", {"since": 0}) == opened  # it is there, and stays where it is
    await happens(bus, acme.tenant, "three")
    assert (await fetched(again, 2), await left(bus, again)) == (["two", "three"], 0)
    assert (await again.told("events.close")) == opened
    with pytest.raises(NotFoundError):
        await bus.js.consumer_info("EVENTS", partner.durable)
    assert (await again.told("events.close")) == opened


async def test_it_begins_where_it_is_told_to(acme: Account, bus: Bus, join: Join) -> None:
    partner, seq = await join(acme), await happens(bus, acme.tenant, "one")
    await happens(bus, acme.tenant, "two")
    await partner.told("events.open", {"since": seq})
    assert (await fetched(partner, 1), await left(bus, partner)) == (["two"], 0)
    everything = await join(acme)
    await everything.told("events.open", {"since": 0})
    assert (await fetched(everything, 2), await left(bus, everything)) == (["one", "two"], 0)
    assert (await everything.told("events.open", {"since": "yesterday"}))["status"] == 422


async def test_what_is_not_acknowledged_is_not_lost(acme: Account, bus: Bus, join: Join) -> None:
    partner = await join(acme)
    await partner.told("events.open")
    await happens(bus, acme.tenant, "one")
    pull = await partner.client.jetstream().pull_subscribe_bind(partner.durable, stream="EVENTS")
    (message,) = await pull.fetch(1, timeout=30)
    await message.nak()
    (again,) = await pull.fetch(1, timeout=30)
    assert again.metadata.num_delivered == 2
    assert (await pull.consumer_info()).num_ack_pending == 1
    await again.ack_sync(timeout=30)
    assert (await pull.consumer_info()).num_ack_pending == 0


async def test_a_clients_own_way_to_a_durable_works(acme: Account, bus: Bus, join: Join) -> None:
    partner = await join(acme)
    await partner.told("events.open")
    pull = await partner.client.jetstream().pull_subscribe("", durable=partner.durable, stream="EVENTS")
    await happens(bus, acme.tenant, "one")
    (message,) = await pull.fetch(1, timeout=30)
    assert json.loads(message.data) == {"message_id": "one"}


async def test_several_share_a_durable(acme: Account, bus: Bus, join: Join) -> None:
    made = await acme.post("/api-keys", {})
    partners = [await join(acme, made=made) for _ in range(2)]
    await partners[0].told("events.open")
    for number in range(20):
        await happens(bus, acme.tenant, str(number))
    got = await asyncio.gather(*(fetched(one, 10) for one in partners))
    assert sorted(int(what) for part in got for what in part) == list(range(20))


async def test_events_need_the_scope(acme: Account, join: Join) -> None:
    partner = await join(acme, scopes=["messages:write"])
    await partner.client.subscribe(f"t.{acme.tenant}.evt.>")
    assert await partner.complains("permissions violation for subscription")
    assert (await partner.told("events.open"))["status"] == 403


async def test_the_durable_of_a_revoked_key_is_forgotten(acme: Account, bus: Bus, join: Join) -> None:
    partner = await join(acme)
    await partner.told("events.open")
    assert (await acme.call("DELETE", f"/api-keys/{partner.key_id}")).status == 204

    async def gone() -> bool:
        try:
            await bus.js.consumer_info("EVENTS", partner.durable)
        except NotFoundError:
            return True
        return False

    await until(gone, "the durable is gone")
