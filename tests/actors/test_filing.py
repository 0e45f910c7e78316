"""One address for all numbers of an app: what comes is the number's that it names, or nobody's."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from enrolled import enrolled
from heard import AT, PHONE, Quiet, World, said
from support import NewTenant

from harkara.actors.receipts import Receipts
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Done, Drop, Outcome
from harkara.ids import uuid7
from harkara.schemas.work import Inbound
from harkara.storage import holding
from harkara.storage.models import Conversation, Message, Sender
from harkara.storage.storage import Storage

OTHER = "106540352242922"
HELLO: dict[str, Any] = {"type": "text", "text": {"body": "Hello"}}


class Counted:
    """The budgets, which only note."""

    def __init__(self) -> None:
        self.came: list[tuple[str, str, datetime]] = []

    async def came_in(self, messages: Sequence[tuple[str, str, datetime]]) -> None:
        self.came += messages


@pytest.fixture
async def world(storage: Storage, new_tenant: NewTenant) -> World:
    return World(storage, await enrolled(storage, await new_tenant()))


async def another(world: World, number: str = OTHER, provider: str = "cloud") -> UUID:
    """Another number of the tenant's."""
    async with world.storage.tenant(world.tenant):
        made = await Sender.create(
            name="Shop 2", provider=provider, phone_number_id=number, verify_token="t", window="enforce"
        )
    return made.id


def to(number: str, value: dict[str, Any]) -> dict[str, Any]:
    return value | {"metadata": {"display_phone_number": "1", "phone_number_id": number}}


async def handled(world: World, delivery: Delivery[Inbound], counts: Counted | None = None) -> Outcome:
    quiet, counted = cast("Any", Quiet()), cast("Any", counts)
    (outcome,) = await Receipts(world.storage, quiet, counted).handle([delivery])
    return outcome


async def conversations(world: World) -> set[UUID]:
    """The numbers with which the contacts talk."""
    async with world.storage.tenant(world.tenant):
        return {one.sender_id for one in await Conversation.all()}


async def test_what_is_for_another_number_of_the_tenant_is_that_one_s(world: World) -> None:
    other, counts = await another(world), Counted()
    assert isinstance(await handled(world, world.delivery(to(OTHER, said(**HELLO))), counts), Done)
    assert await conversations(world) == {other}
    assert [one[:2] for one in counts.came] == [(str(other), PHONE)]


async def test_who_has_written_counts_whoever_hides_a_number_too_and_not_what_is_told_a_day_late(world: World) -> None:
    counts, late = Counted(), AT + timedelta(hours=24)
    hidden = said(phone=None, from_user_id="US.77", **HELLO)
    changed = said(type="system", system={"type": "customer_identity_changed", "body": "New phone"})
    for value, came in ((said(**HELLO), AT), (hidden, AT), (changed, AT), (said(**HELLO), late)):
        await handled(world, world.delivery(value, came=came), counts)
    number = str(world.one.sender)
    assert [one[:2] for one in counts.came] == [(number, PHONE), (number, "US.77")]


async def test_one_webhook_for_several_numbers_is_each_one_s(world: World) -> None:
    other = await another(world)
    delivery = world.delivery(to(OTHER, said(**HELLO)), to("1", said(**HELLO)), said(**HELLO))
    outcome = await handled(world, delivery)
    assert isinstance(outcome, Done)
    assert [one.message.subject.rpartition(".")[2] for one in outcome.events] == ["received"] * 3
    assert await conversations(world) == {world.one.sender, other}


async def test_what_is_for_nobody_s_number_is_a_dead_letter_that_is_done_once_there_is_the_number(world: World) -> None:
    delivery = world.delivery(to(OTHER, said(**HELLO)))
    async with world.storage.batch((world.tenant,)) as con:
        await holding.hold(con, world.tenant, UUID(delivery.id), [world.one.contact])
    outcome = await handled(world, delivery)
    assert isinstance(outcome, Drop)
    assert OTHER in outcome.reason
    assert "then replay" in outcome.reason
    assert (await conversations(world), await world.replies()) == (set(), [])
    async with world.storage.tenant(world.tenant) as con:
        assert await con.fetchval("select count(*) from contact_holds") == 0
    other = await another(world)
    assert isinstance(await handled(world, delivery), Done)
    assert await conversations(world) == {other}


async def test_what_can_be_filed_is_done_and_told_beside_what_can_not(world: World) -> None:
    delivery = world.delivery(to(OTHER, said(**HELLO)), to("1", said(**HELLO)))
    assert isinstance(await handled(world, delivery), Drop)
    assert await conversations(world) == {world.one.sender}
    assert "reply.received" in await world.told_later()


@pytest.mark.parametrize("whose", ["another tenant's", "a phone's own account's"])
async def test_a_number_of_somebody_else_s_is_nobody_s(
    world: World, storage: Storage, new_tenant: NewTenant, whose: str
) -> None:
    other = World(storage, await enrolled(storage, await new_tenant()))
    await (another(other) if whose == "another tenant's" else another(world, provider="waha"))
    quiet: Any = Quiet()
    theirs = other.delivery(said(**HELLO))
    outcome, _ = await Receipts(storage, quiet).handle([world.delivery(to(OTHER, said(**HELLO))), theirs])
    assert isinstance(outcome, Drop)
    assert await conversations(world) == set()
    assert await conversations(other) == {other.one.sender}


async def test_a_status_for_another_number_is_the_message_s_of_this_tenant_only(
    world: World, storage: Storage, new_tenant: NewTenant
) -> None:
    mine, theirs = await another(world), World(storage, await enrolled(storage, await new_tenant()))
    ids = uuid7(), uuid7()
    for one, id_, sender in ((world, ids[0], mine), (theirs, ids[1], theirs.one.sender)):
        async with storage.tenant(one.tenant):
            await Message.create(
                id=id_, contact_id=one.one.contact, sender_id=sender, lane="utility", to=PHONE, content={},
                status="sending", due_at=AT,
            )  # fmt: skip
    common = {"status": "delivered", "timestamp": str(int(AT.timestamp()))}
    statuses = [{"id": f"wamid.{id_}", "biz_opaque_callback_data": str(id_)} | common for id_ in ids]
    assert isinstance(await handled(world, world.delivery(to(OTHER, {"statuses": statuses}))), Done)
    for one, id_, status in ((world, ids[0], "delivered"), (theirs, ids[1], "sending")):
        async with storage.tenant(one.tenant):
            assert (await Message.get(id=id_)).status == status


async def test_a_refusal_stops_the_number_that_it_names(world: World) -> None:
    other, message = await another(world), uuid7()
    async with world.storage.tenant(world.tenant):
        await Message.create(
            id=message, contact_id=world.one.contact, sender_id=other, lane="utility", to=PHONE, content={},
            status="sending", due_at=AT,
        )  # fmt: skip
    status: dict[str, Any] = {"id": f"wamid.{uuid4()}", "status": "failed", "timestamp": str(int(AT.timestamp()))}
    status |= {"biz_opaque_callback_data": str(message), "errors": [{"code": 131031, "title": "Account locked"}]}
    await handled(world, world.delivery(to(OTHER, {"statuses": [status]})))
    async with world.storage.tenant(world.tenant):
        assert {one.id for one in await Sender.filter(status="active")} == {world.one.sender}
