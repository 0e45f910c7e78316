"""A tenant is erased in the middle of its work: nothing of it is anywhere, and its neighbour hasn't noticed."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from chaos.harness import Platform, Tenant, environment
from filled import held
from live.everything import make_everything
from live.listening import listening, until_accepted
from live.terminal import ops, told
from nats.js.api import ConsumerConfig
from redis.asyncio import Redis
from support import Tell, until

from harkara.bus import topology

CONTACTS = 40

#: What the neighbour's own work doesn't change meanwhile.
STILL = ("contacts", "contact_terms", "phone_numbers", "leads", "replies", "media", "api_keys", "tenant_users", "users",
         "tenants", "senders", "segments", "campaigns", "campaign_steps", "conversations")  # fmt: skip

#: Where something of it must have been found.
FULL = ("contacts", "messages", "contact_campaign_progress", "audit_log", "media", "users", "tenants", "files",
        "stream SEND", "stream INBOUND", "stream EVENTS", "stream DEAD", "readers of streams",
        "keys in Redis")  # fmt: skip


async def signs_up(live: Platform, id_: str) -> int:
    """Somebody tries to have this id; the status of the answer."""
    account = {"tenant": {"id": id_, "name": "Mine"}, "email": f"{uuid4()}@a.example", "password": "x" * 20}
    somewhere = {"X-Forwarded-For": f"2001:db8:{uuid4().hex[:4]}::1"}
    return (await Tenant(live.session, live.url, "").ask("POST", "/auth/signup", account, headers=somewhere))[0]


async def erase(live: Platform, tenant: Tenant, *more: str) -> Any:
    return await told(live, "erase", "tenant", tenant.id, "--yes", *more)


@asynccontextmanager
async def erasing(live: Platform, tenant: Tenant, *more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The command, as a process that may be killed."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harkara", "ops", "erase", "tenant", tenant.id, "--yes", "--json"),
        *("--data", str(live.data), *more),
        stdout=asyncio.subprocess.PIPE,
        env=environment(),
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.communicate()


async def in_broker(live: Platform, tenant: str) -> dict[str, int]:
    """Messages and durables of a tenant, by stream."""
    found: dict[str, int] = {}
    async with live.streams() as js:
        for name in [one.name for one in topology.load().streams]:
            subjects = (await js.stream_info(name, subjects_filter=f"t.{tenant}.>")).state.subjects or {}
            readers = [str(one.config) for one in await js.consumers_info(name)]
            found[name] = sum(subjects.values()) + sum(tenant in one for one in readers)
    return {name: count for name, count in found.items() if count}


async def in_redis(live: Platform, *needles: str) -> list[str]:
    """Keys that have one of these in their name or, where it is a text, in their value."""
    clients: Any = Redis
    redis = clients.from_url(live.redis_url)
    try:
        keys = [key async for key in redis.scan_iter()]
        texts = {key: await redis.get(key) for key in keys if await redis.type(key) == b"string"}
        return [key for key in keys if any(one.encode() in key + (texts.get(key) or b"") for one in needles)]
    finally:
        await redis.aclose()


async def at_work(tenant: Tenant, mps: int, *delay_hours: float) -> tuple[str, str]:
    """A number that sends a campaign; the campaign, and the number's id at the gateway."""
    sender = await tenant.sender(mps=mps)
    await tenant.contacts(CONTACTS - 1)  # one is there already
    campaign = await tenant.campaign(sender["id"], *delay_hours)
    later = {"sender_id": sender["id"], "to": "+919812345678", "body": "later"}
    await tenant.post("/messages", later | {"send_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()})
    await tenant.post(f"/campaigns/{campaign}/enroll", {"all": True})
    return campaign, sender["phone_number_id"]


async def a_partner(live: Platform, tenant: Tenant) -> None:
    """Somebody who reads the tenant's events, and is away."""
    named = ConsumerConfig(durable_name=f"partner-{uuid4()}", filter_subject=f"t.{tenant.id}.evt.>")
    async with live.streams() as js:
        await js.add_consumer("EVENTS", named)


async def what_comes_late(live: Platform, tenant: Tenant, sender: str) -> None:
    """A message to the tenant, and a command, that somebody held on to until now; returns when they are done."""
    value = {"messages": [{"from": "919812345678", "id": "wamid.late", "timestamp": "1", "type": "text",
                           "text": {"body": "Hello"}}]}  # fmt: skip
    body = {"entry": [{"id": "1", "changes": [{"field": "messages", "value": value}]}]}
    async with live.streams() as js:
        told = json.dumps({"source": "whatsapp", "sender_id": sender, "body": body}).encode()
        seq = (await js.publish(f"t.{tenant.id}.in.whatsapp", told)).seq
        await js.publish(f"t.{tenant.id}.cmd.enrollment.start", b"what would be a dead letter")

        async def done() -> bool:
            floor = (await js.consumer_info("INBOUND", "receipts")).ack_floor
            waiting = (await js.stream_info("COMMANDS", subjects_filter=f"t.{tenant.id}.>")).state.subjects
            return floor is not None and floor.stream_seq >= seq and not waiting

        await until(done, "actors are done with it")


async def test_nothing_of_it_is_anywhere_and_its_neighbour_goes_on(
    live: Platform, tenant: Tenant, other: Tenant, tell: Tell
) -> None:
    things = await make_everything(live, tenant)
    await make_everything(live, other)
    await a_partner(live, tenant)
    _, number = await at_work(tenant, 10, *range(0, 160, 8))  # a minute and more of work
    campaign, neighbours = await at_work(other, 50, 0, 24, 48)
    await until_accepted(live.gateway, number, 2)
    ticket = await tenant.post("/feed/ticket")
    assert ticket
    async with live.database() as database:
        strangers = "select not exists (select from contacts where tenant_id = $1 and wa_user_id is null)"
        await until(lambda: database.fetchval(strangers, other.id), "receipts have named the neighbour's contacts", 60)
        before, mine = await held(database, other.id), await held(database, tenant.id)
    senders = [row.partition(",")[0].strip("(") for row in mine["senders"]]
    assert set(await in_broker(live, tenant.id)) >= {"SEND", "INBOUND", "EVENTS", "DEAD"}
    assert await in_redis(live, tenant.id)
    assert await in_redis(live, *senders)
    assert list((live.data / "media" / tenant.id).iterdir())
    status, _, err = await ops(live, "erase", "tenant", tenant.id)
    assert (status, "for good" in err) == (1, True), "it must ask"

    async with listening(tenant) as ear, erasing(live, tenant, "--settle", "5") as process:

        async def shut_out() -> bool:
            return (await tenant.ask("GET", "/contacts"))[0] == 401

        async def unknown() -> bool:
            return (await tenant.ask("POST", f"/webhooks/whatsapp/{things['sender_id']}", {}))[0] == 404

        await until(shut_out, "nobody is let in any more", 60)
        await until(unknown, "its numbers are unknown")
        assert await signs_up(live, tenant.id) == 409
        opened = ear.connections
        out, _ = await process.communicate()
    sent = len(await live.gateway.accepted(number))
    assert ear.connections == opened, "a feed was opened again"
    proof = json.loads(out)
    assert process.returncode == 0, proof
    found = {one["place"]: one["found"] for one in proof["places"]}
    assert set(FULL) <= {place for place, count in found.items() if count}
    assert found["messages"] < 20 * CONTACTS, "it was not erased in the middle of its work"
    assert {one["place"] for one in proof["places"] if one["left"]} == set()

    async with live.database() as database:
        assert {table: rows for table, rows in (await held(database, tenant.id)).items() if rows} == {}
        after = await held(database, other.id)
    assert {name: after[name] for name in STILL} == {name: before[name] for name in STILL}
    assert await in_broker(live, tenant.id) == {}
    assert await in_redis(live, tenant.id, *senders) == []
    assert not list((live.data / "media").glob(f"{tenant.id}/*"))
    await until_accepted(live.gateway, neighbours, 3 * CONTACTS, 90)

    async def completed() -> bool:
        return bool((await other.get(f"/campaigns/{campaign}/funnel"))["completed"] == CONTACTS)

    await until(completed, "the neighbour's campaign is over", 60, every=0.2)
    assert len(await live.gateway.accepted(number)) == sent, "something has left of it for all that"
    assert await in_broker(live, tenant.id) == {}
    assert await signs_up(live, tenant.id) == 409
    noted = [one for one in await told(live, "journal") if one["detail"].get("tenant") == tenant.id]
    assert [(one["action"], sorted(one["detail"])) for one in noted] == [
        ("erase", ["rows", "tenant"]),
        ("erased", ["left", "taken_out", "tenant"]),
    ]
    assert noted[0]["detail"]["rows"] >= len(mine["contacts"]) + len(mine["messages"])
    await what_comes_late(live, tenant, things["sender_id"])
    assert await in_broker(live, tenant.id) == {"INBOUND": 1}, "it was not taken for done"
    second = await erase(live, tenant)
    assert second["erased"]
    assert {one["place"]: one["found"] for one in second["places"] if one["found"]} == {"stream INBOUND": 1}
    tell(f"{sum(found.values())} things were found: {found}")


async def test_what_was_killed_is_run_again_and_goes_on(live: Platform, tenant: Tenant) -> None:
    await make_everything(live, tenant)
    async with live.database() as database, live.database() as look:
        async with database.transaction():  # somebody holds a contact: what comes before it is gone, it is not
            await database.execute("select from contacts where tenant_id = $1 for update", tenant.id)
            async with erasing(live, tenant, "--settle", "0") as process:
                counted = "select count(*) from messages where tenant_id = $1"

                async def half_way() -> bool:
                    return process.returncode is not None or await look.fetchval(counted, tenant.id) == 0

                await until(half_way, "some of it is gone")
                assert process.returncode is None
        assert (await held(look, tenant.id))["contacts"]

    async def shut_out() -> bool:
        return (await tenant.ask("GET", "/contacts"))[0] == 401

    await until(shut_out, "nobody is let in any more")
    again = f"run `harkara ops erase tenant {tenant.id}` again"
    assert again in str((await told(live, "status", "--max-age", "3600"))["trouble"])
    assert again in str([one["todo"] for one in await told(live, "doctor") if not one["well"]])
    status, _, err = await ops(live, "pause", "tenant", tenant.id, "--yes")
    assert (status, again in err) == (2, True), err
    proof = await erase(live, tenant, "--settle", "0")
    assert proof["erased"], proof
    async with live.database() as look:
        assert not any((await held(look, tenant.id)).values())
    assert await in_broker(live, tenant.id) == {}


async def test_a_server_that_is_away_is_named_before_anything_is_begun(live: Platform, tenant: Tenant) -> None:
    for name, url in (("REDIS_URL", "redis://127.0.0.1:1"), ("DATABASE_DIRECT_URL", "postgres://a@127.0.0.1:1/b")):
        status, _, err = await ops(live, "erase", "tenant", tenant.id, "--yes", **{name: url})
        assert (status, err.strip().splitlines()[-1].startswith("harkara: ")) == (2, True), err
        assert name in err
    status, _, err = await ops(live, "erase", "tenant", f"{tenant.id}-no", "--yes")
    assert (status, "there is no tenant" in err) == (2, True)
    assert (await tenant.ask("GET", "/contacts"))[0] == 200
