"""Values as people write them, made into ours: phone numbers, email addresses, languages, time zones, tags."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from zoneinfo import available_timezones

import phonenumbers

#: On the Internet a mail domain has a dot (RFC 5321, 2.3.5): `me@gmail` is a slip of the hand.
_EMAIL = re.compile(r"^[^@\s]+@[^@\s.]+(\.[^@\s.]+)+\Z")

_LOCALE = re.compile(r"^[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8}){0,2}\Z")
_E164 = re.compile(r"^\+[1-9][0-9]{5,14}\Z")

#: How people write the + of a number, and what a spreadsheet makes of one that it takes for an amount.
_ABROAD = re.compile(r"^00(?=[1-9\s(])")
_SHORTENED = re.compile(r"^\+?\d([.,]\d+)?E\+?\d+\Z", re.IGNORECASE)

#: Mexican numbers with the 1 that was dialled from abroad until 2020: WhatsApp still writes it, nobody else has it.
_DIALLED = re.compile(r"^\+521(?=[2-9]\d{9}\Z)")

#: Where mobile numbers are written with and without a digit: what is before it, the digit, what is after it. In Brazil
#: that is the ninth digit, in Mexico and Argentina what is or was dialled from abroad.
_LINES = (
    (re.compile(r"(\+55\d\d)(9?)([6-9]\d{7})"), "9"),
    (re.compile(r"(\+52)(1?)([2-9]\d{9})"), "1"),
    (re.compile(r"(\+54)(9?)([1-8]\d{9})"), "9"),
)

#: Kinds of numbers that WhatsApp can have.
REACHABLE = (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE)

_NO_TYPE = phonenumbers.PhoneNumberType.UNKNOWN
_MOBILE = {phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE}

#: The database takes no longer one.
LOCALE_LIMIT = 16


def e164(text: str, region: str | None) -> str:
    """A phone number in E.164. `region` (two letters) is where numbers without + or 00 belong. Raises ValueError."""
    stripped = _ABROAD.sub("+", text.strip())
    if _SHORTENED.match(stripped):
        raise ValueError(
            "is a number that a spreadsheet has shortened: format the column as text, and give the numbers anew"
        )
    if not stripped.startswith("+") and region is None:
        raise ValueError(
            "is not a phone number: begin with + and the country, such as +919876543210, or PATCH the tenant's"
            " default_region, by which numbers without + are read"
        )
    try:
        found = _read(stripped, region)
    except phonenumbers.NumberParseException:
        raise ValueError("is not a phone number: it should look like +919876543210") from None
    number = phonenumbers.parse(found)
    if not any(_fits(number, kind) for kind in REACHABLE):
        where = "its country" if stripped.startswith("+") else f"{region}, the tenant's default_region"
        raise ValueError(f"is not a possible phone number: it has too few or too many digits for {where}")
    if not _E164.match(found):
        raise ValueError("is not a phone number that WhatsApp can reach: it has more than 15 digits, or too few")
    return found if stripped.startswith("+") or region is None else _of_region(stripped, region, found)


def _read(text: str, region: str | None) -> str:
    number = phonenumbers.parse(text, region)
    return _DIALLED.sub("+52", phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def _of_region(text: str, region: str, found: str) -> str:
    """Which number of its region is meant by one without +: the one there is. Raises ValueError if that isn't sure.

    Spreadsheets drop the + and leave the country's code, which may begin a national number too: of two that there may
    be it is the mobile one.
    """
    readings = {found}
    if (digits := phonenumbers.normalize_digits_only(text)).startswith(
        str(phonenumbers.country_code_for_region(region))
    ):
        with suppress(phonenumbers.NumberParseException):
            readings.add(_read(f"+{digits}", None))
    real = [one for one in readings if _types(one) != {_NO_TYPE}]
    if len(real) > 1:
        real = [one for one in real if _types(one) & _MOBILE]
    if len(real) != 1:
        raise ValueError(
            f"is no number that there is in {region}, the tenant's default_region: begin with + and the country, such"
            " as +919876543210, and it is taken as it is"
        )
    return real[0]


def _types(phone: str) -> set[int]:
    """What a number is, in all ways to write it."""
    return {phonenumbers.number_type(phonenumbers.parse(one)) for one in spellings(phone)}


def spellings(phone: str) -> tuple[str, ...]:
    """All ways to write a line's number (E.164), this one first: WhatsApp may have another than its owner."""
    for pattern, digit in _LINES:
        if found := pattern.fullmatch(phone):
            before, has, after = found.groups()
            return phone, f"{before}{'' if has else digit}{after}"
    return (phone,)


def line(phone: str) -> str:
    """What all ways to write a line's number have in common."""
    return min(spellings(phone))


def _fits(number: phonenumbers.PhoneNumber, kind: int) -> bool:
    """Whether it has as many digits as such a number has in its country; short local ones don't count."""
    return (
        phonenumbers.is_possible_number_for_type_with_reason(number, kind) == phonenumbers.ValidationResult.IS_POSSIBLE
    )


def email(text: str) -> str:
    """An email address in lower case. Raises ValueError."""
    address = text.strip().lower()
    if not _EMAIL.match(address):
        raise ValueError("is not an email address: it should look like asha@example.com")
    return address


def country(phone: str) -> str | None:
    """The country (two letters) that a number in E.164 belongs to, if it is known."""
    try:
        return phonenumbers.region_code_for_number(phonenumbers.parse(phone))
    except phonenumbers.NumberParseException:
        return None


def is_region(text: str) -> bool:
    """Whether these two letters are a country that has phone numbers."""
    return text in phonenumbers.SUPPORTED_REGIONS


def timezone(text: str) -> str:
    """A time zone's name as the IANA database spells it. Raises ValueError."""
    found = zones().get(text.strip().lower())
    if found is None:
        raise ValueError("is not a time zone: give a name such as Asia/Kolkata")
    return found


def locale(text: str) -> str:
    """A language, perhaps with a country. Raises ValueError."""
    stripped = text.strip()
    if not _LOCALE.match(stripped) or len(stripped) > LOCALE_LIMIT:
        raise ValueError("is not a locale: give a language such as hi, en-IN or pt_BR")
    return stripped


def one_line(text: str) -> str:
    """The text on one line, without white space around it. Raises ValueError if there is nothing to see in it."""
    stripped = " ".join(text.split())
    if not any(char.isprintable() and not char.isspace() for char in stripped):
        raise ValueError("must not be empty")
    return stripped


def credential(text: str, *, plain: bool) -> str:
    """What was copied from elsewhere, without white space around it. Raises ValueError if it can't be what is meant.

    What is `plain` has characters of the Latin alphabet, digits and signs only, as tokens do.
    """
    stripped = text.strip()
    if not stripped:
        raise ValueError("must not be empty")
    if not stripped.isprintable():
        raise ValueError("has a line break, or something else that can't be seen: copy it anew, in one piece")
    if plain and not stripped.isascii():
        raise ValueError("has other characters than Latin letters, digits and signs: copy it anew, in one piece")
    return stripped


#: In the database, and no zone: that of whichever machine reads it, and that of one that was not set up.
_NO_ZONES = {"localtime", "Factory"}


@cache
def zones() -> dict[str, str]:
    """Every time zone by its name in lower case."""
    return {name.lower(): name for name in available_timezones() - _NO_ZONES}


def tidy_tags(tags: list[str]) -> list[str]:
    """Without white space around, empty ones and repetitions; the order stays."""
    return list(dict.fromkeys(stripped for tag in tags if (stripped := tag.strip())))
