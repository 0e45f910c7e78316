"""From raw deliveries to verdicts: open, hand to the actor, keep one failure from harming the rest, settle."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import asyncpg
import redis.exceptions
from loguru import logger

from harkara.bus.actor import Actor
from harkara.bus.counters import Counters
from harkara.bus.errors import Full, Unavailable
from harkara.bus.intake import Intake, Raw, Undecodable
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Drop, Outcome, Retry
from harkara.bus.settle import UNCOUNTED_NAKS, Acked, Clock, Send, Settler, Verdict

#: An exception of these kinds says that something we need is away, not that the message is at fault.
INFRASTRUCTURE: tuple[type[BaseException], ...] = (
    Unavailable,
    Full,
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
)
#: A handler that takes longer is cancelled, and its deliveries are retried.
LONGEST_HANDLING = timedelta(minutes=5)
#: Messages that went on to wait elsewhere leave their count behind; beyond this many all are forgotten.
_MOST_WAITS = 50_000


class Handling:
    """One actor at work, whoever carries its messages."""

    def __init__(self, actor: Actor, send: Send, now: Clock, counters: Counters | None = None) -> None:
        self.actor = actor
        self.counters = counters or Counters()
        self._limit = Limit(LONGEST_HANDLING)
        self._waits: dict[tuple[str, int], int] = {}
        self._intake = Intake(actor.takes)
        self._settler = Settler(actor.name, actor.retries, send, now)

    async def work(self, batch: Sequence[Raw]) -> list[Verdict]:
        """Handle and settle one batch: one verdict per delivery. The carrier tells them to the broker."""
        for raw in batch:
            raw.waits = self._waits.get((raw.stream, raw.seq), 0)
        self.counters.in_flight += len(batch)
        try:
            outcomes = await self._judge(batch)
            verdicts = await self._settler.settle(list(zip(batch, outcomes, strict=True)))
        finally:
            self.counters.in_flight -= len(batch)
        for raw, verdict in zip(batch, verdicts, strict=True):
            self._count(verdict)
            self._remember(raw, verdict)
        return verdicts

    def _remember(self, raw: Raw, verdict: Verdict) -> None:
        """Keep count of deliveries that were mere waiting, which the broker counts like any other."""
        if isinstance(verdict, Acked):
            self._waits.pop((raw.stream, raw.seq), None)
        elif verdict.uncounted:
            if len(self._waits) >= _MOST_WAITS:
                self._waits.clear()
            self._waits[raw.stream, raw.seq] = raw.waits + 1

    def _count(self, verdict: Verdict) -> None:
        if not isinstance(verdict, Acked) or verdict.parked:
            self.counters.retried += 1
        elif verdict.dead:
            self.counters.dead += 1
        else:
            self.counters.handled += 1

    async def _judge(self, batch: Sequence[Raw]) -> list[Outcome]:
        """An outcome for every delivery, in order; what cannot be opened never reaches the actor."""
        unread: dict[int, Outcome] = {}
        deliveries: list[Delivery[Any]] = []
        for index, raw in enumerate(batch):
            try:
                deliveries.append(self._intake.open(raw))
            except Undecodable as error:
                unread[index] = Drop(f"undecodable: {error}")
        said = iter(await self._outcomes(deliveries))
        return [unread[index] if index in unread else next(said) for index in range(len(batch))]

    async def _outcomes(self, batch: Sequence[Delivery[Any]]) -> list[Outcome]:
        """What the actor says; after an exception each delivery is tried alone, unless what we need is away."""
        if not batch:
            return []
        try:
            return await self._handle(batch)
        except Exception as error:
            away = is_infrastructure(error) and all(one.deliveries <= UNCOUNTED_NAKS for one in batch)
            if len(batch) == 1 or away or isinstance(error, TookTooLong):
                return [self._failed(delivery, error) for delivery in batch]
        return [(await self._outcomes([delivery]))[0] for delivery in batch]

    async def _handle(self, batch: Sequence[Delivery[Any]]) -> list[Outcome]:
        with self._limit:
            outcomes = list(await self.actor.handle(batch))
        if len(outcomes) != len(batch):
            raise WrongAnswer(f"{len(outcomes)} outcomes for {len(batch)} deliveries")
        return outcomes

    def _failed(self, delivery: Delivery[Any], error: Exception) -> Retry:
        reason = brief(error)
        log = logger.bind(
            actor=self.actor.name,
            id=delivery.id,
            tenant=delivery.tenant,
            cause=delivery.cause,
            attempt=delivery.attempt,
        )
        if is_infrastructure(error):
            log.warning("Waiting for what is away: {}", reason)
            return Retry(reason, counts=False)
        log.opt(exception=error).error("Handling failed: {}", reason)
        return Retry(reason)


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
        loop = asyncio.get_running_loop()
        self._begun[_this_task()] = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(self._longest_s / 10, self._look)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        task = _this_task()
        self._begun.pop(task, None)
        if task in self._overdue:
            self._overdue.discard(task)
            if kind is asyncio.CancelledError and task.uncancel() == 0:
                raise TookTooLong(f"not done within {self._longest_s:g} s") from None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        for task, begun in self._begun.items():
            if loop.time() - begun >= self._longest_s and task not in self._overdue:
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
        if isinstance(seen, INFRASTRUCTURE) or _says_closed(seen):
            return True
        seen = seen.__cause__
    return False


def _says_closed(error: BaseException) -> bool:
    """Whether asyncpg found a connection or pool closed: it has no type of its own for that."""
    return isinstance(error, asyncpg.InterfaceError) and "clos" in str(error)


def brief(error: BaseException) -> str:
    """The exception's kind and the first line of its text: a database's details, with values, come after it."""
    first = str(error).partition("\n")[0][:200]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
