from __future__ import annotations

from datetime import timedelta

from harkara.bus.schedule import PATIENT, Schedule
from harkara.bus.settle import jittered


def test_each_failed_attempt_has_its_wait_and_the_last_has_none() -> None:
    schedule = Schedule.seconds(1, 5, 0.5)
    waits = [schedule.after(attempt) for attempt in (0, 1, 2, 3, 4, 99)]
    assert waits == [None, timedelta(seconds=1), timedelta(seconds=5), timedelta(seconds=0.5), None, None]


def test_what_must_be_done_is_tried_for_hours_and_never_waits_for_long() -> None:
    assert timedelta(hours=6) < sum(PATIENT.delays, timedelta()) < timedelta(hours=8)
    assert all(jittered(delay) <= timedelta(minutes=10) for delay in PATIENT.delays)
