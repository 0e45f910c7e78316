"""An inbox: whose turn it is, what was said last, who answers, and until when one may."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
import pytest
from door_client import Account
from nats.js.errors import NotFoundError

from harkara.bus.connection import Bus
from harkara.ids import uuid7, uuid7_for
from harkara.storage import receiving
from harkara.storage.models import Message, Template
from harkara.storage.receiving import NewReply
from harkara.storage.storage import Storage


async def writes(
    storage: Storage,
    acme: Account,
    contact: str,
    sender: str,
    at: datetime | None = None,
    wamid: str | None = None,
    payload: str = "{}",
) -> str:
    """The contact writes to the sender, as receipts take it down; gives the conversation's id."""
    at, wamid = at or datetime.now(UTC), wamid or uuid4().hex
    ids = UUID(contact), UUID(sender)
    async with storage.batch((acme.tenant,)) as con:
        conversation = await receiving.conversation_for(con, acme.tenant, *ids, at, uuid7())
        id_ = uuid7_for(at, acme.tenant, wamid)
        await receiving.reply(
            con,
            NewReply(id_, acme.tenant, ids[1], ids[0], conversation, wamid, "text", "Open?", payload, None, at),
        )
    return str(conversation)


async def listed(acme: Account, query: str = "") -> list[str]:
    """All conversations of a list, two at a time, in order."""
    found: list[str] = []
    page: dict[str, Any] = await acme.get(f"/conversations?limit=2&{query}")
    while True:
        found += [one["id"] for one in page["items"]]
        if page["next"] is None:
            return found
        page = await acme.get(f"/conversations?limit=2&{query}&cursor={page['next']}")


async def me(acme: Account) -> str:
    return str((await acme.get("/auth/me"))["user"]["id"])


async def test_the_conversation_where_something_was_said_last_comes_first(acme: Account, storage: Storage) -> None:
    sender = await acme.sender()
    contacts = [await acme.contact() for _ in range(5)]
    now = datetime.now(UTC)
    made = [
        await writes(storage, acme, contact, sender, now - timedelta(minutes=10 - number))
        for number, contact in enumerate(contacts)
    ]
    assert await listed(acme) == made[::-1]
    await writes(storage, acme, contacts[1], sender, now - timedelta(minutes=1))
    await writes(storage, acme, contacts[0], sender, now - timedelta(minutes=60))  # told late: it is not the last
    assert await listed(acme) == [made[1], made[4], made[3], made[2], made[0]]
    await acme.post(f"/conversations/{made[0]}/reply", {"body": "Yes, until six."}, status=202)
    assert (await listed(acme))[0] == made[0]


async def test_a_page_stays_true_while_others_write(acme: Account, storage: Storage) -> None:
    sender = await acme.sender()
    contacts = [await acme.contact() for _ in range(4)]
    now = datetime.now(UTC)
    made = [
        await writes(storage, acme, contact, sender, now - timedelta(minutes=10 - number))
        for number, contact in enumerate(contacts)
    ]
    first = await acme.get("/conversations?limit=2")
    await writes(storage, acme, contacts[3], sender)
    second = await acme.get(f"/conversations?limit=2&cursor={first['next']}")
    assert [one["id"] for one in first["items"] + second["items"]] == made[::-1]


