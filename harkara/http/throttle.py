"""Guessing passwords and making accounts by the thousand is slowed down: by account, by address, and by both together.

Each bucket is one number in Redis, by the generic cell rate algorithm (GCRA), as in `limits.py`; but an attempt is
taken from all its buckets before the password is looked at, so that many at once are no way around, and given back if
it was right: only failures count. The account's own bucket, which is there for guesses from many addresses, does not
count for an address where its owner has logged in of late: nobody is kept out of their own account from where they
always are.

While Redis is away each front door counts alone: what all let through together is at most that many times as much.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from math import ceil
from typing import TYPE_CHECKING, Any

from loguru import logger
from redis.exceptions import RedisError

from harkara.http.plans import Limit
from harkara.http.problems import Problem
from harkara.storage import redis_keys

if TYPE_CHECKING:
    from redis.asyncio import Redis


@dataclass(frozen=True, slots=True)
class Allowance:
    """How many log-ins may fail, and how many accounts one address may make."""

    #: Of one account from one address.
    login: Limit
    #: Of one account from all addresses that it is not known at.
    account: Limit
    #: Of all accounts from one address.
    address: Limit
    signup: Limit


PRODUCTION = Allowance(
    login=Limit(1 / 30, 10), account=Limit(1 / 60, 50), address=Limit(1 / 6, 50), signup=Limit(1 / 60, 30)
)

#: By the setting ENVIRONMENT. On a developer's machine everybody has the same address.
ALLOWANCES: Mapping[str, Allowance] = {
    "production": PRODUCTION,
    "development": replace(PRODUCTION, address=Limit(100, 10_000), signup=Limit(100, 10_000)),
}

#: So long an address is known after its last log-in.
KNOWN_FOR = timedelta(days=90)

#: Redis answers in well under a millisecond; one that takes this long is treated as away, and not asked for a while.
PATIENCE_S = 0.25
ASK_AGAIN_S = 1.0

#: Buckets counted alone at once; the oldest go first.
REMEMBERED = 10_000

#: KEYS: where it says that the address is known, then the buckets, the account's last. ARGV: now, then the microseconds
#: an attempt costs and the burst of each bucket. Answers how long to wait, in microseconds, and for which bucket; or 0
#: microseconds: then it was taken.
_TAKE = """
local now, last = tonumber(ARGV[1]), #KEYS
if last > 2 and redis.call('EXISTS', KEYS[1]) == 1 then last = last - 1 end
local arrivals, wait, longest = {}, 0, 2
for i = 2, last do
  local cost, burst = tonumber(ARGV[2 * i - 2]), tonumber(ARGV[2 * i - 1])
  arrivals[i] = math.max(now, tonumber(redis.call('GET', KEYS[i]) or '0')) + cost
  local more = arrivals[i] - cost * burst - now
  if more > wait then wait, longest = more, i end
end
if wait > 0 then return string.format('%.0f %d', math.ceil(wait), longest - 2) end
for i = 2, last do
  local expires = string.format('%.0f', (arrivals[i] - now) / 1000 + 1000)
  redis.call('SET', KEYS[i], string.format('%.0f', arrivals[i]), 'PX', expires)
end
return '0 0'
"""

#: KEYS as above: what the account is charged with is forgotten, the address's attempt is given back, and it is known.
#: ARGV: now, the address's cost, for how many seconds it is known.
_GIVE_BACK = """
local now, arrival = tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[2]) or '0') - tonumber(ARGV[2])
if arrival > now then
  redis.call('SET', KEYS[2], string.format('%.0f', arrival), 'PX', string.format('%.0f', (arrival - now) / 1000 + 1000))
else
  redis.call('DEL', KEYS[2])
