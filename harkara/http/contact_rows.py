"""Reading contacts from a CSV file as people save it: any usual delimiter, headers by many names, errors row by row."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice

from harkara.http.checks import Faults, tidy_tags
from harkara.schemas.api import RowError

DELIMITERS = (",", ";", "\t")

#: What people call the columns, in lower case with underscores.
ALIASES = {
    "name": ("name", "full_name", "fullname", "contact", "contact_name", "customer", "customer_name"),
    "phone": (
        "phone", "phone_number", "phonenumber", "mobile", "mobile_number", "mobile_phone", "cell", "cellphone",
        "tel", "telephone", "whatsapp", "whatsapp_number", "number", "msisdn",
    ),
    "consent": ("consent", "opt_in", "optin", "opted_in", "opted_in_at", "subscribed", "marketing_consent"),
    "locale": ("locale", "language", "lang"),
    "timezone": ("timezone", "time_zone", "tz"),
    "tags": ("tags", "tag", "labels", "groups"),
}  # fmt: skip

COLUMNS = {alias: column for column, aliases in ALIASES.items() for alias in aliases}

YES = frozenset({"true", "yes", "y", "1", "x", "on", "granted", "opted in", "opted_in"})
NO = frozenset({"", "false", "no", "n", "0", "off", "-", "none"})

NAME_LIMIT, VALUE_LIMIT, TAG_LIMIT = 200, 4096, 64

_WORD = re.compile(r"\W+")
_TAG_SEPARATOR = re.compile(r"[;|]")


class NotAFile(Exception):
    """The file as a whole can't be read; the text says what to do."""


@dataclass(frozen=True, slots=True)
class ContactRow:
    """One good row. `row` counts as a spreadsheet does: the header is row 1."""

    row: int
    name: str
    phone: str
    locale: str | None
    timezone: str | None
    attributes: dict[str, str]
    tags: list[str]
    consent_at: datetime | None


@dataclass(slots=True)
class Batch:
    """Some rows of a file: the good ones, what is wrong with the bad ones, and how many repeat an earlier number."""

    rows: list[ContactRow] = field(default_factory=list[ContactRow])
    errors: list[RowError] = field(default_factory=list[RowError])
    duplicates: int = 0


def batches(lines: Iterable[str], region: str | None, now: datetime, size: int) -> Iterator[Batch]:
    """The contacts of a CSV text, `size` rows at a time. Raises NotAFile. Holds a batch and the numbers seen."""
    reader, header = _open(iter(lines))
    seen: set[str] = set()
    rows = enumerate(_readable(reader), start=2)
    while chunk := list(islice(rows, size)):
        batch = Batch()
        for number, cells in chunk:
            if any(cell.strip() for cell in cells):
                _take(batch, number, cells, header, region, now, seen)
        yield batch


def _open(lines: Iterator[str]) -> tuple[Iterator[list[str]], list[str]]:
    first = next(lines, "")
    if not first.strip():
        raise NotAFile("the file is empty: its first row must name the columns, such as name,phone,consent")
    delimiter = max(DELIMITERS, key=lambda one: len(next(csv.reader([first], delimiter=one))))
    header = [_column(cell) for cell in next(csv.reader([first], delimiter=delimiter))]
    missing = [column for column in ("name", "phone") if column not in header]
    if missing:
        raise NotAFile(
            f"the first row must name the columns; missing: {', '.join(missing)} (found: {', '.join(header)})"
        )
    twice = sorted({name for name in header if name and header.count(name) > 1})
    if twice:
        raise NotAFile(f"the first row names a column twice: {', '.join(twice)}")
    return csv.reader(lines, delimiter=delimiter), header


def _column(cell: str) -> str:
    """Our name for a column, or its own as a name that templates can use."""
    word = _WORD.sub("_", cell.strip().removeprefix("\ufeff")).strip("_")
    return COLUMNS.get(word.lower(), word)


def _readable(reader: Iterator[list[str]]) -> Iterator[list[str]]:
    try:
        yield from reader
    except csv.Error as error:
        raise NotAFile(f"the file is not CSV: {error}; is a quotation mark left open?") from None


def _take(
    batch: Batch, number: int, cells: list[str], header: list[str], region: str | None, now: datetime, seen: set[str]
) -> None:
    faults = Faults()
    row = _row(number, cells, header, region, now, faults)
    if faults:
        batch.errors += [RowError(row=number, path=path, message=message) for path, message in faults]
    elif row.phone in seen:
        batch.duplicates += 1
    else:
        seen.add(row.phone)
        batch.rows.append(row)


def _row(
    number: int, cells: list[str], header: list[str], region: str | None, now: datetime, faults: Faults
) -> ContactRow:
    if any(cell.strip() for cell in cells[len(header) :]):
        faults.add("", f"has {len(cells)} cells, the header {len(header)}: is a cell with a comma not in quotes?")
    given = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if name}
    for name, cell in given.items():
        if "\x00" in cell:
            faults.add(name, "must not contain the character NUL")
        elif len(cell) > VALUE_LIMIT:
            faults.add(name, f"must have at most {VALUE_LIMIT} characters")
    return ContactRow(
        row=number,
        name=_name(given.get("name", ""), faults),
        phone=_phone(given.get("phone", ""), region, faults),
        locale=faults.locale("locale", given.get("locale") or None),
        timezone=faults.timezone("timezone", given.get("timezone") or None),
        attributes={name: cell for name, cell in given.items() if name not in ALIASES and cell},
        tags=_tags(given.get("tags", ""), faults),
        consent_at=_consent(given.get("consent", ""), now, faults),
    )


def _name(text: str, faults: Faults) -> str:
    if len(text) > NAME_LIMIT:
        faults.add("name", f"must have at most {NAME_LIMIT} characters")
    return faults.filled("name", text)


def _phone(text: str, region: str | None, faults: Faults) -> str:
    if not text:
        faults.add("phone", "must not be empty")
        return ""
    return faults.phone("phone", text, region)


def _tags(text: str, faults: Faults) -> list[str]:
    tags = tidy_tags(_TAG_SEPARATOR.split(text))
    if any(len(tag) > TAG_LIMIT for tag in tags):
        faults.add("tags", f"each must have at most {TAG_LIMIT} characters")
    return tags


def _consent(text: str, now: datetime, faults: Faults) -> datetime | None:
    """Yes means now; a date or an instant is when it was given."""
    if text.lower() in NO:
        return None
    if text.lower() in YES:
        return now
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        faults.add("consent", "must be yes or no, or the date it was given such as 2026-01-31")
        return None
    return faults.moment("consent", at if at.tzinfo else at.replace(tzinfo=UTC), now)
