"""How far a reader has come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from loguru import logger

from harkara.bus.api import Api, bodies
from harkara.bus.errors import BusError

_LOOK_EVERY_S = 0.1

#: So many messages are looked into. Where more are waiting, nobody knows what is among them.
_LOOKED_INTO = 1000

#: Says whether a body is of those that must have been read.
Matters = Callable[[bytes], bool]


async def has_read(
    api: Api,
    stream: str,
    durable: str,
    tenant: str,
    retries: tuple[str, str],
    matters: Matters,
    *,
    patience_s: float = 3.0,
) -> bool:
    """Whether a durable is done with all of a tenant's that matters and that the stream holds now.

    It gets `patience_s` to be. What it had to put off lies under `retries`, a stream and a pattern, and is looked into
    last: there is where what was put off meanwhile has gone. False, too, when that can't be told.
    """
    try:
        state: dict[str, Any] = (await api.call(f"STREAM.INFO.{stream}"))["state"]
        floor = await _floor(api, stream, durable, state["last_seq"], patience_s)
        if floor is not None and await _any(api, stream, f"t.{tenant}.>", matters, floor, state["last_seq"]):
            return False
        return not await _any(api, *retries, matters)
    except BusError as error:
        logger.debug("how far {} has read {} can't be told: {}", durable, stream, error)
    return False


async def _floor(api: Api, stream: str, durable: str, last: int, patience_s: float) -> int | None:
    """Up to where a durable has read without a gap; None once that is past what was there a moment ago."""
    floor = await _behind(api, stream, durable, last)
    for _ in range(int(patience_s / _LOOK_EVERY_S)):
        if floor is None:
            break
        await asyncio.sleep(_LOOK_EVERY_S)
        floor = await _behind(api, stream, durable, last)
    return floor


async def _behind(api: Api, stream: str, durable: str, last: int) -> int | None:
    """Under a steady stream a reader is never idle, but soon past, unless it tries something again and again."""
    info = await api.call(f"CONSUMER.INFO.{stream}.{durable}")
    idle = not info.get("num_pending") and not info.get("num_ack_pending")
    floor = int(info["ack_floor"]["stream_seq"])
    return None if idle or floor >= last else floor


async def _any(
    api: Api, stream: str, pattern: str, matters: Matters, after: int = 0, last: float = float("inf")
) -> bool:
    """Whether anything that lies there matters, or may: there may be too much to look into.

    What comes back from a schedule goes from one subject of the pattern to another, further on: it is not overlooked.
    """
    seen = 0
    async for seq, body in bodies(api, stream, pattern, after):
        if seq > last:
            return False
        if seen == _LOOKED_INTO or matters(body):
            return True
        seen += 1
    return False
