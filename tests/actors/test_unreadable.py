"""A webhook of which something can't be read: the rest is done, and it is a dead letter that says so."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from enrolled import enrolled
from heard import AT, PHONE, Quiet, World, said
from support import NewTenant

from harkara.actors.receipts import Receipts
from harkara.bus.handling import TRIES_OF_REFUSED
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Done, Drop, Outcome
from harkara.schemas.work import Inbound
from harkara.storage import holding
from harkara.storage.storage import Storage

STOP: dict[str, Any] = {"type": "text", "text": {"body": "STOP"}}


@pytest.fixture
async def world(storage: Storage, new_tenant: NewTenant) -> World:
    return World(storage, await enrolled(storage, await new_tenant()))


async def handled(world: World, delivery: Delivery[Inbound]) -> Outcome:
    quiet: Any = Quiet()
    (outcome,) = await Receipts(world.storage, quiet).handle([delivery])
    return outcome


async def hold(world: World, delivery: Delivery[Inbound]) -> None:
    async with world.storage.batch((world.tenant,)) as con:
        assert (await holding.hold(con, world.tenant, UUID(delivery.id), [world.one.contact])).new


async def holds(world: World) -> int:
    async with world.storage.tenant(world.tenant) as con:
        found: int = await con.fetchval("select count(*) from contact_holds")
    return found


async def test_a_stop_beside_what_can_not_be_read_counts_once_and_the_rest_is_a_dead_letter(world: World) -> None:
    delivery = world.delivery(said(**STOP, timestamp="nope"), said(**STOP))
    await hold(world, delivery)
    outcome = await handled(world, delivery)
    assert isinstance(outcome, Drop)
    assert "changes[0].messages[0]: invalid literal" in outcome.reason
    assert "the rest is done" in outcome.reason
    assert (await world.contact()).opted_out_at == AT
    assert len(await world.replies()) == 1
    assert await holds(world) == 0
    first = await world.told_later()
    assert sorted(first) == ["contact.opted_out", "enrollment.stopped", "reply.received"]
    assert isinstance(await handled(world, delivery), Drop), "a replay"
    assert len(await world.replies()) == 1
    again = (await world.told_later())[len(first) :]
    assert again == ["reply.received", "contact.opted_out"], "told once more, under the same ids"


async def test_what_can_not_be_read_through_a_phone_keeps_nothing_else_from_being_read(world: World) -> None:
    jid = f"{PHONE.removeprefix('+')}@s.whatsapp.net"
    stop = {
        "key": {"id": "3EB02", "remoteJid": jid}, "message": {"conversation": "STOP"}, "messageTimestamp": 1772366400,
    }  # fmt: skip
    broken = {**stop, "messageTimestamp": "nope"}
    body = msgspec.json.encode({"event": "messages.upsert", "data": [broken, stop]})
    delivery = world.delivery(said(**STOP))
    inbound = msgspec.structs.replace(delivery.message, source="evolution", body=msgspec.Raw(body))
    delivery = msgspec.structs.replace(delivery, message=inbound)
    await hold(world, delivery)
    outcome = await handled(world, delivery)
    assert isinstance(outcome, Drop)
    assert "data[0]: invalid literal" in outcome.reason
    assert (await world.contact()).opted_out_at == AT
    assert await holds(world) == 0
    assert sorted(await world.told_later()) == ["contact.opted_out", "enrollment.stopped", "reply.received"]


@pytest.mark.parametrize(("levels", "kept"), [(90, True), (600, False)])
async def test_what_lies_too_deep_is_left_out_and_the_rest_counts(world: World, levels: int, kept: bool) -> None:
    deep: Any = 1
    for _ in range(levels):
        deep = [deep]
    outcome = await handled(world, world.delivery(said(**STOP, referral=deep)))
    assert isinstance(outcome, Done)
    assert (await world.contact()).opted_out_at == AT
    (reply,) = await world.replies()
    assert ("[" * levels in str(reply.payload)) is kept


async def test_a_body_deeper_than_anybody_reads_is_a_dead_letter_at_once(world: World) -> None:
    delivery = world.delivery(said(**STOP))
    body = bytes(delivery.message.body).replace(b'"STOP"', b"[" * 100_000 + b"]" * 100_000)
    inbound = msgspec.structs.replace(delivery.message, body=msgspec.Raw(body))
    outcome = await handled(world, msgspec.structs.replace(delivery, message=inbound))
    assert isinstance(outcome, Drop)
    assert "recursion" in outcome.reason


@pytest.mark.parametrize("phone", ["123", "9" * 17])
async def test_a_number_that_is_none_is_a_dead_letter_at_once_unless_there_is_a_user_id(
    world: World, phone: str
) -> None:
    outcome = await handled(world, world.delivery(said(phone=phone, **STOP)))
    assert isinstance(outcome, Drop)
    assert f"'{phone}' is no phone number" in outcome.reason
    assert await world.replies() == []
    await world.hears_message(phone=phone, from_user_id="IN.77", **STOP)
    assert len(await world.replies()) == 1


async def test_a_new_number_that_is_none_changes_nothing(world: World) -> None:
    new = {"type": "user_changed_number", "wa_id": "12"}
    before = (await world.contact()).phone
    outcome = await handled(world, world.delivery(said(type="system", system=new)))
    assert isinstance(outcome, Drop)
    assert "'12' is no phone number" in outcome.reason
    assert (await world.contact()).phone == before


@pytest.mark.parametrize(
    "times", [(None, None), ("soon", "soon"), (10**15, -1), (4_000_000_000, int(AT.timestamp()) + 1)]
)
async def test_news_of_a_template_counts_whatever_time_is_said_of_it(world: World, times: tuple[object, ...]) -> None:
    """What is said to be of the future is of when it came."""
    for event, time in zip(("APPROVED", "PAUSED"), times, strict=True):
        value = {"message_template_name": "a", "message_template_language": "en", "event": event}
        change = {"field": "message_template_status_update", "value": value}
        body = json.dumps({"object": "w", "entry": [{"id": "1", "time": time, "changes": [change]}]}).encode()
        one = world.delivery(value)
        told = msgspec.structs.replace(one, message=msgspec.structs.replace(one.message, body=msgspec.Raw(body)))
        assert isinstance(await handled(world, told), Done)
        async with world.storage.tenant(world.tenant) as con:
            status = await con.fetchval("select status from templates where sender_id = $1", world.one.sender)
        assert status == event.lower()


async def test_what_is_given_up_holds_nobody_any_more(world: World) -> None:
    template = {"message_template_name": "a\0b", "message_template_language": "en", "event": "APPROVED"}
    delivery = world.delivery(template, field="message_template_status_update")
    await hold(world, delivery)
    for attempt, left in ((TRIES_OF_REFUSED - 1, 1), (TRIES_OF_REFUSED, 0)):
        with pytest.raises(asyncpg.DataError):
            await handled(world, msgspec.structs.replace(delivery, attempt=attempt))
        assert await holds(world) == left
