"""Invoices at the door: made, changed while they are open, ended once, and named by what is about them."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from door_client import Account
from support import an_invoice

from harkara.bus.connection import Bus
from harkara.http.message_list import MESSAGES
from harkara.http.search import Search
from harkara.ids import uuid7
from harkara.schemas.api import MessageQuery
from harkara.storage.storage import Storage


async def told(storage: Storage, tenant: str) -> list[tuple[str, dict[str, Any]]]:
    """What lies in the tenant's outbox."""
    async with storage.tenant(tenant) as con:
        rows = await con.fetch("select subject, body from outbox order by id")
    return [(row["subject"].partition(".evt.")[2], json.loads(row["body"])) for row in rows]


async def test_an_invoice_is_made_changed_paid_and_audited(acme: Account, storage: Storage) -> None:
    contact = await acme.contact()
    made = await acme.post("/invoices", an_invoice(contact, number=" 2026-0042 "))
    assert (made["number"], made["status"], made["paid_at"], made["amount"]) == ("2026-0042", "open", None, 123450)
    path = f"/invoices/{made['id']}"
    assert await acme.get(path) == made
    changed = (await acme.call("PATCH", path, body={"amount": 5, "external_id": "in_1"})).body
    assert (changed["amount"], changed["external_id"]) == (5, "in_1")
    paid = await acme.post(f"{path}/pay", status=200)
    assert paid["status"] == "paid"
    assert paid["paid_at"] is not None
    assert await acme.post(f"{path}/pay", status=200) == paid
    assert "paid" in (await acme.call("POST", f"{path}/void")).is_problem(409).body["detail"]
    assert "external_id" in (await acme.call("PATCH", path, body={"amount": 6})).is_problem(409).body["detail"]
    assert (await acme.call("PATCH", path, body={"amount": 5, "external_id": None})).body["external_id"] is None
    events = await told(storage, acme.tenant)
    assert [name for name, _ in events] == ["invoice.created", "invoice.paid"]
    assert events[1][1] == {
        "id": made["id"], "contact_id": contact, "number": "2026-0042", "amount": 5, "currency": "INR",
        "due_at": "2026-12-01T00:00:00Z", "external_id": "in_1",
    }  # fmt: skip
    noted = (await acme.get(f"/audit?entity_id={made['id']}"))["items"]
    assert [one["action"] for one in noted] == ["update", "update", "update", "create"]
    assert noted[1]["changes"]["after"]["status"] == "paid"


async def test_a_void_invoice_stays_void_and_the_same_key_pays_once(acme: Account, storage: Storage) -> None:
    contact = await acme.contact()
    void, paid = [(await acme.post("/invoices", an_invoice(contact)))["id"] for _ in range(2)]
    for _ in range(2):
        assert (await acme.post(f"/invoices/{void}/void", status=200))["status"] == "void"
        key = {"Idempotency-Key": "pay-once"}
        assert (await acme.call("POST", f"/invoices/{paid}/pay", headers=key)).body["status"] == "paid"
    (await acme.call("POST", f"/invoices/{void}/pay")).is_problem(409)
    names = [name for name, _ in await told(storage, acme.tenant)]
    assert sorted(names) == ["invoice.created", "invoice.created", "invoice.paid", "invoice.voided"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"number": " "}, "number"),
        ({"number": "x" * 65}, "number"),
        ({"amount": 0}, "amount"),
        ({"amount": 1.5}, "amount"),
        ({"currency": "inr"}, "currency"),
        ({"currency": "RUPEES"}, "currency"),
        ({"currency": "QQQ"}, "currency"),
        ({"currency": "XYZ"}, "currency"),
        ({"due_at": "2026-12-01"}, "due_at"),
        ({"due_at": "9999-12-31T23:59:59-14:00"}, "due_at"),
        ({"status": "paid"}, "status"),
        ({"contact_id": "nobody"}, "contact_id"),
    ],
)
async def test_what_is_wrong_with_an_invoice_is_named(acme: Account, body: dict[str, Any], path: str) -> None:
    answer = await acme.call("POST", "/invoices", body=an_invoice(str(uuid4())) | body)
    assert path in answer.is_problem(422).faults()


