"""Whether this process is alive, and whether it can do its work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

from loguru import logger

from harkara.http.context import Context
from harkara.http.problems import Problem

#: How long a server behind us has to answer.
PATIENCE = timedelta(seconds=2)


async def healthz(ctx: Context[None, None]) -> dict[str, str]:
    """Alive: this answer is the proof."""
    return {"status": "ok"}


async def readyz(ctx: Context[None, None]) -> dict[str, str]:
    """Ready: the database, the broker and Redis answer. Raises Problem 503 that names those that don't."""
    names = ("database", "broker", "redis")
    answers = await asyncio.gather(
        _answers(_database(ctx)), _answers(_broker(ctx)), _answers(_redis(ctx)), return_exceptions=True
    )
    away = [name for name, answer in zip(names, answers, strict=True) if answer is not None]
    if away:
        logger.bind(cause=ctx.cause).warning("not ready: {} away", ", ".join(away))
        raise Problem(
            503,
            f"not ready: {', '.join(away)} does not answer",
            errors=[(name, "does not answer") for name in away],
            headers={"Retry-After": "1"},
        )
    return {"status": "ready"}


async def _answers(question: Awaitable[Any]) -> None:
    async with asyncio.timeout(PATIENCE.total_seconds()):
        await question


async def _database(ctx: Context[None, None]) -> None:
    async with ctx.door.storage.anonymous() as con:
        await con.fetchval("select 1")


async def _broker(ctx: Context[None, None]) -> None:
    if ctx.door.bus is not None:
        await ctx.door.bus.js.account_info()


async def _redis(ctx: Context[None, None]) -> None:
    redis: Any = ctx.door.redis  # redis-py types its commands only in part
    await redis.ping()
