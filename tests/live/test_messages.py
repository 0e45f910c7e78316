"""One-off messages: to the gateway exactly as asked, and back to the last receipt."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest
from chaos.harness import Platform, Tenant, a_phone
from live.listening import listening, until_accepted
from live.situations.telling import now_of
from support import until

REPLIES = [{"id": "yes", "title": "Yes"}, {"id": "no", "title": "No"}]


@pytest.mark.parametrize(
    ("asked", "type_", "body"),
    [
        ({"body": "Your parcel is here, {{ first_name }}"}, "text", "Your parcel is here, Asha"),
        (
            {"template": {"name": "order_update", "language": "en_US", "parameters": ["{{ first_name }}", "42"]}},
            "template",
            {
                "name": "order_update",
                "language": {"code": "en_US"},
                "components": [
                    {"type": "body", "parameters": [{"type": "text", "text": "Asha"}, {"type": "text", "text": "42"}]}
                ],
            },
        ),
        (
            {"template": {"name": "order_update", "parameters": {"customer": "{{ name }}"}, "header": "Order 42"}},
            "template",
            {
                "name": "order_update",
                "language": {"code": "en"},
                "components": [
                    {"type": "header", "parameters": [{"type": "text", "text": "Order 42"}]},
                    {
                        "type": "body",
                        "parameters": [{"type": "text", "parameter_name": "customer", "text": "Asha Rao"}],
                    },
                ],
            },
        ),
        (
            {"media": {"type": "document", "link": "https://a.example/1.pdf", "filename": "1.pdf", "caption": "Bill"}},
            "document",
            {"link": "https://a.example/1.pdf", "filename": "1.pdf", "caption": "Bill"},
        ),
        (
            {"interactive": {"body": "Shall we deliver today?", "footer": "Shop", "buttons": REPLIES}},
            "interactive",
            {
                "type": "button",
                "body": {"text": "Shall we deliver today?"},
                "footer": {"text": "Shop"},
                "action": {"buttons": [{"type": "reply", "reply": reply} for reply in REPLIES]},
            },
        ),
    ],
    ids=["text", "positional", "named", "media", "interactive"],
)
async def test_a_message_reaches_the_gateway_as_asked(
    live: Platform, tenant: Tenant, asked: dict[str, Any], type_: str, body: Any
) -> None:
    sender = await tenant.sender()
    contact = await tenant.contact(name="Asha Rao")
    wanted = {"sender_id": sender["id"], "contact_id": contact["id"]} | asked
    id_ = (await tenant.post("/messages", wanted))["id"]
    (accepted,) = await until_accepted(live.gateway, sender["phone_number_id"], 1)
    assert (accepted["to"], accepted["type"], accepted["body"]) == (contact["phone"], type_, body)
    assert accepted["biz_opaque_callback_data"] == id_


async def test_a_message_is_followed_to_its_reading(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    async with listening(tenant) as ear:
        wanted = {"sender_id": sender["id"], "to": a_phone(), "body": "Your code is 4711", "lane": "otp"}
        id_ = (await tenant.post("/messages", wanted))["id"]
        await ear.until_heard("message.read", id_)
        await ear.until_heard("message.sent", id_)  # which somebody else tells
        assert sorted(ear.of(id_)) == ["message.delivered", "message.queued", "message.read", "message.sent"]
    story = await tenant.get(f"/messages/{id_}")
    (accepted,) = await live.gateway.accepted(sender["phone_number_id"])
    assert (story["status"], story["wamid"], story["attempts"]) == ("read", accepted["id"], 1)
    assert [moment["status"] for moment in story["timeline"]][-3:] == ["sent", "delivered", "read"]


async def test_two_equal_requests_are_two_messages(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    wanted = {"sender_id": sender["id"], "to": a_phone(), "body": "Again"}
    first = await tenant.post("/messages", wanted)
    second = await tenant.post("/messages", wanted)
    assert first["id"] != second["id"]
    accepted = await until_accepted(live.gateway, sender["phone_number_id"], 2)
    assert {one["biz_opaque_callback_data"] for one in accepted} == {first["id"], second["id"]}


async def test_a_scheduled_message_leaves_at_its_time_unless_it_is_cancelled(live: Platform, tenant: Tenant) -> None:
    sender, now = await tenant.sender(), datetime.now(UTC)
    wanted = {"sender_id": sender["id"], "to": a_phone(), "body": "Later"}
    ids: list[str] = []
    async with listening(tenant) as ear:
        for seconds in (1800, 3600, 3):
            at = (now + timedelta(seconds=seconds)).isoformat()
            ids.append((await tenant.post("/messages", wanted | {"send_at": at}))["id"])
            await ear.until_heard("message.queued", ids[-1], 30)
        await until(partial(_is_put_off, live, ids[0]), "it is told that it waits on a schedule")
        for id_ in ids[:2]:
            await tenant.post(f"/messages/{id_}/cancel")
            await ear.until_heard("message.suppressed", id_, 30)
        await ear.until_heard("message.sent", ids[2], 30)
    (accepted,) = await live.gateway.accepted(sender["phone_number_id"])
    assert accepted["biz_opaque_callback_data"] == ids[2]
    story = await tenant.get(f"/messages/{ids[2]}")
    assert datetime.fromisoformat(story["sent_at"]) >= now + timedelta(seconds=2)
    story = await tenant.get(f"/messages/{ids[0]}")
    assert (story["status"], story["why"]["code"]) == ("suppressed", "cancelled")
    assert not await _is_put_off(live, ids[0]), "it waits for nothing any more"


async def _is_put_off(live: Platform, id_: str) -> bool:
    story = (await now_of(live, id_))["story"]
    return any(moment["what"].startswith("put off until") for moment in story["timeline"])
