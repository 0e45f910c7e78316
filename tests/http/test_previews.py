"""What a step says to a contact: shown, sent as a test, and planned in a dry run, all by the code that really sends."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any
from uuid import UUID

import pytest
from door_client import Account, a_phone
from support import an_invoice

from harkara.bus.connection import Bus
from harkara.ids import uuid7
from harkara.storage.models import Template
from harkara.storage.storage import Storage


async def only_step(acme: Account, campaign: str) -> str:
    return str((await acme.get(f"/campaigns/{campaign}/steps"))["items"][0]["id"])


async def test_a_preview_is_exactly_what_would_be_sent_and_says_where_its_values_are_from(acme: Account) -> None:
    body = "Hi {{ first_name }} of {{ attributes.city | default('your city') }}, {{ attributes.plan }} {{ locale }}"
    campaign = await acme.campaign({"delay_hours": 0, "body": body}, active=False)
    path = f"/campaigns/{campaign}/steps/{await only_step(acme, campaign)}/preview"
    full = await acme.contact(name="Asha Rao", attributes={"plan": "gold"})
    shown = await acme.post(path, {"contact_id": full}, status=200)
    assert shown["content"] == {"body": "Hi Asha of your city, gold en"}
    assert shown["text"] == "Hi Asha of your city, gold en"
    assert (shown["faults"], shown["variant"]) == ([], None)
    assert {one["name"]: (one["value"], one["source"]) for one in shown["variables"]} == {
        "first_name": ("Asha", "contact.name"),
        "attributes.city": (None, "default"),
        "attributes.plan": ("gold", "contact.attributes.plan"),
        "locale": ("en", "default"),
    }
    holed = await acme.post(path, {"contact_id": await acme.contact()}, status=200)
    assert holed["content"] is None
    assert [fault["path"] for fault in holed["faults"]] == ["body"]
    assert {one["source"] for one in holed["variables"] if one["name"] == "attributes.plan"} == {"missing"}
    (await acme.call("POST", path, body={"contact_id": str(uuid7())})).is_problem(404)


async def test_a_preview_of_a_template_says_what_the_contact_reads(acme: Account, storage: Storage) -> None:
    template = {"name": "order", "language": "hi", "parameters": {"who": "{{ first_name }}"}}
    campaign = await acme.campaign({"delay_hours": 0, "template": template}, active=False)
    path = f"/campaigns/{campaign}/steps/{await only_step(acme, campaign)}/preview"
    contact = {"contact_id": await acme.contact(name="Asha Rao")}
    assert (await acme.post(path, contact, status=200))["text"] is None
    sender = UUID((await acme.get(f"/campaigns/{campaign}"))["sender_id"])
    async with storage.tenant(acme.tenant):
        parts = [{"type": "BODY", "text": "Hi {{who}}!"}]
        await Template.create(sender_id=sender, name="order", language="hi", status="approved", components=parts)
    shown = await acme.post(path, contact, status=200)
    assert (shown["text"], shown["content"]["template"]["parameters"]) == ("Hi Asha!", {"who": "Asha"})


async def test_a_template_that_becomes_too_long_for_one_contact_says_so_everywhere(
    acme: Account, storage: Storage
) -> None:
    template = {"name": "order", "language": "en", "parameters": ["{{ attributes.note | default('-') }}"]}
    campaign = await acme.campaign({"delay_hours": 0, "template": template}, active=False)
    path = f"/campaigns/{campaign}/steps/{await only_step(acme, campaign)}"
    sender = (await acme.get(f"/campaigns/{campaign}"))["sender_id"]
    async with storage.tenant(acme.tenant):
        parts = [{"type": "HEADER", "text": "Your order"}, {"type": "BODY", "text": "x" * 1000 + " {{1}}"}]
        await Template.create(sender_id=sender, name="order", language="en", status="approved", components=parts)
    fits, long = [await acme.contact(attributes={"note": "y" * length}) for length in (23, 24)]
    said = "the template's text becomes 1025 characters long: 1024 are possible"
    for contact, faults in ((fits, []), (long, [{"path": "template.parameters", "message": said}])):
        assert (await acme.post(f"{path}/preview", {"contact_id": contact}, status=200))["faults"] == faults
        tested = await acme.call("POST", f"{path}/test", body={"contact_id": contact})
        one_off = await acme.call(
            "POST", "/messages", body={"contact_id": contact, "sender_id": sender, "template": template}
        )
        for answer in (tested, one_off):
            assert answer.status == (422 if faults else 202)
            assert not faults or answer.is_problem(422).faults() == {"template.parameters": said}
    planned = await acme.post(f"/campaigns/{campaign}/dry-run", {"contact_ids": [fits, long]}, status=200)
    assert planned["steps"][0]["faults"] == [{"path": "template.parameters", "message": said, "contacts": 1}]
    assert {one["contact_id"]: one["messages"][0]["fault"] for one in planned["items"]} == {
        fits: None, long: f"template.parameters: {said}"
    }  # fmt: skip


async def command(bus: Bus, tenant: str) -> dict[str, Any]:
    stored = await bus.js.get_last_msg("COMMANDS", f"t.{tenant}.cmd.message.send")
    made: dict[str, Any] = json.loads(stored.data or b"")
    return made


async def test_a_test_goes_the_way_of_every_message_and_is_marked(acme: Account, live_bus: Bus) -> None:
    variants = [{"name": "a", "body": "A {{ first_name }}"}, {"name": "b", "body": "B {{ first_name }}"}]
    campaign = await acme.campaign({"delay_hours": 0, "variants": variants}, active=False)
    step, contact, phone = await only_step(acme, campaign), await acme.contact(name="Asha Rao"), a_phone()
    path = f"/campaigns/{campaign}/steps/{step}"
    usual = (await acme.post(f"{path}/preview", {"contact_id": contact}, status=200))["content"]
    await acme.post(f"{path}/test", {"contact_id": contact}, status=202)
    sent = await command(live_bus, acme.tenant)
    assert (sent["content"], sent["contact_id"], sent["is_test"]) == (usual, contact, True)
    assert "campaign_id" not in sent
    await acme.post(f"{path}/test", {"contact_id": contact, "to": phone, "variant": "b"}, status=202)
    sent = await command(live_bus, acme.tenant)
    assert (sent["content"], sent["to"], sent.get("contact_id")) == ({"body": "B Asha"}, phone, None)
    for body, status in (({}, 422), ({"to": "x"}, 422), ({"to": phone, "variant": "c"}, 404)):
        (await acme.call("POST", f"{path}/test", body=body)).is_problem(status)


async def test_a_test_reaches_nobody_who_has_opted_out(acme: Account, storage: Storage) -> None:
    campaign, contact = await acme.campaign(active=False), await acme.contact()
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update contacts set opted_out_at = now() where id = $1", UUID(contact))
    path = f"/campaigns/{campaign}/steps/{await only_step(acme, campaign)}/test"
    assert "opted out" in (await acme.call("POST", path, body={"contact_id": contact})).is_problem(409).text


async def test_a_dry_run_tells_who_would_get_what_when_and_who_would_not_and_why(
    acme: Account, storage: Storage
) -> None:
    campaign = await acme.campaign(
        {"name": "hello", "delay_hours": 0, "body": "Hi {{ attributes.city }}"}, {"delay_hours": 24, "body": "b"},
        active=False,
    )  # fmt: skip
    path = f"/campaigns/{campaign}"
    quiet = {"quiet_hours": {"start": "21:00", "end": "09:00"}, "exit": {"type": "tag", "tag": "done"}}
    assert (await acme.call("PATCH", path, body=quiet)).status == 200
    people = {
        "willing": await acme.contact(attributes={"city": "Pune"}, timezone="Asia/Kolkata"),
        "holed": await acme.contact(timezone="America/New_York"),
        "silent": await acme.contact(consent=None),
        "gone": await acme.contact(),
        "enrolled": await acme.contact(),
        "phoneless": await acme.contact(),
        "done": await acme.contact(tags=["done"]),
    }
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update contacts set opted_out_at = now() where id = $1", UUID(people["gone"]))
        await con.execute("update contacts set phone = null where id = $1", UUID(people["phoneless"]))
        await con.execute(
            "insert into contact_campaign_progress (id, campaign_id, version_id, contact_id, started_at)"
            " select $1, id, version_id, $3, now() from campaigns where id = $2",
            uuid7(), UUID(campaign), UUID(people["enrolled"]),
        )  # fmt: skip
    run = await acme.post(f"{path}/dry-run", {"all": True, "at": "2026-03-01T18:00:00Z"}, status=200)
    assert (run["audience"], run["enrolled"]) == (7, 2)
    assert run["refused"] == {
        "no_consent": 1, "opted_out": 1, "already_enrolled": 1, "no_phone": 1, "exit_condition": 1
    }  # fmt: skip
    assert [(step["step"], step["at"], step["contacts"]) for step in run["steps"]] == [
        (0, "2026-03-01T18:00:00Z", 1), (1, "2026-03-02T18:00:00Z", 2)
    ]  # fmt: skip
    assert [[(fault["path"], fault["contacts"]) for fault in step["faults"]] for step in run["steps"]] == [
        [("body", 1)], []
    ]  # fmt: skip
    assert run["tried"] == 2
    assert [blocker["path"] for blocker in run["blockers"]] == ["steps[0].body"]
    found = {one["contact_id"]: one for one in run["items"]}
    assert len(found) == 7
    assert [(one["in_quiet_hours"], one["deferred_until"]) for one in found[people["willing"]]["messages"]] == [
        (True, "2026-03-02T03:30:00Z"), (True, "2026-03-03T03:30:00Z")
    ]  # fmt: skip
    assert found[people["holed"]]["messages"][0]["fault"].startswith("body: ")
    assert not found[people["holed"]]["messages"][0]["in_quiet_hours"]
    assert found[people["silent"]] | {"reason": "no_consent", "messages": []} == found[people["silent"]]


async def test_a_dry_run_is_listed_page_by_page_and_only_of_those_who_are_meant(acme: Account) -> None:
    campaign = await acme.campaign()
    people = [await acme.contact(tags=["vip"]) for _ in range(5)]
    await acme.contact()
    segment = (await acme.post("/segments", {"name": "S", "condition": {"type": "tag", "tag": "vip"}}))["id"]
    path, seen, cursor = f"/campaigns/{campaign}/dry-run?limit=2", list[str](), ""
    while True:
        run = await acme.post(f"{path}{cursor}", {"segment_id": segment}, status=200)
        assert run["audience"] == 5
        seen += [one["contact_id"] for one in run["items"]]
        if run["next"] is None:
            break
        cursor = f"&cursor={run['next']}"
    assert sorted(seen) == sorted(people)
    for body, count in (({"tag": "vip"}, 5), ({"contact_ids": people[:2]}, 2), ({"all": True}, 6)):
        assert (await acme.post(f"/campaigns/{campaign}/dry-run", body, status=200))["audience"] == count
        assert (await acme.post(f"/campaigns/{campaign}/enroll", body, status=202))["count"] == count
    (await acme.call("POST", f"/campaigns/{campaign}/dry-run", body={"tag": "x", "all": True})).is_problem(422)
    (await acme.call("POST", f"/campaigns/{campaign}/dry-run", body={"segment_id": str(uuid7())})).is_problem(404)


async def test_a_dry_run_counts_to_whom_each_step_could_not_be_said(
    acme: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With variants too: as many are counted as the lists of contacts say, page by page."""
    variants = [
        {"name": "a", "body": "{{ attributes.age | default('0') | int }}"},
        {"name": "b", "media": {"type": "image", "id": "1", "caption": "{{ attributes.note | default('-') }}"}},
    ]
    campaign = await acme.campaign(
        {"delay_hours": 0, "variants": variants}, {"delay_hours": 1, "body": "same for all"},
        {"delay_hours": 2, "interactive": {"body": "x", "buttons": [{"id": "1", "title": "{{ first_name }}"}]}},
    )  # fmt: skip
    for number in range(30):
        age, note = "old" if number % 2 else str(number), "x" * 1025 if number % 3 else "short"
        name = f"Person{number}" if number % 5 else "A name of more than twenty letters".replace(" ", "")
        await acme.contact(name=name, attributes={"age": age, "note": note, "unused": number})
    path = f"/campaigns/{campaign}/dry-run?limit=200"
    run = await acme.post(path, {"all": True}, status=200)
    listed = [Counter[str]() for _ in run["steps"]]
    for one in run["items"]:
        for message in one["messages"]:
            if message["fault"]:
                listed[message["step"]][message["fault"].split(": ")[0]] += 1
    counted = [{fault["path"]: fault["contacts"] for fault in step["faults"]} for step in run["steps"]]
    assert counted == listed
    assert set(counted[0]) == {"body", "media.caption"}
    assert (counted[1], counted[2]) == ({}, {"interactive.buttons[0].title": 6})
    assert [step["contacts"] for step in run["steps"]] == [30 - sum(faults.values()) for faults in counted]
    assert run["tried"] == 30
    monkeypatch.setattr("harkara.http.dry_texts.TRIED", 10)
    assert (await acme.post(path, {"all": True}, status=200))["tried"] == 10


