"""The people of the demo: many scripts, no real number, and rows that must be refused."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections import Counter
from datetime import UTC, datetime
from itertools import chain

import phonenumbers

from harkara.demo.script import ANSWERS, CONTACTS, SHOWN, STEPS
from harkara.importing.reading import Reader
from harkara.importing.rows import Batch, ContactRow, Meaning, batch
from harkara.templating import check_complete, compiled, variables

#: What regulators keep for films and books: North America, Germany (two networks), Sweden.
FICTION = re.compile(r"^\+(1\d{3}55501\d\d|4917139200\d\d|4917604069\d{3}|46701740(60[5-9]|6[1-9]\d))$")

TEXT = CONTACTS.read_text("utf-8")


def read() -> Batch:
    reader = Reader(io.BytesIO(CONTACTS.read_bytes()), "utf-8")
    return batch(reader.rows(), Meaning(reader.columns, None, datetime.now(UTC)))


def people() -> list[ContactRow]:
    return read().rows


def test_five_hundred_can_be_imported_and_six_rows_can_not() -> None:
    found = read()
    assert len(found.rows) == 500
    assert found.duplicates == 1
    assert sorted(error.path for error in found.errors) == ["consent", "name", "phone", "phone", "timezone"]
    assert len(list(csv.reader(io.StringIO(TEXT)))) == 1 + 500 + 6


def test_names_are_written_in_many_scripts() -> None:
    scripts = Counter(unicodedata.name(row.name[0]).split()[0] for row in people())
    assert {
        "LATIN", "DEVANAGARI", "TAMIL", "BENGALI", "ARABIC", "CYRILLIC", "CJK", "HANGUL", "THAI", "GREEK", "HEBREW",
        "ETHIOPIC",
    } <= scripts.keys()  # fmt: skip
    assert any(not name.isascii() and "LATIN" in unicodedata.name(name[0]) for name in (row.name for row in people()))


def test_nobody_can_really_be_called() -> None:
    for row in people():
        assert FICTION.match(row.phone), row
        assert phonenumbers.is_valid_number(phonenumbers.parse(row.phone)), row


def test_zones_locales_consent_and_attributes_vary() -> None:
    rows = people()
    assert len({row.timezone for row in rows}) >= 30
    assert len({row.locale for row in rows}) >= 20
    assert sum(row.consent_at is None for row in rows) == 4
    assert any("product" not in row.attributes for row in rows)
    assert any("city" not in row.attributes for row in rows)


def test_those_who_answer_are_there_once_and_may_be_enrolled() -> None:
    names = Counter(row.name for row in people())
    assert all(names[name] == 1 for name in chain((answer.name for answer in ANSWERS), [SHOWN]))
    assert all(row.consent_at for row in people() if row.name in {answer.name for answer in ANSWERS})


def test_every_message_reads_well_for_everybody() -> None:
    texts = [STEPS[0]["body"], STEPS[2]["body"]]
    for text in texts:
        check_complete(text)
        for row in people():
            known = variables(name=row.name, phone=row.phone, locale=row.locale, attributes=row.attributes)
            said = compiled(text)(known)
            assert row.name.split()[0] in said
            assert "{{" not in said
