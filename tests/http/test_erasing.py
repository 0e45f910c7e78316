"""A contact who is erased is nowhere any more: neither in the database nor in any stream, and does not come back."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest
from door_client import Account, a_phone
from nats.js.api import ConsumerConfig
from nats.js.errors import NotFoundError
from support import Database, an_invoice, until

from harkara.actors.dispatcher import Dispatcher
from harkara.actors.eraser import Eraser
from harkara.actors.herald import Herald
from harkara.actors.importer import Importer
from harkara.actors.receipts import Receipts
from harkara.bus.connection import Bus, Running
from harkara.bus.erasing import Purge
from harkara.bus.messages import Outgoing
from harkara.ids import uuid7
from harkara.schemas.commands import BulkEnroll, EraseContact, SendMessage
from harkara.schemas.content import Content
from harkara.schemas.work import Send
from harkara.storage.models import Message
from harkara.storage.storage import Storage

SETTLED = timedelta(seconds=1.5)

COLUMNS = """
select c.relname::text as name from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped)
"""


async def in_the_database(url: str, tenant: str, *needles: str) -> list[tuple[str, str]]:
    """Every row of a tenant's, in any table, that has one of these anywhere; sorted, as a catalogue has no order."""
    con = await asyncpg.connect(url)
    try:
        found: list[tuple[str, str]] = []
        for table in [row["name"] for row in await con.fetch(COLUMNS)]:
            rows = await con.fetch(f"select t::text as text from {table} t where tenant_id = $1", tenant)
            found += [(table, row["text"]) for row in rows if any(needle in row["text"] for needle in needles)]
        return sorted(found)
    finally:
        await con.close()


async def in_the_streams(bus: Bus, tenant: str, *needles: str) -> list[tuple[str, str]]:
    """Every message of a tenant's, in any stream, that has one of these in its body, headers or subject."""
    found: list[tuple[str, str]] = []
    for stream in bus.topology.streams:
        seq = 0
        while True:
            try:
                message = await bus.js.get_msg(stream.name, seq + 1, next=True, subject=f"t.{tenant}.>")
            except NotFoundError:
                break
            seq = message.seq or 0
            text = f"{message.subject} {message.headers} {(message.data or b'').decode()}"
            found += [(stream.name, text)] if any(needle in text for needle in needles) else []
    return found


@pytest.fixture(autouse=True)
async def nothing_unread(live_bus: Bus) -> None:
    """Webhooks of other tests on the same broker, which nobody has read to their end, would be waited for."""
    await live_bus.js.purge_stream("INBOUND")


@asynccontextmanager
async def erasing(bus: Bus, storage: Storage, tenant: str) -> AsyncGenerator[Running]:
    """The eraser at work; what other tests have asked for on the same broker, and nobody works on, is taken away."""
    asked = (await bus.js.stream_info("COMMANDS", subjects_filter=EraseContact.subject_filter())).state.subjects or {}
    for subject in asked.keys() - {EraseContact.subject.format(tenant=tenant)}:
        await bus.js.purge_stream("COMMANDS", subject=subject)
    for subject in ("t.*.work.eraser.>", "t.*.at.eraser.>"):
        await bus.js.purge_stream("WORK", subject=subject)
    async with bus.run(Eraser(storage, Purge(bus.link, bus.topology), settled=SETTLED)) as running:
        yield running


async def is_erased(bus: Bus, tenant: str) -> bool:
    return bool(await in_the_streams(bus, tenant, "evt.contact.erased"))


def webhook(phone: str, name: str, text: str) -> bytes:
    """A message to us, as Meta tells it."""
    value = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "1"},
        "contacts": [{"profile": {"name": name}, "wa_id": phone[1:]}],
        "messages": [
            {"from": phone[1:], "id": f"wamid.{uuid4()}", "timestamp": "1760000000", "type": "text",
             "text": {"body": text}}
        ],
    }  # fmt: skip
    change = {"field": "messages", "value": value}
    return json.dumps({"object": "whatsapp_business_account", "entry": [{"id": "1", "changes": [change]}]}).encode()


