"""Many callers, few statements: whoever arrives while a batch is being written goes into the next one. No lingering."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

I = TypeVar("I")  # noqa: E741 - an item
O = TypeVar("O")  # noqa: E741 - its outcome


class Batcher(Generic[I, O]):
    """Collects items and hands them to `run` in batches, at most `parallel` of them at once.

    An idle batcher runs an item at once. If a batch of several fails, each is run alone, so that one bad item doesn't
    harm the others; what still fails is raised to its caller.
    """

    def __init__(
        self, run: Callable[[Sequence[I]], Awaitable[Sequence[O]]], *, most: int = 256, parallel: int = 1
    ) -> None:
        self._run, self._most, self._free = run, most, parallel
        self._waiting: list[tuple[I, asyncio.Future[O]]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._scheduled = False
        # A batch is nobody's alone: what is bound where one of its items came from says nothing of the others.
        self._context = Context()

    def __call__(self, item: I) -> asyncio.Future[O]:
        """Run one item as part of a batch: its outcome, to be awaited."""
        future: asyncio.Future[O] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        self._schedule()
        return future

    def _schedule(self) -> None:
        # One turn of the loop later: what becomes ready in the same turn shares the batch.
        if self._free and self._waiting and not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._start, context=self._context)

    def _start(self) -> None:
        self._scheduled = False
        if not self._free or not self._waiting:
            return
        batch, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
        self._free -= 1
        task = asyncio.create_task(self._one(batch))
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        self._schedule()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._free += 1
        self._schedule()

    async def _one(self, batch: Sequence[tuple[I, asyncio.Future[O]]]) -> None:
        batch = [(item, future) for item, future in batch if not future.done()]
        if not batch:
            return
        try:
            outcomes = await self._run([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:
            if len(batch) == 1:
                _fail(batch[0][1], error)
                return
            for one in batch:
                await self._one([one])
        else:
            for (_, future), outcome in zip(batch, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)


def _fail(future: asyncio.Future[O], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
