"""One-off messages: refused at the door, or in the stream; and the story of each."""

from __future__ import annotations

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID, uuid4

import msgspec
import pytest
from door_client import Account, a_phone, in_order
from enrolled import enrolled
from nats.js.errors import NotFoundError
from support import one_row

from harkara.bus.connection import Bus
from harkara.bus.errors import Full, Refused, Unavailable
from harkara.http.door import Door
from harkara.http.messages import FACTS, JustAccepted
from harkara.ids import time_of, uuid7
from harkara.schemas.reasons import POLICY
from harkara.storage import templates
from harkara.storage.models import ContactCampaignProgress, Message
from harkara.storage.storage import Storage
from harkara.storage.templates import Found


async def command(bus: Bus, tenant: str) -> tuple[dict[str, Any], dict[str, str]]:
    stored = await bus.js.get_last_msg("COMMANDS", f"t.{tenant}.cmd.message.send")
    return json.loads(stored.data or b""), stored.headers or {}


async def test_a_message_is_stored_as_a_command_under_the_id_that_is_answered(acme: Account, live_bus: Bus) -> None:
    sender, contact = await acme.sender(), await acme.contact()
    body = {"contact_id": contact, "sender_id": sender, "body": "Hi {{ first_name }}", "lane": "marketing"}
    answer = await acme.call("POST", "/messages", body=body)
    assert answer.status == 202
    assert answer.headers["Location"] == f"/api/v1/messages/{answer.body['id']}"
    sent, headers = await command(live_bus, acme.tenant)
    expected = {"sender_id": sender, "contact_id": contact, "lane": "marketing", "content": {"body": body["body"]}}
    assert sent == expected
    assert headers["X-Msg-Id"] == answer.body["id"]
    assert headers["X-Cause"] == answer.headers["X-Request-Id"]


async def test_a_message_goes_to_a_phone_that_is_no_contact(acme: Account, live_bus: Bus) -> None:
    phone = a_phone()
    body = {"to": f" {phone[:3]}-{phone[3:]}", "sender_id": await acme.sender(), "body": "Your invoice"}
    assert (await acme.call("POST", "/messages", body=body)).status == 202
    sent, _ = await command(live_bus, acme.tenant)
    assert (sent["to"], "contact_id" in sent) == (phone, False)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ({"parameters": ["Asha", "4711"]}, None),
        ({"parameters": ["{{ name }}", "4711"]}, None),
        ({"parameters": ["Asha"]}, "template.parameters"),
        ({"parameters": {"customer": "Asha", "order": "4711"}}, "template.parameters"),
        ({"parameters": ["Asha", "4711"], "header": "Hi"}, "template.header"),
        ({"parameters": ["Asha"], "language": "en_US"}, None),  # of that nothing is known
    ],
)
async def test_what_a_template_does_not_take_is_refused_at_once(
    acme: Account, storage: Storage, given: dict[str, Any], path: str | None
) -> None:
    sender = await acme.sender()
    parts = [{"type": "BODY", "text": "Hi {{1}}, your order {{2}} is on its way."}]
    async with storage.tenant(acme.tenant) as con:
        found = Found("order", "en", "utility", "approved", None, None, msgspec.json.encode(parts).decode())
        await templates.replace(con, acme.tenant, UUID(sender), [found], datetime.now(UTC))
    body = {"contact_id": await acme.contact(), "sender_id": sender, "template": {"name": "order", **given}}
    answer = await acme.call("POST", "/messages", body=body)
    assert answer.status == (202 if path is None else 422)
    if path is not None:
        assert list(answer.is_problem(422).faults()) == [path]


@pytest.mark.parametrize("lane", ["otp", "utility", "marketing"])
async def test_a_marketing_template_needs_consent_in_every_lane(acme: Account, storage: Storage, lane: str) -> None:
    sender, contact = await acme.sender(), await acme.contact(consent=None)

    async def answer(category: str, **whom: str) -> Any:
        async with storage.tenant(acme.tenant) as con:
            found = Found("offer", "en", category, "approved", None, None, "[]")
            await templates.replace(con, acme.tenant, UUID(sender), [found], datetime.now(UTC))
        body = {"sender_id": sender, "template": {"name": "offer"}, "lane": lane, **whom}
        return await acme.call("POST", "/messages", body=body)

    for whom in ({"contact_id": contact}, {"to": a_phone()}):
        assert "needs consent" in (await answer("marketing", **whom)).is_problem(409).body["detail"]
        assert (await answer("utility", **whom)).status == (409 if lane == "marketing" else 202)
    path = f"/contacts/{contact}"
    await acme.call("PATCH", path, body={"consent": {"source": "form", "at": datetime.now(UTC).isoformat()}})
    assert (await answer("marketing", contact_id=contact)).status == 202
    await acme.call("PATCH", path, body={"opt_outs": {"marketing": True}})
    assert "opted out" in (await answer("marketing", contact_id=contact)).is_problem(409).body["detail"]


