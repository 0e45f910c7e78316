"""Contacts from CSV files as people save them."""

from __future__ import annotations

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from aiohttp import FormData
from door_client import Account, Answer, a_phone

from harkara.http.contact_rows import NotAFile, batches
from harkara.storage.storage import Storage

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def read(text: str, region: str | None = None, size: int = 1000) -> tuple[list[Any], list[tuple[int, str]], int]:
    """The rows, errors as (row, path), and duplicates of a text."""
    found = list(batches(text.splitlines(keepends=True), region, NOW, size))
    rows = [row for batch in found for row in batch.rows]
    errors = [(error.row, error.path) for batch in found for error in batch.errors]
    return rows, errors, sum(batch.duplicates for batch in found)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_any_usual_delimiter_is_understood(delimiter: str) -> None:
    text = f"name{delimiter}phone{delimiter}city\nAsha{delimiter}+919876543210{delimiter}Pune\n"
    [row], errors, _ = read(text)
    assert (row.name, row.phone, row.attributes, errors) == ("Asha", "+919876543210", {"city": "Pune"}, [])


def test_columns_go_by_many_names_and_the_rest_are_attributes() -> None:
    text = (
        "\ufeffFull Name,Mobile Number,Opt-In,Language,Time Zone,Labels,Order No.,Plan\n"
        "A,+919876543210,Yes,hi,Asia/Kolkata,a;b | c,7,\n"
    )
    [row], errors, _ = read(text)
    assert errors == []
    assert (row.locale, row.timezone, row.tags, row.consent_at) == ("hi", "Asia/Kolkata", ["a", "b", "c"], NOW)
    assert row.attributes == {"Order_No": "7"}


def test_each_bad_row_is_told_by_its_number_in_the_file_and_the_good_ones_are_kept() -> None:
    text = (
        "name,phone,consent,timezone\n"
        "Asha,+919876543210,yes,\n"
        ",+919876543211,yes,\n"
        "Ravi,12,yes,\n"
        "\n"
        "Devi,+919876543213,perhaps,Mars/Base\n"
        'Two,+919876543214,2026-01-31,"Asia/Kolkata"\n'
        "Many,+919876543215,no,UTC,Pune\n"
        "Again,+91 98765 43210,,\n"
    )
    rows, errors, duplicates = read(text)
    assert [row.row for row in rows] == [2, 7]
    assert errors == [(3, "name"), (4, "phone"), (6, "timezone"), (6, "consent"), (8, "")]
    assert duplicates == 1
    assert rows[1].consent_at == datetime(2026, 1, 31, tzinfo=UTC)


def test_quoted_cells_may_hold_delimiters_quotes_and_line_breaks() -> None:
    text = 'name,phone,note\n"Rao, ""Asha""",+919876543210,"two\nlines"\n'
    [row], _, _ = read(text)
    assert (row.name, row.attributes["note"]) == ('Rao, "Asha"', "two\nlines")


def test_batches_have_the_size_asked_for() -> None:
    text = "name,phone\n" + "".join(f"A,+9198765{number:05d}\n" for number in range(25))
    assert [len(batch.rows) for batch in batches(text.splitlines(keepends=True), None, NOW, 10)] == [10, 10, 5]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "empty"),
        ("name,city\nA,B\n", "phone"),
        ("A,+919876543210\n", "name, phone"),
        ("name,phone,mobile\n", "twice"),
    ],
)
def test_a_file_that_is_none_is_refused_with_what_to_do(text: str, named: str) -> None:
    with pytest.raises(NotAFile, match=named):
        read(text)


async def send(acme: Account, text: str | bytes, content_type: str = "text/csv") -> Answer:
    data = text.encode() if isinstance(text, str) else text
    return await acme.call("POST", "/contacts/import", data=data, headers={"Content-Type": content_type})


async def test_a_file_makes_contacts_and_the_same_file_again_updates_them(acme: Account) -> None:
    first, second = a_phone(), a_phone()
    rows = (f"Asha,{first},yes,new,Pune", f"Ravi,{second},no,,", "Bad,12,yes,,", f"Twin,{first},yes,,")
    text = "\n".join(("name,phone,consent,tags,city", *rows, ""))
    answer = await send(acme, text)
    assert answer.status == 200
    errors = answer.body.pop("errors")
    assert answer.body == {"created": 2, "updated": 0, "duplicates": 1, "errors_left_out": 0}
    assert [(error["row"], error["path"]) for error in errors] == [(4, "phone")]
    [ravi, asha] = sorted((await acme.get("/contacts"))["items"], key=lambda one: one["name"], reverse=True)
    assert (asha["name"], asha["tags"], asha["attributes"]) == ("Asha", ["new"], {"city": "Pune"})
    assert asha["consent"]["source"] == "import"
    assert ravi["consent"] is None
    again = await send(acme, text)
    assert (again.body["created"], again.body["updated"]) == (0, 2)