async def test_they_are_found_by_status_person_sender_and_contact(
    acme: Account, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.http.conversations.LOOKED_AT", 2)
    senders = [await acme.sender(), await acme.sender()]
    contacts = [await acme.contact() for _ in range(3)]
    now = datetime.now(UTC)
    made = [
        await writes(storage, acme, contact, sender, now - timedelta(minutes=10 - 2 * number - place))
        for number, contact in enumerate(contacts)
        for place, sender in enumerate(senders)
    ]
    user = await me(acme)
    await acme.post(f"/conversations/{made[0]}/assign", {"user_id": user}, status=200)
    await acme.post(f"/conversations/{made[5]}/assign", {"user_id": user}, status=200)
    await acme.post(f"/conversations/{made[5]}/close", status=200)
    assert await listed(acme, f"assigned_to={user}") == [made[5], made[0]]
    assert await listed(acme, "assigned_to=me") == [made[5], made[0]]
    key = {"X-API-Key": (await acme.post("/api-keys", {}))["key"]}
    answer = (await acme.api.call("GET", "/conversations?assigned_to=me", headers=key)).is_problem(422)
    assert "is a user" in answer.faults()["assigned_to"]
    assert await listed(acme, "unassigned=true") == made[4:0:-1]
    assert await listed(acme, f"sender_id={senders[0]}") == made[4::-2]
    assert await listed(acme, f"contact_id={contacts[1]}") == [made[3], made[2]]
    assert await listed(acme, "status=closed") == [made[5]]
    assert await listed(acme, f"status=open&assigned_to={user}&sender_id={senders[0]}") == [made[0]]
    assert await listed(acme, f"unassigned=true&sender_id={senders[1]}&status=open") == [made[3], made[1]]
    assert await listed(acme, f"assigned_to={uuid7()}") == []
    (await acme.call("GET", "/conversations?status=asleep")).is_problem(422)


async def test_a_closed_one_opens_again_when_the_contact_writes_but_not_when_old_news_comes_again(
    acme: Account, storage: Storage
) -> None:
    sender, contact = await acme.sender(), await acme.contact()
    at = datetime.now(UTC)
    conversation = await writes(storage, acme, contact, sender, at, wamid="first")
    closed = await acme.post(f"/conversations/{conversation}/close", status=200)
    assert (closed["status"], closed["closed_at"] is not None) == ("closed", True)
    assert await acme.post(f"/conversations/{conversation}/close", status=200) == closed
    await writes(storage, acme, contact, sender, at, wamid="first")
    assert (await acme.get(f"/conversations/{conversation}"))["status"] == "closed"
    await writes(storage, acme, contact, sender, at - timedelta(seconds=5), wamid="second, told late")
    opened = await acme.get(f"/conversations/{conversation}")
    assert (opened["status"], opened["closed_at"]) == ("open", None)
    await acme.post(f"/conversations/{conversation}/close", status=200)
    assert (await acme.post(f"/conversations/{conversation}/reopen", status=200))["status"] == "open"


async def test_only_an_active_member_who_may_answer_is_given_one(
    acme: Account, other: Account, storage: Storage
) -> None:
    sender, contact = await acme.sender(), await acme.contact()
    path = f"/conversations/{await writes(storage, acme, contact, sender)}"
    user = await me(acme)
    assert (await acme.post(f"{path}/assign", {"user_id": user}, status=200))["assigned_to"] == user
    for stranger in (await me(other), str(uuid7())):
        answer = await acme.call("POST", f"{path}/assign", body={"user_id": stranger})
        assert "user_id" in answer.is_problem(404).faults()
    for role, status in (("viewer", 409), ("agent", 200)):
        wanted = {"email": f"{uuid4().hex}@acme.example", "name": "Ravi", "password": "correct horse", "role": role}
        person = await acme.post("/users", wanted)
        answer = await acme.call("POST", f"{path}/assign", body={"user_id": person["id"]})
        assert answer.status == status, answer.text
    assert (await acme.call("DELETE", f"/users/{person['id']}")).status == 204
    assert (await acme.get(path))["assigned_to"] is None
    assert (await acme.post(f"{path}/assign", {"user_id": None}, status=200))["assigned_to"] is None
    assert (await acme.call("POST", f"{path}/assign", body={})).is_problem(422).faults() == {"user_id": "is missing"}


async def test_a_reply_goes_out_by_the_conversations_own_number(acme: Account, storage: Storage, live_bus: Bus) -> None:
    sender, contact = await acme.sender(), await acme.contact()
    await acme.sender()
    conversation = await writes(storage, acme, contact, sender)
    answer = await acme.call("POST", f"/conversations/{conversation}/reply", body={"body": "Yes, {{ first_name }}"})
    assert answer.status == 202
    assert answer.headers["Location"].endswith(answer.body["id"])
    command = await live_bus.js.get_last_msg("COMMANDS", f"t.{acme.tenant}.cmd.message.send")
    told = (command.data or b"").decode()
    assert sender in told
    assert contact in told
    for body in ({}, {"body": "a", "template": {"name": "b"}}, {"body": "x" * 5000}, {"body": "{{ nobody }}"}):
        (await acme.call("POST", f"/conversations/{conversation}/reply", body=body)).is_problem(422)


async def test_a_reply_goes_to_the_number_that_the_contact_wrote_from(
    acme: Account, storage: Storage, live_bus: Bus
) -> None:
    sender, contact, now = await acme.sender(), await acme.contact(), datetime.now(UTC)
    first = (await acme.get(f"/contacts/{contact}"))["phone"]
    added = {"phone": "+5531987654321", "label": "new"}
    assert (await acme.call("POST", f"/contacts/{contact}/phone-numbers", body=added)).status == 201

    async def answered() -> str | None:
        sent = await acme.call("POST", f"/conversations/{conversation}/reply", body={"body": "Yes"})
        assert sent.status == 202
        command = await live_bus.js.get_last_msg("COMMANDS", f"t.{acme.tenant}.cmd.message.send")
        told = json.loads(command.data or b"")
        assert told["contact_id"] == contact
        return cast("str | None", told.get("to"))

    for minutes, wrote_from, goes_to in (
        (5, first.removeprefix("+"), None),  # wherever the contact's first number is by then
        (4, "553187654321", added["phone"]),  # as WhatsApp writes it
        (3, "5531987654321@c.us", added["phone"]),
        (2, "15550100", None),  # no number of the contact's any more
    ):
        at = now - timedelta(minutes=minutes)
        payload = json.dumps({"from": wrote_from})
        conversation = await writes(storage, acme, contact, sender, at, payload=payload)
        assert await answered() == goes_to


async def test_an_answer_quotes_what_was_said_in_its_conversation_and_nothing_else(
    acme: Account, storage: Storage, live_bus: Bus
) -> None:
    sender, contact = await acme.sender(), await acme.contact()
    conversation = await writes(storage, acme, contact, sender, wamid="wamid.theirs")
    elsewhere = await writes(storage, acme, await acme.contact(), sender, wamid="wamid.elsewhere")
    path = f"/conversations/{conversation}"
    (theirs,) = (await acme.get(f"{path}/messages"))["items"]
    (foreign,) = (await acme.get(f"/conversations/{elsewhere}/messages"))["items"]
    ours, waiting = uuid7(), uuid7()
    async with storage.tenant(acme.tenant):
        for id_, wamid in ((ours, "wamid.ours"), (waiting, None)):
            await Message.create(
                id=id_, contact_id=UUID(contact), sender_id=UUID(sender), lane="utility", to="+919876543210",
                content={"body": "Hi"}, status="sent" if wamid else "queued", wamid=wamid, due_at=datetime.now(UTC),
            )  # fmt: skip
    for quoted, known_as in ((theirs["id"], "wamid.theirs"), (str(ours), "wamid.ours")):
        await acme.post(f"{path}/reply", {"body": "Yes", "reply_to": quoted}, status=202)
        command = await live_bus.js.get_last_msg("COMMANDS", f"t.{acme.tenant}.cmd.message.send")
        told = msgspec.json.decode(command.data or b"")
        assert (told["reply_to"], told["quoted"]) == (quoted, known_as)
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update replies set type = 'call' where wamid = 'wamid.theirs'")
    for quoted, status in ((foreign["id"], 404), (theirs["id"], 404), (str(uuid7()), 404), (str(waiting), 409)):
        answer = await acme.call("POST", f"{path}/reply", body={"body": "Yes", "reply_to": quoted})
        assert "reply_to" in answer.is_problem(status).faults()
    answer = await acme.call("POST", f"{path}/reply", body={"body": "Yes", "reply_to": "wamid.ours"})
    assert "reply_to" in answer.is_problem(422).faults()
    assert (theirs["reply_to"], theirs["reply_to_wamid"]) == (None, None)


async def test_after_24_hours_a_number_that_keeps_the_window_sends_only_templates(
    acme: Account, storage: Storage, live_bus: Bus
) -> None:
    enforcing, ignoring = await acme.sender(window="enforce"), await acme.sender(window="ignore")
    contact, at = await acme.contact(), datetime.now(UTC) - timedelta(hours=24, minutes=1)
    late = await writes(storage, acme, contact, enforcing, at)
    assert datetime.fromisoformat((await acme.get(f"/conversations/{late}"))["window_until"]) < datetime.now(UTC)
    answer = (await acme.call("POST", f"/conversations/{late}/reply", body={"body": "Sorry!"})).is_problem(409)
    assert "template" in answer.body["detail"]
    assert datetime.fromisoformat(answer.body["last_inbound_at"]) == at
    with pytest.raises(NotFoundError):
        await live_bus.js.get_last_msg("COMMANDS", f"t.{acme.tenant}.cmd.message.send")
    await acme.post(f"/conversations/{late}/reply", {"template": {"name": "sorry"}}, status=202)
    free = await writes(storage, acme, contact, ignoring, at)
    assert (await acme.get(f"/conversations/{free}"))["window_until"] is None
    await acme.post(f"/conversations/{free}/reply", {"body": "Sorry!"}, status=202)
    await writes(storage, acme, contact, enforcing)
    await acme.post(f"/conversations/{late}/reply", {"body": "Here we are."}, status=202)


async def test_what_people_do_is_told_and_noted(acme: Account, storage: Storage) -> None:
    sender, contact = await acme.sender(), await acme.contact()
    conversation = await writes(storage, acme, contact, sender)
    user = await me(acme)
    await acme.post(f"/conversations/{conversation}/assign", {"user_id": user}, status=200)
    await acme.post(f"/conversations/{conversation}/close", status=200)
    async with storage.tenant(acme.tenant) as con:
        rows = await con.fetch("select body::text from outbox where subject like '%.conversation.updated' order by id")
    assert [f'"assigned_to":"{user}"' in row[0].replace(" ", "") for row in rows] == [True, True]
    assert '"closed"' in rows[1][0]
    noted = (await acme.get(f"/audit?entity=conversation&entity_id={conversation}"))["items"]
    assert [one["changes"]["after"].get("status") for one in noted][:1] == ["closed"]
    assert all(one["user_id"] == user for one in noted)


async def test_replies_are_found_by_conversation_sender_and_time(acme: Account, storage: Storage) -> None:
    sender, contact = await acme.sender(), await acme.contact()
    conversation = await writes(storage, acme, contact, sender)
    elsewhere = await writes(storage, acme, await acme.contact(), sender)
    (one,) = (await acme.get(f"/replies?conversation_id={conversation}"))["items"]
    assert (one["conversation_id"], one["contact_id"]) == (conversation, contact)
    assert {one["conversation_id"] for one in (await acme.get(f"/replies?sender_id={sender}"))["items"]} == {
        conversation, elsewhere,
    }  # fmt: skip
    assert (await acme.get(f"/replies?sender_id={uuid7()}"))["items"] == []


async def test_remarks_are_for_colleagues_and_say_whose_they_are(acme: Account, storage: Storage) -> None:
    conversation = await writes(storage, acme, await acme.contact(), await acme.sender())
    path = f"/conversations/{conversation}/notes"
    for text in ("First", "Second"):
        made = await acme.call("POST", path, body={"text": text})
        assert (made.status, made.body["user_id"], made.body["api_key_id"]) == (201, await me(acme), None)
    assert [note["text"] for note in (await acme.get(path))["items"]] == ["Second", "First"]
    assert len((await acme.get(f"{path}?limit=1"))["items"]) == 1
    noted = (await acme.get("/audit?entity=conversation_note"))["items"]
    assert [one["changes"]["after"]["text"] for one in noted] == ["Second", "First"]
    assert "text" in (await acme.call("POST", path, body={"text": ""})).is_problem(422).faults()
    (await acme.call("GET", f"/conversations/{uuid4()}/notes")).is_problem(404)


async def test_a_template_is_read_as_its_contact_reads_it_and_what_was_not_said_says_why(
    acme: Account, storage: Storage
) -> None:
    sender, contact = await acme.sender(), await acme.contact()
    conversation = await writes(storage, acme, contact, sender)
    components = [
        {"type": "HEADER", "format": "TEXT", "text": "Order {{1}}"},
        {"type": "BODY", "text": "Hi {{1}}, it comes at {{2}}."},
        {"type": "FOOTER", "text": "The shop"},
    ]
    template = {"name": "order", "parameters": ["Asha", "7"], "header": "42"}
    row: dict[str, Any] = {"lane": "utility", "to": "+1", "cause": "", "due_at": datetime.now(UTC)}
    row |= {"sender_id": UUID(sender), "contact_id": UUID(contact)}
    async with storage.tenant(acme.tenant):
        await Template.create(
            sender_id=UUID(sender), name="order", language="en", status="approved", components=components
        )
        known = await Message.create(**row, status="sent", content={"template": template})
        other = await Message.create(**row, status="sent", content={"template": template | {"language": "hi"}})
        text = await Message.create(**row, status="suppressed", reason="opted_out", content={"body": "Hi"})
    lines = {one["id"]: one for one in (await acme.get(f"/conversations/{conversation}/messages"))["items"]}
    assert lines[str(known.id)]["text"] == "Order 42\nHi Asha, it comes at 7.\nThe shop"
    assert (lines[str(other.id)]["text"], lines[str(other.id)]["why"]) == (None, None)
    suppressed = lines[str(text.id)]
    assert (suppressed["status"], suppressed["text"]) == ("suppressed", "Hi")
    assert suppressed["why"] == (await acme.get(f"/messages/{text.id}"))["why"]
    assert suppressed["why"]["code"] == "opted_out"
    assert [one["why"] for one in lines.values() if one["direction"] == "in"] == [None]


async def test_what_was_read_last_is_marked_as_read(acme: Account, storage: Storage, live_bus: Bus) -> None:
    contact, sender = await acme.contact(), await acme.sender()
    conversation = await writes(storage, acme, contact, sender, wamid="wamid.first")
    async with storage.tenant(acme.tenant) as con:
        empty = await receiving.conversation_for(
            con, acme.tenant, UUID(await acme.contact()), UUID(sender), datetime.now(UTC), uuid7()
        )
    (await acme.call("POST", f"/conversations/{empty}/read")).is_problem(409)
    await writes(storage, acme, contact, sender, datetime.now(UTC) + timedelta(seconds=1), wamid="wamid.last")
    assert (await acme.call("POST", f"/conversations/{conversation}/read", body={"typing": True})).status == 202
    command = await live_bus.js.get_last_msg("COMMANDS", f"t.{acme.tenant}.cmd.conversation.read")
    assert msgspec.json.decode(command.data or b"") == {"sender_id": sender, "wamid": "wamid.last", "typing": True}
    assert (await acme.get(f"/conversations/{conversation}"))["read_at"] is not None
