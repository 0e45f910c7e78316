"""Contacts from CSV files as people save them."""

from __future__ import annotations

import asyncio
import io
import json
import re
import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from aiohttp import FormData
from door_client import Account, Answer, a_line, a_phone
from support import until

from harkara.actors.herald import Herald
from harkara.actors.importer import Importer
from harkara.bus.connection import Bus, Running
from harkara.bus.schedule import Schedule
from harkara.bus.tail import History
from harkara.http.contact_import import import_csv
from harkara.importing.encodings import shape_of
from harkara.importing.hints import hints
from harkara.importing.reading import NotAFile, Reader, columns
from harkara.importing.rows import NO, YES, Batch, Meaning, batch, guarded
from harkara.storage import importing
from harkara.storage.storage import Storage
from harkara.templating import used

NOW = datetime(2026, 5, 1, tzinfo=UTC)


def opened(data: bytes, region: str | None = None, **how: Any) -> tuple[Reader, Batch]:
    """A file as it is read."""
    file = io.BytesIO(data)
    reader = Reader(file, shape_of(file).encoding, **how)
    return reader, batch(reader.rows(), Meaning(reader.columns, region, NOW))


def read(text: str, region: str | None = None) -> tuple[list[Any], list[tuple[int, str]], int]:
    """The rows, errors as (row, path), and duplicates of a text."""
    _, found = opened(text.encode(), region)
    return found.rows, [(error.row, error.path) for error in found.errors], found.duplicates


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
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
    assert errors == [(3, "name"), (4, "phone"), (6, "consent"), (6, "timezone"), (8, "")]
    assert duplicates == 1
    assert rows[1].consent_at == datetime(2026, 1, 31, tzinfo=UTC)


def test_quoted_cells_may_hold_delimiters_quotes_and_line_breaks() -> None:
    text = 'name,phone,note\n"Rao, ""Asha""",+919876543210,"two\nlines"\n'
    [row], _, _ = read(text)
    assert (row.name, row.attributes["note"]) == ('Rao, "Asha"', "two\nlines")


