"""What partners send over NATS is judged, done and answered as what comes over HTTP."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any
from uuid import UUID, uuid4

import pytest
from door_client import Account, a_phone
from nats.js.errors import NotFoundError
from partner_client import Join
from support import an_invoice, until

from harkara.bus.connection import Bus
from harkara.http.door import Door
from harkara.partners import intake
from harkara.partners.commands import routes
from harkara.schemas import commands
from harkara.schemas.base import Message
from harkara.storage.storage import Storage

NOBODY = str(uuid4())


async def stored(bus: Bus, tenant: str) -> list[Any]:
    """The tenant's commands on the bus, oldest first."""
    found, seq = list[Any](), 0
    with suppress(NotFoundError):
        while True:
            found.append(await bus.js.get_msg("COMMANDS", seq + 1, next=True, subject=f"t.{tenant}.>"))
            seq = found[-1].seq
    return found


def test_every_command_of_the_platform_can_be_sent() -> None:
    subjects = {
        one.subject.removeprefix("t.{tenant}.cmd.")
        for one in vars(commands).values()
        if isinstance(one, type) and issubclass(one, Message) and one is not Message
    }
    assert subjects <= set(routes())


async def test_a_message_is_accepted_as_over_http(acme: Account, bus: Bus, join: Join) -> None:
    sender, partner = await acme.sender(), await join(acme)
    wanted = {"to": a_phone(), "sender_id": sender, "body": "Hello"}
    accepted = await partner.told("message.send", wanted)
    assert set(accepted) == {"id", "status"}
    assert accepted["status"] == "accepted"
    over_http = await acme.post("/messages", wanted, status=202)
    mine, other = await stored(bus, acme.tenant)
    assert UUID(mine.headers["X-Msg-Id"]) == UUID(accepted["id"])
    assert UUID(other.headers["X-Msg-Id"]) == UUID(over_http["id"])
    assert mine.data == other.data
    assert set(mine.headers) == set(other.headers)


async def test_the_message_id_is_the_idempotency_key(acme: Account, bus: Bus, join: Join) -> None:
    sender, partner, other = await acme.sender(), await join(acme), await join(acme)
    wanted = {"to": a_phone(), "sender_id": sender, "body": "Hello"}
    key = {"Nats-Msg-Id": "order-1"}
    first = await partner.told("message.send", wanted, key)
    again = await partner.ask("message.send", wanted, key)
    assert json.loads(again.data) == first
    assert again.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    changed = await partner.told("message.send", wanted | {"body": "Bye"}, key)
    assert changed["status"] == 422
    # Over HTTP it is the same request; of another key it is another.
    headers = {"X-API-Key": partner.key, "Idempotency-Key": "order-1"}
    assert (await acme.api.call("POST", "/messages", body=wanted, headers=headers)).body == first
    assert (await other.told("message.send", wanted, key))["id"] != first["id"]
    assert len(await stored(bus, acme.tenant)) == 2


async def test_a_time_long_past_is_refused_as_over_http(acme: Account, join: Join) -> None:
    wanted = {"to": a_phone(), "sender_id": await acme.sender(), "body": "Hello", "send_at": "2020-01-01T00:00:00Z"}
    refused = await (await join(acme)).told("message.send", wanted)
    assert (refused["status"], refused["errors"][0]["path"]) == (422, "send_at")


async def test_at_once_it_is_done_once(acme: Account, bus: Bus, join: Join) -> None:
    sender, partner = await acme.sender(), await join(acme)
    wanted = {"to": a_phone(), "sender_id": sender, "body": "Hello"}
    answers = await asyncio.gather(
        *(partner.told("message.send", wanted, {"Nats-Msg-Id": "order-1"}) for _ in range(10))
    )
    assert len({answer["id"] for answer in answers}) == 1
    assert len(await stored(bus, acme.tenant)) == 1


async def test_what_nobody_waits_for_is_done(acme: Account, bus: Bus, join: Join) -> None:
    sender, partner = await acme.sender(), await join(acme)
    wanted = {"to": a_phone(), "sender_id": sender, "body": "Hello"}
    await partner.client.publish(f"t.{acme.tenant}.cmd.message.send", json.dumps(wanted).encode())

    async def done() -> bool:
        return len(await stored(bus, acme.tenant)) == 1

    await until(done, "the command is stored")