async def leave_traces(acme: Account, storage: Storage, bus: Bus, name: str, phone: str, further: str) -> str:
    """A contact with something in every table and every stream."""
    contact = await acme.contact(name=name, phone=phone, attributes={"note": f"call {name}"}, tags=["vip"])
    await acme.post(f"/contacts/{contact}/phone-numbers", {"phone": further, "label": name})
    await acme.call("PATCH", f"/contacts/{contact}", body={"name": f"{name} II"})
    lead = await acme.post("/leads", {"contact_id": contact, "source": name})
    await acme.call("PATCH", f"/leads/{lead['id']}", body={"source": f"{name}'s shop"})
    await acme.post("/invoices", an_invoice(contact, number=name))
    campaign = await acme.campaign()
    sender = (await acme.get(f"/campaigns/{campaign}"))["sender_id"]
    async with storage.tenant(acme.tenant) as con:
        for whose in (contact, None):
            await Message.create(
                contact_id=whose, sender_id=sender, lane="utility", to=phone, content={"body": f"Hi {name}"},
                status="sent", due_at=await con.fetchval("select now()"),
            )  # fmt: skip
    outs = [
        SendMessage(sender_id=sender, content=Content(body=f"Hi {name}"), contact_id=contact),
        SendMessage(sender_id=sender, content=Content(body=f"Hi {name}"), to=further),
        Send(
            message_id=str(uuid7()), sender_id=sender, lane="marketing", contact_id=contact, to=phone,
            due_at=uuid7_time(), variables={"name": name},
        ),
    ]  # fmt: skip
    for out in outs:
        await bus.publisher.publish(Outgoing(out, acme.tenant, str(uuid7())))
    await bus.js.publish(f"t.{acme.tenant}.dead.send", json.dumps({"contact_id": contact, "name": name}).encode())
    body = b'{"source":"whatsapp","sender_id":"%s","body":%s}' % (sender.encode(), webhook(phone, name, f"I am {name}"))
    await bus.js.publish(f"t.{acme.tenant}.in.whatsapp", body)
    async with bus.run(Receipts(storage, bus.publisher)):
        await until(lambda: has_replied(storage, acme.tenant), "the reply is written")
    while await Herald(storage, bus.publisher, bus.publisher.send).publish():
        pass
    return contact


def uuid7_time() -> Any:
    from datetime import UTC, datetime

    return datetime.now(UTC)


async def has_replied(storage: Storage, tenant: str) -> bool:
    async with storage.tenant(tenant) as con:
        return bool(await con.fetchval("select exists (select from replies)"))


async def test_nothing_is_left_of_who_is_erased_and_nobody_else_is_touched(
    acme: Account, other: Account, storage: Storage, live_bus: Bus, stack: Any
) -> None:
    admin = stack.database("postgres", "harkara")
    name, phone, further = f"Zarathustra{uuid4().hex[:6]}", a_phone(), a_phone()
    needles = (name, phone[1:], further[1:])
    bystander = await acme.contact(name="Bystander")
    stranger = await other.contact(name=name, phone=phone)
    contact = await leave_traces(acme, storage, live_bus, name, phone, further)
    bulk = BulkEnroll(campaign_id=str(uuid7()), contact_ids=[contact, bystander])
    await live_bus.publisher.publish(Outgoing(bulk, acme.tenant, str(uuid7())))
    tables = {table for table, _ in await in_the_database(admin, acme.tenant, *needles)}
    assert tables >= {"contacts", "phone_numbers", "contact_terms", "leads", "lead_changes", "messages", "replies",
                      "audit_log", "invoices"}  # fmt: skip
    streams = {stream for stream, _ in await in_the_streams(live_bus, acme.tenant, *needles)}
    assert streams == {"COMMANDS", "SEND", "INBOUND", "EVENTS", "DEAD"}
    before = await in_the_database(admin, other.tenant, *needles)

    # A partner who is away has not read what there is to erase.
    away = ConsumerConfig(durable_name=f"partner-{uuid4()}", filter_subject=f"t.{acme.tenant}.evt.>")
    await live_bus.js.add_consumer("EVENTS", away)
    answer = await acme.call("DELETE", f"/contacts/{contact}?erase=true")
    assert answer.status == 202, answer.text
    async with erasing(live_bus, storage, acme.tenant):
        await until(lambda: is_erased(live_bus, acme.tenant), "the contact is erased", timeout=60)
    assert await in_the_database(admin, acme.tenant, *needles) == []
    # The command itself goes with its ack.
    await until(lambda: gone(live_bus, acme.tenant, needles), "nothing is left in the streams")
    (await acme.call("GET", f"/contacts/{contact}")).is_problem(404)
    assert await in_the_database(admin, other.tenant, *needles) == before
    assert (await acme.get(f"/contacts/{bystander}"))["name"] == "Bystander"
    assert (await other.get(f"/contacts/{stranger}"))["name"] == name
    assert [text for stream, text in await in_the_streams(live_bus, acme.tenant, bystander) if stream == "COMMANDS"]
    async with storage.tenant(acme.tenant) as con:
        noted = await con.fetch("select action, before::text from audit_log where entity_id = $1", contact)
    assert {row["action"] for row in noted} >= {"create", "update", "delete"}
    assert {row["before"] for row in noted} <= {None, "{}"}


