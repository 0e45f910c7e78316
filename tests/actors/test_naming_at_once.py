"""Processes that learn of one person at once: whatever the order, nothing is lost, and nothing is done twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from enrolled import enrolled
from heard import AT, PHONE, World, said
from support import NewTenant, waited_for

from harkara.bus.messages import Delivery
from harkara.ids import uuid7
from harkara.schemas.work import Inbound
from harkara.storage import holding, holdings, naming
from harkara.storage.models import Contact, ContactMerge, Message
from harkara.storage.storage import Storage

USER, OTHER = "US.1", "US.2"
ELSEWHERE = "+14155550100"
STOP: dict[str, Any] = {"type": "text", "text": {"body": "STOP"}}
HELLO: dict[str, Any] = {"type": "text", "text": {"body": "Hello"}}

#: What one webhook says.
Value = dict[str, Any]


@pytest.fixture
async def world(storage: Storage, new_tenant: NewTenant) -> World:
    made = World(storage, await enrolled(storage, await new_tenant()))
    async with storage.tenant(made.tenant) as con:
        await con.execute("update campaigns set stop_on_reply = false")
    return made


async def sent(world: World, wamid: str, to: str = PHONE, contact: UUID | None = None) -> None:
    async with world.storage.tenant(world.tenant):
        await Message.create(
            id=uuid7(), contact_id=contact, sender_id=world.one.sender, lane="marketing", to=to, content={"body": "Hi"},
            status="sent", wamid=wamid, due_at=AT,
        )  # fmt: skip


def status(wamid: str, phone: str = PHONE, user: str = USER) -> Value:
    who = {"recipient_id": phone.removeprefix("+"), "recipient_user_id": user}
    return {"statuses": [{"id": wamid, "status": "delivered", "timestamp": str(int(AT.timestamp()))} | who]}


class Race:
    """Two processes, of which the second has looked before the first has written anything.

    The first ends before the second goes on; or, if it `holds`, as soon as the second waits for it.
    """

    def __init__(self, world: World, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, holds: bool) -> None:
        self._world, self._admin, self._holds = world, admin, holds
        self._looked, self._on, self._at_the_end = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._tasks = dict[str, asyncio.Task[Any]]()
        find, release = naming.find, holding.release

        async def finds(con: Any, named: Any) -> Any:
            found = await find(con, named)
            if self._is("second") and not self._looked.is_set():
                self._looked.set()
                await self._on.wait()
            return found

        async def releases(con: Any, words: Any) -> None:
            await release(con, words)
            if self._is("first") and self._holds and not self._at_the_end.is_set():
                self._at_the_end.set()
                await waited_for(con)

        monkeypatch.setattr(naming, "find", finds)
        monkeypatch.setattr(holding, "release", releases)

    def _is(self, name: str) -> bool:
        return asyncio.current_task() is self._tasks.get(name)

    async def run(self, first: Callable[[], Any], second: Callable[[], Any]) -> None:
        self._tasks["second"] = asyncio.create_task(again_until_done(second))
        await self._looked.wait()
        self._tasks["first"] = asyncio.create_task(again_until_done(first))
        if self._holds:
            await self._at_the_end.wait()
        else:
            await self._tasks["first"]
        self._on.set()
        await asyncio.gather(*self._tasks.values())


async def again_until_done(do: Callable[[], Any], times: int = 3) -> None:
    """As whoever carries webhooks does it: what the database refuses for now is tried again."""
    for left in reversed(range(times)):
        try:
            await do()
            return
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.TransactionRollbackError):
            if not left:
                raise


@pytest.fixture(params=[False, True], ids=["after", "meanwhile"])
async def race(
    world: World, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Race:
    return Race(world, admin, monkeypatch, request.param)


def hears(world: World, *values: Value) -> Callable[[], Any]:
    deliveries: list[Delivery[Inbound]] = [world.delivery(value) for value in values]
    return lambda: world.hears(*deliveries)


async def contacts(world: World) -> dict[UUID, tuple[str | None, str | None, bool]]:
    """Number, user id and whether they have opted out, by contact."""
    async with world.storage.tenant(world.tenant):
        return {one.id: (one.phone, one.wa_user_id, one.opted_out_at is not None) for one in await Contact.all()}


ONE, OTHER_ONE = status("wamid.1"), status("wamid.2")
SAYS = said(from_user_id=USER, wamid="wamid.says", **HELLO)
STOPS = said(from_user_id=USER, wamid="wamid.stops", **STOP)


@pytest.mark.parametrize(
    ("first", "second"),
    [(ONE, OTHER_ONE), (ONE, STOPS), (STOPS, ONE), (SAYS, STOPS), (STOPS, SAYS), (STOPS, STOPS)],
    ids=["news-news", "news-stop", "stop-news", "says-stop", "stop-says", "stop-stop"],
)
@pytest.mark.parametrize("known", ["the number", "both, as two"])
async def test_a_pair_is_one_contact(world: World, race: Race, known: str, first: Value, second: Value) -> None:
    for wamid in ("wamid.1", "wamid.2"):
        await sent(world, wamid, contact=world.one.contact)
    if known != "the number":
        async with world.storage.tenant(world.tenant):
            await Contact.create(wa_user_id=USER)
    await race.run(hears(world, first), hears(world, second))
    stops = STOPS in (first, second)
    assert await contacts(world) == {world.one.contact: (PHONE, USER, stops)}
    assert ((await world.one.row(world.storage)).stopped_reason == "opt_out") is stops
    told = await world.told_later()
    assert told.count("contact.merged") == (known != "the number")
    assert told.count("enrollment.stopped") == stops
    async with world.storage.tenant(world.tenant):
        assert await ContactMerge.all().count() == (known != "the number")
    assert len(await world.replies()) == sum(one in (first, second) for one in (SAYS, STOPS))


@pytest.mark.parametrize("phones", [(PHONE, ELSEWHERE), (ELSEWHERE, PHONE)])
async def test_an_id_that_two_numbers_are_named_with_is_of_one(world: World, race: Race, phones: Any) -> None:
    async with world.storage.tenant(world.tenant):
        other = await Contact.create(name="Ravi", phone=ELSEWHERE)
    whose = {PHONE: world.one.contact, ELSEWHERE: other.id}
    values = [status(phone, phone) for phone in phones]
    for phone in phones:
        await sent(world, phone, phone, whose[phone])
    await race.run(hears(world, values[0]), hears(world, values[1]))
    has = {contact: (phone, USER if phone == phones[0] else None, False) for phone, contact in whose.items()}
    assert await contacts(world) == has


async def test_a_number_that_two_ids_are_named_with_is_of_one_who_has_the_last(world: World, race: Race) -> None:
    async with world.storage.tenant(world.tenant):
        both = [await Contact.create(wa_user_id=user) for user in (USER, OTHER)]
    for user in (USER, OTHER):
        await sent(world, user, ELSEWHERE)
    await race.run(hears(world, status(USER, ELSEWHERE, USER)), hears(world, status(OTHER, ELSEWHERE, OTHER)))
    assert await contacts(world) == {world.one.contact: (PHONE, None, False), both[0].id: (ELSEWHERE, OTHER, False)}
    assert (await world.told_later()) == ["contact.merged"]


async def test_a_stop_under_an_id_that_is_only_being_learned_is_the_numbers(world: World, race: Race) -> None:
    await sent(world, "wamid.1", contact=world.one.contact)
    await race.run(hears(world, said(phone=None, from_user_id=USER, **STOP)), hears(world, status("wamid.1")))
    assert await contacts(world) == {world.one.contact: (PHONE, USER, True)}
    assert (await world.one.row(world.storage)).stopped_reason == "opt_out"


@pytest.mark.parametrize("gone", [False, True])
async def test_a_stop_of_who_is_erased_meanwhile_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch, admin: asyncpg.Connection, gone: bool
) -> None:
    """Whether the one with the number is erased, or the one with the id that was to go up in it."""
    await sent(world, "wamid.1", contact=world.one.contact)
    async with world.storage.tenant(world.tenant):
        other = await Contact.create(wa_user_id=USER)

    async def erase() -> None:
        async with world.storage.tenant(world.tenant) as con:
            erased, phones = (other.id, []) if gone else (world.one.contact, [PHONE])
            await holdings.erase(con, world.tenant, erased, phones, USER if gone else None, uuid7())

    race = Race(world, admin, monkeypatch, holds=False)
    await race.run(erase, hears(world, said(from_user_id=USER, **STOP)))
    now = await contacts(world)
    assert list(now.values()) == [(PHONE, USER, True)]
    assert list(now) == [world.one.contact if gone else other.id]


async def test_news_of_two_messages_of_who_goes_up_in_another_is_done_once(
    world: World, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each process has its own message, and needs the other's to merge: the database ends one, which comes again."""
    async with world.storage.tenant(world.tenant):
        other = await Contact.create(wa_user_id=USER)
    for wamid in ("wamid.1", "wamid.2"):
        await sent(world, wamid, USER, other.id)
    looked, find, tries = asyncio.Barrier(2), naming.find, list[str]()

    async def finds(con: Any, named: Any) -> Any:
        tries.append("")
        found = await find(con, named)
        if len(tries) <= 2:
            await looked.wait()
        return found

    monkeypatch.setattr(naming, "find", finds)
    both = [again_until_done(hears(world, value)) for value in (ONE, OTHER_ONE)]
    await asyncio.gather(*both)
    assert await contacts(world) == {world.one.contact: (PHONE, USER, False)}
    assert await world.told_later() == ["contact.merged"]
    async with world.storage.tenant(world.tenant):
        assert {(one.contact_id, one.status) for one in await Message.all()} == {(world.one.contact, "delivered")}
