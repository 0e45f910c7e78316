"""Checks of what users send, beyond its shape: each says what is wrong and what would be right."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import available_timezones

import phonenumbers

from harkara import templating
from harkara.http.problems import Fault, invalid
from harkara.schemas.content import Content
from harkara.templating import TemplateFault

_LOCALE = re.compile(r"^[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8}){0,2}\Z")
_E164 = re.compile(r"^\+[1-9][0-9]{5,14}\Z")
_EMAIL = re.compile(r"^[^@\s]+@[^@\s]+\Z")

#: Kinds of numbers that WhatsApp can have.
REACHABLE = (phonenumbers.PhoneNumberType.MOBILE, phonenumbers.PhoneNumberType.FIXED_LINE)

#: The database takes no longer one.
LOCALE_LIMIT = 16

#: A caller's clock may be ahead of ours.
CLOCKS_DIFFER = timedelta(minutes=5)


class Faults(list[Fault]):
    """Faults collected on the way, so that all are told at once."""

    def add(self, path: str, message: str) -> None:
        """Note a fault."""
        self.append((path, message))

    def refuse(self) -> None:
        """Raise Problem 422 with all of them, if there are any."""
        if self:
            raise invalid(*self)

    def phone(self, path: str, text: str, region: str | None) -> str:
        """The number in E.164; of a tenant with a region, national numbers are understood too."""
        try:
            return e164(text, region)
        except ValueError as error:
            self.add(path, str(error))
            return ""

    def filled(self, path: str, text: str) -> str:
        """The text on one line, without white space around it; it must have something to see in it."""
        stripped = " ".join(text.split())
        if not any(char.isprintable() and not char.isspace() for char in stripped):
            self.add(path, "must not be empty")
        return stripped

    def timezone(self, path: str, text: str | None) -> str | None:
        """A time zone's name as the IANA database spells it."""
        if text is None:
            return None
        found = zones().get(text.strip().lower())
        if found is None:
            self.add(path, "is not a time zone: give a name such as Asia/Kolkata")
        return found

    def locale(self, path: str, text: str | None) -> str | None:
        """A language, perhaps with a country."""
        if text is None:
            return None
        stripped = text.strip()
        if not _LOCALE.match(stripped) or len(stripped) > LOCALE_LIMIT:
            self.add(path, "is not a locale: give a language such as hi, en-IN or pt_BR")
        return stripped

    def moment(self, path: str, at: datetime, now: datetime) -> datetime:
        """An instant that is not in the future, give or take what clocks differ; in UTC."""
        if at > now + CLOCKS_DIFFER:
            self.add(path, "must not lie in the future")
        return self.instant(path, at)

    def instant(self, path: str, at: datetime) -> datetime:
        """An instant in UTC, where the first and the last hours of the calendar have no place."""
        try:
            return at.astimezone(UTC)
        except OverflowError:
            self.add(path, "is out of the calendar's range in UTC")
            return at

    def email(self, path: str, text: str) -> str:
        """An address in lower case."""
        address = text.strip().lower()
        if not _EMAIL.match(address):
            self.add(path, "is not an email address")
        return address

    def content(self, content: Content, *, complete: bool, prefix: str = "") -> None:
        """What a message says: the gateway's limits and its variables; `complete` ones have a default for each."""
        for path, message in content.faults():
            self.add(prefix + path, message)
        check = templating.check_complete if complete else templating.check
        for path, text in content.texts():
            if "{" in text:
                try:
                    check(text)
                except TemplateFault as fault:
                    self.add(prefix + path, str(fault))


def e164(text: str, region: str | None) -> str:
    """A phone number in E.164. `region` (two letters) is where numbers without + belong. Raises ValueError."""
    stripped = text.strip()
    if not stripped.startswith("+") and region is None:
        raise ValueError("is not a phone number: begin with + and the country, such as +919876543210")
    try:
        number = phonenumbers.parse(stripped, region)
    except phonenumbers.NumberParseException:
        raise ValueError("is not a phone number: it should look like +919876543210") from None
    if not any(_fits(number, kind) for kind in REACHABLE):
        raise ValueError("is not a possible phone number: it has too few or too many digits for its country")
    found = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
    if not _E164.match(found):
        raise ValueError("is not a phone number that WhatsApp can reach: it has more than 15 digits, or too few")
    return found


def _fits(number: phonenumbers.PhoneNumber, kind: int) -> bool:
    """Whether it has as many digits as such a number has in its country; short local ones don't count."""
    return (
        phonenumbers.is_possible_number_for_type_with_reason(number, kind) == phonenumbers.ValidationResult.IS_POSSIBLE
    )


def is_region(text: str) -> bool:
    """Whether these two letters are a country that has phone numbers."""
    return text in phonenumbers.SUPPORTED_REGIONS


@cache
def zones() -> dict[str, str]:
    """Every time zone by its name in lower case."""
    return {name.lower(): name for name in available_timezones()}


def tidy_tags(tags: list[str]) -> list[str]:
    """Without white space around, empty ones and repetitions; the order stays."""
    return list(dict.fromkeys(stripped for tag in tags if (stripped := tag.strip())))
