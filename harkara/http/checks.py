"""Checks of what users send, beyond its shape: each says what is wrong and what would be right."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta

from harkara import templating, values
from harkara.gateway.abilities import lacks
from harkara.http.problems import Fault, invalid
from harkara.rendering import Unsayable, said
from harkara.schemas.content import Content
from harkara.templating import TemplateFault
from harkara.values import e164, is_region, one_line, tidy_tags, zones

__all__ = ["Faults", "e164", "is_region", "tidy_tags", "zones"]

#: A caller's clock may be ahead of ours.
CLOCKS_DIFFER = timedelta(minutes=5)


class Faults(list[Fault]):
    """Faults collected on the way, so that all are told at once.

    `is_made_up` tells whether what is at a path was put there, because what was sent is no such thing: what follows
    from it is no fault of the sender's.
    """

    def __init__(self, faults: Iterable[Fault] = (), is_made_up: Callable[[str], bool] = lambda _: False) -> None:
        super().__init__(faults)
        self.is_made_up = is_made_up

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
        try:
            return one_line(text)
        except ValueError as error:
            self.add(path, str(error))
            return ""

    def credential(self, path: str, text: str, *, plain: bool) -> str:
        """What was copied from elsewhere, without white space around it."""
        try:
            return values.credential(text, plain=plain)
        except ValueError as error:
            self.add(path, str(error))
            return ""

    def timezone(self, path: str, text: str | None) -> str | None:
        """A time zone's name as the IANA database spells it."""
        if text is None:
            return None
        try:
            return values.timezone(text)
        except ValueError as error:
            self.add(path, str(error))
            return None

    def locale(self, path: str, text: str | None) -> str | None:
        """A language, perhaps with a country."""
        if text is None:
            return None
        try:
            return values.locale(text)
        except ValueError as error:
            self.add(path, str(error))
            return None

    def moment(self, path: str, at: datetime, now: datetime) -> datetime:
        """An instant that is not in the future, give or take what clocks differ; in UTC."""
        if at > now + CLOCKS_DIFFER:
            self.add(path, "must not lie in the future")
        return self.instant(path, at)

    def not_past(self, path: str, at: datetime, now: datetime, instead: str) -> None:
        """Refuse an instant so long ago that a day or a time zone must be wrong; just now is taken for now."""
        if at < now - CLOCKS_DIFFER:
            minutes = CLOCKS_DIFFER // timedelta(minutes=1)
            self.add(path, f"lies more than {minutes} minutes in the past: {instead}")

    def instant(self, path: str, at: datetime) -> datetime:
        """An instant in UTC, where the first and the last hours of the calendar have no place."""
        try:
            return at.astimezone(UTC)
        except OverflowError:
            self.add(path, "is out of the calendar's range in UTC")
            return at

    def email(self, path: str, text: str) -> str:
        """An address in lower case."""
        try:
            return values.email(text)
        except ValueError as error:
            self.add(path, str(error))
            return ""

    def content(self, content: Content, *, complete: bool, prefix: str = "", provider: str = "cloud") -> None:
        """What a message says: the gateway's limits and its variables; `complete` ones have a default for each.

        `provider` is the sender's: not every gateway can send everything.
        """
        for path, message in content.faults() + lacks(provider, content):
            self.add(prefix + path, message)
        check = templating.check_complete if complete else templating.check
        before = len(self)
        for path, text in content.texts():
            if "{" in text:
                try:
                    check(text)
                except TemplateFault as fault:
                    self.add(prefix + path, str(fault))
        if complete and len(self) == before:
            self.extend((prefix + path, message) for path, message in _of_somebody(content))


def somebodys(content: Content) -> Content:
    """What is said to somebody of whom little is known; as it is where that can't be said."""
    try:
        return said(content, templating.SOMEBODY)
    except Unsayable as fault:
        return fault.content or content


def _of_somebody(content: Content) -> Sequence[Fault]:
    """What would be wrong for somebody of whom little is known: defaults that are too long, or empty."""
    try:
        said(content, templating.SOMEBODY)
    except Unsayable as fault:
        return fault.faults
    return ()
