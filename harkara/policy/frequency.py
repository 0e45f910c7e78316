"""How often one contact may be sent marketing, whichever campaign it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import lru_cache

import msgspec


class Cap(msgspec.Struct, frozen=True):
    """At most `max` messages within any `per_hours` hours."""

    max: int
    per_hours: float

    @property
    def period(self) -> timedelta:
        """The hours."""
        return timedelta(hours=self.per_hours)


@lru_cache(maxsize=4096)
def read(stored: str | None) -> tuple[Cap, ...]:
    """Caps as their column has them: a JSON list, or null for none."""
    return tuple(msgspec.json.decode(stored, type=list[Cap] | None) or ()) if stored else ()


def longest(caps: Sequence[Cap]) -> timedelta:
    """How far back they look."""
    return max((cap.period for cap in caps), default=timedelta())


def fits_at(caps: Sequence[Cap], sent: Sequence[datetime], now: datetime) -> datetime | None:
    """When one more message fits under all caps after those that were sent (in order); None if it does now."""
    found: datetime | None = None
    for cap in caps:
        recent = [at for at in sent if at > now - cap.period]
        if len(recent) >= cap.max:
            free = recent[len(recent) - cap.max] + cap.period
            found = free if found is None else max(found, free)
    return found
