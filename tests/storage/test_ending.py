"""A tenant's rows are taken out whole, from whatever tables there are, by nobody but the owner, and nobody else's."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg
import pytest
from filled import a_row_in_every_table, held, tables_of_tenants
from support import Database, NewTenant, until
from tortoise.exceptions import IntegrityError

from harkara.ids import uuid7
from harkara.storage import ending
from harkara.storage.models import Contact
from harkara.storage.storage import Storage, StorageError

_WAITS = """
select exists (select from pg_stat_activity where wait_event_type = 'Lock' and query like 'delete from tenants%')
"""


@pytest.fixture
async def con(database: Database) -> AsyncIterator[asyncpg.Connection]:
    async with ending.owner(database.owner_url) as opened:
        yield opened


async def contacts(storage: Storage, tenant: str, count: int) -> None:
    async with storage.tenant(tenant):
        await Contact.bulk_create([Contact(name=f"Person {n}", phone=f"+9198{n:08d}") for n in range(count)])


async def member(admin: asyncpg.Connection, tenant: str, user: object) -> None:
    """Make somebody a member, whoever else's they are."""
    await admin.execute(
        "insert into tenant_users (id, tenant_id, user_id, role, is_active) values ($1, $2, $3, 'agent', true)",
        uuid7(), tenant, user,
    )  # fmt: skip


async def owner_of(admin: asyncpg.Connection, tenant: str) -> object:
    return await admin.fetchval("select user_id from tenant_users where tenant_id = $1", tenant)


async def erase(con: asyncpg.Connection, tenant: str) -> Counter[str]:
    """All rows; how many of each table."""
    gone: Counter[str] = Counter()
    await ending.mark(con, tenant)
    await ending.rows(con, tenant, lambda table, count: gone.update({table: count}))
    return gone


