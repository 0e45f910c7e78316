"""From the bytes of a CSV file to its columns and rows, in bounded memory, whatever delimiter and line ends it has."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO

import msgspec

DELIMITERS = (",", ";", "\t", "|")

#: Of a character that its file's encoding doesn't know, and what to do.
UNREADABLE = "not in the file's encoding: save the file as UTF-8, or say which encoding it is in with ?encoding=…"

#: What people call the columns, in lower case with underscores.
ALIASES = {
    "name": ("name", "full_name", "fullname", "contact", "contact_name", "customer", "customer_name"),
    "phone": (
        "phone", "phone_number", "phonenumber", "mobile", "mobile_number", "mobile_phone", "cell", "cellphone",
        "tel", "telephone", "whatsapp", "whatsapp_number", "number", "msisdn",
    ),
    "consent": ("consent", "opt_in", "optin", "opted_in", "opted_in_at", "subscribed", "marketing_consent"),
    "consent_source": ("consent_source",),
    "consent_categories": ("consent_categories",),
    "opted_out": ("opted_out", "opted_out_at", "opt_out", "optout", "unsubscribed", "do_not_contact"),
    "locale": ("locale", "language", "lang"),
    "timezone": ("timezone", "time_zone", "tz"),
    "tags": ("tags", "tag", "labels", "groups"),
}  # fmt: skip

COLUMNS = {alias: column for column, aliases in ALIASES.items() for alias in aliases}

#: Of our own exports: told there, and not for anybody to change.
IGNORED = frozenset({"contact_id", "contact_created_at"})

TYPES = ("string", "number", "boolean", "date")

#: Before the name of an attribute, for names that would be taken for something else.
ATTRIBUTE = "attributes."

MOST_COLUMNS, NAME_LIMIT = 120, 64

#: Characters of a line, and of a cell that is kept: more is wrong in itself, and is told so.
LINE_LIMIT, CELL_LIMIT = 4_000_000, 4097

_WORD = re.compile(r"\W+")
_NO_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\ufffd]")
_SEP = re.compile(r"^\ufeff?sep=(.)\s*\Z", re.IGNORECASE)


class NotAFile(Exception):
    """The file as a whole can't be read; the text says what to do."""


class Column(msgspec.Struct, frozen=True):
    """One column of a file: its title there, what it is to us, and what its values are.

    `target` is a field of a contact, or `attributes.…`, or empty for a column that is left out.
    """

    title: str
    target: str
    type: str = "string"


@dataclass(frozen=True, slots=True)
class Row:
    """One row as cells, or why it could not be read. Numbers count as a spreadsheet does: the header is row 1."""

    number: int
    cells: list[str]
    fault: str = ""


class Reader:
    """A file that is open: its columns are known, its rows come one after the other."""

    def __init__(
        self, file: IO[bytes], encoding: str, delimiter: str | None = None, mapping: Mapping[str, str] | None = None
    ) -> None:
        self.encoding = encoding
        self._text = io.TextIOWrapper(file, encoding=encoding, errors="replace", newline="")
        first = self._first_line()
        told = _SEP.match(first)
        if told:
            first, delimiter = self._text.readline(LINE_LIMIT), delimiter or told[1]
        self.delimiter = delimiter or max(DELIMITERS, key=lambda one: len(_cells(first, one)))
        self._reader = csv.reader(self._lines(first), delimiter=self.delimiter, strict=True)
        self._number = 2 if told else 1
        self.columns = columns(self._header(), mapping or {})

    def _first_line(self) -> str:
        try:
            first = self._text.readline(LINE_LIMIT)
        except UnicodeError:
            first = ""
        if not first.strip("\ufeff \t\r\n"):
            raise NotAFile("the file is empty: its first row must name the columns, such as name,phone,consent")
        return first

    def _lines(self, first: str) -> Iterator[str]:
        line = first.removeprefix("\ufeff")
        while line:
            if len(line) >= LINE_LIMIT:
                raise NotAFile(f"a line is longer than {LINE_LIMIT} characters: is this a CSV file?")
            yield line
            line = self._text.readline(LINE_LIMIT)

    def _header(self) -> list[str]:
        try:
            return next(self._reader, list[str]())
        except csv.Error as error:
            raise NotAFile(f"the first row can't be read: {error}; is a quotation mark left open?") from None

    def rows(self) -> Iterator[Row]:
        """Every row after the header; empty ones are left out. Raises NotAFile."""
        while True:
            self._number += 1
            line = self._reader.line_num
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                lines = self._reader.line_num - line
                swallowed = f", and {lines} lines were taken for one row" if lines > 1 else ""
                yield Row(self._number, [], f"can't be read: {error}{swallowed}; is a quotation mark left open?")
                continue
            if any(not cell.isspace() and cell for cell in cells):
                yield Row(self._number, [cell[:CELL_LIMIT] for cell in cells[: MOST_COLUMNS + 1]])

    def close(self) -> None:
        """Leave the file to whoever opened it."""
        self._text.detach()


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), list[str]())
    except csv.Error:
        return line.split(delimiter)


