"""Connecting, and connections that always find their way back to the pool."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import asyncpg
import pytest
from support import Database, NewDatabase, NewTenant, quick_directory, until
from tortoise.exceptions import BaseORMException

from harkara.bus.handling import is_infrastructure
from harkara.embedded.stack import Stack, Urls
from harkara.ids import uuid7
from harkara.storage.engine import NoTenant, tenants
from harkara.storage.migrate import bootstrap, migrate
from harkara.storage.models import Contact
from harkara.storage.storage import Storage, StorageError, credentials, is_away

#: The logger of the driver's pool.
POOL = "asyncpg.pool"

#: Ends a session, and waits until it has ended.
TERMINATE = "select pg_terminate_backend($1, 60000)"

#: How a session that the server ended shows.
AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, BaseORMException)


@pytest.fixture
async def single(database: Database) -> AsyncIterator[Storage]:
    """A pool of one connection: whoever keeps it stops everybody."""
    opened = Storage(database.app_url, pool=1)
    await opened.open()
    yield opened
    await opened.close()


async def is_free(storage: Storage) -> None:
    """Fail unless the pool's connection can be had, and is as good as new."""
    async with asyncio.timeout(30), storage.anonymous() as con:
        assert await con.fetchval("select app.tenants() is null")
    assert tenants.get() is None


async def test_a_query_outside_a_transaction_is_refused(storage: Storage) -> None:
    with pytest.raises(Exception, match=r"storage\.tenant|No TortoiseContext"):
        await Contact.all().count()


async def test_a_query_outside_a_transaction_is_refused_even_where_models_are_known(storage: Storage) -> None:
    client: Any = storage._client  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(NoTenant):
        await client.execute_query("select 1")
    with pytest.raises(NoTenant):
        async with client._in_transaction():
            pass


@pytest.mark.parametrize("way", ["tenant", "batch"])
async def test_an_error_undoes_everything(storage: Storage, new_tenant: NewTenant, way: str) -> None:
    tenant = await new_tenant()
    opened = storage.tenant(tenant) if way == "tenant" else storage.batch((tenant,))
    with suppress(ZeroDivisionError):
        async with opened as con:
            await con.execute("insert into contacts (id, tenant_id) values ($1, $2)", uuid7(), tenant)
            raise ZeroDivisionError
    async with storage.tenant(tenant) as con:
        assert await con.fetchval("select count(*) from contacts") == 0


async def test_a_refused_tenant_gives_the_connection_back(single: Storage) -> None:
    for _ in range(3):
        with pytest.raises(NoTenant):
            async with single.tenant("No Slug"):
                pass
        with pytest.raises(NoTenant):
            async with single.batch(("No Slug",)):
                pass
    await is_free(single)


@pytest.mark.parametrize("way", ["tenant", "batch"])
async def test_a_transaction_that_cannot_begin_gives_the_connection_back(
    single: Storage, admin: asyncpg.Connection, new_tenant: NewTenant, way: str
) -> None:
    """The server ends the session while it rests in the pool: the next BEGIN fails, the one after works."""
    tenant = await new_tenant()
    for _ in range(3):
        async with single.anonymous() as con:
            backend = await con.fetchval("select pg_backend_pid()")
        await admin.execute(TERMINATE, backend)
        opened = single.tenant(tenant) if way == "tenant" else single.batch((tenant,))
        try:
            async with opened as con:
                assert await con.fetchval("select 1") == 1
        except AWAY:
            await is_free(single)


@pytest.mark.parametrize("noticed", [True, False])
@pytest.mark.parametrize("at", ["a query", "its end"])
@pytest.mark.parametrize("way", ["tenant", "batch"])
async def test_a_session_that_ends_inside_a_transaction_gives_the_connection_back_and_is_away(
    single: Storage, admin: asyncpg.Connection, new_tenant: NewTenant, way: str, at: str, noticed: bool
) -> None:
    """It is no fault of what was done in it, which an actor would try a few times only, after ever longer waits."""
    tenant = await new_tenant()

    async def ends_inside() -> None:
        async with single.tenant(tenant) if way == "tenant" else single.batch((tenant,)) as con:
            backend = await con.fetchval("select pg_backend_pid()")
            await admin.execute(TERMINATE, backend)
            if noticed:
                await until(lambda: _is_gone(con), "the pool notices")
            if at == "a query":
                await con.fetchval("select 1")

    with pytest.raises(AWAY) as raised:
        await ends_inside()
    assert is_infrastructure(raised.value)
    assert is_away(raised.value)
    # What the query itself came to, in one of asyncpg's three ways of saying it, and not what undoing it came to.
    said = ("fetchval", "terminat", "cannot switch to state")
    assert at != "a query" or any(words in str(raised.value) for words in said), raised.value
    await is_free(single)


def _is_gone(con: Any) -> bool:
    try:
        return bool(con.is_closed())
    except asyncpg.InterfaceError:
        return True


