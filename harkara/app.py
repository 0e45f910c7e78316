"""The composition root: builds the parts and starts them, in plain calls under one AsyncExitStack."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from loguru import logger
from redis.asyncio import BlockingConnectionPool, Redis

from harkara.actors.air import Air
from harkara.actors.attendant import Attendant
from harkara.actors.budget import Budgets
from harkara.actors.dispatcher import Dispatcher
from harkara.actors.enrollment import Enrollment
from harkara.actors.eraser import Eraser
from harkara.actors.herald import Herald
from harkara.actors.importer import Importer
from harkara.actors.librarian import Librarian
from harkara.actors.media import Media
from harkara.actors.numbers import Numbers
from harkara.actors.receipts import Receipts
from harkara.actors.send_pool import SendPool
from harkara.actors.sender import Sender
from harkara.actors.ticker import WAKE_DUE, Ticker
from harkara.bus.actor import Actor
from harkara.bus.connection import Bus, connect
from harkara.bus.erasing import Purge
from harkara.callers import Callers
from harkara.gateway.protocol import Gateway
from harkara.gateway.providers import Providers, clients
from harkara.http.door import Door
from harkara.http.feed import Feed
from harkara.http.server import listening, most_connections
from harkara.measures import Measures
from harkara.observing.page import Page
from harkara.observing.server import telling
from harkara.partners import service as partners
from harkara.settings import OTLP, Settings, SettingsError, require
from harkara.storage.blobs import Blobs, blobs_at
from harkara.storage.storage import Storage
from harkara.vault import Vault

if TYPE_CHECKING:
    from harkara.observing.tracing import Tracer

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
    blobs: Blobs | None = None


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
    most_connections()  # a sender keeps a thousand to the gateways, nearly all that a process may have open at first
    async with AsyncExitStack() as stack:
        tracer = _tracer(settings)
        if tracer is not None:
            stack.push_async_callback(tracer.close)
        storage = Storage(settings.database_url, pool=settings.connection_pool)
        stack.push_async_callback(storage.close)
        await storage.open()
        measures = Measures(settings.measured_tenants)
        bus = await stack.enter_async_context(
            await connect(settings.nats_url, settings.nats_creds or None, measures=measures, tracer=tracer)
        )
        redis = redis_at(settings.redis_url)
        stack.push_async_callback(redis.aclose)
        if gateway is None:
            gateway = _providers(settings, measures, tracer)
            stack.push_async_callback(gateway.close)
        blobs = blobs_at(settings.media_url) if settings.media_url else None
        if blobs is not None:
            stack.push_async_callback(blobs.close)
        yield Parts(settings, storage, bus, redis, gateway, Vault(*settings.secret_keys), blobs)


def _tracer(settings: Settings) -> Tracer | None:
    """What makes spans, if the settings say where they go to. Raises SettingsError if its packages are missing."""
    if not any(getattr(settings, name) for name in OTLP) or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    try:
        from harkara.observing.tracing import Tracer, exporting
    except ImportError:
        text = "OTEL_EXPORTER_OTLP_ENDPOINT: needs some packages more: pip install 'harkara[tracing]'"
        raise SettingsError(text) from None
    return Tracer(exporting(settings))


def _providers(settings: Settings, measures: Measures, tracer: Tracer | None) -> Providers:
    by_provider = clients(settings, connect_timeout=GATEWAY_CONNECT, answer_timeout=GATEWAY_ANSWER)
    if tracer is None:
        return Providers(by_provider, settings.gateway_place, measures)
    from harkara.gateway.traced import TracedProviders

    return TracedProviders(tracer, by_provider, settings.gateway_place, measures)


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
            blobs=parts.blobs,
            feed=feed,
            most_connections=most_connections(),
        )
        await stack.enter_async_context(front.listening())
        if parts.settings.nats_partners_url:
            await stack.enter_async_context(partners.serving(front))
        bound = await stack.enter_async_context(listening(front, host, port))
        # Called before the listener's own end, which would wait for every open feed until it runs out of patience.
        stack.push_async_callback(feed.stop)
        yield bound


@asynccontextmanager
async def metrics(parts: Parts) -> AsyncGenerator[int]:
    """Where METRICS_PORT says, the figures of a process without a front door. Yields the port, 0 if there is none."""
    settings = parts.settings
    if not settings.metrics_port:
        yield 0
        return
    page = Page(parts.storage, parts.bus.measures, bus=parts.bus)
    async with telling(page, settings.metrics_host, settings.metrics_port) as port:
        yield port


async def _start_actor(parts: Parts, stack: AsyncExitStack, actor: Actor) -> None:
    running = await parts.bus.start(actor)
    stack.push_async_callback(running.stop, GRACE)


async def _enrollment(parts: Parts, stack: AsyncExitStack) -> None:
    actor = Enrollment(
        parts.storage, parts.bus.publisher, speed=parts.settings.speed, callers=Callers(*parts.settings.secret_keys)
    )
    await _start_actor(parts, stack, actor)


async def _dispatcher(parts: Parts, stack: AsyncExitStack) -> None:
    await _start_actor(
        parts, stack, Dispatcher(parts.storage, parts.bus.publisher, Callers(*parts.settings.secret_keys))
    )


async def _receipts(parts: Parts, stack: AsyncExitStack) -> None:
    counts, speed = Budgets(parts.redis), parts.settings.speed
    await _start_actor(parts, stack, Receipts(parts.storage, parts.bus.publisher, counts, speed=speed))


async def _attendant(parts: Parts, stack: AsyncExitStack) -> None:
    await _start_actor(parts, stack, Attendant(parts.gateway, Numbers(parts.storage, parts.vault)))


async def _media(parts: Parts, stack: AsyncExitStack) -> None:
    if parts.blobs is None:
        logger.warning("MEDIA_URL is not set: files that contacts send wait to be fetched until it is")
        return
    numbers = Numbers(parts.storage, parts.vault)
    await _start_actor(parts, stack, Media(parts.storage, parts.gateway, numbers, parts.blobs))


async def _importer(parts: Parts, stack: AsyncExitStack) -> None:
    await _start_actor(parts, stack, Importer(parts.storage))


async def _eraser(parts: Parts, stack: AsyncExitStack) -> None:
    purge, callers = Purge(parts.bus.link, parts.bus.topology), Callers(*parts.settings.secret_keys)
    await _start_actor(parts, stack, Eraser(parts.storage, purge, callers=callers, blobs=parts.blobs))


async def _librarian(parts: Parts, stack: AsyncExitStack) -> None:
    source: Any = parts.gateway
    publisher = parts.bus.publisher
    librarian = Librarian(parts.storage, source, parts.vault, parts.bus.hurry(), lambda: publisher.wake(WAKE_DUE))
    await _start_actor(parts, stack, librarian)


async def _herald(parts: Parts, stack: AsyncExitStack) -> None:
    herald = Herald(parts.storage, parts.bus.publisher, parts.bus.publisher.send)
    await herald.start()
    stack.push_async_callback(herald.stop)
    await _start_actor(parts, stack, herald)


async def _ticker(parts: Parts, stack: AsyncExitStack) -> None:
    ticker = Ticker(parts.storage, parts.bus.publisher)
    await ticker.start()
    stack.push_async_callback(ticker.stop)
    await _start_actor(parts, stack, ticker)


async def _sender(parts: Parts, stack: AsyncExitStack) -> None:
    air = Air()
    budgets = Budgets(parts.redis, turns=parts.bus.measures.turns, air=air)
    numbers = Numbers(parts.storage, parts.vault)
    sender = Sender(
        parts.storage,
        parts.gateway,
        budgets,
        numbers,
        lambda: parts.bus.publisher.wake(WAKE_DUE),
        air=air,
        speed=parts.settings.speed,
        unknown_wait=timedelta(seconds=parts.settings.unknown_wait_s),
        receipts_read=partial(parts.bus.has_read, "INBOUND", Receipts.name),
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
    "attendant": _attendant,
    "media": _media,
    "herald": _herald,
    "importer": _importer,
    "eraser": _eraser,
    "librarian": _librarian,
}


@asynccontextmanager
async def actors(parts: Parts, names: Sequence[str]) -> AsyncGenerator[None]:
    """These actors, at work; on leaving they finish what they have begun."""
    async with AsyncExitStack() as stack:
        for name in names:
            await ACTORS[name](parts, stack)
        logger.info("at work: {}", ", ".join(names))
        yield
