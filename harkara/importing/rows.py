"""From the cells of a row to a contact, or to what is wrong with it."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from harkara import values
from harkara.importing.reading import ATTRIBUTE, CELL_LIMIT, UNREADABLE, Column, Row
from harkara.schemas.api import RowError
from harkara.schemas.commands import LANES

T = TypeVar("T")

#: Yes and no as people write them, a language a line, its usual word first; true and false of spreadsheets too.
WORDS = (
    ("yes y true on granted opted_in", "no n false off"),
    ("sim s verdadeiro", "não nao falso"),
    ("sí si verdadero", "no falso"),
    ("sì si vero", "no falso"),
    ("oui vrai", "non faux"),
    ("ja j wahr", "nein falsch"),
    ("ja waar", "nee onwaar"),
    ("हाँ हां", "नहीं नही"),
    ("ya iya", "tidak"),
    ("evet", "hayır hayir"),
    ("tak", "nie"),
    ("да", "нет"),
    ("نعم", "لا"),
)

#: In a list that is filled in by hand a mark is a yes: who means no leaves the cell empty.
MARKS = "1 x ✓ ✔"

#: Say nothing, rather than no.
NOTHING = frozenset({"", "-", "none"})

YES = frozenset(" ".join((MARKS, *(yes for yes, _ in WORDS))).split()) | {"opted in"}
NO = frozenset(" ".join(("0", *(no for _, no in WORDS))).split()) | NOTHING

#: Those that a refusal names.
_USUAL = ", ".join(f"{yes.split()[0]}/{no.split()[0]}" for yes, no in WORDS)

NAME_LIMIT, VALUE_LIMIT, TAG_LIMIT, SOURCE_LIMIT = 200, CELL_LIMIT - 1, 64, 200

#: Where a consent came from that the file doesn't say more of.
SOURCE = "import"

#: A file's clock may be ahead of ours.
_CLOCKS_DIFFER = timedelta(minutes=5)

_SEPARATOR = re.compile(r"[;|,]")

#: A cell that a spreadsheet would take for a formula has an apostrophe before it: ours have, and others'.
_GUARDED = re.compile(r"'+[=+\-@\t\r]")
_RISKY = re.compile(r"'*[=+\-@\t\r]")


@dataclass(frozen=True, slots=True)
class ContactRow:
    """One good row."""

    row: int
    name: str
    phone: str
    locale: str | None
    timezone: str | None
    attributes: dict[str, str | int | float | bool]
    tags: list[str]
    consent_at: datetime | None
    consent_source: str | None
    consent_categories: list[str]
    withdraws_consent: bool
    opted_out_at: datetime | None


@dataclass(slots=True)
class Batch:
    """Some rows of a file: the good ones, what is wrong with the bad ones, and how many repeat an earlier line."""

    rows: list[ContactRow] = field(default_factory=list[ContactRow])
    errors: list[RowError] = field(default_factory=list[RowError])
    duplicates: int = 0


@dataclass(frozen=True, slots=True)
class Meaning:
    """How cells are to be read: numbers without + belong to `region`, and `yes` means `now`."""

    columns: list[Column]
    region: str | None
    now: datetime


def batch(rows: Iterable[Row], meaning: Meaning) -> Batch:
    """The contacts of these rows. A number that comes twice among them, in any spelling, counts once."""
    found, seen = Batch(), set[str]()
    for row in rows:
        read = _Cells(row, meaning)
        contact = read.contact()
        if read.faults:
            found.errors += [RowError(row=row.number, path=path, message=message) for path, message in read.faults]
        elif (line := values.line(contact.phone)) in seen:
            found.duplicates += 1
        else:
            seen.add(line)
            found.rows.append(contact)
    return found


class _Cells:
    """The cells of one row by what they are, and the faults found in them."""

    def __init__(self, row: Row, meaning: Meaning) -> None:
        self._row, self._meaning = row, meaning
        self.faults: list[tuple[str, str]] = [("", row.fault)] if row.fault else []
        columns = meaning.columns
        if any(cell.strip() for cell in row.cells[len(columns) :]):
            told = f"has {len(row.cells)} cells, the header {len(columns)}: is a cell with a delimiter not in quotes?"
            self.faults.append(("", told))
        self._given: dict[str, str] = {}
        self._attributes: dict[str, str | int | float | bool] = {}
        for column, cell in zip(columns, row.cells, strict=False):
            self._take(column, cell.strip())

    def _take(self, column: Column, cell: str) -> None:
        if not column.target or not cell:
            return
        cell = cell[1:] if _GUARDED.match(cell) else cell
        if fault := _unfit(cell):
            self.faults.append((column.target, fault))
        elif column.target.startswith(ATTRIBUTE):
            value = self.read(column.target, _TYPES[column.type], cell)
            if value is not None:
                self._attributes[column.target.removeprefix(ATTRIBUTE)] = value
        else:
            self._given[column.target] = cell

    def contact(self) -> ContactRow:
        """The contact; what is wrong with it is in `faults`."""
        given, region = self._given, self._meaning.region
        source, consent_at = given.get("consent_source"), self.moment("consent")
        if source is not None and len(source) > SOURCE_LIMIT:
            self.faults.append(("consent_source", f"must have at most {SOURCE_LIMIT} characters"))
        return ContactRow(
            row=self._row.number,
            name=self.read("name", _name, given.get("name", "")) or "",
            phone=self.read("phone", lambda text: _phone(text, region), given.get("phone", "")) or "",
            locale=self.read("locale", values.locale, given["locale"]) if "locale" in given else None,
            timezone=self.read("timezone", values.timezone, given["timezone"]) if "timezone" in given else None,
            attributes=self._attributes,
            tags=self.read("tags", _tags, given.get("tags", "")) or [],
            consent_at=consent_at,
            consent_source=(source or SOURCE) if consent_at else None,
            consent_categories=self.read("consent_categories", _lanes, given.get("consent_categories", "")) or [],
            withdraws_consent=_word(given.get("consent", "")) in NO - NOTHING,
            opted_out_at=self.moment("opted_out"),
        )

    def read(self, path: str, reader: Callable[[str], T], text: str) -> T | None:
        """What a reader makes of a text; None, and a fault, if it can't. Of a row that can't be read all is told."""
        if self._row.fault:
            return None
        try:
            return reader(text)
        except ValueError as error:
            if all(known != path for known, _ in self.faults):
                self.faults.append((path, str(error)))
            return None

    def moment(self, path: str) -> datetime | None:
        """Yes means now; a date or an instant is when it was."""
        return self.read(path, lambda text: _moment(text, self._meaning.now), self._given.get(path, ""))


def _unfit(cell: str) -> str:
    if "\x00" in cell:
        return "must not contain the character NUL"
    if "\ufffd" in cell:
        return f"has a character that is {UNREADABLE}"
    return f"must have at most {VALUE_LIMIT} characters" if len(cell) > VALUE_LIMIT else ""


def _name(text: str) -> str:
    if len(text) > NAME_LIMIT:
        raise ValueError(f"must have at most {NAME_LIMIT} characters")
    return values.one_line(text)


def _phone(text: str, region: str | None) -> str:
    if not text:
        raise ValueError("must not be empty")
    return values.e164(text, region)


def _tags(text: str) -> list[str]:
    tags = values.tidy_tags(_SEPARATOR.split(text))
    if any(len(tag) > TAG_LIMIT for tag in tags):
        raise ValueError(f"each must have at most {TAG_LIMIT} characters")
    return tags


def _lanes(text: str) -> list[str]:
    lanes = [lane.lower() for lane in values.tidy_tags(_SEPARATOR.split(text))]
    if any(lane not in LANES for lane in lanes):
        raise ValueError(f"possible are {', '.join(LANES)}, with a semicolon or a comma between them")
    return lanes


def _word(text: str) -> str:
    """As the words for yes and no are written: some programs write an accent as a character of its own."""
    return unicodedata.normalize("NFC", text).lower()


def _moment(text: str, now: datetime) -> datetime | None:
    if _word(text) in NO:
        return None
    if _word(text) in YES:
        return now
    try:
        at = datetime.fromisoformat(text)
        at = (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        told = f"must be yes or no ({_USUAL}), or the date it was given such as 2026-01-31"
        raise ValueError(told) from None
    if at > now + _CLOCKS_DIFFER:
        raise ValueError("must not lie in the future")
    return at


def _number(text: str) -> int | float:
    try:
        found = int(text) if text.removeprefix("-").isdecimal() else float(text)
    except ValueError:
        raise ValueError("must be a number such as 12 or -3.5") from None
    if not math.isfinite(found) or abs(found) >= 1 << 63:
        raise ValueError("must be a number that is not so large")
    return found


def _boolean(text: str) -> bool:
    if _word(text) not in YES | NO:
        raise ValueError(f"must be yes or no ({_USUAL})")
    return _word(text) in YES


def _date(text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError("must be a date such as 2026-01-31") from None


_TYPES: dict[str, Callable[[str], str | int | float | bool]] = {
    "string": str,
    "number": _number,
    "boolean": _boolean,
    "date": _date,
}


def guarded(cell: str) -> str:
    """The cell so that no spreadsheet takes it for a formula; an import reads what it was."""
    return f"'{cell}" if _RISKY.match(cell) else cell
