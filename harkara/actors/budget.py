"""How fast a number may send, and to whom: budgets that all processes share exactly through Redis, served by lane.

One call of one script (`harkara/actors/budget_script.py`) takes turns for some 20 ms of a number's messages at once. It
judges them in order: one that another budget keeps back (its pair, portfolio or template) costs the number nothing.
"""

from __future__ import annotations

import asyncio
import heapq
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from datetime import datetime, timedelta
from typing import Any

import msgspec
from loguru import logger
from redis.asyncio import Redis
from redis.exceptions import RedisError

from harkara.actors.air import Air
from harkara.actors.budget_script import FREE, HOLD, HOLD_PAIR, KINDS, SLOW, SLOWER, SLOWEST, TAKE
from harkara.measures import LONG_BOUNDS, Timings
from harkara.policy.window import WINDOW
from harkara.schemas.commands import LANES
from harkara.storage import redis_keys
from harkara.storage.sending import Denied

#: A number's real limit is judged over a second at the gateway, where our messages arrive a little bunched.
MARGIN = 0.97

#: The lane whose messages need not wait for the turn after the last: they take it ahead, one at a time, and what waits
#: goes so much later. Where the margin of a second has room for it: no second has more than the number may send.
AHEAD = LANES.index("otp")

#: Tokens are fetched for this much time at once: the round trip to Redis then costs nothing at high rates.
SLICE_S = 0.02

#: Redis answers in well under a millisecond; one that takes this long is treated as away, and not asked for a while.
PATIENCE_S = 0.25
ASK_AGAIN_S = 1.0

#: A number that is held for long may be resumed before.
LOOK_AGAIN_S = 1.0

#: That nobody answers for a number is true for longer than a message waits before it tries again, and said anew before.
AWAY_S, AWAY_ANEW_S = 60, 10.0

#: How long a message waits for its number's turn in hand: a number may be held for hours.
TURN_PATIENCE = timedelta(seconds=120)


class Spending(msgspec.Struct, frozen=True, gc=False):
    """What one message counts against besides its number: each budget keeps back this message and no other.

    `paired`: WhatsApp's rule for one number and one phone holds. `portfolio` may write to `daily` people in 24 hours
    who have not written to it (empty: no limit). `tenant` may send `tenant_rate` messages a second over all its numbers
    (0: no limit).
    """

    to: str = ""
    paired: bool = False
    portfolio: str = ""
    daily: int = 0
    template: str = ""
    tenant: str = ""
    tenant_rate: float = 0


NOTHING = Spending()


class Place(msgspec.Struct, frozen=True, gc=False):
    """A message may go, and its phone is one of the people whom its portfolio may write to in 24 hours only for it."""

    portfolio: str
    to: str
    at: int


#: The script's words for a message whose number has nothing left for it now, and for one that has taken a place.
NOT_YET, PLACED = -1, -2

_encode = msgspec.json.Encoder().encode

#: Lane, order, who waits, what it counts against, and until when it waits (monotonic seconds).
_Waiting = tuple[int, int, "asyncio.Future[Denied | Place | None]", Spending, float]


#: What the script says of one message; NOT_YET is the number.
_Turn = Denied | Place | int | None


