"""Which exceptions mean that something is away, and what a reason may say."""

from __future__ import annotations

import asyncpg
import pytest
import redis.exceptions

from harkara.bus.errors import Full, Refused, Unavailable
from harkara.bus.handling import brief, is_infrastructure


def caused(error: Exception, by: Exception) -> Exception:
    error.__cause__ = by
    return error


@pytest.mark.parametrize(
    ("error", "away"),
    [
        (ConnectionRefusedError(), True),
        (TimeoutError(), True),
        (Unavailable("away"), True),
        (Full("full"), True),
        (asyncpg.ConnectionDoesNotExistError("gone"), True),
        (asyncpg.CannotConnectNowError("in recovery"), True),
        (asyncpg.TooManyConnectionsError("full"), True),
        (asyncpg.InterfaceError("connection is closed"), True),
        (redis.exceptions.ConnectionError(), True),
        (caused(RuntimeError("wrapped"), caused(ValueError(), ConnectionResetError())), True),
        (asyncpg.InterfaceError("another operation is in progress"), False),
        (asyncpg.DataError("invalid input for query argument $1"), False),
        (asyncpg.UniqueViolationError("duplicate key"), False),
        (asyncpg.QueryCanceledError("statement timeout"), True),
        (asyncpg.DeadlockDetectedError("deadlock detected"), True),
        (asyncpg.DiskFullError("no space left"), True),
        (Refused("no"), False),
        (ValueError(), False),
    ],
)
def test_only_what_will_come_back_is_away(error: Exception, away: bool) -> None:
    assert is_infrastructure(error) is away


def test_a_reason_is_the_kind_and_the_first_line() -> None:
    assert brief(ValueError("bad\nDETAIL: the values")) == "ValueError: bad"
    assert brief(KeyError()) == "KeyError"
    assert len(brief(ValueError("x" * 999))) < 220
