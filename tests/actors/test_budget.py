"""Budgets on a real Valkey: exact over several processes, codes first, and alive without Redis."""

import asyncio
import time
import uuid
from datetime import timedelta

import pytest
from redis.asyncio import Redis
from support import until

from harkara.actors import budget
from harkara.actors.budget import Budgets
from harkara.storage import redis_keys


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Redis is never taken for away because this machine is busy: each process would keep the rate alone."""
    monkeypatch.setattr(budget, "PATIENCE_S", 60)


async def taken_at(budgets: list[Budgets], number: str, rate: float, *, least: int, least_s: float) -> float:
    """How many turns a second a number gives away, to as many processes as there are budgets.

    Of so many turns, and so many seconds, at least; the two that it has at once are not counted.
    """
    taken, started = 0, time.monotonic()

    async def take(one: Budgets) -> None:
        nonlocal taken
        while True:
            await one.acquire(number, rate, "marketing")
            taken += 1

    tasks = [asyncio.create_task(take(one)) for one in budgets for _ in range(20)]
    await asyncio.wait(tasks, timeout=least_s)
    await until(lambda: taken >= least, "as many turns as are to be counted")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return (taken - 2) / (time.monotonic() - started)


@pytest.mark.usefixtures("patient")
async def test_processes_share_one_rate(redis_url: str) -> None:
    clients = [Redis.from_url(redis_url) for _ in range(3)]
    budgets = [Budgets(client) for client in clients]
    a_second = await taken_at(budgets, uuid.uuid4().hex, 100, least=50, least_s=1.5)
    for one in budgets:
        await one.close()
    for client in clients:
        await client.aclose()
    # Never more than the rate; how much less says how busy this machine is.
    assert a_second <= 100


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("redis_is_away", [False, True])
async def test_a_turn_that_was_not_used_is_the_next_ones_at_once(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, redis_is_away: bool
) -> None:
    if redis_is_away:
        monkeypatch.setattr(budget, "ASK_AGAIN_S", 3600)
    client = Redis(port=1) if redis_is_away else Redis.from_url(redis_url)
    budgets, number, an_hour = Budgets(client), uuid.uuid4().hex, 1 / 3600
    await budgets.acquire(number, an_hour, "marketing")
    waiting = [asyncio.ensure_future(budgets.acquire(number, an_hour, "marketing")) for _ in range(5)]
    for turn in range(3):
        budgets.give_back(number)
        await until(waiting[turn].done, "the next one's turn has come")
    await asyncio.sleep(0.05)
    assert [one.done() for one in waiting] == [True] * 3 + [False] * 2, "no more than came back"
    await budgets.close()
    await asyncio.gather(*waiting, return_exceptions=True)
    await client.aclose()


@pytest.mark.usefixtures("patient")
async def test_a_code_takes_the_next_turn_ahead_and_what_waits_goes_so_much_later(redis_url: str) -> None:
    client, now = Redis.from_url(redis_url), time.time()
    budgets = Budgets(client, clock=lambda: now)

    async def ahead() -> bool:
        number = uuid.uuid4().hex
        await budgets.acquire(number, 80, "marketing")
        waiting = asyncio.ensure_future(budgets.acquire(number, 80, "marketing"))
        await budgets.acquire(number, 80, "otp")
        taken = (float(await client.get(f"rate:{number}") or 0) - now * 1e6) * 80 * budget.MARGIN / 1e6
        waiting.cancel()
        return round(taken) == 2

    # On a busy machine Redis may have forgotten the first turn, whose clock the test does not stop.
    await until(ahead, "the code has taken the second turn, at the time of the first")
    slow = uuid.uuid4().hex
    await budgets.acquire(slow, 1 / 3600, "marketing")
    code = asyncio.ensure_future(budgets.acquire(slow, 1 / 3600, "otp"))
    await asyncio.sleep(0.05)
    assert not code.done(), "a slow number has no room for one more in the same second"
    await budgets.close()
    await asyncio.gather(code, return_exceptions=True)
    await client.aclose()


@pytest.mark.usefixtures("patient")
async def test_a_code_overtakes_what_waits(redis_url: str) -> None:
    client = Redis.from_url(redis_url)
    budgets, number, order = Budgets(client), uuid.uuid4().hex, list[str]()

    async def take(lane: str) -> None:
        await budgets.acquire(number, 20, lane)
        order.append(lane)

    crowd = [asyncio.create_task(take("marketing")) for _ in range(10)]
    await asyncio.sleep(0)
    await asyncio.gather(asyncio.create_task(take("utility")), asyncio.create_task(take("otp")))
    ahead = order.index("otp")
    await asyncio.gather(*crowd)
    await budgets.close()
    await client.aclose()
    assert ahead < order.index("utility")
    assert order.index("utility") <= 3


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("wrong_by", [-3600, 3600])
async def test_the_clocks_of_the_machines_that_send_do_not_matter(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, wrong_by: float
) -> None:
    clients = [Redis.from_url(redis_url) for _ in range(2)]
    wrong, right = (Budgets(client) for client in clients)
    number, begun, clock = uuid.uuid4().hex, time.monotonic(), time.time
    for budgets, error_s in ((wrong, wrong_by), (right, 0), (wrong, wrong_by), (right, 0)):
        monkeypatch.setattr(time, "time", lambda error_s=error_s: clock() + error_s)
        await asyncio.wait_for(budgets.acquire(number, 10, "marketing"), 30)
    assert time.monotonic() - begun >= 0.3, "each waits for the turn after the last"
    monkeypatch.setattr(time, "time", lambda: clock() + wrong_by)
    await wrong.slow_down(number)
    await wrong.hold(number, 0.5)
    monkeypatch.undo()
    rest = float(await clients[0].get(redis_keys.hold(number)) or 0) / 1e6 - clock()
    assert rest < 1, "the hold is no longer than it was to be"
    await asyncio.wait_for(right.acquire(number, 10, "marketing"), 30)
    for budgets in (wrong, right):
        await budgets.close()
    for client in clients:
        await client.aclose()


@pytest.mark.usefixtures("patient")
async def test_a_held_number_gives_nothing_away_in_any_process(redis_url: str) -> None:
    clients = [Redis.from_url(redis_url) for _ in range(2)]
    one, other = (Budgets(client) for client in clients)
    number = uuid.uuid4().hex
    await one.acquire(number, 1000, "utility")
    started = time.monotonic()
    await one.hold(number, 0.4)
    await other.acquire(number, 1000, "utility")
    assert time.monotonic() - started >= 0.39
    for budgets in (one, other):
        await budgets.close()
    for client in clients:
        await client.aclose()


@pytest.mark.usefixtures("patient")
async def test_whose_turn_never_comes_waits_elsewhere_and_gives_its_place_to_others(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "TURN_PATIENCE", timedelta(milliseconds=20))
    monkeypatch.setattr(budget, "LOOK_AGAIN_S", 0.05)
    client = Redis.from_url(redis_url)
    budgets, held, free = Budgets(client), uuid.uuid4().hex, uuid.uuid4().hex
    await budgets.hold(held, 60)
    waiting = [budgets.acquire(held, 1000, lane) for lane in ("marketing", "otp", "marketing")]
    ended = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 20)
    assert [type(one) for one in ended] == [TimeoutError] * 3
    await budgets.acquire(free, 1000, "marketing")
    await client.delete(redis_keys.hold(held))
    monkeypatch.setattr(budget, "TURN_PATIENCE", timedelta(minutes=2))
    await asyncio.wait_for(budgets.acquire(held, 1000, "marketing"), 20)
    await budgets.close()
    await client.aclose()


async def test_messages_go_on_at_their_rate_while_redis_is_away() -> None:
    client = Redis(host="127.0.0.1", port=1, socket_connect_timeout=0.2)
    budgets = Budgets(client)
    a_second = await taken_at([budgets], "somebody", 50, least=10, least_s=1.0)
    await budgets.close()
    await client.aclose()
    assert a_second <= 50
