"""How far a reader has come."""

from __future__ import annotations

import asyncio
from typing import Any

from loguru import logger

from harkara.bus.api import NO_MESSAGE, Api, ApiError
from harkara.bus.errors import BusError

_LOOK_EVERY_S = 0.1


async def has_read_all(api: Api, stream: str, durable: str, *, patience_s: float = 3.0) -> bool:
    """Whether a durable is done with everything that the stream holds now; it gets `patience_s` to be.

    False, too, when that can't be told.
    """
    try:
        state: dict[str, Any] = (await api.call(f"STREAM.INFO.{stream}"))["state"]
        for _ in range(int(patience_s / _LOOK_EVERY_S) + 1):
            if await _is_past(api, stream, durable, state["last_seq"]):
                return True
            await asyncio.sleep(_LOOK_EVERY_S)
    except BusError as error:
        logger.debug("how far {} has read {} can't be told: {}", durable, stream, error)
    return False


async def has_nothing_to_retry(api: Api, stream: str, actor: str, tenant: str) -> bool:
    """Whether nothing of a tenant's that an actor has seen before waits for another attempt, or is at one.

    False, too, when that can't be told. `stream` is the one with the actor's schedules. What comes back from a schedule
    is looked for in the same question, so that nothing is overlooked that moves just now.
    """
    try:
        await api.call(f"STREAM.MSG.GET.{stream}", {"seq": 1, "next_by_subj": f"t.{tenant}.*.{actor}.>"})
    except ApiError as error:
        return error.code == NO_MESSAGE
    except BusError as error:
        logger.debug("whether {} has to retry anything can't be told: {}", actor, error)
    return False


async def _is_past(api: Api, stream: str, durable: str, seq: int) -> bool:
    """Under a steady stream a reader is never idle, but soon past what was there a moment ago."""
    info = await api.call(f"CONSUMER.INFO.{stream}.{durable}")
    idle = not info.get("num_pending") and not info.get("num_ack_pending")
    return idle or info["ack_floor"]["stream_seq"] >= seq
