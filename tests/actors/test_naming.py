"""Whom WhatsApp names by a number and a user id together is one person, and their word counts as such."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from enrolled import enrolled
from heard import AT, PHONE, Quiet, World, said
from support import NewTenant

from harkara.actors.receipts import Receipts
from harkara.bus.messages import Delivery
from harkara.ids import uuid7
from harkara.schemas.work import Inbound, Send
from harkara.storage import holding, naming, opting, sending
from harkara.storage.models import Contact, ContactMerge, Message, PhoneNumber, Sender
from harkara.storage.opting import Word
from harkara.storage.sending import Attempt
from harkara.storage.storage import Storage

USER = "US.13491208655302741918"
LONGEST = "US.ENT." + "x" * 128
TOO_LONG = LONGEST + "x"
ELSEWHERE = "+14155550100"
HELLO: dict[str, Any] = {"type": "text", "text": {"body": "Hello"}}
STOP: dict[str, Any] = {"type": "text", "text": {"body": "STOP"}}


@pytest.fixture
async def world(storage: Storage, new_tenant: NewTenant) -> World:
    return World(storage, await enrolled(storage, await new_tenant()))


async def sent(world: World, wamid: str = "wamid.sent", to: str = PHONE, contact: UUID | None = None) -> UUID:
    """A message of ours that WhatsApp took."""
    id_ = uuid7()
    async with world.storage.tenant(world.tenant):
        await Message.create(
            id=id_, contact_id=contact, sender_id=world.one.sender, lane="marketing", to=to, content={"body": "Hi"},
            status="sent", wamid=wamid, due_at=AT,
        )  # fmt: skip
    return id_


def status(wamid: str = "wamid.sent", phone: str = PHONE, user: str = USER, **more: Any) -> dict[str, Any]:
    """The value of a webhook with one status, which names its recipient."""
    who = {"recipient_id": phone.removeprefix("+"), "recipient_user_id": user}
    return {"statuses": [{"id": wamid, "status": "delivered", "timestamp": str(int(AT.timestamp()))} | who | more]}


async def contacts(world: World) -> list[Contact]:
    async with world.storage.tenant(world.tenant):
        return await Contact.all().order_by("id")


async def opted_out_and_stopped(world: World) -> bool:
    return (await world.contact()).opted_out_at is not None and (
        await world.one.row(world.storage)
    ).stopped_reason == "opt_out"


async def test_a_status_teaches_a_contact_its_user_id_and_stop_under_that_id_is_theirs(world: World) -> None:
    await sent(world, contact=world.one.contact)
    await world.hears(world.delivery(status()))
    await world.hears_message(phone=None, from_user_id=USER, **STOP)
    assert len(await contacts(world)) == 1
    assert await opted_out_and_stopped(world)


@pytest.mark.parametrize("of_both", [{"recipient_id": PHONE[1:]}, {"recipient_user_id": USER}])
async def test_what_a_status_leaves_out_is_among_its_contacts(world: World, of_both: dict[str, str]) -> None:
    await sent(world, contact=world.one.contact)
    value = status()
    for name in ("recipient_id", "recipient_user_id"):
        del value["statuses"][0][name]
    value["statuses"][0] |= of_both
    value["contacts"] = [{"wa_id": "1", "user_id": "US.1"}, {"wa_id": PHONE[1:], "user_id": USER}]
    await world.hears(world.delivery(value))
    assert (await world.contact()).wa_user_id == USER


async def test_what_names_no_number_or_no_id_that_can_be_kept_teaches_nothing(world: World) -> None:
    await sent(world, contact=world.one.contact)
    unfit = ((PHONE, "U" * 136), ("12-34@g.us", USER), ("12", USER))
    await world.hears(*(world.delivery(status(phone=phone, user=user)) for phone, user in unfit))
    assert (await world.contact()).wa_user_id is None


@pytest.mark.parametrize("user", [LONGEST, TOO_LONG])
async def test_who_has_a_long_id_can_stop(world: World, user: str) -> None:
    await sent(world, contact=world.one.contact)
    await world.hears(world.delivery(status(user=user)))
    await world.hears_message(phone=PHONE if user == TOO_LONG else None, from_user_id=user, **STOP)
    assert [one.wa_user_id for one in await contacts(world)] == [user if user == LONGEST else None]
    assert await opted_out_and_stopped(world)


async def test_a_long_id_alone_is_a_contact_who_is_answered(world: World) -> None:
    async with world.storage.tenant(world.tenant) as con:
        await con.execute("update tenants set keywords = $1::jsonb", '{"confirmations": {"stop": "Bye."}}')
    now = int((datetime.now(UTC) - AT).total_seconds())  # ours is written where there is room for what is new
    said_now = said(second=now, phone=None, from_user_id=LONGEST, **STOP)
    told = await world.hears(world.delivery(said_now, came=AT + timedelta(seconds=now)))
    assert [one.message.to for one in told if isinstance(one.message, Send)] == [LONGEST]
    async with world.storage.tenant(world.tenant):
        assert (await Message.get()).to == LONGEST


async def test_what_is_known_already_is_not_asked_for_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    quiet: Any = Quiet()
    receipts, asked, find = Receipts(world.storage, quiet), list[int](), naming.find

    async def counted(con: Any, named: Any) -> Any:
        asked.append(len(named))
        return await find(con, named)

    monkeypatch.setattr(naming, "find", counted)
    await sent(world, contact=world.one.contact)
    for value in (status(), status(status="read"), status(user="US.2"), status()):
        await receipts.handle([world.delivery(value), world.delivery(value)])
    assert asked == [1, 1, 1], "an id that changes is learned each time"
    assert (await world.contact()).wa_user_id == USER


@pytest.mark.parametrize("by", ["a message", "a status"])
async def test_two_contacts_that_are_one_are_merged_and_the_opt_out_of_either_stands(world: World, by: str) -> None:
    await world.hears_message(phone=None, from_user_id=USER, **STOP)
    assert len(await contacts(world)) == 2
    assert not await opted_out_and_stopped(world), "nobody has said yet that they are one"
    await sent(world, contact=world.one.contact)
    both = status() if by == "a status" else said(second=9, from_user_id=USER, **HELLO)
    again = world.delivery(both)
    await world.hears(again)
    assert [one.id for one in await contacts(world)] == [world.one.contact]
    contact = await world.contact()
    assert (contact.phone, contact.wa_user_id, contact.opted_in_at) == (PHONE, USER, None)
    assert await opted_out_and_stopped(world)
    assert {reply.contact_id for reply in await world.replies()} == {world.one.contact}
    assert await world.told_later() == ["contact.merged", "enrollment.stopped"]
    await world.hears(again)
    assert await world.told_later() == ["contact.merged", "enrollment.stopped"], "once, however often it comes"


async def test_what_is_queued_for_either_of_two_is_not_sent_once_they_are_one_who_said_stop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if whoever merges them dies before the end: then nothing is done, and all is when the status comes again."""
    await world.hears_message(phone=None, from_user_id=USER, **HELLO)
    (other,) = [one.id for one in await contacts(world) if one.id != world.one.contact]
    queued = [await sent(world, f"wamid.{n}", contact=of) for n, of in enumerate((world.one.contact, other))]
    async with world.storage.tenant(world.tenant) as con:
        await con.execute("update messages set status = 'queued', wamid = null where id = any ($1)", queued)
    await world.hears_message(second=9, phone=None, from_user_id=USER, **STOP)
    await sent(world, contact=world.one.contact)
    names_both, release = world.delivery(status()), holding.release

    async def dies(*_: Any) -> None:
        raise RuntimeError("killed")

    monkeypatch.setattr(holding, "release", dies)
    with pytest.raises(RuntimeError):
        await world.hears(names_both)
    assert not await opted_out_and_stopped(world)
    monkeypatch.setattr(holding, "release", release)
    await world.hears(names_both)
    assert await opted_out_and_stopped(world)
    work = [
        Attempt(id_, world.tenant, of, world.one.sender, None, None, None, lane, PHONE, "{}", "", AT)
        for id_, of in zip(queued, (world.one.contact, other), strict=True)
        for lane in ("utility", "marketing")
    ]
    async with world.storage.batch({world.tenant}) as con:
        facts = await sending.facts(con, work)
    assert [(one.contact_id, one.opted_out) for one in facts] == [(world.one.contact, True)] * len(work)