@pytest.mark.parametrize(
    ("encoding", "found", "name"),
    [
        ("utf-8", "utf-8", "Zoë Müller"),
        ("utf-8-sig", "utf-8-sig", "आशा राव"),
        ("utf-16", "utf-16", "आशा राव"),
        ("utf-16-le", "utf-16-le", "Zoë Müller"),
        ("utf-16-be", "utf-16-be", "Zoë Müller"),
        ("utf-32", "utf-32", "Zoë Müller"),
        ("cp1252", "cp1252", "José Peña"),
        ("cp1250", "cp1250", "Lukáš Dvořák, Žaneta Šťastná"),
        ("cp1251", "cp1251", "Мария Иванова"),
        ("cp932", "cp932", "山田太郎"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_usual_encoding_and_line_end_is_understood(encoding: str, found: str, name: str, end: str) -> None:
    text = end.join(("name;phone;note", f"{name};+919876543210;x", "B;+919876543211;y", ""))
    reader, read_ = opened(text.encode(encoding))
    assert (reader.encoding, reader.delimiter) == (found, ";")
    assert [row.name for row in read_.rows] == [name, "B"]
    assert read_.errors == []


def test_a_damaged_character_costs_its_row_and_not_the_file() -> None:
    good = "".join(f"आशा,+9198765{number:05d}\n" for number in range(40)).encode()
    reader, found = opened(b"name,phone\n" + good + b"R\xe9mi,+919876599999\n")
    assert reader.encoding == "utf-8"
    assert len(found.rows) == 40
    assert [(error.row, error.path) for error in found.errors] == [(42, "name")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_file_of_two_encodings_is_utf_8_and_its_other_rows_are_told(end: bytes) -> None:
    rows = [b"name,phone", "Zoë,+919876543210".encode(), b"Jos\xe9,+919876543211", b"Mar\xeda,+919876543212", b""]
    reader, found = opened(end.join(rows))
    assert reader.encoding == "utf-8"
    assert [row.name for row in found.rows] == ["Zoë"]
    assert [(error.row, error.path) for error in found.errors] == [(3, "name"), (4, "name")]
    assert all("save the file as UTF-8" in error.message for error in found.errors)


def test_a_row_that_is_utf_8_by_accident_makes_no_file_of_another_encoding_utf_8() -> None:
    rows = ("模", *("北京市朝阳区建国门外大街", "上海市浦东新区世纪大道", "广州市天河区体育西路") * 5)  # the first is ģ
    text = "".join(f"{name},+9198765{number:05d}\n" for number, name in enumerate(rows))
    reader, found = opened(f"name,phone\n{text}".encode("gb18030"))
    assert reader.encoding == "gb18030"
    assert [row.name for row in found.rows] == list(rows)


def test_attributes_have_the_type_that_the_header_says() -> None:
    text = (
        "name,phone,age:number,vip:Boolean,since:date,code:string\n"
        "A,+919876543210,31,yes,2026-01-31,007\n"
        "B,+919876543211,-3.5,no,,\n"
        "C,+919876543212,many,perhaps,31.1.2026,\n"
        "D,+919876543213,1e999,,,\n"
    )
    rows, errors, _ = read(text)
    assert rows[0].attributes == {"age": 31, "vip": True, "since": "2026-01-31", "code": "007"}
    assert rows[1].attributes == {"age": -3.5, "vip": False}
    assert errors == [(4, "attributes.age"), (4, "attributes.vip"), (4, "attributes.since"), (5, "attributes.age")]


def test_a_column_is_what_the_mapping_says() -> None:
    data = b"Kunde;Handy;Telefon\nA;+919876543210;030\n"
    _, found = opened(data, mapping={"name": "kunde", "phone": "Handy"})
    assert (found.rows[0].phone, found.rows[0].attributes) == ("+919876543210", {"Telefon": "030"})
    with pytest.raises(NotAFile, match=r"map\.phone.*'Fax'"):
        opened(data, mapping={"name": "Kunde", "phone": "Fax"})


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ('name,phone\n"A,+919876543210\nB,+919876543211\n', [(2, "")]),
        ('name,phone\n"A"x,+919876543210\nB,+919876543211\n', [(2, "")]),
        ("name,phone\n" + "x" * 1_000_000 + ",+919876543210\nB,+919876543211\n", [(2, "")]),
        ("name,phone,n\nA,+919876543210," + "x" * 5000 + "\nB,+919876543211,\n", [(2, "attributes.n")]),
        ("name,phone\nA\x00,+919876543210\nB,+919876543211\n", [(2, "name")]),
    ],
)
def test_a_row_that_cannot_be_read_is_told_and_the_next_one_is_read(text: str, bad: list[tuple[int, str]]) -> None:
    rows, errors, _ = read(text)
    assert errors == bad
    assert [row.name for row in rows] == (["B"] if text.count('"') != 1 else [])


def test_a_formula_is_guarded_and_read_as_it_was() -> None:
    for text in ("=1+1", "+cmd", "-2", "@x", "'=1", "''+1", "it's", "plain"):
        cell = guarded(text)
        assert cell[0] not in "=+-@", text
        rows, errors, _ = read(f"name,phone,note\nA,+919876543210,{cell}\n")
        assert (rows[0].attributes["note"], errors) == (text, [])


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "empty"),
        ("name,city\nA,B\n", "phone"),
        ("A,+919876543210\n", "name, phone"),
        ("name,phone,mobile\n", "twice"),
        (",".join(f"c{number}" for number in range(10_000)) + "\n", "10000 columns"),
        ('"name,phone\nA,+919876543210\n', "quotation mark"),
        ("name^phone\nA^+919876543210\n", r"a comma, a semicolon, a tab or \|"),
        ("Zeichen,Größe,name\n", r"found: Zeichen, Größe, name.*rename"),
    ],
)
def test_a_file_that_is_none_is_refused_with_what_to_do(text: str, named: str) -> None:
    with pytest.raises(NotAFile, match=named):
        read(text)


@pytest.mark.parametrize("data", [b"PK\x03\x04\x14\x00\x06\xff,\x02\n", bytes(range(14, 256)) * 20, b"\x7fELF\x02\x01"])
def test_a_file_that_is_no_text_is_not_repeated(data: bytes) -> None:
    with pytest.raises(NotAFile, match="Save a spreadsheet as CSV") as refused:
        opened(data)
    assert str(refused.value).isprintable()


