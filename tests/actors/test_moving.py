"""Where an enrolment goes on in another version: nothing is sent again, and times count from the enrolment."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import pytest

from harkara.actors.moving import moved
from harkara.storage.moving import Place, Waiting

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ORIGINS = {name: uuid4() for name in "abcdxyz"}


def version(**delays: float) -> list[Place]:
    """The steps of a version, by the names of their origins, in the order of their delays."""
    ordered = sorted(delays.items(), key=lambda one: one[1])
    return [Place(uuid4(), ORIGINS[name], position, hours) for position, (name, hours) in enumerate(ordered)]


def waiting(old: list[Place], at: int, *, hours_ago: float, untouched: bool = False, passed: str = "") -> Waiting:
    """An enrolment that waits for the step at this place."""
    started = NOW - timedelta(hours=hours_ago)
    origins: list[UUID] = [ORIGINS[name] for name in passed]
    return Waiting(uuid4(), uuid4(), uuid4(), started, at, old[at].id, uuid4(), origins, untouched)


def names(new: list[Place], row: Waiting, old: list[Place]) -> str:
    """The steps that still come, in their order."""
    place = moved(row, old, new, NOW, 1.0)
    if place.step_id is None:
        return ""
    by_origin = {origin: name for name, origin in ORIGINS.items()}
    assert new[place.position].id == place.step_id
    return "".join(by_origin[step.origin] for step in new[place.position :] if step.origin not in place.passed)


OLD = version(a=0, b=24, c=48)


@pytest.mark.parametrize(
    ("at", "hours_ago", "new", "comes"),
    [
        (1, 20, version(a=0, b=24, c=48), "bc"),
        (1, 20, version(a=0, b=30, c=48), "bc"),
        # What was sent does not come again, wherever it stands now.
        (1, 20, version(a=72, b=24, c=48), "bc"),
        (2, 30, version(a=72, b=60, c=48, x=80), "cx"),
        # What is new comes if its time has not passed, before or between or after what was to come.
        (1, 20, version(a=0, x=2, b=24, c=48), "bc"),
        (1, 20, version(a=0, x=22, b=24, c=48), "xbc"),
        (1, 20, version(a=0, b=24, x=30, c=48), "bxc"),
        # What was still to come comes, even late; what is new and late does not.
        (1, 100, version(a=0, b=24, c=48), "bc"),
        (1, 100, version(a=0, b=24, x=30, c=48), "bc"),
        # What is gone does not come, and nothing may be left.
        (1, 20, version(a=0, c=48), "c"),
        (1, 20, version(a=0), ""),
        (2, 100, version(x=0, y=1), ""),
        (0, 0, version(a=5, x=1), "xa"),
    ],
)
def test_an_enrolment_keeps_its_place(at: int, hours_ago: float, new: list[Place], comes: str) -> None:
    assert names(new, waiting(OLD, at, hours_ago=hours_ago), OLD) == comes


def test_what_was_passed_in_an_earlier_move_stays_passed() -> None:
    new = version(a=72, b=24, c=48)
    row = waiting(OLD, 1, hours_ago=20)
    place = moved(row, OLD, new, NOW, 1.0)
    assert place.passed == (ORIGINS["a"],)
    again = Waiting(row.id, row.contact_id, row.version_id, row.started_at, place.position, new[place.position].id,
                    row.message_id, list(place.passed), True)  # fmt: skip
    assert names(version(a=80, b=24, c=48), again, new) == "bc"


def test_times_count_from_the_enrolment() -> None:
    row = waiting(OLD, 1, hours_ago=20)
    place = moved(row, OLD, version(a=0, b=30), NOW, 2.0)
    assert place.due_at == row.started_at + timedelta(hours=15)


@pytest.mark.parametrize(
    ("untouched", "new", "same"),
    [(False, version(a=0, b=30), True), (True, version(a=0, b=30), False), (False, version(a=0, c=48), False)],
)
def test_work_that_may_be_on_its_way_stays_the_same_message_as_long_as_it_is_the_same_step(
    untouched: bool, new: list[Place], same: bool
) -> None:
    row = waiting(OLD, 1, hours_ago=20, untouched=untouched)
    assert (moved(row, OLD, new, NOW, 1.0).message_id == row.message_id) is same