async def gone(bus: Bus, tenant: str, needles: tuple[str, ...]) -> bool:
    return not await in_the_streams(bus, tenant, *needles)


async def test_what_arrives_late_brings_nobody_back(
    acme: Account, storage: Storage, live_bus: Bus, stack: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A webhook, a file and a command that are in somebody's hands while the contact is erased."""
    monkeypatch.setattr("harkara.http.contact_import.SMALL_LINES", 1)
    admin = stack.database("postgres", "harkara")
    name, phone = f"Zarathustra{uuid4().hex[:6]}", a_phone()
    contact = await acme.contact(name=name, phone=phone)
    sender = await acme.sender()
    text = f"name,phone\n{name},{phone}\nOther,{a_phone()}\n"
    file = await acme.call("POST", "/contacts/import", data=text.encode(), headers={"Content-Type": "text/csv"})
    assert file.status == 202
    body = b'{"source":"whatsapp","sender_id":"%s","body":%s}' % (sender.encode(), webhook(phone, name, "Hi"))
    await live_bus.js.publish(f"t.{acme.tenant}.in.whatsapp", body)
    send = SendMessage(sender_id=sender, content=Content(body=f"Hi {name}"), contact_id=contact)
    assert (await acme.call("DELETE", f"/contacts/{contact}?erase=true")).status == 202
    async with erasing(live_bus, storage, acme.tenant):
        await until(lambda: no_contact(storage, acme.tenant, phone), "the row is gone")
        # Only now those who have it in hand come to it.
        await live_bus.publisher.publish(Outgoing(send, acme.tenant, str(uuid7())))
        herald = Herald(storage, live_bus.publisher, live_bus.publisher.send)
        await herald.start()
        async with (
            live_bus.run(Receipts(storage, live_bus.publisher)),
            live_bus.run(Importer(storage)),
            live_bus.run(Dispatcher(storage, live_bus.publisher)),
        ):
            await until(lambda: is_erased(live_bus, acme.tenant), "the contact is erased", timeout=80)
        await herald.stop()
    assert await in_the_database(admin, acme.tenant, name, phone[1:]) == []
    await until(lambda: gone(live_bus, acme.tenant, (name, phone[1:])), "nothing is left in the streams")
    assert [one["name"] for one in (await acme.get("/contacts"))["items"]] == ["Other"]


async def no_contact(storage: Storage, tenant: str, phone: str) -> bool:
    async with storage.tenant(tenant) as con:
        return not await con.fetchval("select exists (select from contacts where phone = $1)", phone)


@pytest.mark.parametrize("word", [{"opted_out": True}, {"opt_outs": {"marketing": True}}])
async def test_who_has_opted_out_is_not_forgotten_by_a_plain_delete(acme: Account, word: dict[str, Any]) -> None:
    contact = await acme.contact()
    assert (await acme.call("PATCH", f"/contacts/{contact}", body=word)).status == 200
    refused = (await acme.call("DELETE", f"/contacts/{contact}")).is_problem(409)
    assert "opted out" in refused.body["detail"]
    assert (await acme.get(f"/contacts/{contact}"))["id"] == contact
    assert (await acme.call("DELETE", f"/contacts/{contact}?erase=true")).status == 202


async def test_a_plain_delete_still_keeps_what_was_sent(acme: Account, storage: Storage, database: Database) -> None:
    contact, sender = await acme.contact(), await acme.sender()
    async with storage.tenant(acme.tenant) as con:
        await Message.create(
            contact_id=contact, sender_id=sender, lane="utility", to=a_phone(), content={}, status="sent",
            due_at=await con.fetchval("select now()"),
        )  # fmt: skip
    assert (await acme.call("DELETE", f"/contacts/{contact}")).status == 204
    [message] = (await acme.get("/messages"))["items"]
    assert message["contact_id"] is None
    (await acme.call("DELETE", f"/contacts/{contact}?erase=maybe")).is_problem(422)
    (await acme.call("DELETE", f"/contacts/{contact}?erase=true")).is_problem(404)