async def test_an_update_adds_and_takes_nothing_away(acme: Account, storage: Storage) -> None:
    phone = a_phone()
    made = await acme.contact(
        phone=phone, name="Old", locale="hi", tags=["a"], attributes={"x": "1", "y": "2"}, consent={"source": "shop"}
    )
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update contacts set opted_out_at = now() where id = $1", UUID(made))
    await send(acme, f"name,phone,consent,tags,x,locale\nNew,{phone},yes,b,9,\n")
    now = await acme.get(f"/contacts/{made}")
    assert (now["name"], now["locale"], sorted(now["tags"])) == ("New", "hi", ["a", "b"])
    assert now["attributes"] == {"x": "9", "y": "2"}
    assert now["consent"]["source"] == "shop"
    assert now["opted_out_at"] is not None


async def test_a_further_number_of_a_contact_makes_no_second_contact(acme: Account) -> None:
    contact, further = await acme.contact(), a_phone()
    await acme.post(f"/contacts/{contact}/phone-numbers", {"phone": further})
    answer = await send(acme, f"name,phone\nTwin,{further}\n")
    assert answer.body["created"] == 0
    assert contact in answer.body["errors"][0]["message"]


async def test_a_form_with_a_file_and_a_byte_order_mark_is_taken(acme: Account) -> None:
    form = FormData()
    form.add_field("note", "spring")
    text = f"\ufeffname;phone\nЖанна;{a_phone()}\n"
    form.add_field("file", text.encode(), filename="contacts.csv", content_type="text/csv")
    answer = await acme.call("POST", "/contacts/import", data=form)
    assert answer.status == 200
    assert (await acme.get("/contacts"))["items"][0]["name"] == "Жанна"


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"", "text/csv", 422),
        ("name,phone\nA,+919876543210\n".encode("utf-16"), "text/csv", 422),
        (b"name,phone\nA,+919876543210\n\xff\xfe,+919876543211\n", "text/csv", 422),
        (b"[]", "application/json", 415),
        (b"--x--", "multipart/form-data; boundary=x", 400),
        (b"no boundary", "multipart/form-data", 400),
    ],
)
async def test_a_file_that_cannot_be_read_is_refused_whole(
    acme: Account, data: bytes, content_type: str, status: int
) -> None:
    (await send(acme, data, content_type)).is_problem(status)
    assert (await acme.get("/contacts"))["items"] == []


async def test_a_large_file_is_streamed_in_little_memory(acme: Account) -> None:
    rows = 20_000
    note = "x" * 300

    async def lines() -> AsyncIterator[bytes]:
        yield b"name,phone,note\n"
        for start in range(0, rows, 500):
            yield b"".join(b"P%d,+9191%08d,%s\n" % (n, n, note.encode()) for n in range(start, start + 500))
            await asyncio.sleep(0)

    tracemalloc.start()
    try:
        answer = await acme.call("POST", "/contacts/import", data=lines(), headers={"Content-Type": "text/csv"})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert answer.status == 200, answer.text
    assert answer.body["created"] == rows
    assert peak < 20_000_000, f"{peak / 1e6:.0f} MB for a file of {rows * 330 / 1e6:.0f} MB"


async def test_more_than_the_limit_is_refused_before_anything_is_stored(acme: Account) -> None:
    async def forever() -> AsyncIterator[bytes]:
        yield b"name,phone\n"
        while True:
            yield b"A,+919876543210\n" * 10_000
            await asyncio.sleep(0)

    answer = await acme.call("POST", "/contacts/import", data=forever(), headers={"Content-Type": "text/csv"})
    answer.is_problem(413)
    assert (await acme.get("/contacts"))["items"] == []


async def test_two_imports_of_the_same_people_at_once_make_each_once(acme: Account) -> None:
    phones = [a_phone() for _ in range(300)]
    files = ["name,phone\n" + "".join(f"A,{phone}\n" for phone in some) for some in (phones, phones[::-1])]
    answers = await asyncio.gather(*(send(acme, text) for text in files))
    assert [answer.status for answer in answers] == [200, 200]
    assert sum(answer.body["created"] for answer in answers) == 300
