"""How many requests each key, tenant and address may make: buckets in Redis that all front doors share, in slices.

Each bucket is one number in Redis, by the generic cell rate algorithm (GCRA): the theoretical arrival time of the next
request, in microseconds of the caller's clock. All buckets of a request are asked in one call of one script, which
takes from all of them or from none. A busy bucket gives this process a slice at once, so that most requests ask nobody.

Over any time t no more than `per_s * t + burst` requests are granted by all doors together; one of them may come up to
LEASE_S later than it was granted. While Redis is away each door counts alone, with its share of the limits.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

from aiohttp import web
from loguru import logger
from redis.exceptions import RedisError

from harkara.http.plans import Limit

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: A slice is at most what this time allows, and what is not used of it by then is forfeit.
SLICE_S = 0.05
LEASE_S = 1.0

#: Redis answers in well under a millisecond; one that takes this long is treated as away, and not asked for a while.
PATIENCE_S = 0.05
ASK_AGAIN_S = 1.0

#: A door that has asked nothing for so long is not counted among those that share the limits.
DOOR_GONE_S = 30

#: Buckets remembered at once; those that hold nothing go first.
REMEMBERED = 50_000

#: While Redis is away the log says so this often, however many requests there are.
TELL_EVERY_S = 10.0

DOORS = "limit:doors"

#: KEYS: the set of doors, then the buckets. ARGV: now, this door, the second after which a door is gone, then for each
#: bucket the microseconds a request costs, the burst, and how many are wanted. Answers how many doors there are, which
#: bucket refuses (0: none), its wait in microseconds, then for each bucket what was granted and what room is left.
_TAKE = """
local now = tonumber(ARGV[1])
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', ARGV[3])
redis.call('EXPIRE', KEYS[1], 3600)
local answer, arrivals = {redis.call('ZCARD', KEYS[1]), 0, '0'}, {}
for i = 2, #KEYS do
  local cost, burst, wanted = tonumber(ARGV[3 * i - 2]), tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local arrival = math.max(now, tonumber(redis.call('GET', KEYS[i]) or '0'))
  local room = math.floor((now + cost * burst - arrival) / cost)
  if room < 1 then
    return {answer[1], i - 1, string.format('%.0f', math.ceil(arrival + cost - cost * burst - now))}
  end
  local granted = math.min(room, wanted)
  arrivals[i] = arrival + cost * granted
  answer[2 * i] = granted
  answer[2 * i + 1] = room - granted
end
for i = 2, #KEYS do
  local expires = math.ceil((arrivals[i] - now) / 1000) + 1000
  redis.call('SET', KEYS[i], string.format('%.0f', arrivals[i]), 'PX', string.format('%.0f', expires))
end
return answer
"""


class Bucket:
    """What this process holds of one bucket: a slice of it, and when it is worth asking for more."""

    __slots__ = (
        "arrival",
        "asked_at",
        "burst",
        "empty_until",
        "granted",
        "held",
        "kind",
        "limit",
        "name",
        "per_s",
        "room",
        "said",
        "slice",
        "until",
        "waiting",
    )

    def __init__(self, kind: str, name: str, limit: Limit) -> None:
        self.kind, self.name, self.limit = kind, name, limit
        self.burst, self.per_s = limit.burst, limit.per_s
        #: What an answer says of the limit, whatever is left of it.
        self.said = f"RateLimit-Limit: {limit.burst}\r\nRateLimit-Policy: {limit.burst};w={limit.window_s}\r\n"
        self.held, self.granted, self.until = 0, 0, 0.0
        self.room, self.asked_at = limit.burst, 0.0
        self.slice, self.waiting = 1, 0
        self.empty_until = 0.0
        self.arrival = 0.0

    def wanted(self, now: float) -> int:
        """How many to ask for at once: twice as many as before if those were used up in time, else as many as were."""
        largest = max(1, int(self.limit.per_s * SLICE_S))
        self.slice = min(self.slice * 2 if self.until > now else max(1, self.granted - self.held), largest)
        return min(max(self.slice, self.waiting + 1), largest)

    def take_in(self, granted: int, room: int, now: float) -> None:
        """Keep what Redis gave."""
        self.held, self.granted = granted + (self.held if self.until > now else 0), granted
        self.until = now + LEASE_S
        self.room, self.asked_at = room, now

    def wait_alone(self, now: float, doors: int) -> float:
        """After how many seconds this door's share of the limit has room for a request; 0 for now."""
        cost, burst = doors / self.limit.per_s, max(1.0, self.limit.burst / doors)
        return max(0.0, max(now, self.arrival) + cost - burst * cost - now)

    def take_alone(self, now: float, doors: int) -> None:
        """Count a request in this door's share."""
        cost, burst = doors / self.limit.per_s, max(1.0, self.limit.burst / doors)
        self.arrival = max(now, self.arrival) + cost
        self.room, self.asked_at = int((now + burst * cost - self.arrival) / cost), now


class Decision(NamedTuple):
    """Whether a request may go on (`wait_s` is 0), which bucket is the tightest, and how many are left in it."""

    bucket: Bucket
    remaining: int
    wait_s: float

    def headers(self) -> dict[str, str]:
        """What the answer says of it: the names that most clients know, and the policy as the IETF's draft 7 has it."""
        limit = self.bucket.limit
        told = {
            "RateLimit-Limit": str(limit.burst),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(ceil((limit.burst - self.remaining) / limit.per_s)),
            "RateLimit-Policy": f"{limit.burst};w={limit.window_s}",
        }
        if self.wait_s:
            told["Retry-After"] = str(ceil(self.wait_s))
        return told

    def block(self) -> str:
        """The same as lines of a head, for a request that may go on."""
        bucket, remaining = self.bucket, self.remaining
        reset = ceil((bucket.burst - remaining) / bucket.per_s)
        return f"{bucket.said}RateLimit-Remaining: {remaining}\r\nRateLimit-Reset: {reset}\r\n"


