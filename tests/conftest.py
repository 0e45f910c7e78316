"""What every room's tests share: one embedded stack for the whole session, and one database on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from support import Database, NewTenant, quick_directory

from harkara.embedded.stack import Stack, Urls
from harkara.ids import uuid7
from harkara.storage.migrate import bootstrap, migrate
from harkara.storage.storage import Storage


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
