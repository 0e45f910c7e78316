"""Ending tasks for certain: Python 3.11's `wait_for`, which nats-py uses, sometimes swallows a cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

_ASK_AGAIN_S = 0.2


async def end(task: asyncio.Task[Any], within_s: float = 10.0) -> bool:
    """Cancel a task, again if it has not noticed, and wait for it; False if it still runs after `within_s`.

    Its result and exception are dropped.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not task.done() and loop.time() < deadline:
        task.cancel()
        await asyncio.wait({task}, timeout=_ASK_AGAIN_S)
    if task.done() and not task.cancelled():
        task.exception()
    return task.done()


@contextmanager
def heeding_cancellation() -> Generator[None]:
    """Raise the CancelledError that an `await` in the block may have swallowed.

    Only one that came meanwhile: what is cancelled already still has to take down what it has begun.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    yield
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError
