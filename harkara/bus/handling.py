"""From raw deliveries to verdicts: open, hand to the actor, keep one failure from harming the rest, settle."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import asyncpg
import msgspec
import redis.exceptions
from loguru import logger

from harkara.bus.actor import Actor
from harkara.bus.binding import of_batch, of_delivery
from harkara.bus.counters import Counters
from harkara.bus.errors import Full, Unavailable
from harkara.bus.intake import Intake, Raw, Undecodable
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Done, Drop, Outcome, Retry
from harkara.bus.schedule import Schedule
from harkara.bus.settle import UNCOUNTED_NAKS, Acked, Clock, Send, Settler, Verdict, jittered
from harkara.log import about
from harkara.measures import Tally
from harkara.schemas.base import tenant_of

#: An exception of these kinds says that something we need is away, not that the message is at fault.
INFRASTRUCTURE: tuple[type[BaseException], ...] = (
    Unavailable,
    Full,
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InternalClientError,  # how it sees a server that died in the middle of a word
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
)
#: An exception of these kinds says that the database refuses what is written, and always will. What the driver can't
#: encode is an InterfaceError and a ValueError (`refuses`).
REFUSED: tuple[type[BaseException], ...] = (
    asyncpg.DataError,
    asyncpg.CheckViolationError,
    asyncpg.NotNullViolationError,
)
#: So often it is tried all the same: while versions change, the next attempt may be a newer program's.
TRIES_OF_REFUSED = 3
#: How asyncpg says that of a connection.
_LOST = ("clos", "released back to the pool")
#: A handler that takes longer is cancelled, and its deliveries are retried.
LONGEST_HANDLING = timedelta(minutes=5)
#: Delivered more often than this without an answer, a copy may be what ends the processes that have it in hand.
SUSPECT = 5
#: So often it may come to nothing; then whatever has it in hand is taken to end. That counts as so many attempts that
#: failed, so that the third such copy is a dead letter even where attempts are many.
UNSETTLED, _COUNT_AS = 12, 20
#: Only a process that is younger suspects anything: one that has lived so long has had in hand what ended the one
#: before, and it is because of a broker that starts again, or a slow number, that copies come to it so often.
YOUNG_S = 60.0
_BORN = time.monotonic()
#: How long it then stays out of the way of those that were in hand together with it.
_APART = timedelta(seconds=30)
#: Messages that went on elsewhere leave their count behind; beyond this many all are forgotten.
_MOST_FAILURES = 50_000


class Judged(msgspec.Struct, frozen=True, gc=False):
    """A batch that was handled: the outcomes of its deliveries, and when it was begun (performance counter)."""

    batch: Sequence[Raw]
    outcomes: Sequence[Outcome]
    begun: float


class Handling:
    """One actor at work, whoever carries its messages."""

    def __init__(
        self,
        actor: Actor,
        send: Send,
        now: Clock,
        counters: Counters | None = None,
        tally: Tally | None = None,
        ended: Collection[str] = (),
    ) -> None:
        self.actor = actor
        self.counters = counters or Counters()
        #: Tenants that are being erased: what comes of theirs is done.
        self._ended = ended
        self._limit = Limit(LONGEST_HANDLING)
        self._failures: dict[tuple[str, int], int] = {}
        self._intake = Intake(actor.takes)
        self._settler = Settler(actor.name, actor.retries, send, now, tally or Tally())

    async def work(self, batch: Sequence[Raw]) -> list[Verdict]:
        """Handle and settle one batch: one verdict per delivery. The carrier tells them to the broker."""
        return await self.settle([await self.judge(batch)])

    async def judge(self, batch: Sequence[Raw]) -> Judged:
        """Handle one batch. What it comes to must be handed to `settle`."""
        begun = time.perf_counter()
        self.counters.in_flight += len(batch)
        if self._failures:
            for raw in batch:
                raw.failures = self._failures.get((raw.stream, raw.seq), 0)
        try:
            deliveries, unread = self._opened(batch)
            outcomes = await self._outcomes(deliveries)
        except BaseException:
            self._left(batch, begun)
            raise
        if unread:
            said = iter(outcomes)
            outcomes = [unread[index] if index in unread else next(said) for index in range(len(batch))]
        return Judged(batch, outcomes, begun)

    async def settle(self, judged: Sequence[Judged]) -> list[Verdict]:
        """Settle what was handled: one verdict per delivery, in order. Together, because that is the cheapest."""
        each = [pair for one in judged for pair in zip(one.batch, one.outcomes, strict=True)]
        try:
            verdicts = await self._settler.settle(each)
        finally:
            for one in judged:
                self._left(one.batch, one.begun)
        for (raw, _), verdict in zip(each, verdicts, strict=True):
            self._count(verdict)
            self._remember(raw, verdict)
        return verdicts

    def _left(self, batch: Sequence[Raw], begun: float) -> None:
        """These are in hand no longer."""
        self.counters.in_flight -= len(batch)
        self.counters.batches.add(time.perf_counter() - begun)

    def _remember(self, raw: Raw, verdict: Verdict) -> None:
        """Keep count of deliveries that failed: the broker counts all of them alike."""
        if isinstance(verdict, Acked):
            if raw.failures:
                self._failures.pop((raw.stream, raw.seq), None)
        elif not verdict.uncounted:
            if len(self._failures) >= _MOST_FAILURES:
                self._failures.clear()
            self._failures[raw.stream, raw.seq] = raw.failures + 1

    def _count(self, verdict: Verdict) -> None:
        if not isinstance(verdict, Acked) or verdict.parked:
            self.counters.retried += 1
        elif verdict.dead:
            self.counters.dead += 1
        else:
            self.counters.handled += 1

    def _opened(self, batch: Sequence[Raw]) -> tuple[list[Delivery[Any]], dict[int, Outcome]]:
        """What the actor is given, and by place what becomes of those that never reach it."""
        unread: dict[int, Outcome] = {}
        deliveries: list[Delivery[Any]] = []
        for index, raw in enumerate(batch):
            if self._ended and tenant_of(raw.subject) in self._ended:
                unread[index] = Done()
                continue
            if raw.deliveries > UNSETTLED and young():
                raw.failures += _COUNT_AS
                unread[index] = Retry(
                    f"delivered {UNSETTLED} times without an answer: whatever has it in hand ends",
                    after=jittered(_APART),
                    park=True,
                )
                continue
            try:
                deliveries.append(self._intake.open(raw))
            except Undecodable as error:
                unread[index] = Drop(f"undecodable: {error}")
        return deliveries, unread

    async def _outcomes(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
        """What the actor says; after an exception each delivery is tried alone, unless what we need is away."""
        if not batch:
            return []
        here = about.set(partial(of_batch, self.actor.name, batch))
        try:
            with self._limit:
                outcomes = await self.actor.handle(batch)
            if len(outcomes) != len(batch):
                raise WrongAnswer(f"{len(outcomes)} outcomes for {len(batch)} deliveries")
            return outcomes
        except Exception as error:
            away = is_infrastructure(error) and all(one.deliveries <= UNCOUNTED_NAKS for one in batch)
            if len(batch) == 1 or away or isinstance(error, TookTooLong):
                return [self._failed(delivery, error) for delivery in batch]
        finally:
            about.reset(here)
        return [(await self._outcomes([delivery]))[0] for delivery in batch]

    def _failed(self, delivery: Delivery[Any], error: Exception) -> Outcome:
        reason = brief(error)
        log = logger.bind(**of_delivery(self.actor.name, delivery))
        if is_infrastructure(error):
            log.warning("Waiting for what is away: {}", reason)
            return Retry(reason, counts=False)
        log.opt(exception=error).error("Handling failed")  # its text may repeat what it stumbled over
        if refuses(error) and delivery.attempt >= TRIES_OF_REFUSED:
            return Drop(f"the database refused it {delivery.attempt} times, and would again: {reason}")
        return Retry(reason)


def young() -> bool:
    """Whether this process may still have to do with what ended the one before it."""
    return time.monotonic() - _BORN < YOUNG_S


class TookTooLong(Exception):
    """A handler was cancelled because it did not end."""


class Limit:
    """A `with` around handlers that cancels those which do not end.

    One timer looks after all of them, because a time-out for each costs more than many a message.
    """

    def __init__(self, longest: timedelta) -> None:
        self._longest_s = longest.total_seconds()
        self._begun: dict[asyncio.Task[Any], float] = {}
        self._overdue: set[asyncio.Task[Any]] = set()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._begun[_this_task()] = time.monotonic()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._longest_s / 10, self._look)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        task = _this_task()
        self._begun.pop(task, None)
        if task in self._overdue:
            self._overdue.discard(task)
            if kind is asyncio.CancelledError and task.uncancel() == 0:
                raise TookTooLong(f"not done within {self._longest_s:g} s") from None

    def _look(self) -> None:
        now, loop = time.monotonic(), asyncio.get_running_loop()
        for task, begun in self._begun.items():
            if now - begun >= self._longest_s and task not in self._overdue:
                self._overdue.add(task)
                task.cancel()
        self._timer = loop.call_later(self._longest_s / 10, self._look) if self._begun else None


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("handlers run in tasks")
    return task


class WrongAnswer(Exception):
    """A handler did not answer every delivery."""


def is_infrastructure(error: BaseException) -> bool:
    """Whether the exception, or one that caused it, says that something we need is away."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, INFRASTRUCTURE) or _says_lost(seen):
            return True
        seen = seen.__cause__
    return False


def refuses(error: BaseException) -> bool:
    """Whether the exception, or one that caused it, says that the database will never take this."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, REFUSED) or (isinstance(seen, asyncpg.InterfaceError) and isinstance(seen, ValueError)):
            return True
        seen = seen.__cause__
    return False


def gives_up(error: BaseException, attempt: int, retries: Schedule) -> bool:
    """Whether a message that failed so in this attempt, handled alone, becomes a dead letter."""
    if is_infrastructure(error):
        return False
    return retries.after(attempt) is None or (refuses(error) and attempt >= TRIES_OF_REFUSED)


def _says_lost(error: BaseException) -> bool:
    """Whether asyncpg found a connection or pool closed, or a connection gone that was lost in a transaction.

    It has no type of its own for that.
    """
    return isinstance(error, asyncpg.InterfaceError) and any(words in str(error) for words in _LOST)


def brief(error: BaseException) -> str:
    """The exception's kind and the first line of its text: a database's details, with values, come after it."""
    first = str(error).partition("\n")[0][:200]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
