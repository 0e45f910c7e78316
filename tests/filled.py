"""A tenant with rows in every table there is, and what tables hold of it: `from filled import a_row_in_every_table`."""

from __future__ import annotations

import asyncpg

OF_TENANTS = """
select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
and not a.attisdropped order by 1
"""

_NEEDED = """
select a.attname::text as name, format_type(a.atttypid, null) as type from pg_attribute a
where a.attrelid = $1::text::regclass and a.attnum > 0 and not a.attisdropped and a.attnotnull and not a.atthasdef
"""

#: A value of each type, by the first word of its name.
_VALUES = {
    "uuid": "app.uuid7()",
    "character": "'INR'",
    "text": "md5(random()::text)",
    "jsonb": "'{}'",
    "integer": "1",
    "bigint": "1",
    "double": "1",
    "boolean": "false",
    "timestamp": "now()",
    "date": "now()",
    "bytea": "'x'",
}

#: Columns that take only some words.
_WORDS = {
    ("senders", "provider"): "'cloud'",
    ("senders", "status"): "'active'",
    ("tenant_users", "role"): "'agent'",
    ("campaigns", "type"): "'drip'",
    ("campaigns", "status"): "'draft'",
    ("messages", "status"): "'sent'",
    ("contact_campaign_progress", "status"): "'stopped'",
    ("imports", "status"): "'cancelled'",
    ("imports", "delimiter"): "','",
    ("leads", "stage"): "'new'",
    ("senders", "mps"): "1",
    ("senders", "window"): "'ignore'",
    ("messages", "lane"): "'utility'",
    # Whoever empties the outbox for all tenants meanwhile must find a stream for it.
    ("outbox", "subject"): "'t.filled.evt.lead.created'",
}


async def tables_of_tenants(con: asyncpg.Connection) -> list[str]:
    return [row[0] for row in await con.fetch(OF_TENANTS)]


async def a_row_in_every_table(admin: asyncpg.Connection, tenant: str, *, but: tuple[str, ...] = ()) -> None:
    """As the superuser, past foreign keys and triggers; only where there is none yet."""
    async with admin.transaction():
        await admin.execute("set local session_replication_role = replica")
        for table in await tables_of_tenants(admin):
            if table in but or await admin.fetchval(f"select count(*) from {table} where tenant_id = $1", tenant):
                continue
            values = {"tenant_id": f"'{tenant}'"}
            for column in await admin.fetch(_NEEDED, table):
                name, kind = column["name"], column["type"]
                plain = "'{}'" if kind.endswith("[]") else _VALUES[kind.partition(" ")[0]]
                values.setdefault(name, _WORDS.get((table, name), plain))
            names = ", ".join(f'"{name}"' for name in values)
            await admin.execute(f"insert into {table} ({names}) values ({', '.join(values.values())})")


async def held(admin: asyncpg.Connection, tenant: str) -> dict[str, list[str]]:
    """Every row of a tenant, as text, by table; and itself, and its people."""
    found: dict[str, list[str]] = {}
    for table in await tables_of_tenants(admin):
        rows = await admin.fetch(f"select t::text as row from {table} t where tenant_id = $1 order by 1", tenant)
        found[table] = [row["row"] for row in rows]
    people = "select u::text as row from users u where id in (select user_id from tenant_users where tenant_id = $1)"
    found["users"] = [row["row"] for row in await admin.fetch(f"{people} order by 1", tenant)]
    found["tenants"] = [
        row["row"] for row in await admin.fetch("select t::text as row from tenants t where id = $1", tenant)
    ]
    return found
