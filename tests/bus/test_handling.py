"""Which exceptions mean that something is away, and what a reason may say."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
import redis.exceptions
from bus.actors import Clerk, begin

from harkara.bus import handling
from harkara.bus.errors import Full, Refused, Unavailable
from harkara.bus.handling import TRIES_OF_REFUSED, UNSETTLED, Handling, brief, gives_up, is_infrastructure
from harkara.bus.intake import Raw
from harkara.bus.messages import Ack, Packet
from harkara.bus.outcomes import Drop, Outcome, Retry
from harkara.bus.schedule import PATIENT
from harkara.bus.settle import Acked


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
        (asyncpg.InterfaceError("cannot call Connection.fetch(): connection has been released back to the pool"), True),
        (asyncpg.InternalClientError("unexpected end"), True),
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


async def worked(clerk: Clerk, deliveries: int) -> tuple[Any, list[Packet]]:
    """The verdict on one message that was delivered so often, and what was stored for it."""
    packets: list[Packet] = []

    async def store(some: Sequence[Packet]) -> list[Any]:
        packets.extend(some)
        return [Ack("S", 1, duplicate=False) for _ in some]

    raw = Raw("t.acme.cmd.enrollment.start", {}, begin(1).packet().body, "COMMANDS", 7, deliveries, 0)
    (verdict,) = await Handling(clerk, store, lambda: datetime.now(UTC)).work([raw])
    return verdict, packets


async def test_what_the_database_will_never_take_is_a_dead_letter_after_a_few_tries() -> None:
    for error in (asyncpg.CheckViolationError("contacts_phone_check"), caused(ValueError(), asyncpg.DataError("bad"))):
        kinds = [type(outcome) for outcome in await outcomes(error, attempts=TRIES_OF_REFUSED)]
        assert kinds == [*[Retry] * (TRIES_OF_REFUSED - 1), Drop]
    for error in (asyncpg.UniqueViolationError("duplicate key"), caused(asyncpg.DataError("bad"), ConnectionError())):
        assert {type(outcome) for outcome in await outcomes(error, attempts=9)} == {Retry}


def test_a_message_is_given_up_when_nothing_helps_or_all_attempts_are_used() -> None:
    refused, last = asyncpg.CheckViolationError("no"), len(PATIENT.delays) + 1
    assert [gives_up(refused, n, PATIENT) for n in (TRIES_OF_REFUSED - 1, TRIES_OF_REFUSED)] == [False, True]
    assert [gives_up(ValueError(), n, PATIENT) for n in (last - 1, last)] == [False, True]
    assert not gives_up(ConnectionError(), last, PATIENT)


async def outcomes(error: Exception, *, attempts: int) -> list[Outcome]:
    """What becomes of a message that fails so, attempt by attempt."""

    class Failing(Clerk):
        retries = PATIENT

        async def handle(self, batch: Sequence[Any]) -> Sequence[Outcome]:
            raise error

    handling_ = Handling(Failing(), store_nothing, lambda: datetime.now(UTC))
    body = begin(1).packet().body
    raws = [Raw("t.acme.cmd.enrollment.start", {}, body, "COMMANDS", 7, 1, 0) for _ in range(attempts)]
    for failures, raw in enumerate(raws):
        raw.failures = failures
    return [(await handling_.judge([raw])).outcomes[0] for raw in raws]


async def store_nothing(some: Sequence[Packet]) -> list[Any]:
    raise AssertionError(some)


class Patient(Clerk):
    retries = PATIENT


async def test_what_came_to_nothing_too_often_is_not_taken_in_hand_by_a_young_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handling, "young", lambda: True)
    clerk = Patient()
    verdict, [parked] = await worked(clerk, UNSETTLED + 1)
    assert verdict == Acked(parked=True)
    assert parked.headers["X-Attempt"] == "21"
    assert "has it in hand ends" in parked.headers["X-Reason"]
    assert clerk.seen == []
    assert (await worked(clerk, UNSETTLED))[0] == Acked()


async def test_an_old_process_takes_it_in_hand_however_often_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handling, "_BORN", float("-inf"))
    assert await worked(Patient(), 500) == (Acked(), [])
