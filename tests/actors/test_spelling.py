"""Whoever writes is who the tenant knows, however WhatsApp writes their number."""

from __future__ import annotations

from typing import Any

import pytest
from enrolled import enrolled
from heard import AT, World, said
from support import NewTenant

from harkara.storage.models import Contact, Conversation, PhoneNumber
from harkara.storage.storage import Storage
from harkara.values import spellings

STOP: dict[str, Any] = {"type": "text", "text": {"body": "STOP"}}
HELLO: dict[str, Any] = {"type": "text", "text": {"body": "Hello"}}
WRITTEN, TOLD = "+5511987654321", "+551187654321"


@pytest.mark.parametrize(
    ("one", "other"),
    [(WRITTEN, TOLD), ("+525512345678", "+5215512345678"), ("+541123456789", "+5491123456789")],
)
def test_two_spellings_of_one_line(one: str, other: str) -> None:
    assert spellings(one) == (one, other)
    assert spellings(other) == (other, one)


@pytest.mark.parametrize("phone", ["+919876543210", "+551134567890", "+5511934567890", "+52551234567", "+14155550100"])
def test_most_numbers_and_landlines_have_one(phone: str) -> None:
    assert spellings(phone) == (phone,)


@pytest.fixture
async def world(storage: Storage, new_tenant: NewTenant) -> World:
    made = World(storage, await enrolled(storage, await new_tenant()))
    async with storage.tenant(made.tenant):
        await Contact.filter(id=made.one.contact).update(phone=WRITTEN)
    return made


async def contacts(world: World) -> int:
    async with world.storage.tenant(world.tenant):
        return await Contact.all().count()


@pytest.mark.parametrize("further", [False, True])
async def test_a_stop_under_the_other_spelling_is_the_contacts(world: World, further: bool) -> None:
    if further:
        async with world.storage.tenant(world.tenant):
            await Contact.filter(id=world.one.contact).update(phone="+14155550100")
            await PhoneNumber.create(contact_id=world.one.contact, phone=WRITTEN)
    count = await contacts(world)
    await world.hears_message(phone=TOLD, from_user_id="BR.1", **STOP)
    contact = await world.contact()
    assert (contact.opted_out_at, contact.phone) == (AT, "+14155550100" if further else WRITTEN)
    assert await contacts(world) == count
    async with world.storage.tenant(world.tenant):
        assert (await Conversation.get()).contact_id == world.one.contact
    assert (await world.one.row(world.storage)).stopped_reason == "opt_out"
    await world.hears_message(second=5, phone=TOLD, from_user_id="BR.1", **HELLO)
    assert (await world.contact()).phone == contact.phone, "it is no other number"


async def test_the_same_spelling_goes_first(world: World) -> None:
    async with world.storage.tenant(world.tenant):
        other = await Contact.create(name="Ravi", phone=TOLD)
    await world.hears_message(phone=TOLD, **STOP)
    assert (await world.contact()).opted_out_at is None
    async with world.storage.tenant(world.tenant):
        assert (await Contact.get(id=other.id)).opted_out_at == AT


async def test_what_is_set_in_whatsapp_and_a_new_number_are_spelled_so_too(world: World) -> None:
    one = {"wa_id": TOLD.removeprefix("+"), "category": "marketing_messages", "value": "stop"}
    await world.hears(world.delivery({"user_preferences": [one]}, field="user_preferences"))
    assert "marketing" in (await world.contact()).opt_outs
    new = {"type": "user_changed_number", "wa_id": TOLD.removeprefix("+")}
    await world.hears(world.delivery(said(phone=TOLD, type="system", system=new)))
    assert (await world.contact()).phone == WRITTEN