class Budgets:
    """The budgets of all numbers that this process sends through.

    Without a `clock` (seconds since the epoch) the time is Redis's, for all processes alike.
    """

    def __init__(
        self,
        redis: Redis,
        clock: Callable[[], float] | None = None,
        *,
        turns: Timings | None = None,
        air: Air | None = None,
    ) -> None:
        self._redis, self._clock, self._air = redis, clock, air or Air()
        self._turns = Timings(LONG_BOUNDS) if turns is None else turns
        self._script, self._slower = redis.register_script(TAKE), redis.register_script(SLOW)
        self._pair_rests, self._free = redis.register_script(HOLD_PAIR), redis.register_script(FREE)
        self._rests = redis.register_script(HOLD)
        self._numbers: dict[str, _Number] = {}
        #: When it was last said of a number that nobody answers for it.
        self._away: dict[str, float] = {}

    async def acquire(
        self, sender_id: str, rate: float, lane: str, spending: Spending = NOTHING
    ) -> Denied | Place | None:
        """Wait for one message's turn on a number of `rate` messages a second; codes go first, marketing last.

        Unless it is denied, it may go. While Redis is away each process keeps a number's rate alone, and no other
        budget. Raises TimeoutError if its turn has not come after TURN_PATIENCE, to the second.
        """
        number = self._numbers.get(sender_id)
        if number is None:
            number = self._numbers[sender_id] = _Number(sender_id, self._script, self._clock, self._air)
        begun = time.perf_counter()
        turn = await number.acquire(rate, lane, spending, time.monotonic() + TURN_PATIENCE.total_seconds())
        self._turns[(lane,)].add(time.perf_counter() - begun)
        return turn

    def give_back(self, sender_id: str) -> None:
        """A message whose turn had come does not leave after all: the next one has its turn at once."""
        if number := self._numbers.get(sender_id):
            number.give_back()

    async def free(self, place: Place) -> None:
        """A message did not reach WhatsApp: its place is another's, unless more was sent to its phone since."""
        await self._tell(self._free(keys=[f"users:{place.portfolio}"], args=[place.to, place.at]))

    async def hold(self, sender_id: str, seconds: float) -> None:
        """Nothing goes out through this number for that long, in any process."""
        await self._tell(self._rests(keys=[redis_keys.hold(sender_id)], args=[_given(self._clock), int(seconds * 1e6)]))
        if number := self._numbers.get(sender_id):
            number.held_until = _here(self._clock) + int(seconds * 1e6)

    async def away(self, sender_id: str, where: str | None) -> None:
        """Have it known for a while that nobody answered for this number, and where; without `where` somebody does."""
        if where is None:
            if self._away.pop(sender_id, None) is not None:
                await self._tell(self._redis.delete(redis_keys.away(sender_id)))
        elif (now := time.monotonic()) - self._away.get(sender_id, -math.inf) > AWAY_ANEW_S:
            self._away[sender_id] = now
            await self._tell(self._redis.set(redis_keys.away(sender_id), where, ex=AWAY_S))

    async def slow_down(self, sender_id: str) -> None:
        """WhatsApp found this number too fast: less from now on, and slowly back to all of its rate."""
        await self._slow_to(sender_id, SLOWEST)

    async def ease(self, sender_id: str) -> None:
        """This number's account is near its limit: somewhat less while that is said, and not less and less."""
        await self._slow_to(sender_id, SLOWER)

    async def _slow_to(self, sender_id: str, least: float) -> None:
        await self._tell(self._slower(keys=[f"slow:{sender_id}"], args=[_given(self._clock), least]))

    async def hold_pair(self, sender_id: str, to: str, seconds: float) -> None:
        """Nothing goes from this number to this phone for that long, or for what it owes if that is longer.

        To others it does.
        """
        asked = [_given(self._clock), int(seconds * 1e6)]
        await self._tell(self._pair_rests(keys=[f"pair:{sender_id}:{to}"], args=asked))

    async def pace(self, template: str, per_s: float, seconds: float) -> None:
        """Send a template so slowly for that long: WhatsApp still watches how people take it."""
        turn = f"{int(1e6 / per_s)} 0"  # the next one at once
        await self._tell(self._redis.set(f"pace:{template}", turn, px=int(seconds * 1000), nx=True))

    async def came_in(self, messages: Sequence[tuple[str, str, datetime]]) -> None:
        """Count messages to us, as (number, phone, when): they use the number's rate, and open the phone's window."""
        if not messages:
            return
        pipe: Any = self._redis.pipeline(transaction=False)
        for sender_id, phone, at in messages:
            opened, until = f"open:{sender_id}:{phone}", int((at + WINDOW).timestamp())
            pipe.incr(f"in:{sender_id}")
            pipe.pexpire(f"in:{sender_id}", 1000)  # what nobody has counted by then is past
            pipe.set(opened, "1", exat=until, nx=True)
            pipe.expireat(opened, until, gt=True)  # whatever order they come in
        await self._tell(pipe.execute())

    async def _tell(self, telling: Awaitable[Any]) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await telling
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("other processes could not be told of a budget: {!r}", error)

    async def close(self) -> None:
        """Stop serving; whoever still waits is cancelled."""
        # Who asks Redis is waited for: cut off in the middle, it would leave a connection open behind the pool's back.
        await asyncio.gather(*(number.close() for number in self._numbers.values()))
        self._numbers.clear()