async def test_a_number_that_is_named_with_somebody_who_opted_out_has_opted_out(world: World) -> None:
    await world.hears_message(phone=None, from_user_id=USER, **STOP)
    await sent(world, to=ELSEWHERE)
    await world.hears(world.delivery(status(phone=ELSEWHERE)))
    async with world.storage.tenant(world.tenant):
        (contact,) = await Contact.filter(wa_user_id=USER)
    assert (contact.phone, contact.opted_out_reason) == (ELSEWHERE, "asked")


async def test_an_opt_out_that_is_remembered_of_an_id_comes_with_it(world: World) -> None:
    await world.hears_message(phone=None, from_user_id=USER, **STOP)
    async with world.storage.tenant(world.tenant) as con:
        await con.execute("delete from contacts where wa_user_id = $1", USER)
    await sent(world, contact=world.one.contact)
    await world.hears(world.delivery(status()))
    assert await opted_out_and_stopped(world)
    assert await world.told_later() == ["contact.opted_out", "enrollment.stopped"]


@pytest.mark.parametrize("first", ["id", "number"])
async def test_who_becomes_a_contact_and_is_named_in_the_same_breath_is_known_by_both(world: World, first: str) -> None:
    """And has opted out of what is remembered of the other one."""
    by_id, by_number = {"phone": None, "from_user_id": USER}, {"phone": ELSEWHERE}
    one, other = (by_id, by_number) if first == "id" else (by_number, by_id)
    await world.hears_message(**other, **STOP)
    async with world.storage.tenant(world.tenant) as con:
        await con.execute("delete from contacts where id <> $1", world.one.contact)
    both = said(second=9, phone=ELSEWHERE, from_user_id=USER, **HELLO)
    await world.hears(world.delivery(said(second=5, **one, **HELLO)), world.delivery(both))
    _, made = await contacts(world)
    assert (made.phone, made.wa_user_id) == (ELSEWHERE, USER)
    assert made.opted_out_at is not None
    assert await world.told_later() == ["contact.opted_out"]
    assert {reply.contact_id for reply in await world.replies()} == {made.id}


