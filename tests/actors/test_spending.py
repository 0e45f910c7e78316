"""What one message counts against besides its number, on a real Valkey and with a clock that the test moves."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from redis.asyncio import Redis
from support import until

from harkara.actors import budget
from harkara.actors.air import Air
from harkara.actors.budget import Budgets, Place, Spending, _Number
from harkara.actors.budget_script import ONE_LESSON_US, PAIR_BURST, RECOVERS_US, SLOWER
from harkara.actors.learning import PACED_PER_S, learn
from harkara.actors.numbers import Number
from harkara.gateway.errors import rule_for
from harkara.gateway.protocol import Accepted, Credentials, Refused
from harkara.storage.sending import Denied

DAY_S = 86_400
FAST = 10_000.0


@dataclass
class Bank:
    """Several processes' budgets of one number, which has always enough left."""

    budgets: list[Budgets]
    time: list[float]
    number: str = field(default_factory=lambda: uuid4().hex)

    def __post_init__(self) -> None:
        self._turn = itertools.cycle(self.budgets)

    async def turn(self, **spending: object) -> Denied | Place | None:
        """One message's turn, each time in another process."""
        self.time[0] += 0.001  # the number itself has always a turn left
        spend = Spending(**{"to": "+911", "tenant": "t", **spending})  # type: ignore[arg-type]
        return await next(self._turn).acquire(self.number, FAST, "utility", spend)

    async def ask(self, **spending: object) -> Denied | None:
        """What keeps it back, if anything does."""
        turn = await self.turn(**spending)
        return turn if isinstance(turn, Denied) else None

    async def place(self, **spending: object) -> Place:
        """The place that it takes in its portfolio."""
        turn = await self.turn(**spending)
        assert isinstance(turn, Place)
        return turn

    async def reason(self, **spending: object) -> str | None:
        denied = await self.ask(**spending)
        return denied.reason if denied else None


@pytest.fixture
async def bank(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Bank]:
    # Redis is never taken for away because this machine is busy: there would be no budgets but the number's own.
    monkeypatch.setattr(budget, "PATIENCE_S", 60)
    clients = [Redis.from_url(redis_url) for _ in range(3)]
    time = [1_800_000_000.0]
    made = Bank([Budgets(client, lambda: time[0]) for client in clients], time)
    yield made
    for budgets in made.budgets:
        await budgets.close()
    for client in clients:
        await client.aclose()


async def test_a_pair_borrows_within_six_seconds_and_pays_it_back(bank: Bank) -> None:
    assert [await bank.reason(paired=True) for _ in range(20)] == [None] * 20
    bank.time[0] += 6
    denied = await bank.ask(paired=True)
    assert denied is not None
    assert denied.reason == "pair_limit"
    assert timedelta(seconds=20 * 6 - 7) < denied.after < timedelta(seconds=20 * 6.2 - 5)
    assert await bank.ask(paired=True, to="+912") is None  # others are not concerned
    bank.time[0] += denied.after.total_seconds()
    assert await bank.ask(paired=True) is None


async def test_a_pair_is_given_no_more_than_a_burst(bank: Bank) -> None:
    answers = [await bank.reason(paired=True) for _ in range(PAIR_BURST + 1)]
    assert answers == [None] * PAIR_BURST + ["pair_limit"]


async def test_a_number_without_the_rule_is_only_held_where_it_was_told_to_wait(bank: Bank) -> None:
    assert [await bank.reason() for _ in range(100)] == [None] * 100
    refused = Refused(131056, "pair rate limit hit", "", rule_for(131056))
    await learn(bank.budgets[0], bank.number, Spending(to="+911"), refused, timedelta(seconds=16))
    assert await bank.reason() == "pair_limit"
    assert await bank.reason(to="+912") is None
    bank.time[0] += 16
    assert await bank.reason() is None


async def test_whom_whatsapp_finds_written_to_too_fast_is_not_forgiven_what_is_owed(bank: Bank) -> None:
    for _ in range(20):
        assert await bank.ask(paired=True) is None
    await bank.budgets[0].hold_pair(bank.number, "+911", 1)
    denied = await bank.ask(paired=True)
    assert denied is not None  # neither is more borrowed within the same six seconds
    assert timedelta(seconds=110) < denied.after < timedelta(seconds=125)
    await bank.budgets[1].hold_pair(bank.number, "+911", 256)
    denied = await bank.ask(paired=True)
    assert denied is not None
    assert denied.after > timedelta(seconds=250)


