"""kill -9 of one server at a time, while the platform stays up and a campaign runs."""

from __future__ import annotations

import asyncio
import random

import pytest
from chaos.books import Books, begin
from chaos.harness import Platform
from support import Tell

pytestmark = pytest.mark.timeout(600)

CONTACTS = 250
KILLS = 3
MPS = 100


#: On a busy machine a campaign may be over before the last kill, and has shown little.
TRIES = 3


async def run_while_killing(platform: Platform, name: str, dice: random.Random, tell: Tell) -> Books:
    """Enrol all, kill this server at random moments, and wait until the books can be closed."""
    for _ in range(TRIES):
        campaign = await begin(platform, CONTACTS, mps=MPS)
        await campaign.tenant.post(f"/campaigns/{campaign.id}/enroll", {"all": True})
        for _ in range(KILLS):
            await asyncio.sleep(dice.uniform(0.3, 2.0))
            await platform.kill_server(name)
        went_on = not await campaign.ended()
        books = await campaign.until_closed(150)
        tell(f"{KILLS} kills: {books.line()}")
        campaign.check(books)
        campaign.check_that_all_completed(books)
        if went_on:
            return books
    pytest.fail("each campaign was over before the last kill: nothing was shown")


@pytest.mark.parametrize("name", ["nats", "postgres", "valkey"])
async def test_whatever_is_killed_nothing_comes_into_doubt(
    standing: Platform, name: str, dice: random.Random, tell: Tell
) -> None:
    """The sender itself lives on, so it knows what became of each request."""
    assert not (await run_while_killing(standing, name, dice, tell)).unknown


async def test_a_killed_gateway_leaves_only_what_was_in_the_air_in_doubt(
    standing: Platform, dice: random.Random, tell: Tell
) -> None:
    books = await run_while_killing(standing, "gateway", dice, tell)
    assert len(books.unknown) < KILLS * MPS / 4
