"""A message whose answer was lost is settled by its echo, whoever it went to and however WhatsApp writes the number."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from enrolled import enrolled
from heard import World
from support import NewTenant

from harkara.bus.messages import Delivery
from harkara.ids import uuid7
from harkara.schemas.work import Inbound
from harkara.storage.models import Contact, Message, PhoneNumber
from harkara.storage.storage import Storage

TEXT = "Your order is ready"


@pytest.fixture
async def world(storage: Storage, new_tenant: NewTenant) -> World:
    return World(storage, await enrolled(storage, await new_tenant()))


def evolution(key: str, number: str, text: str) -> dict[str, Any]:
    data = {
        "key": {"id": key, "remoteJid": f"{number}@s.whatsapp.net", "fromMe": True},
        "message": {"conversation": text},
    }
    return {"event": "send.message", "instance": "shop", "data": data}


def waha(key: str, number: str, text: str) -> dict[str, Any]:
    chat = f"{number}@c.us"
    own = {"id": f"true_{chat}_{key}", "from": "1@c.us", "to": chat, "fromMe": True, "source": "api", "body": text}
    return {"event": "message.any", "session": "shop", "payload": own}


async def in_doubt(world: World, to: str, contact: UUID | None = None, **more: Any) -> UUID:
    """A message that was tried just now, and had no answer."""
    async with world.storage.tenant(world.tenant):
        row = await Message.create(
            id=uuid7(), contact_id=contact, sender_id=more.pop("sender_id", world.one.sender), lane="utility", to=to,
            content={"body": more.pop("body", TEXT)}, status="unknown", due_at=datetime.now(UTC),
            attempted_at=datetime.now(UTC), **more,
        )  # fmt: skip
    return row.id


async def echoes(world: World, source: Any, number: str, text: str = TEXT) -> str:
    """What it sent is told by the gateway; the key."""
    key = uuid4().hex
    body = msgspec.Raw(json.dumps(source(key, number, text)).encode())
    inbound = Inbound(source=source.__name__, sender_id=str(world.one.sender), body=body)
    subject = f"t.{world.tenant}.in.{source.__name__}"
    now = datetime.now(UTC)
    await world.hears(Delivery(inbound, world.tenant, str(uuid4()), "", 1, subject, "INBOUND", 1, now, 1))
    return key


async def wamid(world: World, id_: UUID) -> str | None:
    async with world.storage.tenant(world.tenant):
        row = await Message.get(id=id_)
    assert row.status == ("unknown" if row.wamid is None else "sent")
    return row.wamid


@pytest.mark.parametrize("source", [evolution, waha])
@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("+919811111111", "919811111111"),
        ("+5531987654321", "553187654321"),
        ("+525512345678", "5215512345678"),
        ("+5491123456789", "541123456789"),
    ],
)
@pytest.mark.parametrize("who", ["nobody", "contact", "further"])
async def test_an_echo_settles_what_had_no_answer(world: World, source: Any, to: str, told: str, who: str) -> None:
    contact = None
    async with world.storage.tenant(world.tenant):
        if who != "nobody":
            contact = (await Contact.create(name="Ravi", phone=to if who == "contact" else "+14155550100")).id
        if who == "further":
            await PhoneNumber.create(contact_id=contact, phone=to)
    id_ = await in_doubt(world, to, contact)
    others = [
        await in_doubt(world, to, contact, body="Something else"),
        await in_doubt(world, to, contact, sender_id=uuid4()),
        await in_doubt(world, "+919822222222"),
        await in_doubt(world, "+919876543210", world.one.contact),
    ]
    key = await echoes(world, source, told)
    assert await wamid(world, id_) == key
    assert [await wamid(world, one) for one in others] == [None] * 4


async def test_an_echo_that_may_be_of_two_settles_none(world: World) -> None:
    both = [await in_doubt(world, "+919811111111"), await in_doubt(world, "+919811111111")]
    await echoes(world, evolution, "919811111111")
    assert [await wamid(world, one) for one in both] == [None, None]
