"""The composition root: builds the parts and starts them, in plain calls under one AsyncExitStack."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from aiohttp import web
from loguru import logger
from redis.asyncio import BlockingConnectionPool, Redis

from harkara.actors.budget import Budgets
from harkara.actors.dispatcher import Dispatcher
from harkara.actors.enrollment import Enrollment
from harkara.actors.numbers import Numbers
from harkara.actors.receipts import Receipts
from harkara.actors.send_pool import SendPool
from harkara.actors.sender import Sender
from harkara.actors.ticker import WAKE_DUE, Ticker
from harkara.bus.actor import Actor
from harkara.bus.connection import Bus, connect
from harkara.gateway.cloud import CloudGateway
from harkara.gateway.protocol import Gateway
from harkara.http.door import Door
from harkara.http.door import build as build_door
from harkara.http.feed import Feed
from harkara.http.webhooks import WAKE_SENDER
from harkara.settings import Settings, SettingsError, require
from harkara.storage.storage import Storage
from harkara.vault import Vault

#: What must be set to run anything but the sandbox.
NEEDED = ("database_url", "nats_url", "redis_url", "secret_key")

#: Time-outs of one request to the gateway. Together they are shorter than what the gate takes for a lost attempt.
GATEWAY_CONNECT = timedelta(seconds=3)
GATEWAY_ANSWER = timedelta(seconds=8)

#: What a stopping process gives the work it has begun.
GRACE = timedelta(seconds=12)


@dataclass(frozen=True)
class Parts:
    """What the roles are made of. Tests replace parts by keyword."""

    settings: Settings
    storage: Storage
    bus: Bus
    redis: Redis
    gateway: Gateway
    vault: Vault


def redis_at(url: str) -> Redis:
    """A pool of connections that makes callers wait for a free one. Raises SettingsError for a URL that is none."""
    pools: Any = BlockingConnectionPool  # redis-py types it only in part
    try:
        return Redis.from_pool(pools.from_url(url, max_connections=32, timeout=5, socket_timeout=5))
    except ValueError as error:
        raise SettingsError(f"REDIS_URL: {error}") from None


@asynccontextmanager
async def build(settings: Settings, *, gateway: Gateway | None = None) -> AsyncGenerator[Parts]:
    """Connect to everything. Raises SettingsError, StorageError or Unavailable, in one line, if that can't be done."""
    require(settings, *NEEDED)
    async with AsyncExitStack() as stack:
        storage = Storage(settings.database_url, pool=settings.connection_pool)
        stack.push_async_callback(storage.close)
        await storage.open()
        bus = await stack.enter_async_context(await connect(settings.nats_url, settings.nats_creds or None))
        redis = redis_at(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        if gateway is None:
            gateway = CloudGateway(
                settings.whatsapp_gateway_url, connect_timeout=GATEWAY_CONNECT, answer_timeout=GATEWAY_ANSWER
            )
            stack.push_async_callback(gateway.close)
        yield Parts(settings, storage, bus, redis, gateway, Vault(settings.secret_key))


@asynccontextmanager
async def door(parts: Parts, host: str, port: int) -> AsyncGenerator[int]:
    """The front door, listening. Yields its port; `port` 0 takes any."""
    async with AsyncExitStack() as stack:
        feed = Feed(parts.bus, parts.redis, parts.storage)
        await feed.start()
        front = Door(
            settings=parts.settings,
            storage=parts.storage,
            publisher=parts.bus.publisher,
            redis=parts.redis,
            bus=parts.bus,
            feed=feed,
        )
        stack.push_async_callback(await parts.bus.publisher.subscribe_wake(WAKE_SENDER, front.sources.forget))
        application = build_door(front)
        runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=5)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        # Called before the runner's cleanup, which would wait for every open feed until it runs out of patience.
        stack.push_async_callback(feed.stop)
        await web.TCPSite(runner, host, port, backlog=1024, reuse_address=True).start()
        yield runner.addresses[0][1]


async def _start_actor(parts: Parts, stack: AsyncExitStack, actor: Actor) -> None:
    running = await parts.bus.start(actor)
    stack.push_async_callback(running.stop, GRACE)


async def _enrollment(parts: Parts, stack: AsyncExitStack) -> None:
    actor = Enrollment(parts.storage, parts.bus.publisher, speed=parts.settings.speed)
    await _start_actor(parts, stack, actor)


async def _dispatcher(parts: Parts, stack: AsyncExitStack) -> None:
    await _start_actor(parts, stack, Dispatcher(parts.storage, parts.bus.publisher))


async def _receipts(parts: Parts, stack: AsyncExitStack) -> None:
    await _start_actor(parts, stack, Receipts(parts.storage))


async def _ticker(parts: Parts, stack: AsyncExitStack) -> None:
    ticker = Ticker(parts.storage, parts.bus.publisher)
    await ticker.start()
    stack.push_async_callback(ticker.stop)
    await _start_actor(parts, stack, ticker)


async def _sender(parts: Parts, stack: AsyncExitStack) -> None:
    budgets, numbers = Budgets(parts.redis), Numbers(parts.storage, parts.vault)
    stack.push_async_callback(budgets.close)
    sender = Sender(
        parts.storage,
        parts.gateway,
        budgets,
        numbers,
        lambda: parts.bus.publisher.wake(WAKE_DUE),
        speed=parts.settings.speed,
    )
    pool = SendPool(parts.bus, sender, numbers)
    await pool.start()
    stack.push_async_callback(pool.stop, GRACE)


#: Every actor by the name it is started with: `harkara actor NAME…`.
ACTORS: dict[str, Callable[[Parts, AsyncExitStack], Awaitable[None]]] = {
    "enrollment": _enrollment,
    "dispatcher": _dispatcher,
    "ticker": _ticker,
    "sender": _sender,
    "receipts": _receipts,
}


@asynccontextmanager
async def actors(parts: Parts, names: Sequence[str]) -> AsyncGenerator[None]:
    """These actors, at work; on leaving they finish what they have begun."""
    async with AsyncExitStack() as stack:
        for name in names:
            await ACTORS[name](parts, stack)
        logger.info("at work: {}", ", ".join(names))
        yield
