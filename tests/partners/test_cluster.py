"""The same on three brokers: whichever one a partner comes to, and whichever the front door is connected to."""

from __future__ import annotations

from contextlib import AsyncExitStack
from functools import partial
from operator import attrgetter

import partner_client
from aiohttp import ClientSession
from argon2 import PasswordHasher
from door_client import SECRET, Api, a_phone, make_account
from nats_nodes import PARTNERS_KEY, clustered
from redis.asyncio import Redis
from support import quick_directory, until

from harkara.bus.connection import connect
from harkara.bus.topology import apply
from harkara.embedded.ports import free_ports
from harkara.embedded.stack import Urls
from harkara.http.door import Door
from harkara.http.passwords import Passwords
from harkara.http.server import listening
from harkara.partners.service import serving
from harkara.settings import Settings
from harkara.storage.storage import Storage


async def test_every_broker_of_a_cluster_takes_partners(storage: Storage, stack: Urls) -> None:
    async with AsyncExitStack() as opened:
        nodes = await opened.enter_async_context(clustered(opened.enter_context(quick_directory()), free_ports(9)))
        bus = await opened.enter_async_context(await connect(nodes.url_of("n1")))
        await apply(bus.js)
        redis = Redis.from_url(stack.redis)
        opened.push_async_callback(redis.aclose)
        door = Door(
            settings=Settings(
                secret_key=SECRET,
                environment="development",
                nats_url=nodes.url_of("n1"),
                nats_partners_url=nodes.url_of("n1").replace("//svc:", "//auth:"),
                nats_partners_seed=PARTNERS_KEY.seed,
            ),
            storage=storage,
            publisher=bus.publisher,
            redis=redis,
            bus=bus,
            passwords=Passwords(PasswordHasher(time_cost=1, memory_cost=64)),
        )
        await opened.enter_async_context(door.listening())
        await opened.enter_async_context(serving(door))
        port = await opened.enter_async_context(listening(door, "127.0.0.1", 0))
        session = await opened.enter_async_context(ClientSession())
        account = await make_account(Api(f"http://127.0.0.1:{port}", session, door))
        sender = await account.sender()
        for node in nodes.nodes.values():
            partner = await partner_client.join(
                f"nats://127.0.0.1:{node.port}", account, lambda client: None, None, None, {}
            )
            opened.push_async_callback(partner.client.close)
            wanted = {"to": a_phone(), "sender_id": sender, "body": "Hello"}
            assert (await partner.told("message.send", wanted))["status"] == "accepted"
            durable = await partner.told("events.open")
            assert durable == {"stream": "EVENTS", "durable": partner.durable}
            await bus.js.publish(f"t.{account.tenant}.evt.message.sent", b"{}")
            events = await partner.client.jetstream().pull_subscribe("", durable=partner.durable, stream="EVENTS")
            (event,) = await events.fetch(1, timeout=30)
            await event.ack_sync(timeout=30)
            assert (await account.call("DELETE", f"/api-keys/{partner.key_id}")).status == 204
            await until(partial(attrgetter("lost"), partner), "the connection is ended")
