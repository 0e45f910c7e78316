"""Results wait for whoever changes the same rows, see what that was, and never deadlock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
from enrolled import Enrolled, enrolled
from support import NewTenant, waited_for

from harkara.ids import uuid7
from harkara.storage import sending
from harkara.storage.sending import Advance, Attempt, Intent, Result
from harkara.storage.storage import Storage

#: Whether a row is locked: to lock it as well would mean to wait.
IS_LOCKED = "select count(*) = 0 from (select from {} where id = $1 for update skip locked) found"

MESSAGE = "update contact_campaign_progress set next_message_id = $2 where id = $1"


def intent(one: Enrolled) -> Intent:
    """It leaves now."""
    attempt = Attempt(
        message_id=one.message,
        tenant=one.tenant,
        contact_id=one.contact,
        sender_id=one.sender,
        campaign_id=one.campaign,
        enrollment_id=one.id,
        step=0,
        lane="marketing",
        to="+919876543210",
        content="{}",
        cause="",
        due_at=datetime.now(UTC),
    )
    return Intent(attempt, "sending", None, "at_most_once")


def result(one: Enrolled) -> Result:
    """It was sent, and was the last step."""
    advance = Advance(one.id, "completed", step=1, after=one.step)
    return Result(one.message, one.tenant, "sent", f"wamid.{one.message}", advance=advance)


async def sending_three(
    storage: Storage, new_tenant: NewTenant, admin: asyncpg.Connection
) -> tuple[list[Enrolled], Callable[[], Coroutine[Any, Any, None]]]:
    """Three enrolments whose messages are leaving, and sort the other way round; and what writes their results."""
    now = datetime.now(UTC)
    several = [await enrolled(storage, await new_tenant()) for _ in range(3)]
    several = [replace(one, message=uuid7(now - timedelta(seconds=n))) for n, one in enumerate(several)]
    for one in several:
        await admin.execute(MESSAGE, one.id, one.message)
    of = {one.tenant for one in several}
    async with storage.batch(of) as con:
        await sending.intend(con, [intent(one) for one in several])

    async def finish() -> None:
        async with storage.batch(of) as con:
            await sending.finish(con, [result(one) for one in (several[1], several[2], several[0])])

    return several, finish


@pytest.mark.parametrize("table", ["messages", "contact_campaign_progress"])
async def test_a_batch_that_waits_for_a_row_has_those_of_smaller_ids(
    storage: Storage, new_tenant: NewTenant, admin: asyncpg.Connection, table: str
) -> None:
    several, finish = await sending_three(storage, new_tenant, admin)
    ids = sorted(one.message if table == "messages" else one.id for one in several)
    async with admin.transaction():
        await admin.execute(f"select from {table} where id = $1 for update", ids[1])
        finishing = asyncio.create_task(finish())
        await waited_for(admin)
        locked = [await admin.fetchval(IS_LOCKED.format(table), id_) for id_ in (ids[0], ids[2])]
    await finishing
    assert locked == [True, False]
    assert [(await one.row(storage)).status for one in several] == ["completed"] * 3


async def test_an_enrolment_that_is_stopped_while_results_wait_for_it_stays_stopped(
    storage: Storage, new_tenant: NewTenant, admin: asyncpg.Connection
) -> None:
    several, finish = await sending_three(storage, new_tenant, admin)
    async with admin.transaction():
        await admin.execute("update contact_campaign_progress set status = 'stopped' where id = $1", several[1].id)
        finishing = asyncio.create_task(finish())
        await waited_for(admin)
    await finishing
    rows = [await one.row(storage) for one in several]
    assert [row.status for row in rows] == ["completed", "stopped", "completed"]
    assert [(row.messages_sent, row.next_message_id) for row in rows] == [(1, None)] * 3


async def test_an_enrolment_that_is_moved_on_while_results_wait_for_it_stays_where_it_is(
    storage: Storage, new_tenant: NewTenant, admin: asyncpg.Connection
) -> None:
    several, finish = await sending_three(storage, new_tenant, admin)
    another = uuid7()
    async with admin.transaction():
        await admin.execute(MESSAGE, several[1].id, another)
        finishing = asyncio.create_task(finish())
        await waited_for(admin)
    await finishing
    rows = [await one.row(storage) for one in several]
    assert [row.status for row in rows] == ["completed", "active", "completed"]
    assert (rows[1].messages_sent, rows[1].next_message_id) == (0, another)


async def test_a_receipt_that_comes_while_results_wait_for_its_message_counts(
    storage: Storage, new_tenant: NewTenant, admin: asyncpg.Connection
) -> None:
    several, finish = await sending_three(storage, new_tenant, admin)
    async with admin.transaction():
        await admin.execute(
            "update messages set status = 'delivered', wamid = 'wamid.1' where id = $1", several[1].message
        )
        finishing = asyncio.create_task(finish())
        await waited_for(admin)
    await finishing
    assert [(await one.row(storage)).status for one in several] == ["completed"] * 3
    found = await admin.fetchrow("select status, wamid, sent_at from messages where id = $1", several[1].message)
    assert found is not None
    assert (found["status"], found["wamid"]) == ("delivered", "wamid.1")
    assert found["sent_at"] is not None
