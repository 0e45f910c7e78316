"""Everything at once, for longer: bad weather, kills of anything, people who stop, a campaign paused time and again."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from chaos.books import Campaign, begin
from chaos.harness import CHILDREN, Platform
from support import Tell

CONTACTS = 2000
KILLS = 25
STOPPED = 100


async def stop_some(campaign: Campaign, dice: random.Random) -> None:
    """Stop some enrolments, one after the other."""
    contacts = await campaign.tenant.ids("/contacts")
    for contact in dice.sample(contacts, STOPPED):
        await asyncio.sleep(dice.uniform(0, 0.6))
        status, answer = await campaign.tenant.patiently("POST", f"/contacts/{contact}/campaign/{campaign.id}/stop")
        assert status == 202, answer


async def hold_it_up(campaign: Campaign, dice: random.Random) -> None:
    """Pause and resume, at any moment, until cancelled."""
    while True:
        for what in ("pause", "resume"):
            status, answer = await campaign.tenant.patiently("POST", f"/campaigns/{campaign.id}/{what}")
            # 409: the answer to an earlier try got lost in a kill.
            assert status in (200, 409), answer
            await asyncio.sleep(dice.uniform(0, 1.5))


async def kill_anything(platform: Platform, dice: random.Random, tell: Tell) -> None:
    """Kill one server, or the whole process, again and again."""
    for number in range(1, KILLS + 1):
        await asyncio.sleep(dice.uniform(0.2, 2.0))
        name = dice.choice(["everything", *CHILDREN])
        if name == "everything":
            await platform.kill(all_at_once=dice.random() < 0.5)
            await platform.start()
        else:
            await platform.kill_server(name)
        tell(f"kill {number}: {name}")


@pytest.mark.long
@pytest.mark.timeout(800)
async def test_everything_at_once(
    platform: Platform, weather: list[dict[str, Any]], dice: random.Random, tell: Tell
) -> None:
    campaign = await begin(platform, CONTACTS, mps=120)
    campaign.lost = frozenset({"sent", "read"})
    await platform.gateway.put("faults", weather)
    await campaign.tenant.post(f"/campaigns/{campaign.id}/enroll", {"all": True})
    stopping = asyncio.create_task(stop_some(campaign, dice))
    pausing = asyncio.create_task(hold_it_up(campaign, dice))
    await kill_anything(platform, dice, tell)
    await stopping
    assert not pausing.done(), pausing
    pausing.cancel()
    await asyncio.gather(pausing, return_exceptions=True)
    status, answer = await campaign.tenant.patiently("POST", f"/campaigns/{campaign.id}/resume")
    assert status in (200, 409), answer
    books = await campaign.until_closed(400)
    tell(f"{KILLS} kills: {books.line()}")
    campaign.check(books)
    campaign.check_that_stop_wins(books)
    assert sum(one["status"] == "stopped" for one in books.enrollments) > STOPPED / 2
