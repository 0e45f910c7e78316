"""Frequency caps."""

from datetime import UTC, datetime, timedelta

import pytest

from harkara.policy.frequency import Cap, fits_at, longest, read

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def ago(*hours: float) -> list[datetime]:
    """Instants so many hours ago."""
    return [NOW - timedelta(hours=one) for one in hours]


@pytest.mark.parametrize(
    ("caps", "sent", "in_hours"),
    [
        ([], [1], None),
        ([Cap(2, 24)], [], None),
        ([Cap(2, 24)], [30, 3], None),
        ([Cap(2, 24)], [20, 3], 4),
        # Exactly a day ago is a day ago.
        ([Cap(2, 24)], [24, 3], None),
        # Over by more than one, as when a cap was lowered: so many must have aged.
        ([Cap(2, 24)], [20, 10, 3], 14),
        ([Cap(2, 24), Cap(3, 168)], [100, 20, 3], 68),
        ([Cap(1, 1), Cap(3, 168)], [100, 0.5], 0.5),
    ],
)
def test_one_more_fits_when_enough_of_the_others_are_old(
    caps: list[Cap], sent: list[float], in_hours: float | None
) -> None:
    expected = None if in_hours is None else NOW + timedelta(hours=in_hours)
    assert fits_at(caps, ago(*sent), NOW) == expected


def test_stored_caps_are_read() -> None:
    assert read(None) == read("null") == ()
    assert read('[{"max":2,"per_hours":24}]') == (Cap(2, 24),)
    assert longest(read('[{"max":2,"per_hours":24},{"max":5,"per_hours":168}]')) == timedelta(days=7)