def test_a_title_that_cannot_be_read_is_told() -> None:
    with pytest.raises(NotAFile, match=r"column 3.*save the file as UTF-8"):
        opened(b"name,phone,Gr\xf6\xdfe\n" + "Zoë,+919876543210,5\n".encode())


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
    counts = {"created": 2, "updated": 0, "duplicates": 1, "opted_out": 0, "errors_left_out": 0}
    told_of = "other columns are attributes; in texts they are written just so, capitals too: {{ attributes.city }}"
    assert answer.body == {**counts, "encoding": "utf-8", "delimiter": ",", "hints": [told_of]}
    assert [(error["row"], error["path"]) for error in errors] == [(4, "phone")]
    [ravi, asha] = sorted((await acme.get("/contacts"))["items"], key=lambda one: one["name"], reverse=True)
    assert (asha["name"], asha["tags"], asha["attributes"]) == ("Asha", ["new"], {"city": "Pune"})
    assert asha["consent"]["source"] == "import"
    assert ravi["consent"] is None
    again = await send(acme, text)
    assert (again.body["created"], again.body["updated"]) == (0, 2)


@pytest.mark.parametrize(("cell", "stays"), [("no", False), ("False", False), ("", True), ("-", True), ("yes", True)])
async def test_an_outright_no_withdraws_a_consent(acme: Account, cell: str, stays: bool) -> None:
    phone = a_phone()
    consent = {"source": "shop", "at": "2026-01-31T00:00:00Z", "categories": ["marketing"]}
    made = await acme.contact(phone=phone, consent=consent)
    preview = await acme.call(
        "POST",
        "/contacts/import?preview=true",
        data=f"name,phone,consent\nAsha,{phone},{cell}\n".encode(),
        headers={"Content-Type": "text/csv"},
    )
    assert preview.body["rows"][0]["withdraws_consent"] is not stays
    await send(acme, f"name,phone,consent\nAsha,{phone},{cell}\n")
    now = await acme.get(f"/contacts/{made}")
    assert now["consent"] == (consent if stays else None)
    assert now["opted_out_at"] is None
    noted = [
        entry
        for entry in (await acme.get(f"/audit?entity=contact&entity_id={made}&action=update"))["items"]
        if "consent_source" in entry["changes"]["before"]
    ]
    assert [entry["via"] for entry in noted] == ([] if stays else ["POST /contacts/import"])


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


@pytest.mark.parametrize(
    ("delimiter", "cell"),
    [(";", "a,b"), (",", '"a,b"'), (",", "a;b"), (",", "a|b"), (";", '"a; b,"'), ("\t", "a, b"), (",", '"a , b"')],
)
def test_tags_have_a_comma_a_semicolon_or_a_bar_between_them(delimiter: str, cell: str) -> None:
    [row], errors, _ = read(f"name{delimiter}phone{delimiter}tags\nAna{delimiter}+5511987654321{delimiter}{cell}\n")
    assert (row.tags, errors) == (["a", "b"], [])


@pytest.mark.parametrize(
    "cell", ["sim", "Sim", "SÍ", "si\u0301", "ja", "oui", "sì", "हाँ", "ya", "VERDADEIRO", "x", "✓"]
)
def test_yes_is_said_in_many_languages_and_by_a_mark(cell: str) -> None:
    [row], errors, _ = read(f"name,phone,consent,vip:boolean\nAna,+5511987654321,{cell},{cell}\n")
    assert (row.consent_at, row.withdraws_consent, row.attributes, errors) == (NOW, False, {"vip": True}, [])


@pytest.mark.parametrize("cell", ["não", "NÃO", "na\u0303o", "no", "nein", "non", "nee", "नहीं", "tidak", "FALSO", "0"])
def test_no_is_said_in_many_languages(cell: str) -> None:
    [row], errors, _ = read(f"name,phone,consent,vip:boolean\nAna,+5511987654321,{cell},{cell}\n")
    assert (row.consent_at, row.withdraws_consent, row.attributes, errors) == (None, True, {"vip": False}, [])


def test_what_is_neither_yes_nor_no_is_told_and_the_words_are_documented() -> None:
    _, found = opened(b"name,phone,consent\nAna,+5511987654321,talvez\n")
    [error] = found.errors
    assert "sim/não" in error.message
    described = set(re.split(r"[\s,;:/.]+", import_csv.__doc__ or ""))
    assert (YES | NO) - {"", "opted in"} <= described
    assert not YES & NO