#: Under this name an aiohttp request carries what its limits said.
QUOTA = web.RequestKey("quota", Decision)


class Limits:
    """The buckets this process counts in."""

    def __init__(self, redis: Redis, clock: Callable[[], float] = time.time, patience_s: float = PATIENCE_S) -> None:
        self._script = redis.register_script(_TAKE)
        self._clock, self._patience_s = clock, patience_s
        self._door = uuid4().hex
        self._buckets: dict[str, Bucket] = {}
        self._asking: dict[str, asyncio.Future[None]] = {}
        self._away_until = self._told = -1e9
        #: How many front doors share the limits, this one among them.
        self.doors = 1
        #: Calls of the script, those that failed, and requests that this door counted alone since.
        self.asked = self.failed = self.alone = 0

    @property
    def away(self) -> bool:
        """Whether this door counts alone right now."""
        return time.monotonic() < self._away_until

    def bucket(self, kind: str, name: str, limit: Limit) -> Bucket:
        """The bucket of this kind and name."""
        key = f"limit:{kind}:{name}"
        bucket = self._buckets.get(key)
        if bucket is None or bucket.limit is not limit:
            if len(self._buckets) >= REMEMBERED:
                self._forget()
            bucket = self._buckets[key] = Bucket(kind, key, limit)
        return bucket

    def known_empty_for(self, bucket: Bucket) -> float:
        """For how many seconds a bucket is known to be empty; 0 if it isn't."""
        return max(0.0, bucket.empty_until - self._clock())

    def take_held(self, buckets: Sequence[Bucket]) -> Decision | None:
        """One request from what this process holds of all of these; None, and nothing taken, if it holds too little."""
        now = self._clock()
        for bucket in buckets:
            if bucket.held <= 0 or bucket.until <= now:
                return None
        return _granted(buckets, now)

    async def take(self, buckets: Sequence[Bucket]) -> Decision:
        """One request from all of these, or from none."""
        while True:
            now = self._clock()
            lacking: list[Bucket] = []
            for bucket in buckets:
                if bucket.held > 0 and bucket.until > now:
                    continue
                if bucket.empty_until > now:
                    return Decision(bucket, 0, bucket.empty_until - now)
                lacking.append(bucket)
            if not lacking:
                return _granted(buckets, now)
            if self.away:
                return self._alone(buckets, now)
            await self._lease(lacking)

    async def _lease(self, buckets: Sequence[Bucket]) -> None:
        """Ask Redis for more of these. Of one bucket it is asked once at a time, for all who wait."""
        for bucket in buckets:
            if asked := self._asking.get(bucket.name):
                bucket.waiting += 1
                try:
                    await asyncio.shield(asked)
                finally:
                    bucket.waiting -= 1
                return
        answered = asyncio.get_running_loop().create_future()
        self._asking.update((bucket.name, answered) for bucket in buckets)
        try:
            await self._ask(buckets)
        finally:
            for bucket in buckets:
                del self._asking[bucket.name]
            answered.set_result(None)

    async def _ask(self, buckets: Sequence[Bucket]) -> None:
        self.asked += 1
        at = self._clock()
        now = int(at * 1e6)
        values: list[Any] = [now, self._door, now - DOOR_GONE_S * 1_000_000]
        for bucket in buckets:
            values += (round(1e6 / bucket.limit.per_s), bucket.limit.burst, bucket.wanted(at))
        try:
            async with asyncio.timeout(self._patience_s):
                answer = await self._script(keys=[DOORS, *(bucket.name for bucket in buckets)], args=values)
        except (RedisError, OSError, TimeoutError) as error:
            self.failed += 1
            self._away_until = time.monotonic() + ASK_AGAIN_S
            self._tell(error)
            return
        self.doors = max(1, int(answer[0]))
        if refusing := int(answer[1]):
            buckets[refusing - 1].empty_until = (now + int(answer[2])) / 1e6
            return
        for place, bucket in enumerate(buckets):
            bucket.take_in(int(answer[3 + 2 * place]), int(answer[4 + 2 * place]), at)

    def _tell(self, error: Exception) -> None:
        if time.monotonic() - self._told > TELL_EVERY_S:
            self._told = time.monotonic()
            logger.warning(
                "rate limits are counted by this door alone while Redis is away, by a share of 1 in {}: {}",
                self.doors,
                type(error).__name__,
            )

    def _alone(self, buckets: Sequence[Bucket], now: float) -> Decision:
        self.alone += 1
        for bucket in buckets:
            if wait := bucket.wait_alone(now, self.doors):
                return Decision(bucket, 0, wait)
        for bucket in buckets:
            bucket.take_alone(now, self.doors)
        return _granted(buckets, now, held=0)

    def _forget(self) -> None:
        now = self._clock()
        for name, bucket in list(self._buckets.items()):
            idle = bucket.until <= now and bucket.arrival <= now and bucket.empty_until <= now
            if idle and name not in self._asking:
                del self._buckets[name]
        if len(self._buckets) >= REMEMBERED:  # all in use: what they hold is forfeit
            self._buckets.clear()


def _granted(buckets: Sequence[Bucket], now: float, held: int = 1) -> Decision:
    """What is left of each once the request has taken so many of those that are held."""
    tightest, least = buckets[0], 1 << 60
    for bucket in buckets:
        bucket.held -= held
        left = bucket.held + bucket.room + int((now - bucket.asked_at) * bucket.per_s)  # and what came back meanwhile
        if left > bucket.burst:
            left = bucket.burst
        if left < least:
            tightest, least = bucket, left
    return Decision(tightest, max(0, least), 0.0)
