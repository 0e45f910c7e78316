"""What every table and function must have, read from the catalogue: one that is made tomorrow can't forget it."""

from __future__ import annotations

from typing import Any

import asyncpg
import pytest
from support import Database
from tortoise.context import TortoiseContext
from tortoise.migrations.autodetector import MigrationAutodetector

from harkara.storage.storage import tortoise_config

TABLES = """
select c.relname::text as name, c.relrowsecurity as secured, c.relforcerowsecurity as forced,
       pg_get_userbyid(c.relowner)::text as owner, c.relispartition as is_partition,
       exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped)
         as of_a_tenant
from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and c.relname <> 'tortoise_migrations'
"""

#: What a table's unique indexes and foreign keys are on, by the names of the columns in their order.
UNIQUE = """
select i.indexrelid::regclass::text as name, i.indrelid::regclass::text as table,
       array_agg(a.attname::text order by k.place) as columns
from pg_index i, unnest(i.indkey) with ordinality as k (number, place)
join pg_attribute a on a.attnum = k.number
where i.indisunique and i.indrelid = a.attrelid and i.indrelid::regclass::text = any($1) and k.place <= i.indnkeyatts
group by i.indexrelid, i.indrelid
"""

FOREIGN = """
select c.conname::text as name, c.conrelid::regclass::text as table, c.confrelid::regclass::text as parent,
       array_agg(a.attname::text order by k.place) as columns,
       array_agg(b.attname::text order by k.place) as parent_columns
from pg_constraint c, unnest(c.conkey, c.confkey) with ordinality as k (number, parent_number, place),
     pg_attribute a, pg_attribute b
where c.contype = 'f' and a.attrelid = c.conrelid and a.attnum = k.number
  and b.attrelid = c.confrelid and b.attnum = k.parent_number and c.conrelid::regclass::text = any($1)
group by c.oid, c.conname, c.conrelid, c.confrelid
"""

POLICIES = "select tablename::text as table, roles::text[], cmd, qual, with_check from pg_policies"


async def tables(owner: asyncpg.Connection) -> list[Any]:
    found = await owner.fetch(TABLES)
    assert len(found) > 15
    return list(found)


async def tenant_tables(owner: asyncpg.Connection) -> list[str]:
    return [table["name"] for table in await tables(owner) if table["of_a_tenant"] and not table["is_partition"]]


async def test_row_level_security_is_forced_on_every_table(owner: asyncpg.Connection) -> None:
    open_ = [table["name"] for table in await tables(owner) if not table["is_partition"] and not table["forced"]]
    assert open_ == []
    assert [table["name"] for table in await tables(owner) if not table["is_partition"] and not table["secured"]] == []


async def test_every_table_belongs_to_the_owner(owner: asyncpg.Connection) -> None:
    assert {table["owner"] for table in await tables(owner)} == {"harkara_owner"}


#: What the application is, and what it becomes for an actor's batch: both are bound by the same policies.
ROLES = ("harkara_app", "harkara_worker")


@pytest.mark.parametrize("role", ROLES)
async def test_every_tenants_table_has_the_tenants_policy_and_the_application_no_other(
    owner: asyncpg.Connection, role: str
) -> None:
    policies = await owner.fetch(POLICIES)
    for table in await tenant_tables(owner):
        ours = [policy for policy in policies if policy["table"] == table and role in policy["roles"]]
        assert [policy["cmd"] for policy in ours] == ["ALL"], table
        for text in (ours[0]["qual"], ours[0]["with_check"]):
            assert "tenant_id" in text, table
            assert "app.tenants()" in text, (table, text)


async def test_no_policy_is_for_everybody(owner: asyncpg.Connection) -> None:
    assert [policy["table"] for policy in await owner.fetch(POLICIES) if "public" in policy["roles"]] == []


async def test_unique_keys_begin_with_the_tenant(owner: asyncpg.Connection) -> None:
    """A key that spans tenants tells by its refusal what another tenant has. Ids are random, so theirs tell nothing."""
    names = await tenant_tables(owner)
    loose = [
        (key["table"], key["columns"])
        for key in await owner.fetch(UNIQUE, names)
        if key["columns"][0] != "tenant_id" and key["columns"] != ["id"]
    ]
    assert loose == []


async def test_foreign_keys_begin_with_the_tenant(owner: asyncpg.Connection) -> None:
    """They are checked without row-level security: one on an id alone would let a row point at another tenant's."""
    names = await tenant_tables(owner)
    loose = [
        key["name"]
        for key in await owner.fetch(FOREIGN, names)
        if key["parent"] in names and not (key["columns"][0] == key["parent_columns"][0] == "tenant_id")
    ]
    assert loose == []


