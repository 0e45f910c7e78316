"""What was asked from the database and is believed for a moment: asked by many, fetched once, forgotten on word."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Generic, NamedTuple, TypeVar

K = TypeVar("K")
V = TypeVar("V")

#: Answers remembered at once; the oldest go first.
REMEMBERED = 10_000


class _Answer(NamedTuple, Generic[V]):
    value: V
    asked_at: float


class Believed(Generic[K, V]):
    """Answers to one question, each believed for `trust` from the moment it was asked for.

    Who asks in the second half of that time gets the answer at once and has it asked again in the background: what is
    used all the time is never waited for. An answer that was on its way when it had to be forgotten is not remembered.
    None is not remembered either.
    """

    def __init__(
        self,
        ask: Callable[[K], Awaitable[V]],
        trust: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._clock = ask, clock
        self._trust_s = trust.total_seconds()
        self._known: dict[K, _Answer[V]] = {}
        self._asking: dict[K, asyncio.Task[V]] = {}

    async def get(self, key: K) -> V:
        """The answer; raises what asking raises."""
        known = self.known(key)
        return known if known is not None else await asyncio.shield(self._begin(key))

    def known(self, key: K) -> V | None:
        """The answer, if there is one that is still believed."""
        found = self._known.get(key)
        if found is None:
            return None
        age_s = self._clock() - found.asked_at
        if age_s >= self._trust_s:
            return None
        if age_s >= self._trust_s / 2:
            self._begin(key)
        return found.value

    def forget(self, which: Callable[[K, V], bool] | None = None) -> None:
        """Ask anew from now on: what `which` says of key and answer, or everything.

        What is on its way counts for nobody who asks later.
        """
        self._asking.clear()
        if which is None:
            self._known.clear()
            return
        for key in [key for key, answer in self._known.items() if which(key, answer.value)]:
            del self._known[key]

    def _begin(self, key: K) -> asyncio.Task[V]:
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._run(key))
            task.add_done_callback(_heard)
        return task

    async def _run(self, key: K) -> V:
        asked_at, me = self._clock(), asyncio.current_task()
        try:
            value = await self._ask(key)
            if self._asking.get(key) is me:
                self._remember(key, _Answer(value, asked_at))
            return value
        finally:
            if self._asking.get(key) is me:
                del self._asking[key]

    def _remember(self, key: K, answer: _Answer[V]) -> None:
        self._known.pop(key, None)
        if answer.value is None:
            return
        if len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[key] = answer


def _heard(task: asyncio.Task[V]) -> None:
    """Whoever waits hears of a failure; in the background nobody does, and the next one asks again."""
    if not task.cancelled():
        task.exception()