@pytest.mark.parametrize("way", ["tenant", "batch"])
async def test_a_cancelled_transaction_gives_the_connection_back(
    single: Storage, new_tenant: NewTenant, way: str
) -> None:
    tenant = await new_tenant()
    inside = asyncio.Event()

    async def work() -> None:
        async with single.tenant(tenant) if way == "tenant" else single.batch((tenant,)) as con:
            await con.execute("insert into contacts (id, tenant_id) values ($1, $2)", uuid7(), tenant)
            inside.set()
            await con.execute("select pg_sleep(60)")

    working = asyncio.create_task(work())
    await inside.wait()
    working.cancel()
    with pytest.raises(asyncio.CancelledError):
        await working
    await is_free(single)
    async with single.tenant(tenant):
        assert await Contact.all().count() == 0


@pytest.mark.parametrize("way", ["tenant", "batch"])
async def test_cancelling_at_any_moment_gives_the_connection_back(
    single: Storage, new_tenant: NewTenant, way: str
) -> None:
    tenant = await new_tenant()

    async def work() -> None:
        async with single.tenant(tenant) if way == "tenant" else single.batch((tenant,)) as con:
            await con.fetchval("select 1")

    for turns in range(40):
        working = asyncio.create_task(work())
        for _ in range(turns):
            await asyncio.sleep(0)
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
    await is_free(single)


async def test_a_task_that_outlives_its_transaction_can_do_nothing(storage: Storage, new_tenant: NewTenant) -> None:
    ours, theirs = await new_tenant(), await new_tenant()
    over = asyncio.Event()

    async def straggle() -> None:
        await over.wait()
        await Contact.create(name="Late")

    async def straggle_with(con: Any) -> None:
        await over.wait()
        await con.execute("insert into contacts (id) values ($1)", uuid7())

    async with storage.tenant(ours) as con:
        stragglers = [asyncio.create_task(straggle()), asyncio.create_task(straggle_with(con))]
    async with storage.tenant(theirs):
        over.set()
        results = await asyncio.gather(*stragglers, return_exceptions=True)
        assert [isinstance(result, Exception) for result in results] == [True, True]
    for tenant in (ours, theirs):
        async with storage.tenant(tenant):
            assert await Contact.all().count() == 0


async def test_twenty_connections_serve_everybody(
    database: Database, admin: asyncpg.Connection, new_tenant: NewTenant
) -> None:
    storage = Storage(database.app_url, pool=20)
    await storage.open()
    some = [await new_tenant() for _ in range(4)]
    most = 0

    async def work(number: int) -> None:
        nonlocal most
        tenant = some[number % 4]
        async with storage.tenant(tenant) as con:
            await Contact.create(name=str(number))
            await con.execute("select pg_sleep(0.01)")
        async with storage.batch(some) as con:
            await con.fetchval("select count(*) from contacts where tenant_id = any($1)", some)

    async def watch() -> None:
        nonlocal most
        while True:
            open_now = await admin.fetchval(
                "select count(*) from pg_stat_activity where usename = 'harkara_app' and application_name = ''"
                " and backend_start > now() - interval '1 hour' and datname = 'harkara'"
            )
            most = max(most, open_now)
            await asyncio.sleep(0.01)

    before = await admin.fetchval("select count(*) from pg_stat_activity where usename = 'harkara_app'")
    watching = asyncio.create_task(watch())
    async with asyncio.timeout(90):
        await asyncio.gather(*(work(number) for number in range(200)))
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    async with storage.batch(some) as con:
        assert await con.fetchval("select count(*) from contacts") == 200
    await storage.close()
    assert 10 < most <= before + 18, "two of the twenty were open before"


async def test_no_statement_stays_prepared_on_a_connection(single: Storage, new_tenant: NewTenant) -> None:
    """What a transaction pooler would not carry over."""
    tenant = await new_tenant()
    for _ in range(3):
        async with single.tenant(tenant) as con:
            await Contact.create(name="Asha")
            await Contact.filter(name="Asha").count()
            await con.fetch("select * from contacts where name = $1", "Asha")
    async with single.anonymous() as con:
        # The one that asks is itself there while it runs.
        assert await con.fetchval("select count(*) from pg_prepared_statements") <= 1


@pytest.mark.parametrize("user", ["postgres", "harkara_owner"])
async def test_a_role_that_row_level_security_does_not_bind_is_refused(
    stack: Urls, database: Database, admin: asyncpg.Connection, user: str
) -> None:
    storage = Storage(stack.database(user, "harkara"))
    with pytest.raises(StorageError, match="harkara_app"):
        await storage.open()
    await nobody_is_left(admin, user)


