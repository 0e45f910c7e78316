"""Group commit: shared when busy, at once when idle, and one bad item harms nobody else."""

import asyncio
from collections.abc import Sequence

import pytest

from harkara.batching import Batcher


async def test_items_of_one_turn_share_a_batch_and_later_ones_the_next() -> None:
    seen: list[list[int]] = []
    entered, release = asyncio.Event(), asyncio.Event()

    async def run(items: Sequence[int]) -> list[int]:
        seen.append(list(items))
        entered.set()
        await release.wait()
        return [item * 10 for item in items]

    batcher = Batcher(run)
    first = [batcher(item) for item in (1, 2, 3)]
    await entered.wait()
    second = [batcher(item) for item in (4, 5)]
    await asyncio.sleep(0)
    release.set()
    assert await asyncio.gather(*first, *second) == [10, 20, 30, 40, 50]
    assert seen == [[1, 2, 3], [4, 5]]


async def test_a_batch_is_never_larger_than_it_may_be() -> None:
    sizes: list[int] = []

    async def run(items: Sequence[int]) -> Sequence[int]:
        sizes.append(len(items))
        return items

    batcher = Batcher(run, most=10)
    assert await asyncio.gather(*(batcher(item) for item in range(25))) == list(range(25))
    assert sizes == [10, 10, 5]


async def test_one_bad_item_fails_alone() -> None:
    async def run(items: Sequence[int]) -> Sequence[int]:
        if 13 in items:
            raise ValueError("thirteen")
        return items

    batcher = Batcher(run)
    results = await asyncio.gather(*(batcher(item) for item in (1, 13, 2)), return_exceptions=True)
    assert results[0] == 1
    assert isinstance(results[1], ValueError)
    assert results[2] == 2


async def test_a_caller_that_left_does_not_hold_up_the_others() -> None:
    async def run(items: Sequence[int]) -> Sequence[int]:
        return items

    batcher = Batcher(run)
    gone, there = batcher(1), batcher(2)
    gone.cancel()
    assert await there == 2
    with pytest.raises(asyncio.CancelledError):
        await gone
