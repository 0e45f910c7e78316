"""The actors' statements cost what their batch costs, however large the tables have grown since they were planned."""

import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
from support import Database, NewDatabase

from harkara.storage import deferring, due, receiving, sending
from harkara.storage.engine import BY_ID
from harkara.storage.migrate import migrate

ROWS = 5_000
BATCH = 200

#: Reading a row by its id touches some blocks of an index in every partition, and updating it some more.
MOST_BLOCKS_A_ROW = 60

#: Each step of a plan handles it once.
MOST_ROWS_A_ROW = 30

TYPES = {
    "facts": "uuid[], text[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[], uuid[], text[]",
    "about_invoices": "uuid[], text[], uuid[], uuid[], uuid[], uuid[], text[], text[], text[], text[], uuid[], text[]",
    "deferrals": "uuid[], text[], uuid[], timestamptz[], timestamptz[]",
    "held": "uuid[], timestamptz[], interval[]",
    "parked": "uuid[], uuid[]",
    "results": "uuid[], text[], text[], text[], text[], int[], interval[], bool[],"
    " uuid[], text[], text[], int[], uuid[], uuid[], timestamptz[], uuid[]",
    "receipts": "uuid[], text[], text[], text[], timestamptz[], timestamptz[], timestamptz[], timestamptz[], int[],"
    " text[], text[], text[]",
}
#: The lane, the template and the delivery of each message.
FACTS_OF = ("marketing", "hello", "en", "at_most_once")

STATEMENTS = {
    "facts": sending._FACTS,
    "about_invoices": sending._FACTS,
    "deferrals": deferring._STEPS,
    "held": due._HOLD.replace("$3", "$3[1]"),
    "parked": due._PARK,
    "results": sending._RESULTS,
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
update contact_campaign_progress set next_step_id = next_message_id, next_claim_at = '2026-01-01'
  where tenant_id = 'plans';
insert into messages (id, tenant_id, contact_id, sender_id, enrollment_id, lane, "to", content, status, due_at)
  select p.next_message_id, 'plans', p.contact_id, c.sender_id, p.id, 'marketing', '+1', '{}', 'sending', now()
  from contact_campaign_progress p join campaigns c on c.id = p.campaign_id where p.tenant_id = 'plans';
insert into invoices (id, tenant_id, contact_id, number, amount, currency, due_at)
  select id, 'plans', contact_id, id, 100, 'INR', now() from messages where tenant_id = 'plans';
"""


def values(name: str, messages: list[UUID], enrollments: list[UUID]) -> str:
    """The arguments of one statement for these rows, as SQL."""
    count = len(messages)
    tenant, nothing, later = ["plans"] * count, [None] * count, ["2026-01-01"] * count
    facts: list[list[Any]] = [
        messages,
        tenant,
        messages,
        messages,
        messages,
        enrollments,
        *([word] * count for word in FACTS_OF),
    ]
    columns: dict[str, list[list[Any]]] = {
        "facts": [*facts, nothing, nothing],
        "about_invoices": [*facts, messages, ["+5511987654321"] * count],
        "deferrals": [enrollments, tenant, messages, later, later],
        "held": [enrollments, later, ["1 h"] * count],
        "parked": [enrollments, messages],
        "results": [
            messages,
            tenant,
            ["sent"] * count,
            ["w"] * count,
            nothing,
            nothing,
            nothing,
            [False] * count,
            enrollments,
            ["active"] * count,
            nothing,
            [1] * count,
            messages,
            messages,
            later,
            messages,
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


async def worker(database: Database) -> asyncpg.Connection:
    """A connection in an actor's batch, as the application makes it, with a plan for each statement."""
    con = await asyncpg.connect(database.app_url)
    await begin(con)
    for name, statement in STATEMENTS.items():
        await con.execute(f"prepare {name} ({TYPES[name]}) as {statement}")
        await con.execute(f"execute {name} ({values(name, [uuid4()], [uuid4()])})")
    await con.execute("commit")
    return con


async def begin(con: asyncpg.Connection) -> None:
    """A batch of the tenant's."""
    await con.execute(f"begin; set local app.tenant_ids = 'plans'; {BY_ID}")


def looked_at(plan: dict[str, Any]) -> int:
    """How many rows a plan handled, those too that it threw away: two loops in one another cost no block more."""
    thrown = ("Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck")
    own = (plan["Actual Rows"] + sum(plan.get(kind, 0) for kind in thrown)) * plan["Actual Loops"]
    return int(own) + sum(map(looked_at, plan.get("Plans", ())))


async def costs(con: asyncpg.Connection, rows: list[Any]) -> dict[str, tuple[int, int]]:
    """How many blocks and rows each statement reads for these messages and enrolments, by the plan that it has."""
    read: dict[str, tuple[int, int]] = {}
    for name in STATEMENTS:
        await begin(con)
        arguments = values(name, [row[0] for row in rows], [row[1] for row in rows])
        answer = await con.fetchval(f"explain (analyze, buffers, format json) execute {name} ({arguments})")
        await con.execute("rollback")
        plan = json.loads(answer)[0]["Plan"]
        read[name] = (plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], looked_at(plan))
    return read


