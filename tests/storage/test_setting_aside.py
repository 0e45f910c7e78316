"""Steps of a paused campaign are set aside; whoever resumes it at the same moment still finds them."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
from enrolled import Enrolled, enrolled
from support import NewTenant, until

from harkara.http.campaigns import TAKE_UP_AGAIN
from harkara.storage import due
from harkara.storage.storage import Storage

NEVER = datetime.max.replace(tzinfo=UTC)
SET_STATUS = "update campaigns set status = $2 where id = $1"


async def _claim(storage: Storage, one: Enrolled) -> tuple[int, int]:
    """How many steps are taken, and how many of them belong to this enrolment and can be sent."""
    taken, steps = await due.claim(storage, 1000, timedelta(), timedelta(seconds=20))
    return taken, sum(step.enrollment_id == str(one.id) for step in steps)


async def test_a_paused_campaigns_step_is_set_aside_and_taken_up_again(storage: Storage, new_tenant: NewTenant) -> None:
    one = await enrolled(storage, await new_tenant(), campaign_status="paused")
    taken, mine = await _claim(storage, one)
    assert taken >= 1, "it counts as taken, or a thousand of them would hold up all others for a tick"
    assert mine == 0
    assert (await one.row(storage)).next_claim_at == NEVER
    async with storage.batch((one.tenant,)) as con:
        await con.execute(SET_STATUS, one.campaign, "active")
        await con.execute(TAKE_UP_AGAIN, one.campaign)
    assert (await _claim(storage, one))[1] == 1


async def test_a_claim_leaves_steps_alone_whose_campaign_is_being_resumed(
    storage: Storage, new_tenant: NewTenant
) -> None:
    one = await enrolled(storage, await new_tenant(), campaign_status="paused")
    async with storage.batch((one.tenant,)) as con:
        await con.execute(SET_STATUS, one.campaign, "active")
        await con.execute(TAKE_UP_AGAIN, one.campaign)
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
        await con.execute(TAKE_UP_AGAIN, one.campaign)
    await parking
    assert (await _claim(storage, one))[1] == 1


async def test_what_is_parked_stays_so_until_the_campaign_is_resumed(storage: Storage, new_tenant: NewTenant) -> None:
    one = await enrolled(storage, await new_tenant(), campaign_status="paused")
    await due.park(storage, [(one.tenant, one.id, one.message)])
    assert (await one.row(storage)).next_claim_at == NEVER


async def test_a_lease_is_lengthened_and_given_back(storage: Storage, new_tenant: NewTenant) -> None:
    one = await enrolled(storage, await new_tenant())
    waiting = [(one.tenant, one.id, one.message)]
    await due.hold(storage, waiting, timedelta(hours=1))
    assert (await _claim(storage, one))[1] == 0
    await due.release(storage, waiting)
    assert (await _claim(storage, one))[1] == 1
