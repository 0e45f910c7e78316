"""UUIDv7: the time is in front, and the same cause gives the same id."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from uuid import uuid4

import pytest

from harkara.ids import second_of, time_of, uuid7, uuid7_beside, uuid7_for, uuid7_near, uuid7_within

AT = datetime(2026, 3, 1, 12, 30, 15, 123000, tzinfo=UTC)


def test_a_new_id_is_a_uuid_of_version_7_with_the_time_in_front() -> None:
    made = uuid7(AT)
    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    assert made.int >> 80 == int(AT.timestamp() * 1000)
    assert time_of(made) == AT


def test_without_a_time_it_is_now() -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    assert before <= time_of(uuid7()) <= datetime.now(UTC)


def test_ids_of_one_instant_differ() -> None:
    assert len({uuid7(AT) for _ in range(10_000)}) == 10_000


def test_all_of_the_random_bits_are_used() -> None:
    seen = 0
    for _ in range(200):
        seen |= uuid7(AT).int
    assert bin(seen & ((1 << 62) - 1)).count("1") == 62


def test_what_is_made_later_in_a_millisecond_sorts_later() -> None:
    made = [uuid7(AT + timedelta(microseconds=step)) for step in range(1000)]
    assert sorted(made) == made
    assert {time_of(one) for one in made} == {AT}
    assert (made[0].int >> 64 & 0xFFF, made[-1].int >> 64 & 0xFFF) == (0, 4091)


def test_what_one_process_makes_sorts_in_the_order_in_which_it_was_made() -> None:
    made = [uuid7() for _ in range(1000)]
    assert sorted(made) == made


def test_later_ids_sort_after_earlier_ones() -> None:
    instants = [AT + timedelta(milliseconds=step) for step in (0, 1, 2, 1000, 10**9)]
    ids = [uuid7(at) for at in instants]
    assert sorted(ids) == ids
    assert sorted(map(str, ids)) == list(map(str, ids))


def test_the_same_cause_gives_the_same_id() -> None:
    made = uuid7_for(AT, "acme", "wamid.1")
    assert made == uuid7_for(AT.astimezone(timezone(timedelta(hours=5, minutes=30))), "acme", "wamid.1")
    assert made.version == 7
    assert time_of(made) == AT


def test_what_every_release_makes_of_a_cause() -> None:
    """Rows are found again by these ids: they must never come out differently."""
    assert str(uuid7_for(AT, "acme", "wamid.1")) == "019ca960-bc53-712e-98d8-edf1cf4dd155"


@pytest.mark.parametrize("parts", [("acme", "wamid.2"), ("acm", "ewamid.1"), ("acmewamid.1",), ("wamid.1", "acme"), ()])
def test_another_cause_gives_another_id(parts: tuple[str, ...]) -> None:
    assert uuid7_for(AT, *parts) != uuid7_for(AT, "acme", "wamid.1")


def test_another_instant_gives_another_id() -> None:
    assert uuid7_for(AT, "acme") != uuid7_for(AT + timedelta(milliseconds=1), "acme")


def test_ids_made_beside_others_sort_as_those_do() -> None:
    neighbours = [uuid7(AT + timedelta(seconds=step)) for step in range(100)]
    made = [uuid7_beside(one, AT, "bulk", str(one)) for one in neighbours]
    assert sorted(made) == made
    assert all((one.version, one.variant, time_of(one)) == (7, "specified in RFC 4122", AT) for one in made)
    assert made == [uuid7_beside(one, AT, "bulk", str(one)) for one in neighbours]


def test_ids_made_beside_the_same_neighbour_differ_by_their_cause() -> None:
    neighbour = uuid7(AT)
    assert len({uuid7_beside(neighbour, AT, str(one)) for one in range(10_000)}) == 10_000


def test_what_every_release_makes_of_a_cause_beside_a_neighbour() -> None:
    neighbour = uuid7_for(AT, "contact")
    assert str(uuid7_beside(neighbour, AT, "acme", "1")) == "019ca960-bc53-7960-af10-5f8b6cfa9ade"


def test_ids_within_a_second_sort_by_when_they_came_and_never_leave_it() -> None:
    second = AT.replace(microsecond=0)
    late = (
        *(timedelta(microseconds=step) for step in (-5, 1, 2, 999_999, 1_000_000, 1_000_001)),
        timedelta(minutes=70),
    )
    made = [uuid7_within(second, second + one, place, "x") for one in late for place in range(3)]
    assert sorted(made) == made
    begin, end = second_of(second)
    assert begin < made[0] < made[-1] < end < uuid7_within(second + timedelta(seconds=1), second, 0, "x")
    assert all((one.version, one.variant) == (7, "specified in RFC 4122") for one in made)
    whenever = uuid7_within(second, second + timedelta(days=99), 999, "x")
    assert made[-1] < whenever < end
    assert time_of(uuid7_within(second, AT, 0, "x")) == AT


def test_new_ids_near_those_of_a_bulk_sort_as_those_do() -> None:
    contacts = [uuid7(AT + timedelta(seconds=step)) for step in range(100)]
    enrollments = [uuid7_beside(one, AT, "bulk", str(one)) for one in contacts]
    later = AT + timedelta(days=1)
    made = [uuid7_near(one, later) for one in enrollments]
    assert sorted(made) == made
    assert all((one.version, one.variant, time_of(one)) == (7, "specified in RFC 4122", later) for one in made)


def test_new_ids_near_the_same_one_differ() -> None:
    assert len({uuid7_near(uuid4(), AT) for _ in range(100)}) == 100
    neighbour = uuid4()
    made = {uuid7_near(neighbour, AT) for _ in range(10_000)}
    assert len(made) == 10_000
    assert {one.version for one in made} == {7}