async def test_a_plan_made_for_a_small_table_still_serves_a_full_one(new_database: NewDatabase, stack: Any) -> None:
    database = await new_database()
    await migrate(database.owner_url)
    admin = await asyncpg.connect(stack.database("postgres", database.owner_url.rpartition("/")[2].partition("?")[0]))
    empty = await worker(database)
    quiet: asyncpg.Connection | None = None
    try:
        await admin.execute(FILL.replace("$ROWS$", str(ROWS)))
        rows = list(
            await admin.fetch("select id, enrollment_id from messages where tenant_id = 'plans' limit $1", BATCH)
        )
        read = {f"{name}, planned when all was empty": count for name, count in (await costs(empty, rows)).items()}
        # Nearly all that there was is over, so that next to nothing is due; then it all begins again.
        await admin.execute("update contact_campaign_progress set status = 'completed', next_claim_at = null")
        await admin.execute("vacuum analyze contact_campaign_progress")
        await admin.execute("reindex index progress_due")
        quiet = await worker(database)
        await admin.execute("update contact_campaign_progress set status = 'active', next_claim_at = now()")
        read |= {f"{name}, planned when nothing was due": count for name, count in (await costs(quiet, rows)).items()}
    finally:
        for con in filter(None, (admin, empty, quiet)):
            await con.close()
    limits = BATCH * MOST_BLOCKS_A_ROW, BATCH * MOST_ROWS_A_ROW
    assert {name: cost for name, cost in read.items() if cost[0] > limits[0] or cost[1] > limits[1]} == {}


async def test_contacts_with_numbers_in_two_spellings_are_not_compared_each_with_each(
    new_database: NewDatabase, stack: Any
) -> None:
    database = await new_database()
    await migrate(database.owner_url)
    admin = await asyncpg.connect(stack.database("postgres", database.owner_url.rpartition("/")[2].partition("?")[0]))
    con = await asyncpg.connect(database.app_url)
    try:
        await admin.execute("insert into tenants (id, name) values ('plans', 'plans')")
        await con.execute("begin; set local app.tenant_ids = 'plans'")
        add = "insert into contacts (id, tenant_id, phone) select app.uuid7(), 'plans', $1 || (70000000 + i) from"
        for area in (11, 21):  # the first are planned for when there is nobody yet
            await con.execute(f"{add} generate_series(1, {BATCH}) i", f"+55{area}9")
        read = "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables where relname = 'contacts'"
        assert await con.fetchval(read) < 2 * BATCH * MOST_ROWS_A_ROW
    finally:
        await con.close()
        await admin.close()