async def test_a_portfolio_writes_first_to_so_many_people_a_day(bank: Bank) -> None:
    users = {"portfolio": uuid4().hex, "daily": 3}
    for phone in ("+911", "+912", "+913", "+911"):
        assert await bank.ask(to=phone, **users) is None
    denied = await bank.ask(to="+914", **users)
    assert denied is not None
    assert denied.reason == "portfolio_limit"
    assert timedelta(hours=23) < denied.after <= timedelta(hours=24)
    # Another number of the same portfolio has no more; somebody who wrote within a day is no new one; a reply is free.
    other = Bank(bank.budgets, bank.time)
    assert await other.reason(to="+914", **users) == "portfolio_limit"
    await bank.budgets[0].came_in([(bank.number, "+914", datetime.now(UTC))])
    assert await bank.ask(to="+914", **users) is None
    assert await bank.ask(to="+915") is None
    bank.time[0] += DAY_S
    assert await bank.ask(to="+916", **users) is None


async def test_what_is_told_late_opens_a_window_for_what_is_left_of_its_day(bank: Bank, redis_url: str) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    for hours in (20, 23.9, 23):  # in the order in which their webhooks come
        await bank.budgets[0].came_in([(bank.number, "+914", now - timedelta(hours=hours))])
    async with Redis.from_url(redis_url) as redis:
        assert await redis.expiretime(f"open:{bank.number}:+914") == int(now.timestamp()) + 4 * 3600
    await bank.budgets[0].came_in([(bank.number, "+915", now - timedelta(hours=25))])
    users = {"portfolio": uuid4().hex, "daily": 1}
    assert await bank.reason(to="+916", **users) is None
    assert await bank.reason(to="+914", **users) is None
    assert await bank.reason(to="+915", **users) == "portfolio_limit"


def test_a_template_is_paced_for_its_tenant_alone() -> None:
    credentials = Credentials(sender_id="s", phone_number_id="1", access_token="t", provider="cloud")
    number = Number(credentials, 80, portfolio="an account that anybody may name")
    spent = [number.spending(tenant, "+911", "welcome/en").template for tenant in ("acme", "globex", "acme")]
    assert spent[0] == spent[2] != spent[1]


async def test_a_place_is_given_back_by_whom_it_was_taken_for_unless_more_was_sent(bank: Bank) -> None:
    users = {"portfolio": uuid4().hex, "daily": 1}
    for _ in range(2):
        await bank.budgets[0].free(await bank.place(**users))
    assert not isinstance(await bank.turn(**users), Denied)
    assert await bank.reason(to="+912", **users) == "portfolio_limit"
    bank.time[0] += DAY_S + 1
    first = await bank.place(**users)
    bank.time[0] -= 0.001  # in the same microsecond
    assert await bank.turn(**users) is None, "the place is the first one's"
    await bank.budgets[0].free(first)
    assert await bank.reason(to="+912", **users) == "portfolio_limit", "the second may have arrived"
    # By a clock that is behind, too.
    bank.time[0] += DAY_S + 1
    first = await bank.place(**users)
    bank.time[0] -= 1
    assert await bank.turn(**users) is None
    await bank.budgets[0].free(first)
    assert await bank.reason(to="+912", **users) == "portfolio_limit"
    bank.time[0] += DAY_S + 2
    await bank.budgets[0].free(first)
    assert not isinstance(await bank.turn(to="+912", **users), Denied), "what is over is nobody's"
    await bank.budgets[0].free(first)
    assert await bank.reason(to="+911", **users) == "portfolio_limit"


async def test_what_is_kept_back_costs_the_others_nothing(bank: Bank) -> None:
    assert await bank.ask(paired=True) is None
    bank.time[0] += 5.6
    assert await bank.reason(paired=True, portfolio="p" + bank.number, daily=1) == "pair_limit"
    # The one place of the day was not spent on what could not go.
    assert await bank.ask(to="+912", portfolio="p" + bank.number, daily=1) is None


