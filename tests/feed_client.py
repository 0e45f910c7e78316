"""A front door with a live feed on a broker of the test's own, and a client that listens to it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType
from aiohttp.test_utils import BaseTestServer, TestServer
from redis.asyncio import Redis

from harkara.bus.connection import Bus
from harkara.bus.messages import Outgoing
from harkara.http.door import Door, build
from harkara.http.feed import Feed
from harkara.http.identity import hash_of, new_key
from harkara.ids import uuid7
from harkara.schemas.base import Message
from harkara.schemas.events import MessageSent
from harkara.settings import Settings
from harkara.storage.storage import Storage

SECRET = "a secret of thirty-two bytes, or more"


class Front:
    """A running front door."""

    def __init__(self, server: BaseTestServer, door: Door, feed: Feed, session: ClientSession) -> None:
        self.server, self.door, self.feed, self.session = server, door, feed, session

    def url(self, path: str) -> str:
        return str(self.server.make_url(f"/api/v1{path}"))

    @asynccontextmanager
    async def listen(self, key: str, wish: dict[str, Any] | None = None) -> AsyncGenerator[Listening]:
        async with self.session.ws_connect(self.url("/feed"), headers={"X-API-Key": key}) as ws:
            listening = Listening(ws)
            if wish is not None:
                await listening.wish(wish)
            yield listening


class Listening:
    """One client's end of the feed."""

    def __init__(self, ws: ClientWebSocketResponse) -> None:
        self.ws = ws
        self.got: list[dict[str, Any]] = []

    async def wish(self, wish: dict[str, Any]) -> None:
        await self.ws.send_json(wish)

    async def next(self, within_s: float = 30) -> dict[str, Any]:
        """The next message; fails if the feed closes instead."""
        message = await self.ws.receive(within_s)
        assert message.type is WSMsgType.TEXT, f"closed: {self.ws.close_code} {message.extra}"
        told: dict[str, Any] = json.loads(message.data)
        self.got.append(told)
        return told

    async def take(self, count: int, within_s: float = 60) -> list[dict[str, Any]]:
        """The next so many messages."""
        async with asyncio.timeout(within_s):
            return [await self.next() for _ in range(count)]

    async def closing(self, within_s: float = 60) -> tuple[int, str]:
        """Wait for the end; the close code and the reason that the last message gave."""
        async with asyncio.timeout(within_s):
            async for message in self.ws:
                self.got.append(json.loads(message.data))
        assert self.got[-1]["type"] == "feed.closed"
        return self.ws.close_code or 0, self.got[-1]["data"]["reason"]


@asynccontextmanager
async def opened(bus: Bus, redis_url: str, storage: Storage) -> AsyncGenerator[Front]:
    """A front door on these servers, until the block is left."""
    redis = Redis.from_url(redis_url)
    feed = Feed(bus, redis, storage)
    door = Door(
        settings=Settings(secret_key=SECRET, environment="development"),
        storage=storage,
        publisher=bus.publisher,
        redis=redis,
        feed=feed,
    )
    await feed.start()
    async with TestServer(build(door)) as server, ClientSession() as session:
        try:
            yield Front(server, door, feed, session)
        finally:
            await feed.stop()
    await redis.aclose()


async def make_key(storage: Storage, tenant: str, *scopes: str) -> str:
    """A key of this tenant's; with all scopes if none is named."""
    key = new_key(tenant)
    async with storage.tenant(tenant) as con:
        await con.execute(
            "insert into api_keys (id, tenant_id, name, key_hash, hint, scopes) values ($1, $2, 'test', $3, 'hk', $4)",
            uuid7(),
            tenant,
            hash_of(key),
            list(scopes or ("*",)),
        )
    return key


async def say(bus: Bus, tenant: str, *messages: Message) -> list[int]:
    """Publish events; their sequences."""
    acks = await bus.publisher.publish_many([Outgoing(one, tenant, str(uuid7())) for one in messages])
    for ack in acks:
        if isinstance(ack, Exception):
            raise ack
    return [ack.seq for ack in acks if not isinstance(ack, Exception)]


def sent(number: int) -> MessageSent:
    """An event that can be told from others."""
    return MessageSent(id=str(number), wamid="wamid.x")
