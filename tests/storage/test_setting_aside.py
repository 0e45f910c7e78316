"""Steps of a paused campaign are set aside; whoever resumes it at the same moment still finds them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from enrolled import Enrolled, enrolled
from support import NewTenant, until

from harkara.storage import due
from harkara.storage.pausing import take_up_again
from harkara.storage.storage import Storage

NEVER = datetime.max.replace(tzinfo=UTC)
SET_STATUS = "update campaigns set status = $2 where id = $1"


async def _claimed(storage: Storage, one: Enrolled) -> tuple[int, list[due.DueStep]]:
    """How many steps are taken, and those of them that belong to this enrolment and can be sent."""
    all_taken, mine, more = 0, list[due.DueStep](), True
    while more:  # other tests may have left more that is due than one claim takes
        taken, steps = await due.claim(storage, 1000, timedelta(), timedelta(minutes=5))
        mine += [step for step in steps if step.enrollment_id == str(one.id)]
        all_taken, more = all_taken + taken, taken > 0
    return all_taken, mine


async def _claim(storage: Storage, one: Enrolled) -> tuple[int, int]:
    """The same, and only how many."""
    taken, mine = await _claimed(storage, one)
    return taken, len(mine)


async def test_a_paused_campaigns_step_is_set_aside_and_taken_up_again(storage: Storage, new_tenant: NewTenant) -> None:
    one = await enrolled(storage, await new_tenant(), campaign_status="paused")
    taken, mine = await _claim(storage, one)
    assert taken >= 1, "it counts as taken, or a thousand of them would hold up all others for a tick"
    assert mine == 0
    assert (await one.row(storage)).next_claim_at == NEVER
    async with storage.batch((one.tenant,)) as con:
        await con.execute(SET_STATUS, one.campaign, "active")
        await take_up_again(con, one.campaign)
    assert (await _claim(storage, one))[1] == 1


async def test_a_claim_leaves_steps_alone_whose_campaign_is_being_resumed(
    storage: Storage, new_tenant: NewTenant
) -> None:
    one = await enrolled(storage, await new_tenant(), campaign_status="paused")
    async with storage.batch((one.tenant,)) as con:
        await con.execute(SET_STATUS, one.campaign, "active")
        await take_up_again(con, one.campaign)
        assert (await _claim(storage, one))[1] == 0  # for the claim it is still paused
    assert (await _claim(storage, one))[1] == 1


async def test_a_message_that_is_parked_while_its_campaign_is_resumed_comes_back(
    storage: Storage, new_tenant: NewTenant, admin: asyncpg.Connection
) -> None:
    one = await enrolled(storage, await new_tenant(), campaign_status="paused")

    async def waits() -> bool:
        return bool(await admin.fetchval("select exists (select from pg_locks where not granted)"))

    async with storage.batch((one.tenant,)) as con:
        await con.execute(SET_STATUS, one.campaign, "active")
        parking = asyncio.create_task(due.park(storage, [(one.tenant, one.id, one.message)]))
        await until(waits, "parking waits for the campaign")
        await take_up_again(con, one.campaign)
    await parking
    assert (await _claim(storage, one))[1] == 1


async def test_what_is_parked_stays_so_until_the_campaign_is_resumed(storage: Storage, new_tenant: NewTenant) -> None:
    one = await enrolled(storage, await new_tenant(), campaign_status="paused")
    await due.park(storage, [(one.tenant, one.id, one.message)])
    assert (await one.row(storage)).next_claim_at == NEVER


async def _leased(storage: Storage, one: Enrolled) -> list[due.Leased]:
    """Claim its step."""
    _, [step] = await _claimed(storage, one)
    assert (await one.row(storage)).next_claim_at == step.leased_until
    return [(one.tenant, one.id, step.leased_until)]


async def test_a_lease_is_lengthened(storage: Storage, new_tenant: NewTenant) -> None:
    one = await enrolled(storage, await new_tenant())
    leased = await _leased(storage, one)
    await due.hold(storage, leased, timedelta(hours=1))
    assert (await one.row(storage)).next_claim_at != leased[0][2]
    assert (await _claim(storage, one))[1] == 0


async def test_a_lease_is_given_back(storage: Storage, new_tenant: NewTenant) -> None:
    one = await enrolled(storage, await new_tenant())
    await due.release(storage, await _leased(storage, one))
    assert (await _claim(storage, one))[1] == 1


@pytest.mark.parametrize("in_s", [-1, 0.5, 10])
async def test_a_lease_moves_nothing_that_was_given_another_time_meanwhile(
    storage: Storage, new_tenant: NewTenant, in_s: float
) -> None:
    """Deferred or hurried, however soon it is to leave then: held, it would leave hours late."""
    one = await enrolled(storage, await new_tenant())
    leased = await _leased(storage, one)
    until = datetime.now(UTC) + timedelta(seconds=in_s)
    async with storage.tenant(one.tenant) as con:
        await con.execute(
            "update contact_campaign_progress set deferred_until = $2, next_claim_at = $2 where id = $1", one.id, until
        )
    await due.hold(storage, leased, timedelta(hours=6))
    await due.release(storage, leased)
    assert (await one.row(storage)).next_claim_at == until
