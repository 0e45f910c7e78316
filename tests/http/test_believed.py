"""What is believed for a moment: asked once for many, renewed in the background, forgotten on word."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from harkara.http.believed import Believed


class Source:
    """Answers with how often it was asked, when the test lets it."""

    def __init__(self) -> None:
        self.asked = 0
        self.now = 0.0
        self.free = asyncio.Event()
        self.free.set()
        self.fails = False
        self.believed: Believed[str, int | None] = Believed(self.ask, timedelta(seconds=10), lambda: self.now)

    async def ask(self, key: str) -> int | None:
        self.asked += 1
        answer = self.asked
        await self.free.wait()
        if self.fails:
            raise RuntimeError(key)
        return None if key == "nobody" else answer

    async def settled(self) -> None:
        for _ in range(3):
            await asyncio.sleep(0)


async def test_many_who_ask_at_once_are_one_question_and_all_know_it_then() -> None:
    source = Source()
    assert await asyncio.gather(*(source.believed.get("a") for _ in range(50))) == [1] * 50
    for _ in range(1000):
        assert await source.believed.get("a") == 1
    assert source.asked == 1


async def test_what_is_in_use_is_renewed_without_waiting_and_what_is_old_is_asked_again() -> None:
    source = Source()
    await source.believed.get("a")
    source.now = 6
    assert await source.believed.get("a") == 1
    await source.settled()
    assert source.asked == 2
    assert await source.believed.get("a") == 2
    source.now = 16
    assert await source.believed.get("a") == 3


async def test_it_is_as_old_as_the_question_not_as_the_answer() -> None:
    source = Source()
    source.free.clear()
    asking = asyncio.create_task(source.believed.get("a"))
    await source.settled()
    source.now = 9
    source.free.set()
    assert await asking == 1
    source.now = 10
    assert await source.believed.get("a") == 2


async def test_an_answer_on_its_way_when_it_was_to_be_forgotten_is_not_remembered() -> None:
    source = Source()
    source.free.clear()
    before = asyncio.create_task(source.believed.get("a"))
    await source.settled()
    source.believed.forget(lambda key, _: key == "a")
    after = asyncio.create_task(source.believed.get("a"))
    await source.settled()
    source.free.set()
    assert (await before, await after) == (1, 2)
    assert await source.believed.get("a") == 2


async def test_only_what_is_meant_is_forgotten() -> None:
    source = Source()
    assert [await source.believed.get(key) for key in "abc"] == [1, 2, 3]
    source.believed.forget(lambda key, answer: key == "a" or answer == 3)
    assert [await source.believed.get(key) for key in "abc"] == [4, 2, 5]
    source.believed.forget()
    assert await source.believed.get("b") == 6


async def test_nothing_is_not_remembered_and_a_failure_neither() -> None:
    source = Source()
    assert [await source.believed.get("nobody") for _ in range(2)] == [None, None]
    assert source.asked == 2
    source.fails = True
    with pytest.raises(RuntimeError):
        await source.believed.get("a")
    source.fails = False
    assert await source.believed.get("a") == 4


async def test_a_failure_in_the_background_harms_nobody_until_the_answer_is_old() -> None:
    source = Source()
    await source.believed.get("a")
    source.now, source.fails = 6, True
    assert await source.believed.get("a") == 1
    await source.settled()
    assert await source.believed.get("a") == 1
    source.now = 11
    with pytest.raises(RuntimeError):
        await source.believed.get("a")


async def test_whoever_gives_up_waiting_takes_nobody_along() -> None:
    source = Source()
    source.free.clear()
    first, second = (asyncio.create_task(source.believed.get("a")) for _ in range(2))
    await source.settled()
    first.cancel()
    source.free.set()
    assert await second == 1