async def test_ids_of_the_path_are_fields(acme: Account, bus: Bus, join: Join) -> None:
    partner, campaign, contact = await join(acme), await acme.campaign(), await acme.contact()
    meant = {"campaign_id": campaign, "contact_id": contact}
    invoice = (await acme.post("/invoices", an_invoice(contact)))["id"]
    accepted = await partner.told("enrollment.start", meant)
    assert accepted["status"] == "accepted"
    assert (await partner.told("enrollment.start", meant | {"invoice_id": campaign}))["status"] == 422
    assert (await partner.told("enrollment.start", meant | {"invoice_id": invoice}))["status"] == "accepted"
    many = await partner.told("enrollment.bulk", {"campaign_id": campaign, "all": True})
    assert many["count"] == 1
    assert (await partner.told("template.sync", {"sender_id": await acme.sender(waba_id="102290129340398")}))[
        "status"
    ] == "accepted"
    assert (await partner.told("contact.erase", {"contact_id": contact}))["status"] == "accepted"
    kinds = [message.subject.removeprefix(f"t.{acme.tenant}.cmd.") for message in await stored(bus, acme.tenant)]
    assert kinds == ["enrollment.start", "enrollment.start", "enrollment.bulk", "template.sync", "contact.erase"]


@pytest.mark.parametrize(
    ("command", "body", "status", "path"),
    [
        ("message.send", b"{", 400, None),
        ("message.send", b"", 400, None),
        ("message.send", {"body": "Hi", "nonsense": 1, "to": "+919876543210"}, 422, "nonsense"),
        ("message.send", {"contact_id": NOBODY, "sender_id": NOBODY, "body": "Hi"}, 404, "sender_id"),
        ("message.send", b" " * 1_000_001, 413, None),
        ("message.cancel", b"[]", 400, None),
        ("message.cancel", b'{"message_id":', 400, None),
        ("message.cancel", {}, 422, "message_id"),
        ("message.cancel", {"message_id": NOBODY, "why": "so"}, 422, "why"),
        ("message.cancel", {"message_id": "../../tenant"}, 404, None),
        ("message.cancel", {"message_id": 7}, 404, None),
        ("enrollment.start", {"campaign_id": NOBODY, "contact_id": NOBODY}, 404, None),
        ("enrollment.bulk", {"campaign_id": NOBODY}, 422, ""),
        ("conversation.reply", {"conversation_id": NOBODY, "body": "Hi"}, 404, None),
        ("contact.remove", {}, 404, None),
    ],
)
async def test_what_is_wrong_is_a_problem_document(
    acme: Account, join: Join, command: str, body: Any, status: int, path: str | None
) -> None:
    partner = await join(acme)
    answer = await partner.ask(command, body)
    problem = json.loads(answer.data)
    assert problem["status"] == status, problem
    assert problem["title"]
    assert problem["detail"]
    assert path is None or path in [fault["path"] for fault in problem["errors"]]
    assert answer.headers
    assert answer.headers["Nats-Service-Error-Code"] == str(status)


async def test_contacts_are_imported(acme: Account, join: Join) -> None:
    partner = await join(acme)
    phone = a_phone()
    done = await partner.told("contact.import", f"name,phone\nAsha,{phone}\n".encode(), {"Content-Type": "text/csv"})
    assert done["created"] == 1
    (contact,) = (await acme.get("/contacts"))["items"]
    assert contact["phone"] == phone


async def test_the_scopes_of_the_key_apply(acme: Account, join: Join) -> None:
    sender, reader = await acme.sender(), await join(acme, scopes=["messages:read", "campaigns:write"])
    wanted = {"to": a_phone(), "sender_id": sender, "body": "Hello"}
    refused = await reader.told("message.send", wanted)
    assert refused["status"] == 403
    assert "messages:write" in refused["detail"]
    assert (await reader.told("enrollment.start", {"campaign_id": NOBODY, "contact_id": NOBODY}))["status"] == 404
    assert (await reader.told("events.open"))["status"] == 403
    writer = await join(acme, scopes=["messages:write"])
    assert (await writer.told("message.send", wanted))["status"] == "accepted"


async def test_it_is_audited_as_the_keys(acme: Account, join: Join, storage: Storage) -> None:
    partner = await join(acme)
    await partner.told("contact.import", f"name,phone\nAsha,{a_phone()}\n".encode(), {"Content-Type": "text/csv"})
    async with storage.tenant(acme.tenant) as con:
        (row,) = await con.fetch("select * from audit_log where entity = 'contact' and action = 'create'")
    assert str(row["api_key_id"]) == partner.key_id
    assert row["via"] == "POST /contacts/import"
    assert row["address"] == "127.0.0.1"


async def test_commands_count_in_the_limits_of_the_key(acme: Account, join: Join, door: Door) -> None:
    partner = await join(acme)
    before = door.counting.allowed
    await partner.told("message.cancel", {"message_id": NOBODY})
    assert door.counting.allowed == before + 1


async def test_too_many_at_once_are_told_to_wait(acme: Account, join: Join, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "MOST_IN_HAND", 3)
    sender, partner = await acme.sender(), await join(acme)
    wanted = {"to": a_phone(), "sender_id": sender, "body": "Hello"}
    answers = await asyncio.gather(*(partner.told("message.send", wanted) for _ in range(40)))
    assert {answer["status"] for answer in answers} == {"accepted", 429}
    assert (await partner.told("message.send", wanted))["status"] == "accepted"  # and it is over when they are done
