"""Everywhere that something of a tenant is kept: rows, streams, readers, Redis and files."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError

from harkara.bus.ending import Ending
from harkara.ops.reach import needed
from harkara.settings import Settings, SettingsError
from harkara.storage import ending as rows_of
from harkara.storage import redis_keys
from harkara.storage.blobs import Blobs, blobs_at
from harkara.storage.ending import Names
from harkara.storage.storage import Storage, StorageError

if TYPE_CHECKING:
    from harkara.storage.ending import Owner

#: Keys that Redis is asked for, or told to forget, at once.
KEYS = 1000

READERS, REDIS, FILES = "readers of streams", "keys in Redis", "files"


def redis_at(settings: Settings) -> Any:
    """A client of Redis, which may be away. Raises SettingsError in one line."""
    needed(settings, "redis_url")
    clients: Any = Redis  # redis-py types it only in part
    try:
        return clients.from_url(settings.redis_url, socket_timeout=10, socket_connect_timeout=3)
    except ValueError as error:
        raise SettingsError(f"REDIS_URL: {error}") from None


@asynccontextmanager
async def redis_of(settings: Settings) -> AsyncGenerator[Any]:
    """Redis, which answers. Raises SettingsError or StorageError, each in one line."""
    redis = redis_at(settings)
    try:
        await redis.ping()
        yield redis
    except RedisError as error:
        raise StorageError(f"Redis is away ({error}): check REDIS_URL, and that it runs") from error
    finally:
        await redis.aclose()


@asynccontextmanager
async def blobs_of(settings: Settings) -> AsyncGenerator[Blobs | None]:
    """Where files are kept; None where MEDIA_URL says nothing. Raises SettingsError if it is wrong."""
    blobs = blobs_at(settings.media_url) if settings.media_url else None
    try:
        yield blobs
    finally:
        if blobs is not None:
            await blobs.close()


@dataclass(slots=True)
class Places:
    """All of them, for one tenant; `names` are what things of its are called where its own id is not said."""

    tenant: str
    storage: Storage
    owner: Owner
    broker: Ending
    redis: Any
    blobs: Blobs | None
    names: Names = field(default_factory=Names)
    #: What was taken out so far, by place.
    taken: Counter[str] = field(default_factory=Counter[str])

    async def rows(self) -> dict[str, int]:
        """How many rows there are in each table, as the application sees them."""
        async with self.storage.tenant(self.tenant) as con:
            return await rows_of.count(con, self.tenant)

    async def look(self) -> dict[str, int]:
        """How much there is in every place, now."""
        found = await self.rows()
        people = "select count(*) from users where id = any ($1::uuid[])"
        found["users"] = int(await self.owner.fetchval(people, list(self.names.users)))
        found |= {f"stream {name}": count for name, count in (await self.broker.count()).items()}
        found[READERS] = len(await self.broker.readers())
        found[REDIS] = sum([len(some) async for some in self._keys()])
        if self.blobs is not None:
            found[FILES] = sum([1 async for _ in self.blobs.of(self.tenant)])
        return found

    async def purge(self, *, unread: bool = False) -> None:
        """Take out what lies on the broker now: all, or what nobody reads for this tenant alone."""
        purged = await self.broker.purge(unread=unread)
        self.taken.update({f"stream {name}": count for name, count in purged.items()})

    async def forget_besides(self) -> None:
        """Take out what is kept neither in rows nor in streams. It is found by names that the rows have."""
        self.taken[READERS] += await self.broker.forget_readers()
        async for some in self._keys():
            self.taken[REDIS] += int(await self.redis.delete(*some))
        if self.blobs is not None:
            for key in [key async for key in self.blobs.of(self.tenant)]:
                await self.blobs.delete(key)
                self.taken[FILES] += 1

    async def _keys(self) -> AsyncIterator[list[str]]:
        """The keys of this tenant's, some at a time."""
        names = self.names
        things = frozenset(
            [str(id_) for id_ in (*names.senders, *names.keys, *names.users)]
            + [redis_keys.account(email) for email in names.emails]
            + list(names.portfolios)
        )
        cursor = None
        while cursor != 0:
            cursor, page = await self.redis.scan(cursor or 0, count=KEYS)
            keys = [key.decode(errors="surrogateescape") for key in page]
            ours = [key for key in keys if redis_keys.is_of(key, self.tenant, things)]
            ours += await self._tickets([key for key in keys if key.startswith(redis_keys.TICKET)])
            if ours:
                yield ours

    async def _tickets(self, keys: list[str]) -> list[str]:
        """Those of these tickets that are for the tenant's feed."""
        values: list[bytes | None] = await self.redis.mget(keys) if keys else []
        return [key for key, value in zip(keys, values, strict=True) if value and _holder(value) == self.tenant]


def _holder(ticket: bytes) -> object:
    try:
        return msgspec.json.decode(ticket, type=dict[str, Any]).get("tenant")
    except msgspec.MsgspecError:
        return None
