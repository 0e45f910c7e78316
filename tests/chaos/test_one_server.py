"""kill -9 of one server at a time, while the platform stays up and a campaign runs."""

from __future__ import annotations

import asyncio
import random

import pytest
from chaos.books import Books, Campaign, begin
from chaos.harness import Platform
from support import Tell

pytestmark = pytest.mark.timeout(400)

CONTACTS = 250
KILLS = 3
MPS = 100


async def run_while_killing(
    platform: Platform, campaign: Campaign, names: list[str], dice: random.Random, tell: Tell
) -> Books:
    """Enrol all, kill these servers at random moments, and wait until the books can be closed."""
    await campaign.tenant.post(f"/campaigns/{campaign.id}/enroll", {"all": True})
    for name in names:
        await asyncio.sleep(dice.uniform(0.3, 2.0))
        await platform.kill_server(name)
    assert not await campaign.ended(), "the campaign was over before the last kill: nothing was shown"
    books = await campaign.until_closed(150)
    tell(f"{len(names)} kills: {books.line()}")
    campaign.check(books)
    campaign.check_that_all_completed(books)
    return books


@pytest.mark.parametrize("name", ["nats", "postgres", "valkey"])
async def test_whatever_is_killed_nothing_comes_into_doubt(
    standing: Platform, name: str, dice: random.Random, tell: Tell
) -> None:
    """The sender itself lives on, so it knows what became of each request."""
    campaign = await begin(standing, CONTACTS, mps=MPS)
    books = await run_while_killing(standing, campaign, [name] * KILLS, dice, tell)
    assert not books.unknown


async def test_a_killed_gateway_leaves_only_what_was_in_the_air_in_doubt(
    standing: Platform, dice: random.Random, tell: Tell
) -> None:
    campaign = await begin(standing, CONTACTS, mps=MPS)
    books = await run_while_killing(standing, campaign, ["gateway"] * KILLS, dice, tell)
    assert len(books.unknown) < KILLS * MPS / 4
