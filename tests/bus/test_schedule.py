from __future__ import annotations

from datetime import timedelta

from harkara.bus.schedule import Schedule


def test_each_failed_attempt_has_its_wait_and_the_last_has_none() -> None:
    schedule = Schedule.seconds(1, 5, 0.5)
    waits = [schedule.after(attempt) for attempt in (0, 1, 2, 3, 4, 99)]
    assert waits == [None, timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=0.5), None, None]
