"""The session's servers answer their clients."""

from __future__ import annotations

import asyncpg
import nats
from redis.asyncio import Redis


async def test_the_broker_has_jetstream(nats_url: str) -> None:
    client = await nats.connect(nats_url)
    try:
        account = await client.jetstream().account_info()
    finally:
        await client.close()
    assert account.streams >= 0


async def test_the_database_keeps_commits_and_speaks_utc(database_admin_url: str) -> None:
    connection = await asyncpg.connect(database_admin_url)
    try:
        settings = {
            name: await connection.fetchval(f"show {name}")
            for name in ("synchronous_commit", "timezone", "jit", "server_encoding", "listen_addresses")
        }
    finally:
        await connection.close()
    assert settings == {
        "synchronous_commit": "on",
        "timezone": "UTC",
        "jit": "off",
        "server_encoding": "UTF8",
        "listen_addresses": "",
    }


async def test_the_cache_refuses_rather_than_forgets(redis_url: str) -> None:
    async with Redis.from_url(redis_url) as redis:
        policy = await redis.config_get("maxmemory-policy")
    assert policy == {"maxmemory-policy": "noeviction"}