async def test_who_gets_their_number_and_is_named_in_the_same_breath_is_known_by_both(world: World) -> None:
    new = said(type="system", system={"type": "user_changed_number", "wa_id": ELSEWHERE[1:]})
    both = said(second=9, phone=ELSEWHERE, from_user_id=USER, **HELLO)
    await world.hears(world.delivery(new), world.delivery(both))
    (contact,) = await contacts(world)
    assert (contact.phone, contact.wa_user_id) == (ELSEWHERE, USER)


async def test_two_that_have_numbers_of_their_own_stay_two(world: World) -> None:
    async with world.storage.tenant(world.tenant):
        await Contact.create(name="Ravi", phone=ELSEWHERE, wa_user_id=USER)
    await sent(world, contact=world.one.contact)
    await world.hears(world.delivery(status()), world.delivery(said(from_user_id=USER, **HELLO)))
    assert [(one.phone, one.wa_user_id) for one in await contacts(world)] == [(PHONE, None), (ELSEWHERE, USER)]


async def test_what_contradicts_itself_harms_nobody(world: World) -> None:
    async with world.storage.tenant(world.tenant):
        other = await Contact.create(name="Ravi", phone=ELSEWHERE)
        await Contact.create(name="Meera", wa_user_id="US.3")
        await Contact.create(name="Mina", wa_user_id="US.4")
    for n, (phone, user) in enumerate(((PHONE, USER), (ELSEWHERE, USER), (PHONE, "US.2"), ("+14155550177", "US.3"))):
        await sent(world, f"wamid.{n}", contact=other.id if phone == ELSEWHERE else None, to=phone)
        await sent(world, f"wamid.{n}.4", to="+14155550177")
        await world.hears(
            *(world.delivery(status(f"wamid.{n}", one, of)) for one, of in ((phone, user), (PHONE, USER))),
            world.delivery(status(f"wamid.{n}.4", "+14155550177", "US.4")),
        )
    ids = [one.wa_user_id for one in await contacts(world) if one.wa_user_id]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("earlier", [False, True])
async def test_who_quotes_what_we_sent_to_a_number_is_who_has_it(world: World, *, earlier: bool) -> None:
    await sent(world, contact=world.one.contact)
    if earlier:
        await world.hears_message(phone=None, from_user_id=USER, **HELLO)
        assert len(await contacts(world)) == 2
    quotes = {"context": {"from": "1", "id": "wamid.sent"}}
    await world.hears_message(second=9, phone=None, from_user_id=USER, **quotes, **STOP)
    assert [one.wa_user_id for one in await contacts(world)] == [USER]
    assert await opted_out_and_stopped(world)


