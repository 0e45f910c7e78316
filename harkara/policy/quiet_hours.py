"""Quiet hours by the contact's own clock: whether it is quiet, and at which instant it ends."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from phonenumbers.tzdata import TIMEZONE_DATA, TIMEZONE_LONGEST_PREFIX


class QuietHours(NamedTuple):
    """From `start` to before `end` on the clock; over midnight if `end` is the earlier. Equal ones mean never."""

    start: time
    end: time

    def hold(self, at: time) -> bool:
        """Whether it is quiet at this time of the day."""
        if self.start <= self.end:
            return self.start <= at < self.end
        return at >= self.start or at < self.end


@lru_cache(maxsize=4096)
def read(stored: str) -> QuietHours:
    """Quiet hours as their column has them: JSON with `start` and `end`."""
    found = msgspec.json.decode(stored, type=dict[str, str])
    return QuietHours(time.fromisoformat(found["start"]), time.fromisoformat(found["end"]))


def zone_of(timezone: str | None, phone: str, default: str | None) -> ZoneInfo:
    """The contact's own time zone; else that of its phone number, if such numbers have one clock; else the tenant's."""
    return _zone(timezone or zone_of_phone(phone) or default or "UTC")


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):  # known when it was stored, and not to this machine
        return ZoneInfo("UTC")


def zone_of_phone(phone: str) -> str | None:
    """A zone with the clock of all numbers like this one (E.164), by the longest prefix that is known of them.

    None if they have several: some of a country may live on an island with its own.
    """
    digits = phone.removeprefix("+")
    for length in range(min(len(digits), TIMEZONE_LONGEST_PREFIX), 0, -1):
        if zones := TIMEZONE_DATA.get(digits[:length]):
            return zones[0] if len(zones) == 1 or _one_clock(zones) else None
    return None


@lru_cache(maxsize=1024)
def _one_clock(zones: tuple[str, ...]) -> bool:
    """Whether clocks are the same there on each day of four years, as in London and on Guernsey."""
    first, *others = map(_zone, zones)
    days = (datetime(2026, 1, 1, 12, tzinfo=UTC) + timedelta(days=n) for n in range(4 * 365))
    return all(day.astimezone(first).utcoffset() == day.astimezone(one).utcoffset() for day in days for one in others)


def quiet_until(now: datetime, quiet: QuietHours, zone: ZoneInfo) -> datetime | None:
    """The first instant from now at which the contact's clock shows no quiet hour, in UTC; None if that is now."""
    local = now.astimezone(zone)
    if not quiet.hold(local.time()):
        return None
    day = local.date() if local.time() < quiet.end else local.date() + timedelta(days=1)
    return _first(now, day, quiet.end, zone)


def _first(now: datetime, day: date, wall: time, zone: ZoneInfo) -> datetime:
    """When a clock in the zone next shows this time, or jumps over it."""
    shown = datetime.combine(day, wall)
    twice = [shown.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1)]
    for at in twice:  # a clock that is put back shows it twice
        if at > now and at.astimezone(zone).replace(tzinfo=None) == shown:
            return at
    return _jump(min(twice), max(twice), zone)


def _jump(before: datetime, after: datetime, zone: ZoneInfo) -> datetime:
    """The instant between these two at which the clock is put forward, to the second."""
    offset = after.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + timedelta(seconds=(after - before) // timedelta(seconds=2))
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after