async def test_an_invoices_number_is_the_tenants_own_and_its_contact_is_there(acme: Account, other: Account) -> None:
    contact, theirs = await acme.contact(), await other.contact()
    first = an_invoice(contact)
    there = (await acme.post("/invoices", first))["id"]
    second = (await acme.post("/invoices", an_invoice(contact)))["id"]
    for method, path, body in (
        ("POST", "/invoices", first),
        ("PATCH", f"/invoices/{second}", {"number": first["number"]}),
    ):
        answer = (await acme.call(method, path, body=body, headers={"Idempotency-Key": "1"})).is_problem(409)
        assert first["number"] in answer.faults()["number"]
        assert answer.body["invoice_id"] == there
    await other.post("/invoices", first | {"contact_id": theirs})
    (await acme.call("POST", "/invoices", body=an_invoice(theirs))).is_problem(404)


async def test_invoices_are_found_by_contact_status_and_when_they_are_due(
    acme: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.http.lists.LOOKED_AT", 3)
    asha, ravi = await acme.contact(), await acme.contact()
    made: list[str] = []
    for number in range(6):
        body = an_invoice(asha if number % 2 else ravi, due_at=f"2026-12-0{number + 1}T00:00:00Z")
        made.append((await acme.post("/invoices", body))["id"])
    await acme.post(f"/invoices/{made[1]}/pay", status=200)
    await acme.post(f"/invoices/{made[2]}/void", status=200)

    async def ids(query: str) -> list[str]:
        found: list[str] = []
        page: dict[str, Any] = {"next": ""}
        while page["next"] is not None:
            page = await acme.get(f"/invoices?limit=2&{query}" + (f"&cursor={page['next']}" if page["next"] else ""))
            found += [one["id"] for one in page["items"]]
        return found[::-1]

    assert await ids("") == made
    third = (await acme.call("PATCH", f"/invoices/{made[3]}", body={"external_id": "in_4"})).body
    assert await ids("external_id=in_4") == await ids(f"number={third['number']}") == [made[3]]
    assert await ids("number=none-has-this") == []
    assert await ids(f"contact_id={asha}") == made[1::2]
    assert await ids("status=paid") == [made[1]]
    assert await ids("status=open&due_before=2026-12-05T00:00:00Z") == [made[0], made[3]]
    assert await ids("due_after=2026-12-02T00:00:00Z&due_before=2026-12-04T00:00:00Z") == made[1:3]


async def test_only_an_open_invoice_of_the_contact_can_be_named(acme: Account, other: Account, live_bus: Bus) -> None:
    campaign, contact, stranger = await acme.campaign(), await acme.contact(), await acme.contact()
    mine = (await acme.post("/invoices", an_invoice(contact, number="42")))["id"]
    anothers = (await acme.post("/invoices", an_invoice(stranger)))["id"]
    theirs = (await other.post("/invoices", an_invoice(await other.contact())))["id"]
    enroll = f"/contacts/{contact}/campaign/{campaign}/enroll"
    wanted = {"contact_id": contact, "body": "{{ invoice.number }}: {{ invoice.amount }}, {{ invoice.due_date }}"}
    for id_ in (anothers, theirs, str(uuid7())):
        for path, body in ((enroll, {}), ("/messages", wanted)):
            answer = await acme.call("POST", path, body=body | {"invoice_id": id_})
            assert answer.is_problem(422).faults().keys() == {"invoice_id"}
    no_contact = {"to": "+919812345678", "body": "Hi", "invoice_id": mine}
    assert (await acme.call("POST", "/messages", body=no_contact)).is_problem(422).faults().keys() == {"invoice_id"}
    # Without one there is nothing that the text could say.
    faults = (await acme.call("POST", "/messages", body=wanted)).is_problem(422).faults()
    assert faults.keys() == {"body"}
    assert "`invoice_id`" in faults["body"]
    assert (await acme.call("POST", "/messages", body=wanted | {"invoice_id": mine})).status == 202
    assert (await acme.call("POST", enroll, body={"invoice_id": mine})).status == 202
    for command in ("message.send", "enrollment.start"):
        stored = await live_bus.js.get_last_msg("COMMANDS", f"t.{acme.tenant}.cmd.{command}")
        assert json.loads(stored.data or b"")["invoice_id"] == mine
    await acme.post(f"/invoices/{mine}/pay", status=200)
    for path, body in ((enroll, {}), ("/messages", wanted)):
        answer = await acme.call("POST", path, body=body | {"invoice_id": mine})
        assert "paid" in answer.is_problem(409).body["detail"]


@pytest.mark.parametrize(("verb", "reason"), [("pay", "invoice_paid"), ("void", "invoice_void")])
async def test_ending_an_invoice_stops_what_is_about_it_and_nothing_else(
    acme: Account, storage: Storage, verb: str, reason: str
) -> None:
    campaigns, contact = [await acme.campaign() for _ in range(3)], await acme.contact()
    ended, open_ = [(await acme.post("/invoices", an_invoice(contact)))["id"] for _ in range(2)]
    rows = [uuid7() for _ in campaigns]
    async with storage.tenant(acme.tenant) as con:
        for id_, campaign, invoice in zip(rows, campaigns, (ended, open_, None), strict=True):
            await con.execute(
                "insert into contact_campaign_progress (id, campaign_id, version_id, contact_id, started_at,"
                " invoice_id) select $1, id, version_id, $3, now(), $4 from campaigns where id = $2",
                id_,
                UUID(campaign),
                UUID(contact),
                UUID(invoice) if invoice else None,
            )
    for _ in range(2):
        await acme.post(f"/invoices/{ended}/{verb}", status=200)
    shown = [(await acme.get(f"/campaigns/{campaign}/enrollments"))["items"][0] for campaign in campaigns]
    assert [one["status"] for one in shown] == ["stopped", "active", "active"]
    assert [one["stopped_reason"] for one in shown] == [reason, None, None]
    assert [one["invoice_id"] for one in shown] == [ended, open_, None]
    stops = [event for name, event in await told(storage, acme.tenant) if name == "enrollment.stopped"]
    assert [(one["id"], one["reason"]) for one in stops] == [(str(rows[0]), reason)]
    assert (await acme.get(f"/campaigns/{campaigns[0]}/funnel"))["stopped_by"] == {reason: 1}
    # They go with their contact, and its enrolments with it.
    assert (await acme.call("DELETE", f"/contacts/{contact}")).status == 204
    assert (await acme.get("/invoices"))["items"] == []


async def test_a_message_that_may_be_on_its_way_is_waited_for(
    acme: Account, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.http.holding.PATIENCE", timedelta(milliseconds=100))
    contact, sender = await acme.contact(), await acme.sender()
    invoice = (await acme.post("/invoices", an_invoice(contact)))["id"]
    message = uuid7()
    async with storage.tenant(acme.tenant) as con:
        await con.execute(
            'insert into messages (id, contact_id, sender_id, lane, "to", content, status, due_at, attempted_at)'
            " values ($1, $2, $3, 'utility', '+1', '{}', 'sending', now(), now())",
            message,
            UUID(contact),
            UUID(sender),
        )
    (await acme.call("POST", f"/invoices/{invoice}/pay")).is_problem(503)
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update messages set status = 'sent' where id = $1", message)
    assert (await acme.post(f"/invoices/{invoice}/pay", status=200))["status"] == "paid"


async def test_it_is_said_when_an_invoice_was_paid(acme: Account) -> None:
    contact = await acme.contact()
    path = f"/invoices/{(await acme.post('/invoices', an_invoice(contact)))['id']}"
    for wrong, name in (
        ({"paid_at": "2999-01-01T00:00:00Z"}, "paid_at"),
        ({"paid_at": "yesterday"}, "paid_at"),
        ({"amount": 350}, "amount"),
    ):
        assert (await acme.call("POST", f"{path}/pay", body=wrong)).is_problem(422).faults().keys() == {name}
    assert (await acme.get(path))["status"] == "open"
    paid = await acme.post(f"{path}/pay", {"paid_at": "2026-01-31T10:00:00+05:30"}, status=200)
    assert (paid["status"], paid["paid_at"]) == ("paid", "2026-01-31T04:30:00Z")
    assert await acme.post(f"{path}/pay", {"paid_at": "2026-02-01T00:00:00Z"}, status=200) == paid


async def test_what_is_about_an_invoice_is_found_by_it_and_what_waits_says_that_it_will_not_leave(
    acme: Account, storage: Storage
) -> None:
    contact, sender, campaign = await acme.contact(), await acme.sender(window="ignore"), await acme.campaign()
    owed, other_ = [(await acme.post("/invoices", an_invoice(contact)))["id"] for _ in range(2)]
    about, another, enrollment = uuid7(), uuid7(), uuid7()
    async with storage.tenant(acme.tenant) as con:
        for id_, invoice in ((about, owed), (another, other_)):
            await con.execute(
                'insert into messages (id, contact_id, sender_id, lane, "to", content, status, due_at, invoice_id)'
                " values ($1, $2, $3, 'utility', '+1', '{}', 'queued', now() + interval '1 day', $4)",
                id_,
                UUID(contact),
                UUID(sender),
                UUID(invoice),
            )
        await con.execute(
            "insert into contact_campaign_progress (id, campaign_id, version_id, contact_id, started_at, invoice_id,"
            " next_step_scheduled_at) select $1, id, version_id, $3, now(), $4, now() from campaigns where id = $2",
            enrollment,
            UUID(campaign),
            UUID(contact),
            UUID(owed),
        )
    assert [one["id"] for one in (await acme.get(f"/messages?invoice_id={owed}"))["items"]] == [str(about)]
    enrollments = f"/campaigns/{campaign}/enrollments?invoice_id="
    assert (await acme.get(enrollments + other_))["items"] == []
    [runs] = (await acme.get(enrollments + owed))["items"]
    assert (runs["id"], runs["next_step_scheduled_at"] is None) == (str(enrollment), False)
    assert (await acme.get(f"/messages/{about}"))["why"] is None
    await acme.post(f"/invoices/{owed}/pay", status=200)
    why = (await acme.get(f"/messages/{about}"))["why"]
    assert why["code"] == "invoice_paid"
    assert "does not leave" in why["text"]
    assert (await acme.get(f"/messages/{another}"))["why"] is None
    [stopped] = (await acme.get(enrollments + owed))["items"]
    assert (stopped["status"], stopped["next_step_scheduled_at"]) == ("stopped", None)


async def test_an_invoice_and_what_is_about_it_are_found_by_indexes(acme: Account, storage: Storage) -> None:
    sender, contact = await acme.sender(), await acme.contact()
    async with storage.tenant(acme.tenant) as con:
        await con.execute(
            'insert into messages (id, contact_id, sender_id, lane, "to", content, status, due_at)'
            " select app.uuid7(), $1, $2, 'utility', '+1', '{}', 'sent', now() from generate_series(1, 2000)",
            UUID(contact),
            UUID(sender),
        )
        await con.execute(
            "insert into invoices (id, contact_id, number, amount, currency, due_at)"
            " select app.uuid7(), $1, n, 1, 'INR', now() from generate_series(1, 2000) n",
            UUID(contact),
        )
        page = Search(MESSAGES, acme.tenant, MessageQuery(invoice_id=uuid7()))
        about = [line[0] for line in await con.fetch(f"explain {page.page}", *page.values)]
        found = "select * from invoices where tenant_id = $1 and id < $2 and external_id = $3 order by id desc limit 51"
        named = str(await con.fetch(f"explain {found}", acme.tenant, uuid7(), "in_1"))
        held = await con.fetchval("select tableoid::regclass::text from messages order by id desc limit 1")
    # Months in which nothing is are read as they are, once the database has found out.
    ways = [line for line in about if f" on {held}" in line]
    assert ways
    assert all("invoice_id" in line for line in ways), about
    assert "invoices_external" in named
