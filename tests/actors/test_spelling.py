"""Whoever writes is who the tenant knows, however WhatsApp writes their number."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from enrolled import enrolled
from heard import AT, World, names, said
from support import NewTenant, waited_for

from harkara.storage import opting
from harkara.storage.models import Contact, Conversation, Message, PhoneNumber
from harkara.storage.opting import Word
from harkara.storage.storage import Storage
from harkara.values import spellings

STOP: dict[str, Any] = {"type": "text", "text": {"body": "STOP"}}
START: dict[str, Any] = {"type": "text", "text": {"body": "START"}}
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
    await world.hears_message(phone=TOLD, **HELLO)
    async with world.storage.tenant(world.tenant):
        assert (await Conversation.get()).contact_id == other.id


def asked(_: World, **word: Any) -> dict[str, Any]:
    return said(phone=TOLD, **word)


def asked_under_an_id(_: World, **word: Any) -> dict[str, Any]:
    return said(phone=None, from_user_id="BR.1", **word)


@pytest.mark.parametrize("says", [asked, asked_under_an_id])
@pytest.mark.parametrize("further", [False, True])
async def test_a_word_counts_for_all_contacts_of_one_line(world: World, says: Any, further: bool) -> None:
    async with world.storage.tenant(world.tenant):
        other = await Contact.create(name="Ravi", phone=TOLD, wa_user_id="BR.1")
        stranger = await Contact.create(name="Meera", phone="+5511987654322")
        if further:
            await Contact.filter(id=world.one.contact).update(phone="+14155550100")
            await PhoneNumber.create(contact_id=world.one.contact, phone=WRITTEN)
    stop = world.delivery(says(world, **STOP))
    told = names(await world.hears(stop))
    assert told == ["reply.received", "contact.opted_out", "contact.opted_out"]
    async with world.storage.tenant(world.tenant):
        assert await opted_out(world) == {world.one.contact, other.id}
    assert (await world.one.row(world.storage)).stopped_reason == "opt_out"
    assert await world.told_later() == ["enrollment.stopped"]
    told = names(await world.hears(stop, world.delivery(says(world, second=5, **START))))
    assert told.count("contact.opted_in") == 2
    assert await opted_out(world) == set()
    assert stranger.opted_out_at is None


async def test_what_is_set_in_whatsapp_and_a_refusal_count_for_all_contacts_of_one_line(world: World) -> None:
    async with world.storage.tenant(world.tenant):
        other = await Contact.create(name="Ravi", phone=TOLD)
        sent = await Message.create(
            contact_id=other.id, sender_id=world.one.sender, lane="marketing", to=TOLD, content={}, status="sent",
            wamid="wamid.sent", due_at=AT,
        )  # fmt: skip
    refused = {"id": sent.wamid, "status": "failed", "timestamp": "1772366400", "errors": [{"code": 131050}]}
    await world.hears(world.delivery({"statuses": [refused]}))
    async with world.storage.tenant(world.tenant):
        assert {one.id for one in await Contact.all() if "marketing" in one.opt_outs} == {other.id, world.one.contact}
    assert (await world.one.row(world.storage)).stopped_reason == "opt_out"
    one = {"wa_id": TOLD.removeprefix("+"), "category": "marketing_messages", "value": "resume"}
    one["timestamp"] = "1772366500"
    await world.hears(world.delivery({"user_preferences": [one]}, field="user_preferences"))
    async with world.storage.tenant(world.tenant):
        assert [one.opt_outs for one in await Contact.all()] == [{}, {}]


async def opted_out(world: World) -> set[UUID]:
    async with world.storage.tenant(world.tenant):
        return {one.id for one in await Contact.all() if one.opted_out_at is not None}


@pytest.mark.parametrize("first", ["the word", "the contact"])
async def test_a_contact_that_is_made_while_its_line_opts_out_has_opted_out(world: World, first: str) -> None:
    async def make() -> None:
        async with world.storage.tenant(world.tenant):
            await Contact.create(name="Ravi", phone=TOLD)

    async def stop() -> None:
        await world.hears_message(phone=WRITTEN, **STOP)

    async with world.storage.tenant(world.tenant) as con:
        if first == "the word":
            assert await opting.hear(con, world.tenant, world.one.contact, Word("all", True, AT, "asked"))
        else:
            await Contact.create(name="Ravi", phone=TOLD)
        meanwhile = asyncio.create_task(make() if first == "the word" else stop())
        await waited_for(con, meanwhile)
    await meanwhile
    assert len(await opted_out(world)) == 2


@pytest.mark.parametrize("says", [(WRITTEN, TOLD), (TOLD, WRITTEN)])
async def test_words_of_one_line_that_are_heard_at_once_do_not_block_each_other(world: World, says: Any) -> None:
    async with world.storage.tenant(world.tenant):
        await Contact.create(name="Ravi", phone=TOLD)
    async with world.storage.tenant(world.tenant) as con:
        await con.execute("select from contacts where phone = $1 for no key update", says[0])
        both = list[asyncio.Task[Any]]()
        for phone in says:
            both.append(asyncio.create_task(world.hears_message(phone=phone, **STOP)))
            await waited_for(con, *both)
    await asyncio.gather(*both)
    assert len(await opted_out(world)) == 2


async def test_what_is_set_in_whatsapp_and_a_new_number_are_spelled_so_too(world: World) -> None:
    one = {"wa_id": TOLD.removeprefix("+"), "category": "marketing_messages", "value": "stop"}
    await world.hears(world.delivery({"user_preferences": [one]}, field="user_preferences"))
    assert "marketing" in (await world.contact()).opt_outs
    new = {"type": "user_changed_number", "wa_id": TOLD.removeprefix("+")}
    await world.hears(world.delivery(said(phone=TOLD, type="system", system=new)))
    assert (await world.contact()).phone == WRITTEN
