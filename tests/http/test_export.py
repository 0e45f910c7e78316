"""Contacts as files, and everything about one."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from typing import Any

import pytest
from door_client import Account, a_phone, things

from harkara.storage.storage import Storage

SAID = ("name", "phone", "locale", "timezone", "attributes", "tags", "consent", "opted_out_at")


async def people(acme: Account) -> list[dict[str, Any]]:
    """Contacts with all that can be in one, newest first."""
    await acme.contact(
        name='=cmd("x")', tags=["a", "+b"], locale="hi", timezone="Asia/Kolkata",
        attributes={"Order No.": "7", "age": 31, "vip": True, "tags": "x", "note": "@home, 'quoted'\nline", "n": -3.5},
        consent={"source": "=fair", "at": "2026-01-02T03:04:05Z", "categories": ["marketing", "otp"]},
    )  # fmt: skip
    await acme.contact(name="आशा", consent=None, attributes={"age": "thirty", "note": "'=1"})
    out = await acme.contact(name="Gone")
    await acme.call("PATCH", f"/contacts/{out}", body={"opted_out": True})
    return list((await acme.get("/contacts"))["items"])


async def test_a_csv_that_is_exported_and_imported_is_the_same_people(acme: Account, other: Account) -> None:
    mine = await people(acme)
    answer = await acme.call("GET", "/contacts/export")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert "contacts.csv" in answer.headers["Content-Disposition"]
    table = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    assert [row["contact_id"] for row in table] == [one["id"] for one in mine]
    assert not [cell for row in table for name, cell in row.items() if cell[:1] in "=@" and cell]
    sent = await other.call("POST", "/contacts/import", data=answer.text.encode(), headers={"Content-Type": "text/csv"})
    assert (sent.body["created"], sent.body["errors"]) == (3, [])
    theirs = (await other.get("/contacts"))["items"]
    by_phone = {one["phone"]: {name: one[name] for name in SAID} for one in theirs}
    assert by_phone == {one["phone"]: {name: one[name] for name in SAID} for one in mine}


async def test_lines_of_json_are_contacts_as_the_list_shows_them(acme: Account) -> None:
    mine = await people(acme)
    answer = await acme.call("GET", "/contacts/export?format=jsonl")
    assert [json.loads(line) for line in answer.text.splitlines()] == mine
    assert answer.headers["Content-Type"] == "application/jsonl"


async def test_an_export_takes_the_filters_of_the_list_and_the_mark_of_excel(acme: Account) -> None:
    await people(acme)
    picked = await acme.call("GET", "/contacts/export?tag=a&bom=true")
    assert picked.text.startswith("\ufeffcontact_id,")
    assert len(list(csv.reader(io.StringIO(picked.text, newline="")))) == 2
    nobody = await acme.call("GET", "/contacts/export?tag=nobody")
    assert len(nobody.text.splitlines()) == 1
    assert (await acme.call("GET", "/contacts/export?tag=nobody&format=jsonl")).text == ""
    (await acme.call("GET", "/contacts/export?phone=abc")).is_problem(422)


async def test_all_pages_are_there_and_a_read_in_bulk_is_noted(
    acme: Account, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.http.contact_export.PAGE", 3)
    made = [await acme.contact(phone=a_phone()) for _ in range(10)]
    answer = await acme.call("GET", "/contacts/export?format=jsonl&q=asha")
    assert [json.loads(line)["id"] for line in answer.text.splitlines()] == made[::-1]
    async with storage.tenant(acme.tenant) as con:
        row = await con.fetchrow("select entity, after::text, user_id from audit_log where action = 'export'")
    assert row is not None
    assert (row["entity"], json.loads(row["after"])["filter"]["q"]) == ("contact", "asha")
    assert row["user_id"] is not None


async def test_slow_readers_hold_no_connection_to_the_database(
    acme: Account, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than there are connections, each with an answer that nobody reads."""
    monkeypatch.setattr("harkara.http.contact_export.PAGE", 2)
    for _ in range(8):
        await acme.contact(attributes={f"a{number}": "x" * 4000 for number in range(80)})
    url = f"{acme.api.url}/api/v1/contacts/export?format=jsonl"
    answers = await asyncio.gather(*(acme.api.session.get(url, headers=acme.headers) for _ in range(12)))
    assert (await acme.get("/contacts?limit=1"))["items"]
    for answer in answers:
        assert len((await answer.read()).splitlines()) == 8


async def test_everything_about_a_contact_is_one_document(
    acme: Account, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.http.contact_export.PAGE", 1)
    made = await things(acme, storage)
    contact = made.ids["contact_id"]
    gone = await acme.contact(name="Twin")
    await acme.post(f"/contacts/{contact}/merge", {"contact_id": gone}, 200)
    answer = await acme.call("GET", f"/contacts/{contact}/export")
    assert answer.status == 200, answer.text
    held = answer.body
    assert held["contact"] == await acme.get(f"/contacts/{contact}")
    expected = {"phone_numbers": 2, "messages": 1, "replies": 1, "conversations": 1, "leads": 1, "lead_changes": 1,
                "invoices": 1, "enrollments": 0, "merged": 1}  # fmt: skip
    assert {name: len(held[name]) for name in expected} == expected
    assert held["messages"][0]["content"] == {"body": "secret"}
    assert held["merged"][0]["id"] == gone
    assert {one["action"] for one in held["audit"]} >= {"create", "export"}
    assert "tenant_id" not in answer.text
