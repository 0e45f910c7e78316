"""What was accepted and then lost what it needs, before anybody came to it: it ends as a message that says why."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from door_client import Account, a_phone
from support import an_invoice, one_row, until

from harkara.actors.dispatcher import Dispatcher
from harkara.actors.sender import Sender
from harkara.bus.connection import Bus
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Done
from harkara.ids import uuid7
from harkara.schemas.commands import SendMessage
from harkara.schemas.content import Content
from harkara.schemas.events import MessageSuppressed
from harkara.schemas.work import Send
from harkara.storage.storage import Storage


async def accepted(acme: Account, **body: Any) -> str:
    answer = await acme.call("POST", "/messages", body={"body": "Hi"} | body)
    assert answer.status == 202
    return str(answer.body["id"])


async def dispatched(acme: Account, bus: Bus, storage: Storage, id_: str) -> dict[str, Any]:
    """The message once the dispatcher has come to it; its event, which is told over the feed and webhooks."""
    assert (await acme.get(f"/messages/{id_}"))["status"] == "accepted"

    async def is_there() -> bool:
        return bool((await acme.get(f"/messages/{id_}"))["status"] != "accepted")

    async with bus.run(Dispatcher(storage, bus.publisher)):
        await until(is_there, "the message has become something")
    shown: dict[str, Any] = await acme.get(f"/messages/{id_}")
    return shown


async def event(bus: Bus, acme: Account, name: str) -> Any:
    stored = await bus.js.get_last_msg("EVENTS", f"t.{acme.tenant}.evt.message.{name}")
    return json.loads(stored.data or b"")


async def letters(acme: Account) -> list[Any]:
    return list((await acme.get("/dead-letters"))["items"])


@pytest.mark.parametrize("to_contact", [True, False])
async def test_its_number(acme: Account, live_bus: Bus, storage: Storage, to_contact: bool) -> None:
    sender = await acme.sender()
    whom = {"contact_id": await acme.contact()} if to_contact else {"to": a_phone()}
    id_ = await accepted(acme, sender_id=sender, **whom)
    assert (await acme.call("DELETE", f"/senders/{sender}")).status == 204
    shown = await dispatched(acme, live_bus, storage, id_)
    assert (shown["status"], shown["reason"], shown["sender_id"]) == ("suppressed", "sender_deleted", sender)
    assert (shown["content"]["body"], shown["contact_id"]) == ("Hi", whom.get("contact_id"))
    assert (shown["why"]["code"], "another" in shown["why"]["todo"]) == ("sender_deleted", True)
    assert [moment["status"] for moment in shown["timeline"]][-1] == "suppressed"
    told = await event(live_bus, acme, "suppressed")
    assert (told["id"], told["reason"], told["sender_id"]) == (id_, "sender_deleted", sender)
    assert [one["id"] for one in (await acme.get("/messages?reason=sender_deleted"))["items"]] == [id_]
    assert await letters(acme) == []


async def test_its_contact(acme: Account, live_bus: Bus, storage: Storage) -> None:
    """Nothing is written of somebody who may have been erased."""
    contact = await acme.contact()
    id_ = await accepted(acme, sender_id=await acme.sender(), contact_id=contact, body="Hi Asha")
    assert (await acme.call("DELETE", f"/contacts/{contact}")).status == 204
    shown = await dispatched(acme, live_bus, storage, id_)
    assert (shown["status"], shown["why"]["code"]) == ("suppressed", "contact_deleted")
    assert (shown["to"], shown["contact_id"], shown["content"].get("body")) == ("", None, None)
    assert "contact_id" not in await event(live_bus, acme, "suppressed")
    assert await letters(acme) == []


async def test_its_invoice(acme: Account, live_bus: Bus, storage: Storage) -> None:
    contact = await acme.contact()
    invoice = (await acme.call("POST", "/invoices", body=an_invoice(contact))).body["id"]
    text = "You owe {{ invoice.amount }}"
    id_ = await accepted(acme, sender_id=await acme.sender(), contact_id=contact, invoice_id=invoice, body=text)
    async with storage.tenant(acme.tenant) as con:
        await con.execute("delete from invoices where id = $1", invoice)
    shown = await dispatched(acme, live_bus, storage, id_)
    assert (shown["status"], shown["why"]["code"]) == ("suppressed", "invoice_void")
    assert await letters(acme) == []


async def test_what_it_says_of_its_contact(acme: Account, live_bus: Bus, storage: Storage) -> None:
    contact = await acme.contact(attributes={"city": "Pune"})
    id_ = await accepted(acme, sender_id=await acme.sender(), contact_id=contact, body="How is {{ attributes.city }}?")
    assert (await acme.call("PATCH", f"/contacts/{contact}", body={"attributes": {}})).status == 200
    shown = await dispatched(acme, live_bus, storage, id_)
    assert (shown["status"], shown["content"]["body"]) == ("failed", "How is {{ attributes.city }}?")
    assert "city" in shown["why"]["text"]
    assert [moment["status"] for moment in shown["timeline"]] == ["queued", "failed"]
    assert (await event(live_bus, acme, "failed"))["reason"] == shown["reason"]
    assert [one["id"] for one in (await acme.get("/messages?status=failed"))["items"]] == [id_]
    assert await letters(acme) == []


async def test_what_was_decided_is_told_again_whatever_has_changed_since(
    acme: Account, live_bus: Bus, storage: Storage
) -> None:
    """A command that comes again after a crash: its row stands, and the gate judges what is new."""
    contact = await acme.contact(attributes={"city": "Pune"})
    command = SendMessage(
        sender_id=await acme.sender(),
        contact_id=contact,
        content=Content(body="How is {{ attributes.city }}?"),
        lane="utility",
    )
    now, id_ = datetime.now(UTC), str(uuid7())
    delivery: Delivery[Any] = Delivery(command, acme.tenant, id_, id_, 1, "subject", "COMMANDS", 1, now, 1)
    dispatcher = Dispatcher(storage, live_bus.publisher)
    (before,) = await dispatcher.handle([delivery])
    await acme.call("PATCH", f"/contacts/{contact}", body={"attributes": {}, "opted_out": True})
    (again,) = await dispatcher.handle([delivery])
    assert isinstance(before, Done)
    assert again == before
    async with storage.tenant(acme.tenant) as con:
        await con.execute(
            "update messages set status = 'suppressed', reason = 'cancelled' where tenant_id = $1", acme.tenant
        )
    (again,) = await dispatcher.handle([delivery])
    assert isinstance(again, Done)
    [told] = [one.message for one in again.events]
    assert isinstance(told, MessageSuppressed)
    assert told.reason == "cancelled"


class _Gone:
    """Numbers of which there is none."""

    async def get(self, *_: Any) -> None:
        return None


async def test_a_number_that_goes_while_its_message_is_on_the_way(acme: Account, storage: Storage) -> None:
    """Such as what confirms an opt-out, which has no row before it leaves."""
    contact, gone = await acme.contact(), str(uuid7())
    id_, now = str(uuid7()), datetime.now(UTC)
    work = Send(
        message_id=id_, sender_id=gone, lane="utility", contact_id=contact, to=a_phone(), due_at=now,
        content=Content(body="You will hear no more"), confirms=True,
    )  # fmt: skip
    parts: Any = _Gone()
    sender = Sender(storage, parts, parts, parts, lambda: None)
    (outcome,) = await sender.handle([Delivery(work, acme.tenant, id_, id_, 1, "s", "SEND", 1, now, 1)])
    assert isinstance(outcome, Done)
    assert [msgspec.structs.asdict(one.message)["reason"] for one in outcome.events] == ["sender_deleted"]
    async with storage.tenant(acme.tenant) as con:
        row = await one_row(con, "select status, reason from messages where id = $1", id_)
    assert tuple(row) == ("suppressed", "sender_deleted")
