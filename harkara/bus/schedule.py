"""Retry schedules as data: how long to wait after the first, second, … failed attempt."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta


@dataclass(frozen=True, slots=True)
class Schedule:
    """Waits between attempts: its length is how often a message is tried again. Jitter is added on applying."""

    delays: tuple[timedelta, ...]

    @classmethod
    def seconds(cls, *delays: float) -> Schedule:
        """A schedule from waits in seconds: `Schedule.seconds(1, 5, 30, 120)`."""
        return cls(tuple(timedelta(seconds=delay) for delay in delays))

    def after(self, attempt: int) -> timedelta | None:
        """How long to wait once attempt number `attempt` (from 1) has failed; None when that was the last."""
        return self.delays[attempt - 1] if 1 <= attempt <= len(self.delays) else None


#: For what must be done in the end: some seven hours of attempts, with jitter never more than ten minutes apart. What
#: failed because something was broken goes on soon after that is mended, and need not be looked for.
PATIENT = Schedule.seconds(1, 5, 30, 120, *[500] * 50)