async def test_every_tenants_row_belongs_to_a_tenant_that_exists(owner: asyncpg.Connection) -> None:
    names = await tenant_tables(owner)
    keys = await owner.fetch(FOREIGN, names)
    tied = {key["table"] for key in keys if key["parent"] == "tenants" and key["columns"] == ["tenant_id"]}
    assert tied == set(names)


async def test_every_column_that_names_a_row_of_the_tenants_is_a_foreign_key(owner: asyncpg.Connection) -> None:
    """`contact_id`, `sender_id` and the like: the parent must be there, and be the tenant's own."""
    names = await tenant_tables(owner)
    columns = await owner.fetch(
        "select table_name::text as table, column_name::text as column from information_schema.columns"
        " where table_name = any($1) and column_name like '%\\_id' and data_type = 'uuid'",
        names,
    )
    tied = {(key["table"], column) for key in await owner.fetch(FOREIGN, names) for column in key["columns"]}
    assert {(one["table"], one["column"]) for one in columns} - tied == LOOSE


#: Columns without a foreign key, each for a reason: a message outlives its number, its campaign and the
#: invoice it is for; what comes next in an enrolment is written before its parent is, or belongs to a version that is
#: checked by `version_id`; the audit log remembers who did something after they are gone; what a contact is found by is
#: kept by triggers; a small import leaves no row of its own; an alert is an event.
LOOSE = {
    ("audit_log", "user_id"),
    ("audit_log", "api_key_id"),
    ("campaigns", "version_id"),
    ("campaign_steps", "campaign_id"),
    ("contact_campaign_progress", "next_message_id"),
    ("contact_campaign_progress", "next_step_id"),
    ("contact_terms", "contact_id"),
    ("contacts", "import_id"),
    ("messages", "campaign_id"),
    ("messages", "enrollment_id"),
    ("messages", "invoice_id"),
    ("messages", "sender_id"),
    ("messages", "step_id"),
    ("senders", "alert_id"),
    ("templates", "alert_id"),
    ("media", "reply_id"),
    ("replies", "sender_id"),
    ("replies", "message_id"),
    ("replies", "campaign_id"),
    ("replies", "step_id"),
}


#: Tables whose changes the audit log doesn't take down by itself, each for a reason.
NOT_AUDITED = {
    "audit_log": "is the audit log",
    "media": "come with replies; actors fetch them, and people only read them",
    "contact_holds": "keep messages back for a moment, until what was asked for is done and noted",
    "contact_terms": "is kept by triggers, from what is noted",
    "import_chunks": "come with an import, which is noted, and go when their contacts, which are noted too, are stored",
    "import_faults": "come with an import, which is noted",
    "lead_changes": "are themselves notes of who changed what",
    "outbox": "holds events for a moment",
    "idempotency_keys": "remembers requests, whose effects are noted",
    "messages": "actors write them; the command that asked for one is noted by the dispatcher",
    "contact_campaign_progress": "moves with every message; the command that asked for it is noted by its actor",
    "monthly_usage": "counts messages; what asked for one is noted by its actor",
    "usage_by_category": "counts what WhatsApp charges for",
    "suppressions": "are kept by triggers, from what is noted, for numbers that are nobody's",
    "templates": "are WhatsApp's: nobody changes them here",
    "replies": "come from contacts, and nobody changes them",
}


async def test_what_people_change_in_a_tenants_table_is_audited(owner: asyncpg.Connection) -> None:
    """A new table needs `audited(…)` from `harkara/storage/tenancy.py` in its migration, or a reason above."""
    found = await owner.fetch(
        "select tgrelid::regclass::text as table, tgname::text as name from pg_trigger where tgname like 'audited\\_%'"
    )
    events = {f"audited_{event}" for event in ("insert", "update", "delete")}
    audited = {one["table"] for one in found}
    assert all({one["name"] for one in found if one["table"] == table} == events for table in audited)
    assert set(await tenant_tables(owner)) - audited == set(NOT_AUDITED)
    assert {"tenants", "users"} <= audited


#: Words in the names of columns that hold what must not be seen in the audit log.
SECRET = ("secret", "token", "hash", "password", "code")

#: Columns with such a word that hold no secret.
NOT_SECRET = {("senders", "error_code")}


async def test_the_audit_log_never_sees_a_secret(owner: asyncpg.Connection) -> None:
    """A column that sounds like a secret is masked where its table is audited."""
    found = await owner.fetch(
        "select distinct a.attrelid::regclass::text as table, a.attname::text as column,"
        " encode(t.tgargs, 'escape') as arguments"
        " from pg_trigger t join pg_attribute a on a.attrelid = t.tgrelid"
        " where t.tgname like 'audited\\_%' and a.attnum > 0 and not a.attisdropped"
    )
    bare = {
        (one["table"], one["column"])
        for one in found
        if any(word in one["column"] for word in SECRET) and one["column"] not in one["arguments"].split("\\000")[3:]
    }
    assert bare - NOT_SECRET == set()


