"""A front door that partners reach over NATS, on real servers; and partners."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import partner_client
import pytest
from aiohttp import ClientSession
from argon2 import PasswordHasher
from door_client import SECRET, Account, Api, make_account
from nats.aio.client import Client
from partner_client import Join, Partner
from redis.asyncio import Redis

from harkara.bus.connection import Bus, connect
from harkara.bus.servers import without_secrets
from harkara.bus.topology import apply
from harkara.embedded.ports import free_ports
from harkara.embedded.stack import Urls
from harkara.http.door import Door
from harkara.http.feed import Feed
from harkara.http.passwords import Passwords
from harkara.http.server import listening
from harkara.partners.service import serving
from harkara.settings import Settings
from harkara.storage.storage import Storage


@pytest.fixture(scope="session")
async def bus(nats_url: str) -> AsyncIterator[Bus]:
    """The session's broker with all streams, as the platform's own processes see it."""
    async with await connect(nats_url) as opened:
        await apply(opened.js)
        yield opened


@pytest.fixture(scope="session")
async def door(bus: Bus, storage: Storage, stack: Urls) -> AsyncIterator[Door]:
    """A front door that takes partners."""
    redis = Redis.from_url(stack.redis)
    feed = Feed(bus, redis, storage)
    await feed.start()
    made = Door(
        settings=Settings(
            secret_key=SECRET,
            environment="development",
            public_url=f"http://127.0.0.1:{free_ports(1)[0]}",
            nats_url=stack.nats,
            nats_partners_url=stack.nats_partners,
            nats_partners_seed=stack.nats_partners_seed,
        ),
        storage=storage,
        publisher=bus.publisher,
        redis=redis,
        bus=bus,
        feed=feed,
        passwords=Passwords(PasswordHasher(time_cost=1, memory_cost=64)),
    )
    made.counting.limits._patience_s = 60.0  # a busy machine is no reason to count alone, by a share of the limits
    async with made.listening(), serving(made):
        yield made
    await feed.stop()
    await redis.aclose()


@pytest.fixture(scope="session")
async def api(door: Door) -> AsyncIterator[Api]:
    """The same front door over HTTP."""
    port = int(door.settings.public_url.rsplit(":", 1)[1])
    async with listening(door, "127.0.0.1", port), ClientSession() as session:
        yield Api(f"http://127.0.0.1:{port}", session, door)


@pytest.fixture
async def acme(api: Api) -> Account:
    """A tenant of the test's own."""
    return await make_account(api)


@pytest.fixture(scope="session")
def broker(stack: Urls) -> str:
    """Where partners connect: the broker's address, without user and password."""
    return f"nats://{without_secrets(stack.nats)}"


@pytest.fixture
async def join(broker: str, door: Door) -> AsyncIterator[Join]:
    """Makes a key of a tenant and connects with it, until the test ends."""
    async with AsyncExitStack() as opened:

        async def joined(
            account: Account, *, scopes: list[str] | None = None, made: dict[str, Any] | None = None, **more: Any
        ) -> Partner:
            return await partner_client.join(
                broker, account, lambda client: _close_later(opened, client), scopes, made, more
            )

        yield joined


def _close_later(opened: AsyncExitStack, client: Client) -> None:
    opened.push_async_callback(client.close)
