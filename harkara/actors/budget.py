"""How fast a number may send: one bucket a number, shared by all processes through Redis, served by lane.

The generic cell rate algorithm (GCRA) keeps one value a bucket: the theoretical arrival time of the next message.
Times are microseconds of the caller's clock.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from typing import Any

from loguru import logger
from redis.asyncio import Redis
from redis.exceptions import RedisError

from harkara.schemas.commands import LANES

#: A number's real limit is judged over a second at the gateway, where our messages arrive a little bunched.
MARGIN = 0.97

#: Tokens are fetched for this much time at once: the round trip to Redis then costs nothing at high rates.
SLICE_S = 0.02

#: Redis answers in well under a millisecond; one that takes this long is treated as away, and not asked for a while.
PATIENCE_S = 0.25
ASK_AGAIN_S = 1.0

_TAKE = """
local per_token, burst, wanted, now = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local held = tonumber(redis.call('GET', KEYS[2]) or '0')
if held > now then return {0, string.format('%.0f', held - now)} end
local arrival = math.max(now, tonumber(redis.call('GET', KEYS[1]) or '0'))
local room = math.floor((now + per_token * burst - arrival) / per_token)
if room < 1 then return {0, string.format('%.0f', math.ceil(arrival + per_token - per_token * burst - now))} end
local granted = math.min(room, wanted)
arrival = arrival + per_token * granted
local expires = math.ceil((arrival - now) / 1000) + 1000
redis.call('SET', KEYS[1], string.format('%.0f', arrival), 'PX', string.format('%.0f', expires))
return {granted, string.format('%.0f', math.max(0, math.ceil(arrival + per_token - per_token * burst - now)))}
"""


class Budgets:
    """The budgets of all numbers that this process sends through."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._script = redis.register_script(_TAKE)
        self._numbers: dict[str, _Number] = {}

    async def acquire(self, sender_id: str, rate: float, lane: str) -> None:
        """Wait for one message's turn on a number of `rate` messages a second; codes go first, marketing last."""
        number = self._numbers.get(sender_id)
        if number is None:
            number = self._numbers[sender_id] = _Number(sender_id, self._script)
        await number.acquire(rate, lane)

    async def hold(self, sender_id: str, seconds: float) -> None:
        """Nothing goes out through this number for that long, in any process."""
        until = int((time.time() + seconds) * 1e6)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await self._redis.set(_hold_key(sender_id), str(until), px=int(seconds * 1000) + 1)
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("could not tell other processes that number {} is held: {}", sender_id, error)
        if number := self._numbers.get(sender_id):
            number.held_until = until

    async def close(self) -> None:
        """Stop serving; whoever still waits is cancelled."""
        for number in self._numbers.values():
            number.close()
        self._numbers.clear()


def _hold_key(sender_id: str) -> str:
    return f"hold:{sender_id}"


class _Number:
    """Those who wait for one number, and the task that serves them."""

    def __init__(self, sender_id: str, script: Any) -> None:
        self._keys = [f"rate:{sender_id}", _hold_key(sender_id)]
        self._script = script
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = 0
        self._rate = 1.0
        self._task: asyncio.Task[None] | None = None
        self._local_arrival = 0.0
        self._away_until = 0.0
        self.held_until = 0

    async def acquire(self, rate: float, lane: str) -> None:
        self._rate = rate
        self._order += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (LANES.index(lane), self._order, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve())
        await future

    def close(self) -> None:
        if self._task:
            self._task.cancel()
        for _, _, future in self._waiting:
            future.cancel()

    async def _serve(self) -> None:
        while self._waiting:
            granted, wait_s = await self._take(min(len(self._waiting), max(1, int(self._rate * SLICE_S))))
            while granted and self._waiting:
                future = heapq.heappop(self._waiting)[2]
                if not future.done():  # its caller may have been cancelled meanwhile
                    future.set_result(None)
                    granted -= 1
            if self._waiting and wait_s > 0:
                await asyncio.sleep(wait_s)

    async def _take(self, wanted: int) -> tuple[int, float]:
        """How many may go now, and after how many seconds to ask again."""
        now = int(time.time() * 1e6)
        per_token = 1e6 / (self._rate * MARGIN)
        burst = max(1, int(self._rate * SLICE_S))
        if time.monotonic() < self._away_until:
            return self._take_alone(wanted, now, per_token)
        try:
            async with asyncio.timeout(PATIENCE_S):
                granted, wait = await self._script(keys=self._keys, args=[round(per_token), burst, wanted, now])
        except (RedisError, OSError, TimeoutError) as error:
            # Without Redis every process keeps the number's whole rate to itself: slower would lose nothing, but
            # stopping would hold up messages for a part that only counts.
            logger.warning("budgets are kept by this process alone while Redis is away: {!r}", error)
            self._away_until = time.monotonic() + ASK_AGAIN_S
            return self._take_alone(wanted, now, per_token)
        return int(granted), int(wait) / 1e6

    def _take_alone(self, wanted: int, now: int, per_token: float) -> tuple[int, float]:
        if self.held_until > now:
            return 0, (self.held_until - now) / 1e6
        self._local_arrival = max(now, self._local_arrival)
        if self._local_arrival > now:
            return 0, (self._local_arrival - now) / 1e6
        granted = min(wanted, max(1, int(self._rate * SLICE_S)))
        self._local_arrival += per_token * granted
        return granted, per_token * granted / 1e6
