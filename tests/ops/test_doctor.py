"""What doctor makes of what it finds."""

from __future__ import annotations

import pytest

from harkara.ops.doctor import schema
from harkara.storage.migrate import names
from harkara.storage.storage import Storage

NEWEST = names()[-1]


@pytest.mark.parametrize(
    ("newest", "found"),
    [
        (NEWEST, "has what this program needs"),
        (names()[-2], "is older than this program"),
        ("", "is older than this program"),
        ("9999_later", "is newer than this program: 9999_later"),
    ],
)
def test_the_schema_is_held_against_the_program(newest: str, found: str) -> None:
    finding = schema(newest)
    assert (finding.well, finding.found) == (newest == NEWEST, found)


async def test_the_database_says_how_new_its_schema_is(storage: Storage) -> None:
    async with storage.anonymous() as con:
        assert await con.fetchval("select app.newest_migration()") == NEWEST
