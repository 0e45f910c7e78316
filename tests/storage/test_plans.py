"""The actors' statements cost what their batch costs, however large the tables have grown since they were planned."""

import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from support import Database

from harkara.storage import receiving, sending
from harkara.storage.engine import BY_ID

ROWS = 20_000
BATCH = 200

#: Reading a row by its id touches some blocks of an index in every partition, and updating it some more.
MOST_BLOCKS_A_ROW = 60

TYPES = {
    "facts": "uuid[], text[], uuid[], uuid[], uuid[], uuid[]",
    "results": "uuid[], text[], text[], text[], text[], int[]",
    "advances": "uuid[], text[], uuid[], text[], text[], int[], uuid[], uuid[], timestamptz[]",
    "receipts": "uuid[], text[], text[], text[], timestamptz[], timestamptz[], timestamptz[], timestamptz[], int[],"
    " text[], text[], text[]",
}
STATEMENTS = {
    "facts": sending._FACTS,
    "results": sending._RESULTS,
    "advances": sending._ADVANCES,
    "receipts": receiving._RECEIPTS,
}

FILL = """
insert into tenants (id, name) values ('plans', 'plans');
insert into senders (id, tenant_id, name, provider, phone_number_id, verify_token, mps, "window", status)
  values (gen_random_uuid(), 'plans', 'n', 'sandbox', '1', 'v', 80, 'ignore', 'active');
insert into campaigns (id, tenant_id, name, type, sender_id, status, version_id, stop_on_reply)
  select gen_random_uuid(), 'plans', 'c', 'drip', id, 'active', gen_random_uuid(), true from senders
  where tenant_id = 'plans';
insert into campaign_versions (id, tenant_id, campaign_id, number)
  select version_id, 'plans', id, 1 from campaigns where tenant_id = 'plans';
insert into contacts (id, tenant_id, name, phone)
  select gen_random_uuid(), 'plans', 'n', '+9198' || (10000000 + i) from generate_series(1, $ROWS$) i;
insert into contact_campaign_progress (id, tenant_id, campaign_id, version_id, contact_id, started_at, next_message_id)
  select gen_random_uuid(), 'plans', c.id, c.version_id, k.id, now(),
         overlay(gen_random_uuid()::text placing left(app.uuid7_floor(now())::text, 15) from 1 for 15)::uuid
  from contacts k join campaigns c on c.tenant_id = k.tenant_id where k.tenant_id = 'plans';
insert into messages (id, tenant_id, contact_id, sender_id, enrollment_id, lane, "to", content, status, due_at)
  select p.next_message_id, 'plans', p.contact_id, c.sender_id, p.id, 'marketing', '+1', '{}', 'sending', now()
  from contact_campaign_progress p join campaigns c on c.id = p.campaign_id where p.tenant_id = 'plans';
"""


def values(name: str, messages: list[UUID], enrollments: list[UUID]) -> str:
    """The arguments of one statement for these rows, as SQL."""
    count = len(messages)
    tenant, nothing, later = ["plans"] * count, [None] * count, ["2026-01-01"] * count
    columns: dict[str, list[list[Any]]] = {
        "facts": [messages, tenant, messages, messages, messages, enrollments],
        "results": [messages, tenant, ["sent"] * count, ["w"] * count, nothing, nothing],
        "advances": [
            enrollments,
            tenant,
            messages,
            ["active"] * count,
            nothing,
            [1] * count,
            messages,
            messages,
            later,
        ],
        "receipts": [messages, tenant, ["sent"] * count, ["w"] * count, *[nothing] * 7, list(receiving.FORWARD)],
    }
    return ", ".join(
        f"array[{', '.join(map(literal, column))}]::{kind}"
        for column, kind in zip(columns[name], TYPES[name].split(","), strict=True)
    )


def literal(value: object) -> str:
    """A value as SQL."""
    return "null" if value is None else f"'{value}'"


@pytest.fixture
async def worker(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """A connection in an actor's batch, as the application makes it."""
    con = await asyncpg.connect(database.app_url)
    await con.execute(f"begin; set local app.tenant_ids = 'plans'; {BY_ID}")
    yield con
    await con.close()


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_plan_made_for_an_empty_table_still_serves_a_full_one(
    name: str, worker: asyncpg.Connection, stack: Any, database: Database
) -> None:
    await worker.execute(f"prepare {name} ({TYPES[name]}) as {STATEMENTS[name]}")
    await worker.execute(f"execute {name} ({values(name, [uuid4()], [uuid4()])})")
    await worker.execute("commit")

    admin = await asyncpg.connect(stack.database("postgres", "harkara"))
    try:
        if not await admin.fetchval("select 1 from tenants where id = 'plans'"):
            await admin.execute(FILL.replace("$ROWS$", str(ROWS)))
        rows = await admin.fetch("select id, enrollment_id from messages where tenant_id = 'plans' limit $1", BATCH)
    finally:
        await admin.close()

    await worker.execute(f"begin; set local app.tenant_ids = 'plans'; {BY_ID}")
    arguments = values(name, [row[0] for row in rows], [row[1] for row in rows])
    answer = await worker.fetchval(f"explain (analyze, buffers, format json) execute {name} ({arguments})")
    plan = json.loads(answer)[0]["Plan"]
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < BATCH * MOST_BLOCKS_A_ROW