async def test_a_number_that_is_no_contacts_has_no_name(acme: Account) -> None:
    body = {"to": a_phone(), "sender_id": await acme.sender(), "body": "Hi {{ first_name | default('there') }}"}
    assert (await acme.call("POST", "/messages", body=body)).status == 202
    refused = await acme.call("POST", "/messages", body=body | {"body": "Hi {{ name }}"})
    assert "default" in refused.is_problem(422).faults()["body"]


async def test_no_text_says_a_user_id(acme: Account, storage: Storage) -> None:
    contact = await acme.contact(name="Asha")
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update contacts set phone = null, wa_user_id = 'US.2307' where id = $1", UUID(contact))
    body = {"contact_id": contact, "sender_id": await acme.sender(), "body": "Hi {{ phone | default('you') }}"}
    assert (await acme.call("POST", "/messages", body=body)).status == 202
    refused = await acme.call("POST", "/messages", body=body | {"body": "Hi {{ phone }}"})
    assert "give it a default" in refused.is_problem(422).faults()["body"]
    campaign = await acme.campaign({"delay_hours": 0, "body": "Hi {{ phone }}"}, active=False)
    [step] = (await acme.get(f"/campaigns/{campaign}/steps"))["items"]
    shown = await acme.post(f"/campaigns/{campaign}/steps/{step['id']}/preview", {"contact_id": contact}, status=200)
    assert (shown["content"], [fault["path"] for fault in shown["faults"]]) == (None, ["body"])
    assert [(one["value"], one["source"]) for one in shown["variables"]] == [(None, "missing")]
    tested = await acme.call("POST", f"/campaigns/{campaign}/steps/{step['id']}/test", body={"contact_id": contact})
    planned = await acme.post(f"/campaigns/{campaign}/dry-run", {"contact_ids": [contact]}, status=200)
    [message], [fault] = planned["items"][0]["messages"], planned["steps"][0]["faults"]
    why = tested.is_problem(422).faults()["body"]
    assert "`phone`" in why
    assert refused.faults()["body"] == shown["faults"][0]["message"] == fault["message"] == why
    assert message["fault"] == f"body: {why}"


async def test_a_phone_without_plus_is_understood_once_the_tenant_has_a_region(acme: Account, live_bus: Bus) -> None:
    phone, sender = a_phone(), await acme.sender()
    body = {"to": phone[3:], "sender_id": sender, "body": "Hi"}
    assert "to" in (await acme.call("POST", "/messages", body=body)).is_problem(422).faults()
    await acme.call("PATCH", "/tenant", body={"default_region": "IN"})
    assert (await acme.call("POST", "/messages", body=body)).status == 202
    assert (await command(live_bus, acme.tenant))[0]["to"] == phone


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"body": None}, "body"),
        ({"body": "x" * 4097}, "body"),
        ({"body": "Hi {{ attributes.city }}"}, "body"),
        ({"body": "Hi {{ whatever }}"}, "body"),
        ({"body": "{{ 'x' * 5000 }}"}, "body"),
        ({"body": None, "template": {"name": "t", "parameters": {"a": "{{ city }}"}}}, "template.parameters.a"),
        ({"body": None, "media": {"type": "image"}}, "media"),
        ({"to": "+919876543210"}, "contact_id"),
        ({"contact_id": None}, "contact_id"),
        ({"contact_id": None, "to": "nobody"}, "to"),
        ({"lane": "express"}, "lane"),
        ({"text": "Hi"}, "text"),
    ],
)
async def test_what_is_wrong_with_a_message_is_named_and_nothing_is_published(
    acme: Account, live_bus: Bus, change: dict[str, Any], path: str
) -> None:
    body = {"contact_id": await acme.contact(), "sender_id": await acme.sender(), "body": "Hi"} | change
    answer = await acme.call("POST", "/messages", body=body)
    assert path in answer.is_problem(422).faults(), answer.text
    with pytest.raises(NotFoundError):
        await command(live_bus, acme.tenant)


