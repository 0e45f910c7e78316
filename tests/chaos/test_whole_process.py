"""kill -9 of all of `harkara up`, again and again, while a campaign runs; and its orderly stop."""

from __future__ import annotations

import asyncio
import random
import time

import pytest
from chaos.books import Campaign, begin
from chaos.conftest import SPEED
from chaos.customers import Customers
from chaos.harness import Platform
from chaos.observed import once_it_answers
from support import Tell, quick_directory, until

#: How many are enrolled, and how often all is killed meanwhile.
SIZES = [
    pytest.param(1200, 5, id="5-kills"),
    pytest.param(2000, 10, marks=pytest.mark.long, id="10-kills"),
]

#: Messages a second: the campaign has to last longer than the kills.
MPS = 200


async def die_somewhere(platform: Platform, dice: random.Random) -> str:
    """Let it live for a random time from its start, kill it, and say how."""
    if dice.random() < 0.2:
        await asyncio.sleep(dice.uniform(0.1, 2.0))  # before it is ready, or just then
        how = "while it started"
    else:
        await platform.until_ready()
        await asyncio.sleep(dice.uniform(0.1, 3.5))
        how = "at work"
    all_at_once = dice.random() < 0.5
    await platform.kill(all_at_once=all_at_once)
    return f"{how}, {'with all its servers' if all_at_once else 'alone'}"


async def die_in_the_act(platform: Platform, campaign: Campaign, dice: random.Random) -> str:
    """Let it live until the gateway takes messages again, and kill it while answers are on their way."""
    await platform.until_ready()
    gateway, number = platform.gateway, campaign.phone_number_id
    before: list[int] = []

    async def takes_more() -> bool:
        accepted = len(await gateway.accepted(number))
        before[:] = before or [accepted]
        return accepted > before[0]

    await until(lambda: once_it_answers(takes_more), "messages leave again", 60)
    await asyncio.sleep(dice.uniform(0, 0.5))
    await platform.kill(all_at_once=dice.random() < 0.5)
    return "in the act"


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("contacts", "kills"), SIZES)
async def test_killed_at_random_it_sends_every_step_once(
    platform: Platform, dice: random.Random, tell: Tell, contacts: int, kills: int
) -> None:
    campaign = await begin(platform, contacts, mps=MPS)
    # Answers that take their time: at every kill some messages are accepted and nobody was told. And webhooks that come
    # when attempts without an answer have been given up: until then such a message is in doubt, and must not be resent.
    await platform.gateway.put("faults", [{"kind": "slow", "delay_ms": 150}])
    await platform.gateway.put("pace", {"sent_ms": 16_000})
    await campaign.tenant.post(f"/campaigns/{campaign.id}/enroll", {"all": True})
    codes = await campaign.tenant.sender(name="codes")
    customers = Customers([campaign.tenant], codes["id"])
    asking = asyncio.create_task(customers.ask_for_ever())
    await asyncio.sleep(1)
    for number in range(1, kills + 1):
        how = await (die_in_the_act(platform, campaign, dice) if number % 3 == 0 else die_somewhere(platform, dice))
        tell(f"kill {number} {how}")
        await platform.process.spawn()
    await platform.until_ready()
    assert not asking.done(), asking
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    funnel = await campaign.funnel()
    tell(f"after the last kill: {funnel['completed']} of {contacts} enrolments are completed")
    assert funnel["completed"] < contacts, "the campaign was over before the last kill: nothing was shown"
    books = await campaign.until_closed(150)
    tell(f"{kills} kills: {books.line()}")
    assert books.in_doubt, "no send was ambiguous: nothing was shown"
    campaign.check(books)
    campaign.check_that_all_completed(books)
    unknown = set(await campaign.tenant.ids("/messages?status=unknown"))
    customers.check(await platform.gateway.accepted(codes["phone_number_id"]), unknown)
    tell(f"{len(customers.answered)} codes were promised and sent meanwhile")


@pytest.mark.timeout(600)
async def test_killed_in_its_first_starts_it_starts(dice: random.Random, tell: Tell) -> None:
    """Nothing half made by a start that was killed is in the way of the next."""
    with quick_directory() as directory:
        platform = Platform(directory, speed=SPEED)
        try:
            for _ in range(8):
                await platform.process.spawn()
                after_s = dice.uniform(0.2, 3.0)
                await asyncio.sleep(after_s)
                assert platform.process.running, platform.process.output()[-2000:]
                await platform.kill(all_at_once=dice.random() < 0.5)
                tell(f"killed after {after_s:.1f} s")
            await platform.start()
            campaign = await begin(platform, 10, mps=100, steps=1)
            await campaign.tenant.post(f"/campaigns/{campaign.id}/enroll", {"all": True})
            campaign.check(await campaign.until_closed(30))
        finally:
            await platform.close()


@pytest.mark.timeout(600)
async def test_stopped_in_the_middle_it_leaves_nothing_in_doubt(
    platform: Platform, dice: random.Random, tell: Tell
) -> None:
    campaign = await begin(platform, 600, mps=100)
    await campaign.tenant.post(f"/campaigns/{campaign.id}/enroll", {"all": True})
    stops: list[float] = []
    for _ in range(2):
        await asyncio.sleep(dice.uniform(1, 4))
        began = time.monotonic()
        assert await platform.process.stop() == 0
        stops.append(time.monotonic() - began)
        await platform.start()
    assert not await campaign.ended(), "the campaign was over before it was stopped: nothing was shown"
    books = await campaign.until_closed(60)
    tell(f"stopped in {', '.join(f'{one:.1f} s' for one in stops)}: {books.line()}")
    campaign.check(books)
    campaign.check_that_all_completed(books)
    assert not books.unknown
    assert max(one["attempts"] for one in books.messages) == 1, "a message needed a second attempt"