@pytest.mark.parametrize("who", ["has an id", "was written to by another number"])
async def test_a_quote_proves_nothing_of_who(world: World, who: str) -> None:
    await sent(world, contact=world.one.contact)
    async with world.storage.tenant(world.tenant) as con:
        if who == "has an id":
            await Contact.filter(id=world.one.contact).update(wa_user_id="US.1")
        else:
            sister = await Sender.create(
                name="S", provider="sandbox", phone_number_id="2", verify_token="t", window="ignore"
            )
            await con.execute("update messages set sender_id = $1", sister.id)
    quotes = {"context": {"from": "1", "id": "wamid.sent"}}
    await world.hears_message(phone=None, from_user_id=USER, **quotes, **STOP)
    assert len(await contacts(world)) == 2
    assert not await opted_out_and_stopped(world)


async def test_nothing_is_learned_across_tenants(world: World, storage: Storage, new_tenant: NewTenant) -> None:
    other = World(storage, await enrolled(storage, await new_tenant()))
    await sent(world, contact=world.one.contact)
    await sent(other, contact=other.one.contact)
    quotes = said(phone=None, from_user_id="US.7", context={"id": "wamid.theirs"}, **STOP)
    await sent(other, "wamid.theirs", contact=other.one.contact)
    quiet: Any = Quiet()
    deliveries: list[Delivery[Inbound]] = [world.delivery(status()), other.delivery(status(user="US.9"))]
    await Receipts(storage, quiet).handle([*deliveries, world.delivery(quotes)])
    assert (await world.contact()).wa_user_id == USER
    assert (await other.contact()).wa_user_id == "US.9"
    assert (await other.contact()).opted_out_at is None


async def test_what_holds_a_contact_that_is_merged_holds_the_one_that_is_left(world: World) -> None:
    await world.hears_message(phone=None, from_user_id=USER, **HELLO)
    (gone,) = [one.id for one in await contacts(world) if one.id != world.one.contact]
    word = uuid4()
    async with world.storage.batch((world.tenant,)) as con:
        await holding.hold(con, world.tenant, word, [gone])
    await world.hears_message(second=9, from_user_id=USER, **HELLO)
    async with world.storage.tenant(world.tenant) as con:
        assert await con.fetchval("select contact_id from contact_holds where word = $1", word) == world.one.contact


async def test_processes_that_find_it_out_at_once_merge_once(world: World) -> None:
    async with world.storage.tenant(world.tenant):
        gone = await Contact.create(wa_user_id=USER)
    async with world.storage.batch((world.tenant,)) as con:
        assert await opting.hear(con, world.tenant, gone.id, Word("all", True, AT - timedelta(days=1), "asked"))
    await sent(world, contact=world.one.contact)
    values = (status(), status(status="read"), said(from_user_id=USER, **HELLO), said(from_user_id=USER, **HELLO))

    async def hears(delivery: Delivery[Inbound]) -> None:
        """As from the broker: where two wait for each other, the database ends one, which then comes again."""
        try:
            await world.hears(delivery)
        except asyncpg.DeadlockDetectedError:
            await hears(delivery)

    await asyncio.gather(*(hears(world.delivery(value)) for value in values))
    assert [one.id for one in await contacts(world)] == [world.one.contact]
    assert (await world.contact()).opted_out_at == AT - timedelta(days=1)
    assert (await world.told_later()).count("contact.merged") == 1
    async with world.storage.tenant(world.tenant):
        assert (await ContactMerge.get()).contact_id == world.one.contact


async def test_who_writes_from_another_number_under_their_id_has_changed_it(world: World) -> None:
    await world.hears_message(from_user_id=USER, **HELLO)
    moved = said(second=9, phone=ELSEWHERE, from_user_id=USER, **HELLO)
    await world.hears(world.delivery(moved))
    await world.hears(world.delivery(moved), world.delivery(said(second=3, from_user_id=USER, **HELLO)))
    (contact,) = await contacts(world)
    assert (contact.phone, contact.wa_user_id) == (ELSEWHERE, USER), "what was written before it changes nothing"
    assert {reply.contact_id for reply in await world.replies()} == {world.one.contact}
    async with world.storage.tenant(world.tenant):
        assert await PhoneNumber.all().count() == 0
