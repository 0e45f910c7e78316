"""How far the campaign has come, by what the live feed tells."""

from __future__ import annotations

import time
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from harkara.demo.client import Event
from harkara.schemas.api import Funnel

#: How far a message can come, and how far each is: a status never moves back.
WAY = ("suppressed", "unknown", "sent", "delivered", "read", "failed")

#: The last things that happened, for people who watch.
LATEST = 4


@dataclass(frozen=True, slots=True)
class Counts:
    """One step in numbers. A message that was read was delivered too, and counts in both."""

    due: int
    sent: int
    delivered: int
    read: int
    failed: int
    kept_back: int
    unknown: int


class Progress:
    """Counts what the feed tells. `clock` is the campaign's own time, which runs `speed` times as fast as ours."""

    def __init__(self, steps: int, speed: float) -> None:
        self.enrolled: set[str] = set()
        self.ended: dict[str, str] = {}
        self.stopped: Counter[str] = Counter()
        self.expected: int | None = None
        self.latest: deque[str] = deque(maxlen=LATEST)
        self.heard_at = time.monotonic()
        self._messages: dict[str, tuple[int, str]] = {}
        self._due = [0] * steps
        self._speed = speed
        self._started: float | None = None

    @property
    def hours(self) -> float:
        """Hours since the enrolment, on the campaign's clock."""
        return 0.0 if self._started is None else (time.monotonic() - self._started) * self._speed / 3600

    @property
    def running(self) -> int:
        """Enrolments that have not ended."""
        return len(self.enrolled) - len(self.ended)

    @property
    def completed(self) -> int:
        """Enrolments that got every step."""
        return sum(how == "completed" for how in self.ended.values())

    @property
    def complete(self) -> bool:
        """Whether every enrolment has come to its end."""
        return self.expected is not None and len(self.ended) >= self.expected == len(self.enrolled)

    def start(self) -> None:
        """The campaign's clock begins now."""
        self._started = self.heard_at = time.monotonic()

    def look(self, funnel: Funnel) -> None:
        """Take note of how many have fallen due: the feed tells only of those that have left.

        What has fallen due stays so, though a message that leaves just while the funnel counts is missed there, and one
        of whoever is stopped before its turn is no more.
        """
        now = [step.due + step.sent + step.failed + step.suppressed + step.unknown for step in funnel.steps]
        self._due = [max(*both) for both in zip(self._due, now, strict=True)]

    def take(self, event: Event) -> None:
        """Count one event."""
        self.heard_at = time.monotonic()
        noun, _, participle = event.type.partition(".")
        if noun == "message":
            self._message(participle, event.data)
        elif noun == "enrollment":
            self._enrollment(participle, event.data)

    def _message(self, status: str, data: dict[str, Any]) -> None:
        before = self._messages.get(data["id"])
        if status in WAY and (before is None or WAY.index(status) > WAY.index(before[1])):
            self._messages[data["id"]] = (data.get("step") or 0, status)

    def _enrollment(self, what: str, data: dict[str, Any]) -> None:
        if what == "started":
            self.enrolled.add(data["id"])
        elif what in ("completed", "stopped"):
            self.ended[data["id"]] = what
            if what == "stopped":
                self.stopped[data.get("reason") or "by_hand"] += 1
        elif what == "bulk_completed":
            self.expected = data["enrolled"]

    def counts(self) -> list[Counts]:
        """Every step in numbers."""
        seen = Counter(self._messages.values())
        return [self._step(step, seen) for step in range(len(self._due))]

    def _step(self, step: int, seen: Counter[tuple[int, str]]) -> Counts:
        sent, delivered, read = (seen[step, status] for status in ("sent", "delivered", "read"))
        failed, kept_back, unknown = (seen[step, status] for status in ("failed", "suppressed", "unknown"))
        left = sent + delivered + read + failed + kept_back + unknown
        # The feed may be ahead of the last look at the funnel.
        return Counts(
            max(self._due[step], left), sent + delivered + read, delivered + read, read, failed, kept_back, unknown
        )
