"""Values as people write them."""

from __future__ import annotations

import pytest

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


@pytest.mark.parametrize("written", ["5,52199E+12", "5.52199E+12", "5.5e12", "+5,5E+12"])
@pytest.mark.parametrize("region", [None, "BR"])
def test_of_a_number_that_a_spreadsheet_has_shortened_it_is_said_what_to_do(written: str, region: str | None) -> None:
    with pytest.raises(ValueError, match="format the column as text"):
        e164(written, region)