def test_two_spellings_of_one_line_in_a_file_are_a_duplicate() -> None:
    text = "name,phone\nAna,+55 11 98765-4321\nAna,+55 11 8765-4321\nLuz,+52 55 1234 5678\nLuz,5215512345678\n"
    rows, errors, duplicates = read(text, "MX")
    assert ([row.phone for row in rows], errors, duplicates) == (["+5511987654321", "+525512345678"], [], 2)


@pytest.mark.parametrize("long_first", [True, False])
async def test_a_line_of_a_contact_makes_no_second_contact_however_its_number_is_written(
    acme: Account, long_first: bool
) -> None:
    lines = a_line(), a_line(), a_line()
    (phone, spelled), (further, respelled), new = lines if long_first else [line[::-1] for line in lines]
    contact = await acme.contact(phone=phone, consent={"source": "shop"})
    await acme.post(f"/contacts/{contact}/phone-numbers", {"phone": further})
    text = f"name,phone,consent,opted_out\nAna,{spelled},no,yes\nTwin,{respelled},,\nNew,{new[0]},,\nNew,{new[1]},,\n"
    preview = await acme.call(
        "POST", "/contacts/import?preview=true", data=text.encode(), headers={"Content-Type": "text/csv"}
    )
    assert (preview.body["known"], preview.body["duplicates"]) == (1, 1)
    assert [row["phone"] for row in preview.body["rows"]] == [phone, new[0]]
    answer = await send(acme, text)
    for told in (preview.body, answer.body):
        [error] = told["errors"]
        assert (error["row"], error["path"], contact in error["message"]) == (3, "phone", True)
    assert [answer.body[count] for count in ("created", "updated", "duplicates")] == [1, 1, 1]
    now = await acme.get(f"/contacts/{contact}")
    assert (now["name"], now["phone"], now["consent"]) == ("Ana", phone, None)
    assert now["opted_out_reason"] == "import"
    again = await send(acme, f"name,phone\nNew,{new[1]}\n")
    assert (again.body["created"], again.body["updated"]) == (0, 1)


async def test_two_spellings_in_two_pieces_of_a_file_are_a_duplicate(
    acme: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.http.contact_import.CHUNK_ROWS", 1)
    one, other = a_line()
    answer = await send(acme, f"name,phone\nAna,{one}\nAna,{other}\n")
    assert [answer.body[count] for count in ("created", "updated", "duplicates")] == [1, 0, 1]


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
        (b"\x00\x01\x02\x03", "text/csv", 422),
        (b"[]", "application/json", 415),
        (b"--x--", "multipart/form-data; boundary=x", 400),
        (b"no boundary", "multipart/form-data", 400),
        (
            b'--x\r\nContent-Disposition: form-data; name="\x7f"\r\n\r\na\r\n--x--',
            "multipart/form-data; boundary=x",
            400,
        ),
    ],
)
async def test_a_file_that_cannot_be_read_is_refused_whole(
    acme: Account, data: bytes, content_type: str, status: int
) -> None:
    (await send(acme, data, content_type)).is_problem(status)
    assert (await acme.get("/contacts"))["items"] == []


ROWS = 6_000


async def many(rows: int = ROWS, note: str = "x" * 1500) -> AsyncIterator[bytes]:
    """A large file: one bad row, one repeated number, the rest good."""
    yield b"name,phone,note\n"
    for start in range(0, rows - 2, 500):
        numbers = range(start, min(start + 500, rows - 2))
        yield b"".join(b"P%d,+9191%08d,%s\n" % (n, n, note.encode()) for n in numbers)
        await asyncio.sleep(0)
    yield b"Again,+919100000000,\nBad,12,\n"


async def send_many(acme: Account, rows: int = ROWS, path: str = "/contacts/import") -> Answer:
    return await acme.call("POST", path, data=many(rows), headers={"Content-Type": "text/csv"})