def columns(titles: list[str], mapping: Mapping[str, str]) -> list[Column]:
    """What the columns with these titles are; `mapping` says which title holds what. Raises NotAFile."""
    if len(titles) > MOST_COLUMNS:
        raise NotAFile(f"the first row names {len(titles)} columns: {MOST_COLUMNS} are possible")
    stripped = [title.strip() for title in titles]
    chosen = {_place(title, target, stripped): target for target, title in mapping.items()}
    found = [
        Column(title, chosen[place]) if place in chosen else _column(title, frozenset(chosen.values()))
        for place, title in enumerate(stripped)
    ]
    targets = [column.target for column in found if column.target]
    missing = [column for column in ("name", "phone") if column not in targets]
    if missing:
        raise NotAFile(
            f"the first row must name the columns; missing: {', '.join(missing)} {_why(stripped, missing[0])}"
        )
    if unreadable := next((place for place, title in enumerate(stripped, 1) if "\ufffd" in title), 0):
        raise NotAFile(f"the title of column {unreadable} has a character that is {UNREADABLE}")
    twice = sorted({name for name in targets if targets.count(name) > 1 and not name.startswith(ATTRIBUTE)})
    twice += sorted({f"{one.title}" for one in found if one.target.startswith(ATTRIBUTE) and found.count(one) > 1})
    if twice:
        raise NotAFile(f"the first row names a column twice: {', '.join(twice)}")
    return found


def _why(titles: list[str], missing: str) -> str:
    """What was found instead of a column that is missing, and what to do."""
    words = [" ".join(title.split()) for title in titles if title]
    if any(map(_NO_TEXT.search, words)):
        return "(found: what is no text): is this a CSV file? Save a spreadsheet as CSV in UTF-8"
    found = f"(found: {', '.join(words)[:500]})"
    if len(titles) == 1:
        return f"{found}: put a comma, a semicolon, a tab or | between the columns, no other delimiter is taken"
    return f"{found}: rename a column, or say which it is with ?map.{missing}=…"


def _place(title: str, target: str, titles: list[str]) -> int:
    lower = [one.lower() for one in titles]
    if title.strip().lower() not in lower:
        raise NotAFile(f"map.{target}: the first row has no column {title.strip()!r}")
    return lower.index(title.strip().lower())


def _column(title: str, taken: frozenset[str]) -> Column:
    """Our name for a column, or its own as a name that templates can use; `age:number` has a type."""
    name, colon, kind = title.rpartition(":")
    if not colon or kind.strip().lower() not in TYPES:
        name, kind = title, "string"
    name, kind = name.strip(), kind.strip().lower()
    if name.startswith(ATTRIBUTE):
        return Column(title, name[: len(ATTRIBUTE) + NAME_LIMIT], kind)
    word = _WORD.sub("_", name).strip("_")
    if word.lower() in IGNORED or not word:
        return Column(title, "")
    target = COLUMNS.get(word.lower())
    if target is not None and target not in taken:
        return Column(title, target)
    return Column(title, ATTRIBUTE + word[:NAME_LIMIT], kind)


def title_of(attribute: str, kind: str) -> str:
    """A title that is read as this attribute of this type again."""
    plain = _column(attribute, frozenset())
    title = attribute if plain == Column(attribute, ATTRIBUTE + attribute) else ATTRIBUTE + attribute
    return title if kind == "string" else f"{title}:{kind}"
