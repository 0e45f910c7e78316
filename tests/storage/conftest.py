"""Databases of a test's own, for what would disturb the others', and connections as each role."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import asyncpg
import pytest
from support import Database, NewDatabase

from harkara.embedded.stack import Urls
from harkara.storage.migrate import bootstrap


@pytest.fixture
def new_database(stack: Urls, database: Database) -> NewDatabase:
    """Call it for an empty database on the session's server."""

    async def make() -> Database:
        name = f"d{uuid4().hex[:12]}"
        await bootstrap(stack.database_admin, database=name, owner="harkara_owner", app="harkara_app")
        return Database(app_url=stack.database("harkara_app", name), owner_url=stack.database("harkara_owner", name))

    return make


@pytest.fixture
async def app(database: Database) -> AsyncIterator[asyncpg.Connection]:
    """The application's role without anything of ours in between: what an SQL injection would have."""
    connection = await asyncpg.connect(database.app_url)
    yield connection
    await connection.close()