async def test_a_variable_that_the_contact_has_needs_no_default(acme: Account) -> None:
    contact = await acme.contact(attributes={"city": "Pune"})
    body = {"contact_id": contact, "sender_id": await acme.sender(), "body": "Hi {{ attributes.city }}"}
    assert (await acme.call("POST", "/messages", body=body)).status == 202


async def test_consent_and_opt_outs_are_judged_at_the_door(acme: Account, storage: Storage) -> None:
    sender, phone = await acme.sender(), a_phone()
    contact = await acme.contact(consent=None, phone=phone)

    async def send(**more: Any) -> int:
        body = {"sender_id": sender, "body": "Hi"} | more
        answer = await acme.call("POST", "/messages", body=body)
        if answer.status != 202:
            answer.is_problem(409)
        return answer.status

    assert await send(contact_id=contact) == 202
    assert await send(contact_id=contact, lane="otp") == 202
    assert await send(contact_id=contact, lane="marketing") == 409
    assert await send(to=phone, lane="marketing") == 409
    assert await send(to=a_phone(), lane="marketing") == 409
    only = {"consent": {"source": "form", "categories": ["utility"]}}
    await acme.call("PATCH", f"/contacts/{contact}", body=only)
    assert await send(contact_id=contact, lane="marketing") == 409
    await acme.call("PATCH", f"/contacts/{contact}", body={"consent": {"source": "form"}})
    assert await send(contact_id=contact, lane="marketing") == 202
    further = a_phone()
    await acme.post(f"/contacts/{contact}/phone-numbers", {"phone": further})
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update contacts set opted_out_at = now() where id = $1", UUID(contact))
    for more in ({"contact_id": contact}, {"to": phone}, {"to": further}, {"contact_id": contact, "lane": "otp"}):
        assert await send(**more) == 409


async def test_a_sender_that_is_paused_or_not_there_is_told(acme: Account) -> None:
    sender, contact = await acme.sender(), await acme.contact()
    await acme.call("PATCH", f"/senders/{sender}", body={"status": "paused"})
    body = {"contact_id": contact, "sender_id": sender, "body": "Hi"}
    assert "paused" in (await acme.call("POST", "/messages", body=body)).is_problem(409).body["detail"]
    answer = await acme.call("POST", "/messages", body=body | {"sender_id": str(uuid7())})
    assert "sender_id" in answer.is_problem(404).faults()
    answer = await acme.call("POST", "/messages", body=body | {"contact_id": str(uuid7())})
    assert answer.is_problem(404).faults()


async def row(storage: Storage, tenant: str, sender: str, id_: UUID | None = None, **more: Any) -> UUID:
    """A message as the actors would write it."""
    columns: dict[str, Any] = {
        "id": id_ or uuid7(), "sender_id": UUID(sender), "lane": "utility", '"to"': "+919876543210",
        "content": '{"body":"Hi"}', "status": "queued", "due_at": datetime.now(UTC),
    } | more  # fmt: skip
    places = ", ".join(f"${number + 1}" for number in range(len(columns)))
    async with storage.tenant(tenant) as con:
        await con.execute(f"insert into messages ({', '.join(columns)}) values ({places})", *columns.values())
    return UUID(str(columns["id"]))


async def test_a_message_tells_its_timeline_and_why_it_was_not_sent(acme: Account, storage: Storage) -> None:
    sender = await acme.sender()
    now = datetime.now(UTC)
    moments: dict[str, Any] = {
        name: now + timedelta(seconds=number)
        for number, name in enumerate(("created_at", "attempted_at", "sent_at", "delivered_at", "read_at"))
    }
    moments["delivered_at"] = moments["sent_at"].replace(microsecond=0)  # as WhatsApp tells it
    read = await row(storage, acme.tenant, sender, status="read", wamid="wamid.1", **moments)
    told = await acme.get(f"/messages/{read}")
    assert [moment["status"] for moment in told["timeline"]] == ["queued", "sending", "sent", "delivered", "read"]
    assert told["content"] == {"body": "Hi"}
    assert told["wamid"] == "wamid.1"
    held = await row(storage, acme.tenant, sender, status="suppressed", reason="opted_out")
    told = await acme.get(f"/messages/{held}")
    assert (told["status"], told["reason"]) == ("suppressed", "opted_out")
    assert [moment["status"] for moment in told["timeline"]] == ["queued", "suppressed"]
    (await acme.call("GET", f"/messages/{uuid7(datetime(2026, 1, 1, tzinfo=UTC))}")).is_problem(404)