async def test_a_large_file_is_stored_piece_by_piece_in_little_memory(
    acme: Account, storage: Storage, live_bus: Bus
) -> None:
    tracemalloc.start()
    try:
        answer = await send_many(acme)
        _, peak = tracemalloc.get_traced_memory()
        assert answer.status == 202, answer.text
        path = f"/contacts/imports/{answer.body['id']}"
        assert answer.headers["Location"] == f"/api/v1{path}"
        waiting = await acme.get(path)
        assert (waiting["status"], waiting["rows"], waiting["rows_done"]) == ("queued", ROWS, 0)
        tracemalloc.reset_peak()
        async with importing_on(live_bus, storage):
            await until_done(acme, path)
        _, peak_of_actor = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    for one in (peak, peak_of_actor):
        assert one < 20_000_000, f"{one / 1e6:.0f} MB for a file of {ROWS * 1530 / 1e6:.0f} MB"
    done = await acme.get(path)
    expected = {"created": ROWS - 2, "updated": 0, "duplicates": 1, "opted_out": 0, "errors": 1}
    counts = {name: done[name] for name in ("rows_done", *expected)}
    assert counts == {"rows_done": ROWS} | expected
    assert done["finished_at"] is not None
    [error] = (await acme.get(f"{path}/errors"))["items"]
    assert (error["row"], error["path"]) == (ROWS + 1, "phone")
    async with storage.tenant(acme.tenant) as con:
        assert await con.fetchval("select count(*) from contacts") == ROWS - 2
        assert await con.fetchval("select count(*) from import_chunks") == 0
    seqs = [one async for one in told(live_bus, acme, "import.progressed")]
    assert [event["rows_done"] for event in seqs] == sorted(event["rows_done"] for event in seqs)
    assert 0 < seqs[0]["rows_done"] < ROWS
    [last] = [one async for one in told(live_bus, acme, "import.completed")]
    assert {"opted_out": 0} | last == {"id": answer.body["id"], "rows": ROWS} | counts


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of more than a hundred lines are large, and stored by fifty rows."""
    monkeypatch.setattr("harkara.http.contact_import.SMALL_LINES", 100)
    monkeypatch.setattr("harkara.http.contact_import.CHUNK_ROWS", 50)


@asynccontextmanager
async def importing_on(bus: Bus, storage: Storage) -> AsyncGenerator[Running]:
    """The importer at work, and who hands on what the front door has laid down for it."""
    herald = Herald(storage, bus.publisher, bus.publisher.send)
    async with bus.run(Importer(storage)) as running:
        await herald.start()
        try:
            yield running
        finally:
            await herald.stop()


async def until_done(acme: Account, path: str) -> None:
    async def done() -> bool:
        return bool((await acme.get(path))["status"] == "completed")

    await until(done, "the import is completed", timeout=60, every=0.1)


async def told(bus: Bus, acme: Account, type_: str) -> AsyncIterator[Any]:
    """The events of this type, in order."""
    history = History(bus.link, "EVENTS")
    page = await history.page(f"t.{acme.tenant}.evt.{type_}", 0, 1000)
    for one in page.messages:
        yield json.loads(one.body)
    await history.close()


@pytest.mark.usefixtures("small_pieces")
async def test_a_kill_during_an_import_counts_nothing_twice(
    acme: Account, storage: Storage, live_bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The transaction of a chunk that breaks leaves nothing; one whose end is not heard is not done again."""
    answer = await send_many(acme, 300)
    assert answer.status == 202
    note, calls = importing.note, 0

    async def breaking(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        done = await note(*args, **more)
        if calls in (2, 4):
            raise ConnectionError("killed before the commit")
        return done

    handle, handled = Importer.handle, 0

    async def forgetting(self: Importer, batch: Any) -> Any:
        nonlocal handled
        handled += 1
        outcomes = await handle(self, batch)
        if handled in (1, 5):
            raise ConnectionError("killed after the commit")
        return outcomes

    monkeypatch.setattr(importing, "note", breaking)
    monkeypatch.setattr(Importer, "handle", forgetting)
    monkeypatch.setattr(Importer, "retries", Schedule.seconds(*[0.05] * 9))
    path = f"/contacts/imports/{answer.body['id']}"
    async with importing_on(live_bus, storage):
        await until_done(acme, path)
    done = await acme.get(path)
    assert (calls, handled) == (8, 10) or (calls > 6 and handled > 6)
    counts = [done[name] for name in ("rows_done", "created", "updated", "duplicates", "errors")]
    assert counts == [300, 298, 0, 1, 1]


@pytest.mark.usefixtures("small_pieces")
async def test_two_large_imports_of_the_same_people_at_once_make_each_once(
    acme: Account, storage: Storage, live_bus: Bus
) -> None:
    answers = await asyncio.gather(send_many(acme, 550), send_many(acme, 550))
    paths = [f"/contacts/imports/{answer.body['id']}" for answer in answers]
    async with importing_on(live_bus, storage):
        for path in paths:
            await until_done(acme, path)
    done = [await acme.get(path) for path in paths]
    assert sum(one["created"] for one in done) == 548
    assert all(one["created"] + one["updated"] + one["duplicates"] + one["errors"] == 550 for one in done)
    assert [one["id"] for one in (await acme.get("/contacts/imports"))["items"]] == sorted(
        (answer.body["id"] for answer in answers), reverse=True
    )


@pytest.mark.usefixtures("small_pieces")
async def test_an_import_that_is_cancelled_stores_nothing_more(acme: Account, storage: Storage, live_bus: Bus) -> None:
    answer = await send_many(acme, 550)
    path = f"/contacts/imports/{answer.body['id']}"
    assert (await acme.call("DELETE", path)).status == 204
    (await acme.call("DELETE", path)).is_problem(409)
    async with importing_on(live_bus, storage) as running:
        await until(lambda: running.counters.handled, "the command was looked at")
    assert (await acme.get(path))["status"] == "cancelled"
    assert (await acme.get("/contacts"))["items"] == []
    async with storage.tenant(acme.tenant) as con:
        assert await con.fetchval("select count(*) from import_chunks") == 0


async def test_a_large_file_that_turns_out_to_be_none_leaves_nothing(acme: Account, storage: Storage) -> None:
    data = io.BytesIO(b"name,phone\n" + b"A,+919876543210\n" * 60 + b"x" * 4_100_000)
    headers = {"Content-Type": "text/csv"}
    (await acme.call("POST", "/contacts/import", data=data, headers=headers)).is_problem(422)
    assert (await acme.get("/contacts/imports"))["items"] == []
    async with storage.tenant(acme.tenant) as con:
        assert await con.fetchval("select count(*) from import_chunks") == 0


@pytest.mark.usefixtures("small_pieces")
async def test_more_rows_than_one_import_takes_are_refused(acme: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harkara.http.contact_import.MOST_ROWS", 550)
    assert "550" in (await send_many(acme, 600)).is_problem(413).body["detail"]
    assert (await acme.get("/contacts/imports"))["items"] == []


async def test_a_preview_shows_how_a_file_would_be_read_and_stores_nothing(acme: Account) -> None:
    phone = a_phone()
    await acme.contact(phone=phone)
    text = f"Kunde;Handy;Alter:number;Tags\nZoë;{phone};31;a|b\nBad;12;x;\nTwin;{phone};;\n"
    form = FormData({"map.phone": "Handy", "map.name": "Kunde"})
    form.add_field("file", text.encode("cp1252"), filename="kunden.csv")
    answer = await acme.call("POST", "/contacts/import?preview=true", data=form)
    assert answer.status == 200, answer.text
    shown = answer.body
    assert (shown["encoding"], shown["delimiter"], shown["known"], shown["duplicates"]) == ("cp1252", ";", 1, 1)
    assert [(one["title"], one["target"], one["type"]) for one in shown["columns"]] == [
        ("Kunde", "name", "string"),
        ("Handy", "phone", "string"),
        ("Alter:number", "attributes.Alter", "number"),
        ("Tags", "tags", "string"),
    ]
    [row] = shown["rows"]
    assert (row["name"], row["phone"], row["attributes"], row["tags"]) == ("Zoë", phone, {"Alter": 31}, ["a", "b"])
    assert {(error["row"], error["path"]) for error in shown["errors"]} == {(3, "phone"), (3, "attributes.Alter")}
    encoding, attributes = shown["hints"]
    assert "cp1252 is a guess" in encoding
    assert attributes.endswith(": {{ attributes.Alter }}")
    assert len((await acme.get("/contacts"))["items"]) == 1


@pytest.mark.parametrize(
    ("query", "path"),
    [("encoding=klingon", "encoding"), ("encoding=base64", "encoding"), ("delimiter=x", "delimiter"),
     ("map.email=x", "map.email"), ("map.phone=Fax", "")],
)  # fmt: skip
async def test_a_reading_that_is_wrong_is_refused(acme: Account, query: str, path: str) -> None:
    answer = await acme.call(
        "POST",
        f"/contacts/import?{query}",
        data=b"name,phone\nA,+919876543210\n",
        headers={"Content-Type": "text/csv"},
    )
    assert path in answer.is_problem(422).faults()


async def test_an_opt_out_in_a_file_counts_and_a_consent_tells_where_it_comes_from(acme: Account) -> None:
    out, in_ = a_phone(), a_phone()
    await acme.contact(phone=out)
    text = (
        "name,phone,consent,consent_source,consent_categories,unsubscribed\n"
        f"A,{out},,,,yes\nB,{in_},2026-01-31,fair,marketing;utility,no\n"
    )
    assert (await send(acme, text)).body["updated"] == 1
    one = {contact["phone"]: contact for contact in (await acme.get("/contacts"))["items"]}
    assert (one[out]["opted_out_reason"], one[out]["consent"]["source"]) == ("import", "api")
    consent = {"source": "fair", "at": "2026-01-31T00:00:00Z", "categories": ["marketing", "utility"]}
    assert (one[in_]["consent"], one[in_]["opted_out_at"]) == (consent, None)


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


async def test_every_answer_says_how_the_file_is_read(acme: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    file = f"name;phone\nZoë;{a_phone()}\n".encode() + f"Jos\xe9;{a_phone()}\n".encode("latin-1")
    read_as = {"encoding": "utf-8", "delimiter": ";"}
    small = await send(acme, file)
    assert read_as.items() <= small.body.items()
    assert (small.body["created"], [error["row"] for error in small.body["errors"]]) == (1, [3])
    monkeypatch.setattr("harkara.http.contact_import.SMALL", 1)
    large = await send(acme, file)
    assert large.status == 202
    assert read_as.items() <= large.body.items()


async def test_what_was_guessed_and_what_columns_became_is_told(acme: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    file = f"name;phone;City;Größe;2nd\nJosé;{a_phone()};Pune;1;\n"
    guessed, words, others = (await send(acme, file.encode("cp1252"))).body["hints"]
    assert guessed.startswith("the file does not say its encoding, cp1252 is a guess: look at names with accents")
    assert words.endswith("capitals too: {{ attributes.City }}, {{ attributes.Größe }}")
    assert others.endswith("rename their columns, with a letter first: 2nd")
    for how, data in (("encoding=cp1252", file.encode("cp1252")), ("", file.encode())):  # said, or certain
        answer = await acme.call("POST", f"/contacts/import?{how}", data=data, headers={"Content-Type": "text/csv"})
        assert answer.body["hints"] == [words, others]
    assert (await send(acme, f"name,phone\nA,{a_phone()}\n")).body["hints"] == []
    monkeypatch.setattr("harkara.http.contact_import.SMALL", 1)
    large = await send(acme, file.encode("cp1252"))
    assert (large.status, large.body["hints"]) == (202, [guessed, words, others])
    path = f"/contacts/imports/{large.body['id']}"
    assert (await acme.get(path))["hints"] == large.body["hints"]


@pytest.mark.parametrize("name", ["City", "größe", "order_no"])
def test_a_hint_names_what_texts_can_name(name: str) -> None:
    [hint] = hints("utf-8", columns(["name", "phone", name], {}), guessed=False)
    assert used(hint) == {f"attributes.{name}"}


@pytest.mark.usefixtures("small_pieces")
async def test_a_large_file_counts_who_stays_opted_out(acme: Account, storage: Storage, live_bus: Bus) -> None:
    people = [f"+9191{number:08d}" for number in (3, 60)]  # in the first piece, and in the second
    for phone in people:
        await acme.contact(phone=phone)
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update contacts set opted_out_at = now()")
    path = f"/contacts/imports/{(await send_many(acme, 150)).body['id']}"
    async with importing_on(live_bus, storage):
        await until_done(acme, path)
    assert (await acme.get(path))["opted_out"] == 2
    [last] = [one async for one in told(live_bus, acme, "import.completed")]
    assert last["opted_out"] == 2
