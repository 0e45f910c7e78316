"""The live feed over everything that ends a connection: nothing is missed, nothing comes twice, the order stays."""

from __future__ import annotations

from collections import defaultdict

from chaos.harness import Platform, Tenant
from live.listening import listening
from support import Tell, until

CONTACTS = 300

_READ = {"message.sent", "message.delivered", "message.read"}


async def test_whoever_comes_back_misses_nothing(live: Platform, tenant: Tenant, tell: Tell) -> None:
    sender = await tenant.sender(mps=80)
    campaign = await tenant.campaign(sender["id"], 0, 24)
    await tenant.contacts(CONTACTS)
    async with listening(tenant) as ear:
        await tenant.post(f"/campaigns/{campaign}/enroll", {"all": True})
        await until(lambda: len(ear.heard) > CONTACTS, "the campaign has begun")
        assert await live.process.stop() == 0
        await live.start()
        await until(lambda: len(ear.heard) > 3 * CONTACTS, "it goes on", 60)
        await live.kill()
        await live.start()

        def all_told() -> bool:
            # A webhook that a kill cut off comes again when the broker's ack wait is over: its event may come last.
            of: defaultdict[str, set[str]] = defaultdict(set)
            for told in ear.heard:
                of[told["data"]["id"]].add(told["type"])
            messages = sum(types >= _READ or "message.unknown" in types for types in of.values())
            completed = sum("enrollment.completed" in types for types in of.values())
            return (messages, completed) == (2 * CONTACTS, CONTACTS)

        await until(all_told, "every message is read, or nobody knows whether it left", 90)
        async with listening(tenant) as late:
            await until(lambda: len(late.heard) >= len(ear.heard), "one who comes late has heard as much")
            assert late.heard[: len(ear.heard)] == ear.heard
    stored = await live.events(tenant.id)
    heard = [(told["seq"], told["type"], told["data"]["id"]) for told in ear.heard]
    assert heard == stored[: len(heard)]
    tell(f"{len(heard)} events over {ear.connections} connections, in order, none missed, none twice")


async def test_only_what_was_asked_for_is_told(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    headers = tenant.headers
    async with tenant.session.ws_connect(f"{tenant.url}/api/v1/feed", headers=headers) as ws:
        await ws.send_json({"subscribe": ["message.read"], "since": "now"})
        for number in range(3):
            await tenant.post("/messages", {"sender_id": sender["id"], "to": f"+91981234567{number}", "body": "Hello"})
        told = [await ws.receive_json(timeout=30) for _ in range(3)]
    assert {one["type"] for one in told} == {"message.read"}
    assert [one["seq"] for one in told] == sorted({one["seq"] for one in told})