async def test_a_message_is_never_unknown_right_after_it_was_accepted(acme: Account) -> None:
    body = {"contact_id": await acme.contact(), "sender_id": await acme.sender(), "body": "Hi"}
    accepted = await acme.post("/messages", body, status=202)
    told = await acme.get(f"/messages/{accepted['id']}")
    assert (told["id"], told["status"]) == (accepted["id"], "accepted")


async def test_a_young_message_of_another_process_is_waited_for(
    acme: Account, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.http.message_list.PATIENCE", timedelta(seconds=60))
    sender, id_ = await acme.sender(), uuid7()
    asking = asyncio.create_task(acme.call("GET", f"/messages/{id_}"))
    await asyncio.sleep(0.1)
    await row(storage, acme.tenant, sender, id_)
    assert (await asking).status == 200


async def test_an_unknown_young_message_is_unknown_after_a_moment(acme: Account, other: Account) -> None:
    body = {"contact_id": await acme.contact(), "sender_id": await acme.sender(), "body": "Hi"}
    accepted = await acme.post("/messages", body, status=202)
    begin = time.monotonic()
    (await other.call("GET", f"/messages/{accepted['id']}")).is_problem(404)
    assert time.monotonic() - begin < 30


def test_what_was_just_accepted_is_remembered_for_its_tenant_only_and_not_for_ever() -> None:
    known, now = JustAccepted(most=2), datetime.now(UTC)
    ids = [uuid7() for _ in range(3)]
    for id_ in ids:
        known.add("a", id_, now)
    assert [known.at("a", id_) for id_ in ids] == [None, now, now]
    assert known.at("b", ids[2]) is None


async def test_messages_are_listed_by_status_campaign_and_contact(acme: Account, storage: Storage) -> None:
    sender, contact, campaign = await acme.sender(), await acme.contact(), uuid7()
    plain, sent = in_order(2)
    await row(storage, acme.tenant, sender, plain)
    await row(storage, acme.tenant, sender, sent, status="sent", contact_id=UUID(contact), campaign_id=campaign)

    async def ids(query: str = "") -> list[str]:
        return [one["id"] for one in (await acme.get(f"/messages{query}"))["items"]]

    assert await ids() == [str(sent), str(plain)]
    assert await ids("?status=queued") == [str(plain)]
    assert await ids(f"?campaign_id={campaign}") == [str(sent)]
    assert await ids(f"?contact_id={contact}&status=sent") == [str(sent)]
    first = await acme.get("/messages?limit=1")
    assert await ids(f"?limit=1&cursor={first['next']}") == [str(plain)]


async def test_both_sides_of_a_conversation_are_told_in_one_list(acme: Account, storage: Storage) -> None:
    sender, contact = await acme.sender(), await acme.contact(name="Asha")
    conversation, ours, reply = in_order(3)
    async with storage.tenant(acme.tenant) as con:
        await con.execute(
            "insert into conversations (id, contact_id, sender_id, last_inbound_at) values ($1, $2, $3, now())",
            conversation,
            UUID(contact),
            UUID(sender),
        )
    await row(storage, acme.tenant, sender, ours, contact_id=UUID(contact), status="read")
    async with storage.tenant(acme.tenant) as con:
        await con.execute(
            "insert into replies (id, conversation_id, contact_id, sender_id, wamid, type, text, payload, received_at)"
            " values ($1, $2, $3, $4, 'wamid.r', 'text', 'Yes!', '{\"text\":{\"body\":\"Yes!\"}}', now())",
            reply,
            conversation,
            UUID(contact),
            UUID(sender),
        )
    await row(storage, acme.tenant, sender, contact_id=UUID(await acme.contact()))
    [shown] = (await acme.get("/conversations"))["items"]
    assert (shown["id"], shown["contact_name"], shown["status"]) == (str(conversation), "Asha", "open")
    said = await acme.get(f"/conversations/{conversation}/messages")
    assert [(one["id"], one["direction"], one["text"], one["status"]) for one in said["items"]] == [
        (str(reply), "in", "Yes!", None),
        (str(ours), "out", "Hi", "read"),
    ]
    first = await acme.get(f"/conversations/{conversation}/messages?limit=1")
    then = await acme.get(f"/conversations/{conversation}/messages?limit=1&cursor={first['next']}")
    assert [one["id"] for one in then["items"]] == [str(ours)]
    assert [one["text"] for one in (await acme.get(f"/replies?contact_id={contact}"))["items"]] == ["Yes!"]
    assert (await acme.get("/replies"))["items"][0]["payload"] == {"text": {"body": "Yes!"}}
    (await acme.call("GET", f"/conversations/{uuid7()}/messages")).is_problem(404)


async def test_what_decides_about_a_message_is_found_by_indexes_however_many_contacts_there_are(
    acme: Account, storage: Storage
) -> None:
    sender, contact = await acme.sender(), await acme.contact(phone=(phone := a_phone()))
    async with storage.tenant(acme.tenant) as con:
        await con.execute(
            "insert into contacts (id, name, phone) select gen_random_uuid(), 'A', '+9177' || (10000000 + n)"
            " from generate_series(1, 3000) n"
        )
    for values in ((UUID(contact), None), (None, phone)):
        items = [[acme.tenant], [UUID(sender)], *([value] for value in values), ["utility"], ["order"], ["en"]]
        async with storage.batch((acme.tenant,)) as con:
            assert (await one_row(con, FACTS, *items))["contact_id"] == UUID(contact)
            plan = [line[0] for line in await con.fetch(f"explain {FACTS}", *items)]
        ways = [line for line in plan if " on contacts" in line]
        assert ways
        assert all("Index Scan using" in way for way in ways), plan


async def test_a_full_queue_and_a_refusal_are_told_apart(acme: Account, door: Door) -> None:
    class Refusing:
        def __init__(self, error: Exception) -> None:
            self.error = error

        async def publish(self, out: object) -> None:
            raise self.error

    body = {"contact_id": await acme.contact(), "sender_id": await acme.sender(), "body": "Hi"}
    real = door.publisher
    try:
        for error, status in ((Full("full"), 429), (Unavailable("away"), 503), (Refused("too large"), 422)):
            door.publisher = Refusing(error)  # type: ignore[assignment]
            answer = (await acme.call("POST", "/messages", body=body)).is_problem(status)
            assert ("Retry-After" in answer.headers) == (status != 422)
    finally:
        door.publisher = real


async def test_messages_are_found_by_what_they_are_and_what_became_of_them(acme: Account, storage: Storage) -> None:
    sender, second = await acme.sender(), await acme.sender()
    day = datetime.now(UTC) - timedelta(days=1)
    old = await row(storage, acme.tenant, second, uuid7(day), lane="otp", status="sent", sent_at=day)
    held = await row(storage, acme.tenant, sender, status="suppressed", reason="opted_out")
    lost = await row(storage, acme.tenant, sender, status="failed", error_code=131026, failed_at=day)

    async def found(**query: Any) -> set[str]:
        return {one["id"] for one in (await acme.get(f"/messages?{urlencode(query)}"))["items"]}

    assert await found(sender_id=second) == {str(old)}
    assert await found(lane="otp") == await found(until=(day + timedelta(hours=1)).isoformat()) == {str(old)}
    assert await found(since=(day + timedelta(hours=1)).isoformat()) == {str(held), str(lost)}
    assert await found(reason="opted_out", sender_id=sender) == await found(status="suppressed") == {str(held)}
    assert await found(error_code=131026) == await found(status="failed") == {str(lost)}
    assert await found(to="+919876543210", status="sent") == {str(old)}
    assert await found(lane="otp", status="failed") == set()
    wrong = await acme.call("GET", f"/messages?{urlencode({'since': '0001-01-01T00:00:00+10:00'})}")
    assert "since" in wrong.is_problem(422).faults()
    wrong = (await acme.call("GET", "/messages?reason=foo")).is_problem(422)
    assert all(code in wrong.faults()["reason"] for code in POLICY)


@pytest.mark.parametrize(
    ("columns", "waits"),
    [({"status": "unknown"}, True), ({"status": "unknown", "resent": True}, False), ({"status": "read"}, False)],
)
async def test_only_what_is_in_doubt_says_when_it_is_sent_once_more(
    acme: Account, storage: Storage, columns: dict[str, Any], waits: bool
) -> None:
    again = datetime.now(UTC) + timedelta(minutes=10)
    id_ = await row(storage, acme.tenant, await acme.sender(), resend_at=again, **columns)
    [listed] = (await acme.get("/messages"))["items"]
    for told in (listed, await acme.get(f"/messages/{id_}")):
        assert (told["resend_at"] is not None) == waits


async def test_a_page_of_what_is_rare_looks_at_so_many_messages_and_says_where_to_go_on(
    acme: Account, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.http.search.LOOKED_AT", 2)
    sender = await acme.sender()
    rare, *_, newest = [await row(storage, acme.tenant, sender, id_) for id_ in in_order(6)]
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update messages set lane = 'otp' where id = any ($1::uuid[])", [rare, newest])
    pages, query = list[list[str]](), ""
    while True:
        page = await acme.get(f"/messages?lane=otp{query}")
        pages.append([one["id"] for one in page["items"]])
        if page["next"] is None:
            break
        query = f"&cursor={page['next']}"
    assert pages == [[str(newest)], [], [str(rare)], []]


@pytest.mark.parametrize(
    ("columns", "code", "words"),
    [
        ({"status": "suppressed", "reason": "opted_out"}, "opted_out", "opted out"),
        ({"status": "suppressed", "reason": "a_new_policy"}, "suppressed", "a_new_policy"),
        ({"status": "failed", "reason": "Undeliverable", "error_code": 131026}, "131026", "can't deliver"),
        ({"status": "failed", "reason": "Something new", "error_code": 999}, "999", "Something new"),
        ({"status": "unknown", "reason": "time-out"}, "in_doubt", "may or may not"),
        ({"status": "queued", "reason": "nobody answers"}, "queued", "nobody answers"),
        ({"status": "queued", "reason": "template_paused"}, "template_paused", "is paused"),
        ({"status": "queued"}, None, None),
        ({"status": "read"}, None, None),
    ],
)
async def test_a_message_says_in_words_why_it_went_no_further(
    acme: Account, storage: Storage, columns: dict[str, Any], code: str | None, words: str | None
) -> None:
    id_ = await row(storage, acme.tenant, await acme.sender(window="ignore"), **columns)
    why = (await acme.get(f"/messages/{id_}"))["why"]
    if code is None or words is None:
        assert why is None
    else:
        assert why["code"] == code
        assert words in why["text"]
        assert why["todo"]
        assert "{" not in why["todo"]


@pytest.mark.parametrize(
    ("lane", "then", "code"),
    [
        ("utility", {"opted_out": True}, "opted_out"),
        ("utility", {"opt_outs": {"utility": True}}, "opted_out"),
        ("otp", {"opt_outs": {"utility": True}}, "outside_window"),
        ("marketing", {"consent": None}, "no_consent"),
        ("utility", {"consent": None}, "outside_window"),
    ],
)
async def test_a_message_that_waits_says_that_it_will_not_leave(
    acme: Account, storage: Storage, lane: str, then: dict[str, Any], code: str
) -> None:
    contact, sender = await acme.contact(), await acme.sender()
    late: dict[str, Any] = {"due_at": datetime.now(UTC) + timedelta(days=2), "contact_id": UUID(contact), "lane": lane}
    id_ = await row(storage, acme.tenant, sender, **late)
    template = '{"template": {"name": "hello"}}'
    leaves = await row(storage, acme.tenant, sender, content=template, **late)
    assert (await acme.get(f"/messages/{leaves}"))["why"] is None
    assert (await acme.get(f"/messages/{id_}"))["why"]["code"] == "outside_window"
    assert (await acme.call("PATCH", f"/contacts/{contact}", body=then)).status == 200
    why = (await acme.get(f"/messages/{id_}"))["why"]
    assert (why["code"], why["todo"]) == (code, POLICY[code].todo)
    assert why["text"].startswith(POLICY[code].text)
    assert "does not leave" in why["text"]


async def test_what_waits_for_a_contact_that_is_deleted_is_suppressed_at_once(acme: Account, storage: Storage) -> None:
    contact, sender = await acme.contact(), await acme.sender()
    waits = await row(storage, acme.tenant, sender, contact_id=UUID(contact), reason="quiet_hours")
    left = await row(storage, acme.tenant, sender, contact_id=UUID(contact), status="sent")
    others = await row(storage, acme.tenant, sender, contact_id=UUID(await acme.contact()))
    assert (await acme.call("DELETE", f"/contacts/{contact}")).status == 204
    shown = await acme.get(f"/messages/{waits}")
    assert (shown["status"], shown["why"]["code"]) == ("suppressed", "contact_deleted")
    assert [(await acme.get(f"/messages/{one}"))["status"] for one in (left, others)] == ["sent", "queued"]
    async with storage.tenant(acme.tenant) as con:
        event = await one_row(con, "select body, name from outbox where subject like '%message.suppressed'")
    assert event["name"] == f"{waits}.suppressed"
    assert json.loads(event["body"])["contact_id"] == contact


async def test_a_tenant_with_one_active_sender_need_not_name_it(acme: Account, live_bus: Bus) -> None:
    body = {"to": a_phone(), "body": "Hi"}
    assert "sender" in (await acme.call("POST", "/messages", body=body)).is_problem(409).body["detail"]
    first, second = await acme.sender(), await acme.sender()
    assert "sender_id" in (await acme.call("POST", "/messages", body=body)).is_problem(422).faults()
    await acme.call("PATCH", f"/senders/{first}", body={"status": "paused"})
    assert (await acme.call("POST", "/messages", body=body)).status == 202
    assert (await command(live_bus, acme.tenant))[0]["sender_id"] == second


async def test_a_message_can_be_scheduled_and_not_too_far_ahead(acme: Account, live_bus: Bus) -> None:
    body = {"to": a_phone(), "sender_id": await acme.sender(), "body": "Hi"}
    at = datetime.now(UTC) + timedelta(days=3)
    accepted = await acme.post("/messages", body | {"send_at": at.isoformat()}, status=202)
    assert abs(time_of(UUID(accepted["id"])) - at) < timedelta(seconds=1)
    assert datetime.fromisoformat((await command(live_bus, acme.tenant))[0]["send_at"]) == at
    assert (await acme.get(f"/messages/{accepted['id']}"))["status"] == "accepted"
    just_now = datetime.now(UTC) - timedelta(minutes=4)
    await acme.post("/messages", body | {"send_at": just_now.isoformat()}, status=202)
    assert "send_at" not in (await command(live_bus, acme.tenant))[0]
    far = (at + timedelta(days=60)).isoformat()
    for wrong in (far, "tomorrow", "2027-01-01T00:00:00"):
        answer = await acme.call("POST", "/messages", body=body | {"send_at": wrong})
        assert "send_at" in answer.is_problem(422).faults()


async def test_a_message_for_a_time_long_past_is_refused(acme: Account) -> None:
    body = {"to": a_phone(), "sender_id": await acme.sender(), "body": "Hi"}
    past = datetime.now(UTC) - timedelta(minutes=6)
    answer = await acme.call("POST", "/messages", body=body | {"send_at": past.isoformat()})
    assert answer.is_problem(422).faults() == {
        "send_at": "lies more than 5 minutes in the past: leave it out to send now"
    }


async def test_a_scheduled_message_that_comes_again_is_answered_as_before_though_its_time_is_past(
    acme: Account, door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    at = datetime.now(UTC) + timedelta(minutes=1)
    body = {"to": a_phone(), "sender_id": await acme.sender(), "body": "Hi", "send_at": at.isoformat()}
    key = {"Idempotency-Key": uuid4().hex}
    first = await acme.call("POST", "/messages", body=body, headers=key)
    assert first.status == 202
    monkeypatch.setattr(door, "clock", lambda: datetime.now(UTC) + timedelta(minutes=10))
    again = await acme.call("POST", "/messages", body=body, headers=key)
    assert (again.status, again.body) == (202, first.body)
    assert "send_at" in (await acme.call("POST", "/messages", body=body)).is_problem(422).faults()


async def test_only_a_message_that_waits_can_be_cancelled(
    acme: Account, other: Account, storage: Storage, live_bus: Bus
) -> None:
    sender = await acme.sender()
    waits = await row(storage, acme.tenant, sender)
    for status in ("sending", "sent", "failed", "suppressed"):
        gone = await row(storage, acme.tenant, sender, status=status)
        answer = await acme.call("POST", f"/messages/{gone}/cancel")
        assert status in answer.is_problem(409).body["detail"]
    (await other.call("POST", f"/messages/{waits}/cancel")).is_problem(404)
    answer = await acme.call("POST", f"/messages/{waits}/cancel")
    assert (answer.status, answer.headers["Location"]) == (202, f"/api/v1/messages/{waits}")
    stored = await live_bus.js.get_last_msg("COMMANDS", f"t.{acme.tenant}.cmd.message.cancel")
    assert json.loads(stored.data or b"") == {"message_id": str(waits)}


async def test_many_who_ask_at_once_each_get_their_own_answer(acme: Account, other: Account) -> None:
    """They share a transaction that sees both tenants: neither may reach the other's rows by it."""
    accounts, sides = (acme, other), (0, 1)
    senders = [await one.sender() for one in accounts]
    contacts = [await one.contact() for one in accounts]

    async def send(asks: int, sender: int, contact: int) -> int:
        body = {"sender_id": senders[sender], "contact_id": contacts[contact], "body": "Hi"}
        return (await accounts[asks].call("POST", "/messages", body=body)).status

    cases = [(asks, has, knows) for asks in sides for has in sides for knows in sides] * 4
    answers = await asyncio.gather(*(send(*case) for case in cases))
    assert answers == [202 if asks == has == knows else 404 for asks, has, knows in cases]


async def test_an_error_code_that_no_message_can_have_is_refused(acme: Account) -> None:
    assert "error_code" in (await acme.call("GET", f"/messages?error_code={2**31}")).is_problem(422).faults()
    assert (await acme.call("GET", f"/messages?error_code={2**31 - 1}")).status == 200


@pytest.mark.parametrize(
    ("pricing", "shown"),
    [
        (
            {"billable": True, "pricing_model": "PMP", "type": "regular", "category": "utility", "origin": "utility"},
            {"billable": True, "model": "PMP", "type": "regular", "category": "utility", "origin": "utility"},
        ),
        (
            {"billable": "yes", "category": 7, "more": []},
            {"billable": None, "model": None, "type": None, "category": "7", "origin": None},
        ),
        (None, None),
    ],
    ids=["as-meta-tells-it", "as-nobody-does", "not-told"],
)
async def test_a_message_tells_how_it_is_charged(
    acme: Account, storage: Storage, pricing: dict[str, Any] | None, shown: dict[str, Any] | None
) -> None:
    told = None if pricing is None else json.dumps(pricing)
    id_ = await row(storage, acme.tenant, await acme.sender(), status="delivered", pricing=told)
    assert (await acme.get(f"/messages/{id_}"))["pricing"] == shown


@pytest.mark.parametrize(
    ("stopped_reason", "told"),
    [
        ("opt_out", "because the contact has opted out"),
        ("reply", "because the contact has answered, and the campaign has `stop_on_reply`"),
        ("a word of a partner's", "because a word of a partner's"),
    ],
)
async def test_what_stopped_its_enrolment_is_said(
    acme: Account, storage: Storage, stopped_reason: str, told: str
) -> None:
    one, when = await enrolled(storage, acme.tenant), datetime.now(UTC)
    for status in ("suppressed", "queued"):
        id_ = uuid7()
        async with storage.tenant(acme.tenant):
            await Message.create(
                id=id_, contact_id=one.contact, sender_id=one.sender, campaign_id=one.campaign, enrollment_id=one.id,
                step=0, lane="marketing", to="+919876543210", content={"body": "Hi"}, due_at=when, status=status,
                reason="enrollment_stopped" if status == "suppressed" else None,
            )  # fmt: skip
            stopped = {"status": "stopped", "stopped_reason": stopped_reason, "next_message_id": id_}
            await ContactCampaignProgress.filter(id=one.id).update(**stopped)
        why = (await acme.get(f"/messages/{id_}"))["why"]
        assert (why["code"], why["text"].endswith(told)) == ("enrollment_stopped", True), why


async def test_a_timeline_does_not_go_back_within_whatsapps_second(acme: Account, storage: Storage) -> None:
    one, id_, second = await enrolled(storage, acme.tenant), uuid7(), datetime(2026, 3, 1, 12, tzinfo=UTC)
    at = {"created_at": 0.718, "attempted_at": 0.73, "sent_at": 0, "delivered_at": 2, "read_at": 2}
    when = {name: second + timedelta(seconds=after) for name, after in at.items()}
    async with storage.tenant(acme.tenant):
        await Message.create(
            id=id_, contact_id=one.contact, sender_id=one.sender, lane="utility", to="+919876543210",
            content={"body": "Hi"}, due_at=second, status="read",
        )  # fmt: skip
        await Message.filter(id=id_).update(**when)
    told = [datetime.fromisoformat(one["at"]) for one in (await acme.get(f"/messages/{id_}"))["timeline"]]
    assert [(at - second).total_seconds() for at in told] == [0.718, 0.73, 0.73, 2, 2]
