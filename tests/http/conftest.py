"""One front door for these tests, on real servers, with a sandbox gateway beside it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from argon2 import PasswordHasher
from door_client import SECRET, Account, Api, make_account
from redis.asyncio import Redis

from harkara.bus.connection import Bus, connect
from harkara.bus.topology import apply
from harkara.embedded.ports import free_ports
from harkara.gateway.sandbox.server import build_app
from harkara.http.door import Door
from harkara.http.feed import Feed
from harkara.http.passwords import Passwords
from harkara.http.server import listening
from harkara.settings import Settings
from harkara.storage.blobs import FileBlobs
from harkara.storage.storage import Storage

#: How long the front door of these tests waits for Redis before it counts alone, by a small share of each limit.
PATIENT_S = 60.0


@pytest.fixture(scope="session")
async def live_bus(nats_url: str) -> AsyncIterator[Bus]:
    """The session's broker with all streams."""
    async with await connect(nats_url) as bus:
        await apply(bus.js)
        yield bus


@pytest.fixture(scope="session")
async def gateway_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A sandbox gateway."""
    async with TestServer(build_app(tmp_path_factory.mktemp("sandbox"))) as server:
        yield str(server.make_url("")).rstrip("/")


@pytest.fixture(scope="session")
async def door(
    live_bus: Bus, storage: Storage, redis_url: str, gateway_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Door]:
    """What the front door of these tests is made of."""
    redis = Redis.from_url(redis_url)
    feed = Feed(live_bus, redis, storage)
    await feed.start()
    made = Door(
        settings=Settings(
            secret_key=SECRET,
            environment="development",
            whatsapp_gateway_url=gateway_url,
            public_url=f"http://127.0.0.1:{free_ports(1)[0]}",
        ),
        storage=storage,
        publisher=live_bus.publisher,
        redis=redis,
        bus=live_bus,
        blobs=FileBlobs(tmp_path_factory.mktemp("media")),
        feed=feed,
        passwords=Passwords(PasswordHasher(time_cost=1, memory_cost=64)),  # these tests sign up by the hundred
    )
    made.counting.limits._patience_s = PATIENT_S
    async with made.listening():
        yield made
    await feed.stop()
    await redis.aclose()


@pytest.fixture(scope="session")
async def api(door: Door) -> AsyncIterator[Api]:
    """The front door, listening."""
    port = int(door.settings.public_url.rsplit(":", 1)[1])
    async with listening(door, "127.0.0.1", port), ClientSession() as session:
        yield Api(f"http://127.0.0.1:{port}", session, door)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine may pause for longer than a front door waits for its servers; tests of that say how long."""
    for place in ("asking", "context", "idempotency", "webhooks"):
        monkeypatch.setattr(f"harkara.http.{place}.PATIENCE", timedelta(seconds=60))


@pytest.fixture
async def acme(api: Api) -> Account:
    """A new tenant's owner, logged in."""
    return await make_account(api)


@pytest.fixture
async def other(api: Api) -> Account:
    """The owner of another tenant."""
    return await make_account(api)