async def test_nothing_of_it_is_left_in_any_table_and_the_other_is_as_before(
    con: asyncpg.Connection, admin: asyncpg.Connection, storage: Storage, new_tenant: NewTenant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(ending, "CHUNK", 10)
    ours, theirs = await new_tenant(), await new_tenant()
    for tenant in (ours, theirs):
        await contacts(storage, tenant, 35)
        await a_row_in_every_table(admin, tenant)
    await member(admin, theirs, await owner_of(admin, ours))
    before = await held(admin, theirs)
    mine = await held(admin, ours)
    assert [table for table, rows in mine.items() if not rows] == []
    gone = await erase(con, ours)
    assert {table: rows for table, rows in (await held(admin, ours)).items() if rows} == {}
    assert await held(admin, theirs) == before
    assert gone["contacts"] == 35
    assert {table for table, count in gone.items() if not count} <= {"users", "contact_terms"}


async def test_who_is_a_member_of_nobody_elses_goes_with_it(
    con: asyncpg.Connection, admin: asyncpg.Connection, new_tenant: NewTenant
) -> None:
    ours, theirs = await new_tenant(), await new_tenant()
    mine, shared = await owner_of(admin, ours), await owner_of(admin, theirs)
    await member(admin, ours, shared)
    for user in (mine, shared):
        await admin.execute(
            "insert into refresh_tokens (id, user_id, family, expires_at) values ($1, $2, $1, now())", uuid7(), user
        )
    assert (await erase(con, ours))["users"] == 1
    for table, column in (("users", "id"), ("refresh_tokens", "user_id")):
        left = await admin.fetch(f"select {column} from {table} where {column} = any ($1)", [mine, shared])
        assert [row[0] for row in left] == [shared]


async def test_one_that_is_not_ending_keeps_its_rows(
    con: asyncpg.Connection, admin: asyncpg.Connection, storage: Storage, new_tenant: NewTenant
) -> None:
    tenant = await new_tenant()
    await contacts(storage, tenant, 1)
    before = await held(admin, tenant)
    with pytest.raises(StorageError, match="is not ending"):
        await ending.rows(con, tenant, lambda *_: None)
    # Nor may it be marked and emptied in one go, or let in again while it is emptied.
    await (transaction := con.transaction()).start()
    await con.execute("insert into tombstones (id) values ($1)", tenant)
    with pytest.raises(asyncpg.RaiseError, match="is not ending"):
        await con.execute("select app.erasing($1)", tenant)
    await transaction.rollback()
    assert await held(admin, tenant) == before
    await ending.mark(con, tenant)
    with pytest.raises(asyncpg.UniqueViolationError, match="was erased"):
        await con.execute("update tenants set is_active = true where id = $1", tenant)


async def test_the_application_can_erase_nobody(
    con: asyncpg.Connection, app: asyncpg.Connection, new_tenant: NewTenant
) -> None:
    tenant = await new_tenant()
    await ending.mark(con, tenant)
    for role in ("harkara_app", "harkara_worker"):
        await app.execute(f"set role {role}")
        for tried in (
            "select app.erasing($1)",
            "select from tombstones where id = $1",
            "delete from tenants where id = $1",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await app.execute(tried, tenant)


async def test_its_id_becomes_no_others(con: asyncpg.Connection, storage: Storage, new_tenant: NewTenant) -> None:
    tenant = await new_tenant()

    async def sign_up() -> None:
        async with storage.anonymous() as anonymous:
            signup = "select app.signup($1, $1, $2, $3, 'no password', $4)"
            await anonymous.execute(signup, tenant, uuid7(), f"{uuid7()}@example.org", uuid7())

    await ending.mark(con, tenant)
    for _ in range(2):
        with pytest.raises(asyncpg.UniqueViolationError) as refused:
            await sign_up()
        assert refused.value.table_name == "tenants"
        await ending.rows(con, tenant, lambda *_: None)
    assert (await ending.known(con, tenant)) == ending.Known(there=False, marked=True, erased_at=None)


async def test_what_was_interrupted_goes_on(
    con: asyncpg.Connection, admin: asyncpg.Connection, storage: Storage, new_tenant: NewTenant, database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(ending, "CHUNK", 5)
    tenant = await new_tenant()
    await contacts(storage, tenant, 40)
    await a_row_in_every_table(admin, tenant)
    await ending.mark(con, tenant)
    reached = asyncio.Event()
    async with ending.owner(database.owner_url) as first:
        running = asyncio.create_task(
            ending.rows(first, tenant, lambda table, count: reached.set() if table == "contacts" else None)
        )
        await reached.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert len((await held(admin, tenant))["contacts"]) in range(1, 40)
    await erase(con, tenant)
    assert not any((await held(admin, tenant)).values())
    assert not (await erase(con, tenant)).total(), "doing it again must be harmless"


async def test_who_still_writes_is_waited_for_and_then_refused(
    con: asyncpg.Connection, admin: asyncpg.Connection, storage: Storage, new_tenant: NewTenant
) -> None:
    """A transaction that has begun is seen and its row taken out; one that comes later finds no tenant."""
    tenant = await new_tenant()
    await ending.mark(con, tenant)
    async with storage.tenant(tenant):
        await Contact.create(name="On its way", phone="+919876543210")
        erasing = asyncio.create_task(ending.rows(con, tenant, lambda *_: None))
        await until(lambda: admin.fetchval(_WAITS), "it waits for the one who writes", every=0.01)
    await erasing
    assert not any((await held(admin, tenant)).values())
    with pytest.raises(IntegrityError, match="contacts_tenant_fk"):
        async with storage.tenant(tenant):
            await Contact.create(name="Too late", phone="+919876543210")


async def test_two_at_once_are_one(con: asyncpg.Connection, new_tenant: NewTenant, database: Database) -> None:
    tenant = await new_tenant()
    async with ending.alone(con, tenant), ending.owner(database.owner_url) as second:
        with pytest.raises(StorageError, match="somebody else"):
            async with ending.alone(second, tenant):
                pass


async def test_every_table_lets_its_owner_take_a_tenants_rows_out(owner: asyncpg.Connection) -> None:
    """A new table gets this from `of_tenants` in `harkara/storage/tenancy.py`."""
    found = await owner.fetch("select tablename::text from pg_policies where policyname = 'ending'")
    assert sorted(row[0] for row in found) == await tables_of_tenants(owner)


async def test_the_owner_sees_only_whom_it_erases(
    con: asyncpg.Connection, storage: Storage, new_tenant: NewTenant
) -> None:
    ours, theirs = await new_tenant(), await new_tenant()
    for tenant in (ours, theirs):
        async with storage.tenant(tenant) as rows:
            await rows.execute(
                "insert into segments (id, tenant_id, name, condition) values ($1, $2, 'x', '{}')", uuid7(), tenant
            )
    await ending.mark(con, ours)
    assert await con.fetchval("select count(*) from segments") == 0
    async with con.transaction():
        await con.execute("select app.erasing($1)", ours)
        assert [row[0] for row in await con.fetch("select tenant_id from segments")] == [ours]


async def test_who_is_not_the_owner_is_told_so(database: Database) -> None:
    with pytest.raises(StorageError, match="DATABASE_DIRECT_URL connects as a role that doesn't own"):
        async with ending.owner(database.app_url):
            pass
    with pytest.raises(StorageError, match="check DATABASE_DIRECT_URL"):
        async with ending.owner("postgres://nobody@127.0.0.1:1/harkara"):
            pass