end
redis.call('DEL', KEYS[3], KEYS[4])
redis.call('SET', KEYS[1], '1', 'EX', ARGV[3])
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A log-in that was let through to have its password looked at: the names of its buckets, and their limits."""

    keys: tuple[str, ...]
    limits: tuple[Limit, ...]


class Throttle:
    """Counts attempts, together with all other front doors while Redis is there."""

    def __init__(
        self,
        redis: Redis,
        allowance: Allowance,
        clock: Callable[[], float] = time.time,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._take = redis.register_script(_TAKE)
        self._give_back = redis.register_script(_GIVE_BACK)
        self._allowance, self._clock, self._patience_s = allowance, clock, patience_s
        self._alone: dict[str, float] = {}
        self._away_until = -1e9

    async def login(self, email: str, address: str) -> Attempt:
        """Take one attempt at this account from this address. Raises Problem 429, even if there is no such account."""
        allowed, account = self._allowance, redis_keys.account(email)
        attempt = Attempt(
            (
                f"login:known:{account}:{address}",
                f"login:from:{address}",
                f"login:{account}:{address}",
                f"login:{account}",
            ),
            (allowed.address, allowed.login, allowed.account),
        )
        await self._pass(attempt, "too many log-ins failed")
        return attempt

    async def succeeded(self, attempt: Attempt) -> None:
        """It was the right password: the account starts afresh, and the address is known."""
        for key in attempt.keys[2:]:
            self._alone.pop(key, None)
        cost = round(1e6 / attempt.limits[0].per_s)
        values = (int(self._clock() * 1e6), cost, int(KNOWN_FOR.total_seconds()))
        if await self._ask(self._give_back, attempt.keys, values) is None:
            known = self._alone.get(attempt.keys[1], 0.0)
            self._alone[attempt.keys[1]] = known - cost / 1e6

    async def signup(self, address: str) -> None:
        """Count an account that somebody at this address wants to make. Raises Problem 429."""
        attempt = Attempt(("", f"signup:from:{address}"), (self._allowance.signup,))
        await self._pass(attempt, "too many accounts were made from this address")

    async def _pass(self, attempt: Attempt, why: str) -> None:
        values = [int(self._clock() * 1e6)]
        for limit in attempt.limits:
            values += (round(1e6 / limit.per_s), limit.burst)
        answer = await self._ask(self._take, attempt.keys, values)
        if answer is None:
            wait_s, longest = self._wait_alone(attempt)
        else:
            told, which = map(int, answer.split())
            wait_s, longest = told / 1e6, which
        if wait_s > 0:
            detail = f"{why}: come back after the seconds that Retry-After says"
            raise Problem(429, detail, headers=_told(wait_s, attempt.limits[longest]))

    async def _ask(self, script: Any, keys: Sequence[str], values: Sequence[int]) -> bytes | None:
        """What the script answers; None while Redis is away."""
        if time.monotonic() < self._away_until:
            return None
        try:
            async with asyncio.timeout(self._patience_s):
                return await script(keys=keys, args=values) or b""
        except (RedisError, OSError, TimeoutError) as error:
            self._away_until = time.monotonic() + ASK_AGAIN_S
            logger.warning("log-ins are counted by this front door alone: Redis is away ({})", type(error).__name__)
            return None

    def _wait_alone(self, attempt: Attempt) -> tuple[float, int]:
        now, arrivals, wait, longest = self._clock(), dict[str, float](), 0.0, 0
        for place, (key, limit) in enumerate(zip(attempt.keys[1:], attempt.limits, strict=True)):
            arrivals[key] = max(now, self._alone.pop(key, 0.0))
            more = arrivals[key] + (1 - limit.burst) / limit.per_s - now
            if more > wait:
                wait, longest = more, place
        taken = 0 if wait > 0 else 1
        for key, limit in zip(attempt.keys[1:], attempt.limits, strict=True):
            self._alone[key] = arrivals[key] + taken / limit.per_s
        while len(self._alone) > REMEMBERED:
            del self._alone[next(iter(self._alone))]
        return wait, longest


def _told(wait_s: float, limit: Limit) -> dict[str, str]:
    """What a refusal says of the limit that refused; the one of requests has nothing to do with it."""
    return {
        "Retry-After": str(ceil(wait_s)),
        "RateLimit-Limit": str(limit.burst),
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": str(ceil(wait_s + (limit.burst - 1) / limit.per_s)),
        "RateLimit-Policy": f"{limit.burst};w={limit.window_s}",
    }