@pytest.mark.parametrize("status", ["held_for_quality_assessment", "paused"])
async def test_a_template_that_is_watched_leaves_slowly(bank: Bank, status: str) -> None:
    spending = Spending(template=uuid4().hex)
    assert await bank.ask(template=spending.template) is None
    held = Accepted("wamid.1", status)
    await learn(bank.budgets[0], bank.number, spending, held, timedelta())
    answers = [await bank.reason(template=spending.template) for _ in range(3)]
    assert answers == [None, "template_pace", "template_pace"]
    assert await bank.ask(template=uuid4().hex) is None
    bank.time[0] += 1 / PACED_PER_S
    assert await bank.ask(template=spending.template) is None


async def waits(bank: Bank, rate: float) -> float:
    """After how many seconds a number of this rate has a turn again, once one was asked for."""
    number = _Number(bank.number, bank.budgets[0]._script, lambda: bank.time[0], Air())
    number._rate = rate
    _, wait_s = await number._take([Spending(tenant="t")])
    return wait_s


async def test_a_number_that_was_too_fast_slows_down_and_recovers(bank: Bank) -> None:
    whole = await waits(bank, 10)
    refused = Refused(130429, "Rate limit hit", "", rule_for(130429))
    for _ in range(3):  # of the same moment: one lesson
        await learn(bank.budgets[0], bank.number, Spending(), refused, timedelta(seconds=1))
    bank.time[0] += 100  # a third of the way back
    share = SLOWER + 100e6 / RECOVERS_US
    assert await waits(bank, 10) == pytest.approx(whole / min(1, share), rel=0.05)
    bank.time[0] += RECOVERS_US / 1e6
    assert await waits(bank, 10) == pytest.approx(whole, rel=0.05)
    # The usage header teaches the same before anything is refused, however often it is said.
    for _ in range(5):
        bank.time[0] += ONE_LESSON_US / 1e6
        await learn(bank.budgets[0], bank.number, Spending(), Accepted("wamid.1", usage=95), timedelta())
    bank.time[0] += 1
    assert await waits(bank, 10) == pytest.approx(whole / SLOWER, rel=0.05)
    for _ in range(2):  # what is refused goes on from there, and the header doesn't take that back
        bank.time[0] += ONE_LESSON_US / 1e6
        await learn(bank.budgets[0], bank.number, Spending(), refused, timedelta(seconds=1))
    await learn(bank.budgets[0], bank.number, Spending(), Accepted("wamid.1", usage=95), timedelta())
    bank.time[0] += ONE_LESSON_US / 1e6
    await learn(bank.budgets[0], bank.number, Spending(), Accepted("wamid.1", usage=95), timedelta())
    bank.time[0] += 1
    assert await waits(bank, 10) == pytest.approx(whole / SLOWER**3, rel=0.05)


async def test_what_comes_in_uses_the_same_rate(bank: Bank) -> None:
    quiet = await waits(bank, 10)

    async def slower() -> bool:
        bank.time[0] += 10
        await bank.budgets[0].came_in([(bank.number, f"+91{n}", datetime.now(UTC)) for n in range(5)])
        return await waits(bank, 10) > 4 * quiet

    # What came in counts for a second, by the clock of Redis: on a busy machine that may be over before it is asked.
    await until(slower, "what came in is counted")


async def test_a_tenant_has_its_plans_rate_over_all_numbers(bank: Bank) -> None:
    tenant = uuid4().hex
    # So slow that Redis, whose clock the test does not move, forgets nothing meanwhile.
    spending = Spending(tenant=tenant, tenant_rate=0.01)
    other = uuid4().hex
    assert await bank.budgets[0].acquire(bank.number, 1.0, "utility", spending) is None
    waiting = asyncio.create_task(bank.budgets[1].acquire(other, 1.0, "utility", spending))
    free = Spending(tenant=uuid4().hex, tenant_rate=0.01)
    assert await bank.budgets[1].acquire(uuid4().hex, 1.0, "utility", free) is None
    assert not waiting.done()
    bank.time[0] += 101
    assert await asyncio.wait_for(waiting, 30) is None
