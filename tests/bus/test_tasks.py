from __future__ import annotations

import asyncio
import contextlib

import pytest

from harkara.bus.tasks import end, heed_cancellation


async def test_a_task_that_misses_a_cancellation_is_told_again() -> None:
    missed = 0

    async def stubborn() -> None:
        nonlocal missed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                missed += 1
                if missed == 2:
                    raise

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    assert await end(task)
    assert missed == 2


async def test_a_task_that_never_ends_is_given_up() -> None:
    go_on = asyncio.Event()

    async def deaf() -> None:
        while not go_on.is_set():
            try:
                await go_on.wait()
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    assert not await end(task, within_s=0.3)
    go_on.set()
    await task


async def test_what_a_task_raised_is_dropped() -> None:
    async def failing() -> None:
        raise ValueError

    task = asyncio.create_task(failing())
    assert await end(task)


async def test_a_swallowed_cancellation_is_heeded_afterwards() -> None:
    async def swallowing() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        heed_cancellation()
        raise AssertionError("went on")

    task = asyncio.create_task(swallowing())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    heed_cancellation()