class _Number:
    """Those who wait for one number, and the task that serves them."""

    def __init__(self, sender_id: str, script: Any, clock: Callable[[], float] | None, air: Air) -> None:
        self._sender_id, self._clock, self._air = sender_id, clock, air
        self._script = script
        self._waiting: list[_Waiting] = []
        self._order = 0
        self._rate = 1.0
        self._task: asyncio.Task[None] | None = None
        self._local_arrival = 0.0
        self._away_until = 0.0
        self._looked_at = 0.0
        self._unused = 0
        self._look_now = asyncio.Event()
        self.held_until = 0

    def acquire(
        self, rate: float, lane: str, spending: Spending, until: float
    ) -> asyncio.Future[Denied | Place | None]:
        self._rate = rate
        self._order += 1
        future: asyncio.Future[Denied | Place | None] = asyncio.get_running_loop().create_future()
        place = LANES.index(lane)
        heapq.heappush(self._waiting, (place, self._order, future, spending, until))
        if place == AHEAD:
            self._look_now.set()
        if self._task is None or self._task.done():
            # It serves whoever comes later too: what is bound for this message says nothing of theirs.
            self._task = asyncio.create_task(self._serve(), context=Context())
        return future

    def give_back(self) -> None:
        self._unused += 1
        self._look_now.set()

    async def close(self) -> None:
        for waiting in self._waiting:
            waiting[2].cancel()
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _serve(self) -> None:
        while self._waiting:
            room = self._air.room(self._sender_id)
            if room < 1:
                self._look_now.clear()
                self._air.wait(self._sender_id, self._look_now.set)
                await self._look_again(LOOK_AGAIN_S)
                continue
            batch = self._next(min(max(1, int(self._rate * SLICE_S)), room))
            if not batch:
                continue
            try:
                turns, wait_s = await self._take([waiting[3] for waiting in batch], batch[0][0] == AHEAD)
            except asyncio.CancelledError:
                for waiting in batch:
                    waiting[2].cancel()
                raise
            except Exception as error:  # a defect: theirs, not of those who come after
                for waiting in batch:
                    if not waiting[2].done():
                        waiting[2].set_exception(error)
                continue
            for waiting, turn in zip(batch, turns, strict=True):
                if isinstance(turn, int):
                    heapq.heappush(self._waiting, waiting)
                elif not waiting[2].done():
                    waiting[2].set_result(turn)
            await self._look_again(min(wait_s, LOOK_AGAIN_S))

    async def _look_again(self, wait_s: float) -> None:
        """Wait so long, or until there is something to look at, if anybody waits."""
        self._send_away()
        if self._waiting and wait_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._look_now.wait()

    def _send_away(self) -> None:
        """Whoever has waited too long: looked for now and then, because a timer for each costs more than its turn."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_AGAIN_S:
            return
        self._looked_at = now
        for waiting in self._waiting:
            if waiting[4] <= now and not waiting[2].done():
                waiting[2].set_exception(TimeoutError("its turn has not come"))

    def _next(self, most: int) -> list[_Waiting]:
        """Whose turn it is, without those whose callers have been cancelled meanwhile."""
        found: list[_Waiting] = []
        while self._waiting and len(found) < most:
            waiting = heapq.heappop(self._waiting)
            if not waiting[2].done():
                found.append(waiting)
        return found

    async def _take(self, wanted: list[Spending], ahead: bool = False) -> tuple[list[_Turn], float]:
        """What each may do now, and after how many seconds to ask again.

        `ahead`: the first of them may take the turn that comes next.
        """
        per_token = 1e6 / (self._rate * MARGIN)
        burst = max(1, int(self._rate * SLICE_S))
        if ahead and self._rate * (1 - MARGIN) >= 1:
            burst += 1
        back, self._unused = self._unused, 0
        self._look_now.clear()
        if time.monotonic() < self._away_until:
            return self._take_alone(wanted, per_token, back)
        try:
            async with asyncio.timeout(PATIENCE_S):
                told = await self._script(args=(self._asked(wanted, per_token, burst, back),))
        except (RedisError, OSError, TimeoutError) as error:
            # Without Redis every process keeps the number's whole rate to itself: slower would lose nothing, but
            # stopping would hold up messages for a part that only counts.
            logger.warning("budgets are kept by this process alone while Redis is away: {!r}", error)
            self._away_until = time.monotonic() + ASK_AGAIN_S
            return self._take_alone(wanted, per_token, back)
        wait, now, *answers = map(int, told.split())
        return [_turn(answer, one, now) for answer, one in zip(answers, wanted, strict=True)], wait / 1e6

    def _asked(self, wanted: list[Spending], per_token: float, burst: int, back: int) -> bytes:
        first = wanted[0]  # all of a number's messages are of one tenant
        per_tenant = 1e6 / first.tenant_rate if first.tenant_rate else 0
        each = [(one.to, one.paired, one.portfolio, one.daily, one.template) for one in wanted]
        now = _given(self._clock)
        return _encode((self._sender_id, first.tenant, round(per_token), burst, now, round(per_tenant), back, each))

    def _take_alone(self, wanted: list[Spending], per_token: float, back: int) -> tuple[list[_Turn], float]:
        now = _here(self._clock)
        none: list[_Turn] = [NOT_YET] * len(wanted)
        if self.held_until > now:
            return none, (self.held_until - now) / 1e6
        self._local_arrival = max(now, self._local_arrival - back * per_token)
        if self._local_arrival > now:
            return none, (self._local_arrival - now) / 1e6
        self._local_arrival += per_token * len(wanted)
        return [None] * len(wanted), per_token * len(wanted) / 1e6


def _given(clock: Callable[[], float] | None) -> int:
    """A test's time in microseconds, for the scripts; 0 is Redis's own."""
    return int(clock() * 1e6) if clock else 0


def _here(clock: Callable[[], float] | None) -> int:
    """The time in microseconds, for what this process decides alone."""
    return int((clock or time.time)() * 1e6)


def _turn(answer: int, spending: Spending, now: int) -> _Turn:
    if answer == 0:
        return None
    if answer == NOT_YET:
        return NOT_YET
    if answer == PLACED:
        return Place(spending.portfolio, spending.to, now)
    return Denied(KINDS[answer % 4 - 1], timedelta(milliseconds=answer // 4))