async def test_texts_without_variables_are_not_tried_on_anybody(acme: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    campaign = await acme.campaign({"delay_hours": 0, "body": "same for all"})
    await acme.contact()
    monkeypatch.setattr("harkara.http.dry_texts.PEOPLE", "no statement")
    run = await acme.post(f"/campaigns/{campaign}/dry-run", {"all": True}, status=200)
    assert (run["tried"], run["steps"][0]["contacts"], run["steps"][0]["faults"]) == (1, 1, [])


async def test_a_step_that_names_an_invoice_is_seen_and_tested_with_one(acme: Account, live_bus: Bus) -> None:
    body = "{{ invoice.number | default('?') }}: {{ invoice.amount | default('?') }}"
    campaign, contact = await acme.campaign({"delay_hours": 0, "body": body}), await acme.contact()
    stranger = await acme.contact()
    invoice = (await acme.post("/invoices", an_invoice(contact, number="42")))["id"]
    path = f"/campaigns/{campaign}/steps/{await only_step(acme, campaign)}"
    shown = await acme.post(f"{path}/preview", {"contact_id": contact, "invoice_id": invoice}, status=200)
    assert shown["content"] == {"body": "42: INR 1,234.50"}
    assert {one["name"]: one["source"] for one in shown["variables"]} == {
        "invoice.number": "invoice.number",
        "invoice.amount": "invoice.amount",
    }
    assert (await acme.post(f"{path}/preview", {"contact_id": contact}, status=200))["content"] == {"body": "?: ?"}
    for to, wanted in (
        ("preview", {"contact_id": stranger}),
        ("test", {"contact_id": stranger}),
        ("test", {"to": a_phone()}),
    ):
        answer = await acme.call("POST", f"{path}/{to}", body=wanted | {"invoice_id": invoice})
        assert answer.is_problem(422).faults().keys() == {"invoice_id"}
    await acme.post(f"{path}/test", {"contact_id": contact, "to": a_phone(), "invoice_id": invoice}, status=202)
    assert (await command(live_bus, acme.tenant))["content"] == {"body": "42: INR 1,234.50"}
