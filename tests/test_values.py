"""Values as people write them."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from harkara import values
from harkara.values import e164


@pytest.mark.parametrize(
    ("written", "region", "phone"),
    [
        ("+5215512345680", None, "+525512345680"),
        ("+52 1 55 1234 5678", None, "+525512345678"),
        ("5215512345680", "MX", "+525512345680"),
        ("1 55 1234 5678", "MX", "+525512345678"),
        ("+52 55 1234 5678", None, "+525512345678"),
        ("+54 9 11 1234-5678", None, "+5491112345678"),
        ("+54 11 1234-5678", None, "+541112345678"),
        ("0055 21 99999-0007", "BR", "+5521999990007"),
        ("0055 21 99999-0007", None, "+5521999990007"),
        ("00919876543210", "US", "+919876543210"),
        ("+39 06 1234567", None, "+39061234567"),
        ("030 12345678", "DE", "+493012345678"),
    ],
)
def test_numbers_are_read_as_people_and_whatsapp_write_them(written: str, region: str | None, phone: str) -> None:
    assert e164(written, region) == phone


@pytest.mark.parametrize(
    ("written", "region", "phone"),
    [
        ("491707654329", "DE", "+491707654329"),  # also +49 491 707654329, if there were one
        ("4915112345678", "DE", "+4915112345678"),
        ("49 170 7654329", "DE", "+491707654329"),
        ("4917654329", "DE", "+494917654329"),  # Leer, 0491
        ("1707654329", "DE", "+491707654329"),
        ("4930123456", "DE", "+4930123456"),
        ("919876543210", "IN", "+919876543210"),
        ("9198765432", "IN", "+919198765432"),
        ("3931234567", "IT", "+393931234567"),
        ("393331234567", "IT", "+393331234567"),
        ("2199990007", "BR", "+552199990007"),  # without the ninth digit
        ("552199990007", "BR", "+552199990007"),
        ("4155550100", "US", "+14155550100"),
        ("+4912345", "DE", "+4912345"),
    ],
)
def test_a_number_without_its_plus_is_one_that_there_is(written: str, region: str, phone: str) -> None:
    assert e164(written, region) == phone


@pytest.mark.parametrize(("written", "region"), [("12345", "DE"), ("0170 12", "DE"), ("1000000000", "IN")])
def test_what_is_no_number_of_the_region_is_refused_and_the_way_out_told(written: str, region: str) -> None:
    with pytest.raises(ValueError, match=r"begin with \+ and the country"):
        e164(written, region)


@pytest.mark.parametrize("written", ["5,52199E+12", "5.52199E+12", "5.5e12", "+5,5E+12"])
@pytest.mark.parametrize("region", [None, "BR"])
def test_of_a_number_that_a_spreadsheet_has_shortened_it_is_said_what_to_do(written: str, region: str | None) -> None:
    with pytest.raises(ValueError, match="format the column as text"):
        e164(written, region)


@pytest.mark.parametrize(
    "name",
    [
        "localtime",
        "LocalTime",
        "Factory",
        "posixrules",
        "leapseconds",
        "posix/Asia/Kolkata",
        "+05:30",
        "IST",
        "",
        "Asia",
    ],
)
def test_what_is_no_place_s_time_is_no_time_zone(name: str) -> None:
    with pytest.raises(ValueError, match="is not a time zone"):
        values.timezone(name)


@pytest.mark.parametrize(
    ("name", "known_as"),
    [
        ("asia/kolkata", "Asia/Kolkata"),
        (" Etc/GMT+5 ", "Etc/GMT+5"),
        ("utc", "UTC"),
        ("est5edt", "EST5EDT"),
        ("GB", "GB"),
    ],
)
def test_a_time_zone_is_spelled_as_the_database_has_it(name: str, known_as: str) -> None:
    assert values.timezone(name) == known_as


def test_every_time_zone_that_is_taken_has_a_clock() -> None:
    noon = datetime(2026, 7, 1, 12, tzinfo=UTC)
    assert [name for name in values.zones().values() if noon.astimezone(ZoneInfo(name)).tzname() == "-00"] == []
    assert len(values.zones()) > 400