@pytest.mark.parametrize("role", ROLES)
async def test_the_audit_log_can_only_be_added_to(owner: asyncpg.Connection, role: str) -> None:
    granted = await owner.fetch(
        "select privilege_type as what from information_schema.role_table_grants"
        " where grantee = $1 and table_name = 'audit_log'",
        role,
    )
    assert {one["what"] for one in granted} == {"SELECT", "INSERT"}


@pytest.mark.parametrize("role", ROLES)
async def test_the_application_may_only_read_and_write_rows(owner: asyncpg.Connection, role: str) -> None:
    granted = await owner.fetch(
        "select table_name::text as table, privilege_type as what from information_schema.role_table_grants"
        " where grantee = $1 and table_schema = 'public'",
        role,
    )
    assert granted
    assert {one["what"] for one in granted} <= {"SELECT", "INSERT", "UPDATE", "DELETE"}
    partitions = {table["name"] for table in await tables(owner) if table["is_partition"]}
    assert partitions
    assert {one["table"] for one in granted} & partitions == set(), "a partition's policies are its parent's"


async def test_functions_that_see_across_tenants_cannot_be_led_astray(owner: asyncpg.Connection) -> None:
    functions = await owner.fetch(
        "select p.oid::regprocedure::text as name, p.prosecdef as definer, p.proconfig::text[] as config,"
        " has_function_privilege('public', p.oid, 'execute') as public"
        " from pg_proc p where p.pronamespace = 'app'::regnamespace"
    )
    assert len(functions) > 10
    assert [one["name"] for one in functions if one["public"]] == []
    loose = [
        one["name"]
        for one in functions
        if one["definer"] and not any("search_path=public, pg_temp" in text for text in one["config"] or ())
    ]
    assert loose == []


@pytest.mark.parametrize("name", ROLES)
async def test_the_applications_roles_are_ordinary_ones(owner: asyncpg.Connection, name: str) -> None:
    role = await owner.fetchrow("select * from pg_roles where rolname = $1", name)
    assert role is not None
    powers = ("rolsuper", "rolbypassrls", "rolcreaterole", "rolcreatedb", "rolreplication")
    assert [power for power in powers if role[power]] == []
    memberships = await owner.fetch(
        "select roleid::regrole::text from pg_auth_members where member = $1::regrole", name
    )
    assert [row[0] for row in memberships] == (["harkara_worker"] if name == "harkara_app" else [])


async def test_nobody_logs_in_as_the_worker(owner: asyncpg.Connection) -> None:
    assert not await owner.fetchval("select rolcanlogin from pg_roles where rolname = 'harkara_worker'")


async def test_the_application_carries_the_workers_policies_only_while_it_is_the_worker(
    owner: asyncpg.Connection,
) -> None:
    inherits = "select pg_has_role('harkara_app', 'harkara_worker', $1)"
    assert await owner.fetchval(inherits, "member")
    assert not await owner.fetchval(inherits, "usage")


async def test_models_and_migrations_agree(database: Database) -> None:
    config = tortoise_config(database.owner_url, pool=1, engine="tortoise.backends.asyncpg")
    async with TortoiseContext() as context:
        await context.init(config=config)
        assert context.apps is not None
        detector: Any = MigrationAutodetector(context.apps, config["apps"])
        changes = [str(change.operations) for change in await detector.changes()]
    assert changes == []


@pytest.mark.parametrize("table", ["messages", "audit_log"])
@pytest.mark.parametrize("months", [-1, 0, 1, 3])
async def test_there_is_a_partition_for_every_month_that_matters(
    owner: asyncpg.Connection, months: int, table: str
) -> None:
    # From the month in which they were made: the ticker makes more when the next one comes.
    made = "(select max(applied_at) from tortoise_migrations)"
    day = await owner.fetchval(f"select to_char({made} + make_interval(months => $1), 'YYYYMM')", months)
    assert await owner.fetchval("select to_regclass($1 || '_' || $2) is not null", table, day)


async def test_messages_have_room_to_be_changed_where_they_lie_and_notes_waste_none(owner: asyncpg.Connection) -> None:
    """Receipts write a message anew two or three times: without room on its page that is an entry in every index."""
    rooms = await owner.fetch(
        "select p.relname::text as parent, c.reloptions from pg_inherits i join pg_class c on c.oid = i.inhrelid"
        " join pg_class p on p.oid = i.inhparent where p.relname in ('messages', 'audit_log') and c.relkind = 'r'"
    )
    assert {(one["parent"], *one["reloptions"]) for one in rooms} == {
        ("messages", "fillfactor=50"),
        ("audit_log", "fillfactor=100"),
    }
