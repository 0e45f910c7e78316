"""What every room's tests share: one embedded stack for the whole session, and one database on it."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from nats.aio.client import Client
from support import Database, NewTenant, Tell, quick_directory

from harkara.embedded.stack import Stack, Urls
from harkara.ids import uuid7
from harkara.storage.migrate import bootstrap, migrate
from harkara.storage.storage import Storage

#: Files here take minutes each. Were one of them begun last, all other processes would wait for it.
BEGUN_FIRST = ("tests/chaos/", "tests/live/test_processes.py", "tests/live/situations/")

#: Under this name a report carries what its test told, from whichever process ran it.
TOLD = "told"


def pytest_configure() -> None:
    """Let processes that tests start be interrupted: what a shell runs in the background is told to ignore Ctrl-C."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    _close_what_nobody_greets()


def _close_what_nobody_greets() -> None:
    """Have nats-py's clients close a connection that no server greets in time, as on a busy machine.

    It is left to the garbage collector otherwise, whose warning fails whatever test is running then.
    """
    kind: Any = Client
    dial, connect = kind._connect_to_server, kind.connect

    async def dialling(client: Any, server: Any) -> None:
        if client._transport:
            client._transport.close()
        await dial(client, server)

    async def connecting(client: Any, *servers: Any, **options: Any) -> None:
        try:
            await connect(client, *servers, **options)
        except BaseException:
            if client._transport:
                client._transport.close()
            raise

    kind._connect_to_server, kind.connect = dialling, connecting


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Otherwise the order stays as it was drawn."""
    items.sort(key=lambda item: not item.nodeid.startswith(BEGUN_FIRST))


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """Notes a line that is shown at the end, whether or not the test fails: a seed, a count, a measurement."""
    return lambda text: request.node.user_properties.append((TOLD, text))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what the tests told."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    told = [
        f"{report.nodeid}: {text}"
        for report in reports
        if getattr(report, "when", None) == "call"
        for name, text in report.user_properties
        if name == TOLD
    ]
    if told:
        terminalreporter.section("what was seen")
        terminalreporter.write_line("\n".join(told))


@pytest.fixture(scope="session")
async def stack() -> AsyncIterator[Urls]:
    """nats-server, PostgreSQL and Valkey, really running; gives their addresses."""
    with quick_directory() as directory:
        async with Stack(directory) as urls:
            yield urls


@pytest.fixture(scope="session")
def nats_url(stack: Urls) -> str:
    """The broker, with user and password of the platform's own processes."""
    return stack.nats


@pytest.fixture(scope="session")
def redis_url(stack: Urls) -> str:
    """Valkey on a Unix socket."""
    return stack.redis


@pytest.fixture(scope="session")
def database_admin_url(stack: Urls) -> str:
    """The superuser on the `postgres` database; `stack.database(user, name)` builds others."""
    return stack.database_admin


@pytest.fixture(scope="session")
async def database(stack: Urls) -> Database:
    """One migrated database for the whole session: tests keep apart by making their own tenants."""
    await bootstrap(stack.database_admin, database="harkara", owner="harkara_owner", app="harkara_app")
    made = Database(
        app_url=stack.database("harkara_app", "harkara"), owner_url=stack.database("harkara_owner", "harkara")
    )
    await migrate(made.owner_url)
    return made


@pytest.fixture(scope="session")
async def storage(database: Database) -> AsyncIterator[Storage]:
    """The session's database as the application sees it."""
    opened = Storage(database.app_url, pool=8)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def new_tenant(storage: Storage) -> NewTenant:
    """Call it, as often as needed, for a tenant with one owner who can't log in."""

    async def make() -> str:
        tenant = f"t-{uuid4().hex[:12]}"
        async with storage.anonymous() as con:
            await con.execute(
                "select app.signup($1, $1, $2, $3, 'no password', $4)",
                tenant,
                uuid7(),
                f"owner@{tenant}.example",
                uuid7(),
            )
        return tenant

    return make


@pytest.fixture
async def owner(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """The owner of the session's database, connected to it."""
    connection = await asyncpg.connect(database.owner_url)
    yield connection
    await connection.close()


@pytest.fixture
async def admin(stack: Urls, database: Database) -> AsyncIterator[asyncpg.Connection]:
    """The superuser, connected to the session's database."""
    connection = await asyncpg.connect(stack.database("postgres", "harkara"))
    yield connection
    await connection.close()