async def test_a_role_that_may_become_the_owner_is_refused(
    stack: Urls, database: Database, admin: asyncpg.Connection
) -> None:
    await admin.execute(
        "create role climber login; grant harkara_owner to climber; grant usage on schema app to climber"
    )
    await admin.execute("grant execute on all functions in schema app to climber")
    with pytest.raises(StorageError, match="harkara_app"):
        await Storage(stack.database("climber", "harkara")).open()
    await admin.execute(
        "revoke all on all functions in schema app from climber; revoke usage on schema app from climber"
    )
    await admin.execute("drop role climber")


async def nobody_is_left(admin: asyncpg.Connection, user: str) -> None:
    """Wait until this user has no connection to the session's database but the one that asks."""

    async def gone() -> bool:
        return not await admin.fetchval(
            "select count(*) from pg_stat_activity"
            " where usename = $1 and datname = 'harkara' and pid <> pg_backend_pid()",
            user,
        )

    await until(gone, f"no connection of {user} is left")


async def test_a_database_without_a_schema_says_what_to_do(new_database: NewDatabase) -> None:
    with pytest.raises(StorageError, match="harkara migrate"):
        await Storage((await new_database()).app_url).open()


@pytest.mark.parametrize(
    "change",
    [("harkara?", "no_such_database?"), ("harkara_app@", "no_such_role@"), ("host=", "host=%2Fnowhere")],
)
async def test_a_database_that_does_not_let_us_in_is_one_clear_line(
    database: Database, change: tuple[str, str]
) -> None:
    with pytest.raises(StorageError, match="DATABASE_URL") as caught:
        await Storage(database.app_url.replace(*change)).open()
    assert "\n" not in str(caught.value)


async def test_closing_twice_does_no_harm(database: Database) -> None:
    storage = Storage(database.app_url, pool=1)
    await storage.close()
    await storage.open()
    await storage.close()
    await storage.close()


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        (
            "postgres://me:s%40cret@db.example:6543/shop",
            {"host": "db.example", "port": 6543, "user": "me", "password": "s@cret", "database": "shop"},
        ),
        ("postgresql://me@/shop?host=%2Frun%2Fpg&port=5433", {"host": "/run/pg", "port": 5433, "password": None}),
        ("postgres://localhost/shop", {"host": "localhost", "port": 5432, "user": "", "statement_cache_size": 0}),
        ("postgres://me@[::1]/shop", {"host": "::1"}),
        ("postgres://me@h/shop?statement_cache_size=100", {"statement_cache_size": 100}),
        ("postgres://me@h/shop?sslmode=verify-full", {"ssl": "verify-full"}),
        ("postgres://me@h/shop", {"minsize": 2, "maxsize": 20}),
    ],
)
def test_a_url_says_where_the_database_is(url: str, wanted: dict[str, Any]) -> None:
    found = credentials(url, pool=20)
    assert {name: found[name] for name in wanted} == wanted


def test_without_ssl_none_is_asked_for() -> None:
    assert "ssl" not in credentials("postgres://me@h/shop")
    assert "ssl" not in credentials("postgres://me@h/shop?sslmode=prefer")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "shop",
        "mysql://h/shop",
        "postgres://h",
        "postgres://h/",
        "postgres://h:port/shop",
        "postgres://h/shop?statement_cache_size=many",
        "postgres://[::1/shop",
    ],
)
def test_a_url_that_is_none_is_refused_by_name(url: str) -> None:
    with pytest.raises(StorageError, match="DATABASE_URL"):
        credentials(url)


async def test_a_pool_says_in_one_line_that_the_database_is_away(caplog: pytest.LogCaptureFixture) -> None:
    with quick_directory() as directory:
        async with Stack(directory) as urls:
            await bootstrap(urls.database_admin, database="harkara", owner="harkara_owner", app="harkara_app")
            await migrate(urls.database("harkara_owner", "harkara"))
            storage = Storage(urls.database("harkara_app", "harkara"), pool=2)
            await storage.open()
        try:
            found = await until(lambda: _of_the_pool(caplog), "it has looked for the database, which is gone", 90)
        finally:
            await storage.close()
    for record in found:
        assert (record.levelname, record.exc_info) == ("WARNING", None)
        assert record.getMessage().startswith("the database is away (")


def test_what_else_a_pool_says_keeps_its_traceback(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise KeyError("a defect")
    except KeyError:
        logging.getLogger(POOL).warning("Failed to restore", exc_info=True)
    (record,) = _of_the_pool(caplog)
    assert record.exc_info
    assert record.getMessage() == "Failed to restore"


def _of_the_pool(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == POOL]


async def test_an_array_is_a_list_and_nothing_else_that_can_be_read_like_one(storage: Storage) -> None:
    async with storage.anonymous() as con:
        assert await con.fetchval("select $1::text[]", ["a", None, "b"]) == ["a", None, "b"]
        assert await con.fetchval("select $1::text[]", [["a"], ["b"]]) == [["a"], ["b"]]
    async with storage.anonymous() as con:
        with pytest.raises(asyncpg.DataError, match="sized iterable"):
            await con.fetchval("select $1::text[]", {"a"})
