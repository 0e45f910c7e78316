"""Quiet hours, by the contact's own clock."""

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest

from harkara.policy.quiet_hours import QuietHours, quiet_until, read, zone_of, zone_of_phone

NIGHT = QuietHours(time(21), time(9))


def opens(now: str, quiet: QuietHours, zone: str) -> str | None:
    """When it opens, on UTC's clock."""
    found = quiet_until(datetime.fromisoformat(now), quiet, ZoneInfo(zone))
    return found.isoformat().removesuffix("+00:00") if found else None


@pytest.mark.parametrize(
    ("now", "quiet", "zone", "until"),
    [
        ("2026-03-01T12:00Z", NIGHT, "UTC", None),
        ("2026-03-01T21:00Z", NIGHT, "UTC", "2026-03-02T09:00:00"),
        ("2026-03-02T08:59:59.999Z", NIGHT, "UTC", "2026-03-02T09:00:00"),
        ("2026-03-02T09:00Z", NIGHT, "UTC", None),
        # Half an hour, and three quarters.
        ("2026-03-01T16:00Z", NIGHT, "Asia/Kolkata", "2026-03-02T03:30:00"),
        ("2026-03-01T15:29Z", NIGHT, "Asia/Kolkata", None),
        ("2026-03-01T16:00Z", NIGHT, "Asia/Kathmandu", "2026-03-02T03:15:00"),
        # Not over midnight.
        ("2026-03-01T13:30Z", QuietHours(time(13), time(15)), "UTC", "2026-03-01T15:00:00"),
        ("2026-03-01T15:00Z", QuietHours(time(13), time(15)), "UTC", None),
        # Equal ones mean never.
        ("2026-03-01T09:00Z", QuietHours(time(9), time(9)), "UTC", None),
        # The night in which Berlin's clocks are put forward, and the one in which they are put back.
        ("2026-03-28T22:00Z", NIGHT, "Europe/Berlin", "2026-03-29T07:00:00"),
        ("2026-03-27T22:00Z", NIGHT, "Europe/Berlin", "2026-03-28T08:00:00"),
        ("2026-10-24T22:00Z", NIGHT, "Europe/Berlin", "2026-10-25T08:00:00"),
        ("2026-10-23T22:00Z", NIGHT, "Europe/Berlin", "2026-10-24T07:00:00"),
        # 02:30 is jumped over: it opens when the clock jumps, at 01:00 UTC.
        ("2026-03-28T23:00Z", QuietHours(time(21), time(2, 30)), "Europe/Berlin", "2026-03-29T01:00:00"),
        ("2026-03-28T23:00Z", QuietHours(time(21), time(2)), "Europe/Berlin", "2026-03-29T01:00:00"),
        # 02:30 comes twice: it opens at the first, and is quiet again until the second.
        ("2026-10-24T23:00Z", QuietHours(time(21), time(2, 30)), "Europe/Berlin", "2026-10-25T00:30:00"),
        ("2026-10-25T00:45Z", QuietHours(time(21), time(2, 30)), "Europe/Berlin", None),
        ("2026-10-25T01:10Z", QuietHours(time(21), time(2, 30)), "Europe/Berlin", "2026-10-25T01:30:00"),
        # Half an hour of summer time.
        ("2026-10-03T14:00Z", QuietHours(time(21), time(2, 15)), "Australia/Lord_Howe", "2026-10-03T15:30:00"),
    ],
)
def test_it_opens_at_the_right_instant(now: str, quiet: QuietHours, zone: str, until: str | None) -> None:
    assert opens(now, quiet, zone) == until


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "America/Havana"])
@pytest.mark.parametrize("start", [time(3, 30), time(21)])
@pytest.mark.parametrize("end", [time(0, 0), time(0, 15), time(1, 30), time(2, 30), time(9)])
def test_it_is_the_first_quarter_that_a_clock_shows_no_quiet_hour(zone: str, start: time, end: time) -> None:
    """Quarter by quarter around both changes of the clock."""
    quiet, there = QuietHours(start, end), ZoneInfo(zone)
    for day in ("03-07T12", "03-28T12", "04-04T06", "10-03T06", "10-24T12", "10-31T12"):
        now = datetime.fromisoformat(f"2026-{day}:00Z")
        minutes = [now + timedelta(minutes=n) for n in range(0, 48 * 60, 15)]
        is_quiet = [quiet.hold(at.astimezone(there).time()) for at in minutes]
        first: datetime | None = None
        for at, silent in zip(reversed(minutes), reversed(is_quiet), strict=True):
            if not silent:
                first = at
                assert quiet_until(at, quiet, there) is None
            elif first is not None:
                assert quiet_until(at, quiet, there) == first


@pytest.mark.parametrize(
    ("phone", "zone"),
    [
        ("+919876543210", "Asia/Calcutta"),
        ("+491701234567", "Europe/Berlin"),
        ("+12125550123", "America/New_York"),
        ("+18005550123", None),
        ("+5511987654321", "America/Sao_Paulo"),
        ("+447911123456", "Europe/Guernsey"),
        ("+393331234567", "Europe/Rome"),
        ("+351912345678", None),
        ("+999", None),
    ],
)
def test_a_phone_tells_its_zone_if_there_is_only_one_clock(phone: str, zone: str | None) -> None:
    assert zone_of_phone(phone) == zone


def test_the_contacts_own_zone_comes_first_and_the_tenants_last() -> None:
    assert zone_of("Asia/Tokyo", "+919876543210", "Europe/Paris").key == "Asia/Tokyo"
    assert zone_of(None, "+919876543210", "Europe/Paris").key == "Asia/Calcutta"
    assert zone_of(None, "+18005550123", "Europe/Paris").key == "Europe/Paris"
    assert zone_of(None, "+447911123456", "Asia/Kolkata").key == "Europe/Guernsey", "the clock is that of London"
    assert zone_of("Gone/Away", "+18005550123", None).key == "UTC"


def test_stored_quiet_hours_are_read() -> None:
    assert read('{"start":"21:00","end":"09:30"}') == QuietHours(time(21), time(9, 30))
    assert (
        quiet_until(datetime(2026, 1, 1, tzinfo=UTC), read('{"start":"00:00","end":"00:00"}'), ZoneInfo("UTC")) is None
    )
