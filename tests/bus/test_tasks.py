from __future__ import annotations

import asyncio
import contextlib

import pytest

from harkara.bus.tasks import end, heeding_cancellation


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
        with heeding_cancellation(), contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        raise AssertionError("went on")

    task = asyncio.create_task(swallowing())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with heeding_cancellation():
        pass


async def test_what_was_cancelled_before_can_still_take_down_what_it_has_begun() -> None:
    taken_down: list[str] = []

    async def begun() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            with heeding_cancellation():
                await asyncio.sleep(0)
            taken_down.append("all of it")

    task = asyncio.create_task(begun())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert taken_down == ["all of it"]
