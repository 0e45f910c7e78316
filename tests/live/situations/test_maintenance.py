"""Looking the set-up over, emptying hands before a deploy, replaying a range, and erasing somebody for good."""

from __future__ import annotations

import re
from typing import Any
from uuid import uuid4

from chaos.harness import Platform, Tenant
from live.situations.telling import sent, status_of, until_told
from live.terminal import ops, told
from nats.js.api import ConsumerConfig
from support import until

from harkara.app import ACTORS


async def test_doctor_finds_nothing_wrong_and_then_what_is(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    found: dict[str, Any] = {}

    async def nothing_is_wrong() -> bool:  # on a busy machine a server may not answer in time
        found.clear()
        found.update({one["check"]: one for one in await told(live, "doctor", "--max-age", "3600")})
        # Other tests leave dead letters and stopped numbers behind.
        return all(one["well"] or one["warning"] for one in found.values())

    try:
        await until(nothing_is_wrong, "nothing is wrong")
    except AssertionError as error:
        raise AssertionError(f"{error}: {[one for one in found.values() if not one['well']]}") from None
    assert {f"actor: {name}" for name in ACTORS} <= found.keys()
    assert re.search(
        "nothing waits to be sent|[0-9]+ messages? waits?, in [0-9]+ queues?", found["actor: sender"]["found"]
    )
    await told(live, "pause", "actor", "librarian", "--yes")
    await told(live, "pause", "sender", sender["id"], "--why", "complaints", "--yes")
    try:
        status, out, _ = await ops(live, "doctor")
        state = await told(live, "status", "--max-age", "3600")
    finally:
        await told(live, "resume", "actor", "librarian")
    assert status == 1
    assert "`harkara ops resume actor librarian`" in out
    assert f"`harkara ops resume sender {sender['id']}`" in out
    assert [line for line in state["trouble"] if sender["id"] in line]

    async def warns_alone() -> bool:
        status, out, _ = await ops(live, "doctor", "--max-age", "3600")
        return status == 0 and f"`harkara ops resume sender {sender['id']}`" in out

    await until(warns_alone, "a number that is stopped is a warning: the installation works")


async def test_a_number_that_its_own_tenant_has_paused_is_no_alarm(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender(name="Closed on Sundays")
    await tenant.call("PATCH", f"/senders/{sender['id']}", {"status": "paused"})
    state = await told(live, "status", "--max-age", "3600")
    assert [one["why"] for one in state["stopped"] if one["id"] == sender["id"]] == [""]
    assert not [line for line in state["trouble"] if sender["id"] in line]
    found = f"Closed on Sundays of {tenant.id} was paused by its own tenant"
    assert [one["well"] for one in await told(live, "doctor") if one["found"] == found] == [True]


async def test_doctor_and_trace_work_with_a_server_down(live: Platform, tenant: Tenant) -> None:
    id_ = await sent(tenant, await tenant.sender())
    await until_told(live, tenant, "message.read", id_)
    nowhere = "postgresql://harkara_app@127.0.0.1:1/harkara"
    found = {one["check"]: one for one in await told(live, "doctor", DATABASE_URL=nowhere)}
    assert not found["server: database"]["well"]
    assert "DATABASE_URL" in found["server: database"]["todo"]
    assert found["topology"]["well"]
    story = await told(live, "trace", id_, DATABASE_URL=nowhere)
    assert "database: " in story["unasked"][0]
    assert "told: message.read" in [moment["what"] for moment in story["timeline"]]
    story = await told(live, "trace", id_, NATS_URL="nats://127.0.0.1:1")
    assert "broker: " in story["unasked"][0]
    assert [one["code"] for one in story["now"]] == ["read"]


async def test_the_topology_is_held_against_its_page(live: Platform) -> None:
    assert await told(live, "topology", "diff") == []
    changes = await told(live, "topology", "diff", "--replicas", "3")
    assert {one["want"] for one in changes} == {"3"}


async def test_drain_leaves_nothing_in_hand_and_what_came_goes_on_afterwards(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    for _ in range(20):
        await sent(tenant, sender)
    partner = f"partner-{uuid4()}"
    async with live.streams() as js:
        await js.add_consumer("EVENTS", ConsumerConfig(durable_name=partner, filter_subject=f"t.{tenant.id}.evt.>"))
        try:
            assert await told(live, "drain", "--yes") == {"in_hand": {}}
            id_ = await sent(tenant, sender)
            assert "dispatcher" in {one["name"] for one in await told(live, "lag") if one["pending"]}
            paused = {one["name"] for one in (await told(live, "status"))["consumers"] if one["paused"]}
            assert ("dispatcher" in paused, partner in paused) == (True, False)
        finally:
            await js.delete_consumer("EVENTS", partner)
            await told(live, "resume", "actor", "all")
    await status_of(tenant, id_, "sent", "delivered", "read")


async def test_a_range_is_replayed_to_one_actor_and_done_once(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    id_ = await sent(tenant, sender)
    await until_told(live, tenant, "message.read", id_)
    await until_told(live, tenant, "message.sent", id_)
    before = await live.events(tenant.id)
    chosen = ("replay", "INBOUND", "receipts", "--tenant", tenant.id, "--since", "1h")
    dry = await told(live, *chosen, "--dry")  # some webhooks bring more than one status
    assert (dry["messages"] > 0, dry["done"]) == (True, False)
    status, out, _ = await ops(live, *chosen)
    assert (status, f"t.{tenant.id}.in.whatsapp" in out) == (1, True), "it must show, and ask"
    async with live.database() as con:  # as if the receipts had been lost
        await con.execute("update messages set status = 'sent', read_at = null where id = $1", id_)
    assert await told(live, *chosen, "--yes") == dry | {"done": True}
    await status_of(tenant, id_, "read")
    assert await live.events(tenant.id) == before, "what was told before is told again"
    [entry] = (await tenant.get("/audit?entity=stream"))["items"]
    assert (entry["action"], entry["via"]) == ("replay", "harkara ops replay")
    for stream, actor, says in (("SEND", "send", "dead replay"), ("INBOUND", "dispatcher", "choose from receipts")):
        status, _, err = await ops(live, "replay", stream, actor)
        assert (status, says in err) == (2, True), err


async def test_a_contact_is_erased_everywhere_and_that_is_proved(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(), await tenant.contact()
    await status_of(tenant, await sent(tenant, sender, to=None, contact_id=contact["id"]), "read")
    await live.gateway.write(contact["phone"], sender["phone_number_id"], "Hello")
    await until(lambda: tenant.ids("/replies"), "the reply is there")
    status, _, err = await ops(live, "erase", "contact", contact["id"])
    assert (status, "for good?" in err) == (1, True), "it must ask"
    proof = await told(live, "erase", "contact", contact["id"], "--yes")
    assert proof["erased"], proof
    places = {one["place"] for one in proof["places"]}
    assert {"contacts", "messages", "replies", "stream EVENTS", "stream INBOUND", "stream DEAD"} <= places
    status, _, err = await ops(live, "erase", "contact", contact["id"], "--yes")
    assert (status, "there is no contact" in err) == (2, True)
