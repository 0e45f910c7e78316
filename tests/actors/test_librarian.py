"""The librarian: what it reads, what it tells, and whose turn it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from support import NewTenant

from harkara.actors import releasing
from harkara.actors.halting import Refusal, halt
from harkara.actors.librarian import Librarian
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Done, Outcome, Retry
from harkara.gateway.errors import rule_for
from harkara.gateway.protocol import Credentials, Listed, Problem, Refused, Unknown
from harkara.ids import uuid7
from harkara.schemas.commands import SyncTemplates
from harkara.schemas.work import Release, TemplatesTick
from harkara.storage import templates
from harkara.storage.models import Message, Sender
from harkara.storage.storage import Storage
from harkara.storage.templates import statuses
from harkara.vault import Vault


def listed(name: str, status: str = "approved") -> Listed:
    return Listed(name, "en", "marketing", status, None, None, b"[]")


class Shelf:
    """What the gateway answers, and for which accounts it was asked."""

    def __init__(self, answer: list[Listed] | Problem) -> None:
        self.answer, self.asked = answer, list[tuple[str, str]]()

    async def templates(self, credentials: Credentials, waba_id: str) -> list[Listed] | Problem:
        self.asked.append((credentials.access_token, waba_id))
        return self.answer


VAULT = Vault("k" * 32)


@pytest.fixture
async def tenant(new_tenant: NewTenant) -> str:
    return await new_tenant()


async def number(storage: Storage, tenant: str, **more: Any) -> UUID:
    id_ = uuid7()
    async with storage.tenant(tenant):
        await Sender.create(
            id=id_,
            name="S",
            phone_number_id=str(id_),
            verify_token="t",
            window="enforce",
            access_token=VAULT.seal("secret"),
            **({"provider": "cloud", "waba_id": "77"} | more),
        )
    return id_


@dataclass
class Broker:
    """What waits there, and what was hurried."""

    parked: set[str] = field(default_factory=set[str])
    hurried: list[str] = field(default_factory=list[str])
    woken: int = 0

    async def hurry(self, _: str, actor: str, ids: Sequence[str]) -> int:
        assert actor == "send"
        self.hurried += ids
        return len(self.parked & set(ids))

    def wake(self) -> None:
        self.woken += 1


async def handled(storage: Storage, shelf: Shelf, delivery: Any, broker: Broker | None = None) -> Outcome:
    broker = broker or Broker()
    (outcome,) = await Librarian(storage, shelf, VAULT, broker.hurry, broker.wake).handle([delivery])
    return outcome


async def sync(storage: Storage, shelf: Shelf, tenant: str, sender: UUID) -> Outcome:
    command = SyncTemplates(sender_id=str(sender))
    delivery: Any = Delivery(command, tenant, "id", "cause", 1, "s", "COMMANDS", 1, datetime.now(UTC), 1)
    return await handled(storage, shelf, delivery)


def told(outcome: Outcome) -> list[tuple[str, Any]]:
    assert isinstance(outcome, Done)
    return [(type(event.message).__name__, event.message) for event in outcome.events]


async def test_what_is_read_is_kept_and_what_is_new_about_it_is_told(storage: Storage, tenant: str) -> None:
    sender, shelf = await number(storage, tenant), Shelf([listed("a"), listed("b")])
    [(name, event)] = told(await sync(storage, shelf, tenant, sender))
    assert (name, event.templates, shelf.asked) == ("TemplatesSynced", 2, [("secret", "77")])
    shelf.answer = [listed("a", "paused"), listed("b"), listed("c")]
    news = told(await sync(storage, shelf, tenant, sender))
    assert [(name, getattr(event, "name", None)) for name, event in news] == [
        ("TemplateUpdated", "a"),
        ("TemplateUpdated", "c"),
        ("TemplatesSynced", None),
    ]
    async with storage.batch((tenant,)) as con:
        statuses = await templates.statuses(con, tenant, sender)
    assert statuses == {("a", "en"): "paused", ("b", "en"): "approved", ("c", "en"): "approved"}


async def later(storage: Storage, tenant: str) -> list[tuple[str, Any]]:
    """What the outbox has for the tenant, by subject; it is empty then."""
    async with storage.tenant(tenant) as con:
        rows = await con.fetch("delete from outbox returning subject, body::text")
    # Not by id: those of one millisecond are in no order.
    return sorted(((row[0].split(".", 2)[2], msgspec.json.decode(row[1])) for row in rows), key=str)


@pytest.mark.parametrize("status", ["approved", "disabled"])
async def test_what_waits_for_a_template_is_released_as_soon_as_that_is_read(
    storage: Storage, tenant: str, status: str
) -> None:
    sender, shelf = await number(storage, tenant), Shelf([listed("a"), listed("b", "pending")])
    await sync(storage, shelf, tenant, sender)
    refusal = Refusal(tenant, sender, rule_for(132015), 132015, "it is paused", timedelta(), ("a", "en"))
    async with storage.batch((tenant,)) as con:
        await halt(con, refusal)
    [(_, raised)] = await later(storage, tenant)
    shelf.answer = [listed("a", "paused"), listed("b", "pending")]
    await sync(storage, shelf, tenant, sender)
    assert await later(storage, tenant) == []
    shelf.answer = [listed("a", status), listed("b", "in_appeal")]
    await sync(storage, shelf, tenant, sender)
    [*told, (subject, work)] = await later(storage, tenant)
    assert subject == "work.librarian.release"
    assert work == {"sender_ids": [str(sender)], "name": "a", "language": "en"}
    resolved = {"id": raised["id"], "sender_ids": [str(sender)], "template": "a/en"}
    assert told == ([("evt.alert.resolved", resolved)] if status == "approved" else [])
    await sync(storage, shelf, tenant, sender)
    assert await later(storage, tenant) == []


@pytest.mark.parametrize(
    "answer", [[listed("a")], [listed("b")], [], Refused(200, "no", "may not list templates", rule_for(200))]
)
async def test_what_waits_for_what_a_template_is_goes_on_once_the_account_was_asked(
    storage: Storage, tenant: str, answer: list[Listed] | Problem
) -> None:
    sender = await number(storage, tenant)
    async with storage.batch((tenant,)) as con:
        assert await releasing.became(con, tenant, sender, "a", "en", "APPROVED", None, "cause")
    await later(storage, tenant)
    shelf = Shelf(Unknown("no answer"))
    assert isinstance(await sync(storage, shelf, tenant, sender), Retry)
    assert await later(storage, tenant) == []
    shelf.answer = answer
    await sync(storage, shelf, tenant, sender)
    [(subject, work)] = await later(storage, tenant)
    assert (subject, work["name"]) == ("work.librarian.release", "a")
    async with storage.batch((tenant,)) as con:
        assert await templates.unread_of(con, tenant, sender) == []
    await sync(storage, shelf, tenant, sender)
    assert await later(storage, tenant) == []


async def test_a_template_that_vanishes_ends_its_alert_and_what_waits_for_it_is_judged_again(
    storage: Storage, tenant: str
) -> None:
    one, two = [await number(storage, tenant) for _ in range(2)]
    shelf = Shelf([listed("a"), listed("b")])
    for sender in (one, two):
        await sync(storage, shelf, tenant, sender)
    refusal = Refusal(tenant, one, rule_for(132015), 132015, "it is paused", timedelta(), ("a", "en"))
    async with storage.batch((tenant,)) as con:
        await halt(con, refusal)
    [(_, raised)] = await later(storage, tenant)
    shelf.answer = []  # says nothing
    await sync(storage, shelf, tenant, one)
    assert await later(storage, tenant) == []
    shelf.answer = [listed("b")]
    await sync(storage, shelf, tenant, one)
    [(_, resolved), (_, work)] = await later(storage, tenant)
    numbers = sorted([str(one), str(two)])
    over = {"template": "a/en", "reason": "template_missing"}
    assert resolved == {"id": raised["id"], "sender_ids": numbers} | over
    assert work == {"sender_ids": [str(one)], "name": "a", "language": "en"}
    await sync(storage, shelf, tenant, two)
    assert [subject for subject, _ in await later(storage, tenant)] == ["work.librarian.release"]


async def test_a_refusal_for_one_number_is_over_for_the_account_once(storage: Storage, tenant: str) -> None:
    one, two = [await number(storage, tenant) for _ in range(2)]
    shelf = Shelf([listed("a")])
    refusal = Refusal(tenant, one, rule_for(132015), 132015, "it is paused", timedelta(), ("a", "en"))
    async with storage.batch((tenant,)) as con:
        await halt(con, refusal)
    await later(storage, tenant)
    told: list[str] = []
    for sender in (two, one):
        await sync(storage, shelf, tenant, sender)
        told += [subject for subject, _ in await later(storage, tenant)]
    assert sorted(told) == ["evt.alert.resolved", "work.librarian.release", "work.librarian.release"]


async def test_what_is_not_on_the_broker_yet_is_looked_for_once_more(storage: Storage, tenant: str) -> None:
    sender, broker = await number(storage, tenant), Broker()
    now = datetime.now(UTC)
    waiting: dict[str, Any] = {"sender_id": sender, "lane": "utility", "to": "+1", "status": "queued", "due_at": now}
    held: dict[str, Any] = {"reason": "template_paused", "deferred_until": now + timedelta(hours=1)}
    other = held | {"content": {"template": {"name": "b"}}}
    mine = held | {"content": {"template": {"name": "a", "language": "en"}}}
    refused = mine | {"reason": "Template is paused", "error_code": 132015, "deferred_until": None}
    async with storage.tenant(tenant):
        rows = [await Message.create(**waiting, **more) for more in (mine, refused)]
        await Message.create(**waiting, **other)
        await Message.create(**waiting, **(mine | {"reason": "quiet_hours"}))
        await Message.create(**(waiting | {"status": "suppressed"}), **mine)
    ids = [str(row.id) for row in rows]
    broker.parked = {ids[0]}
    work = Release(sender_ids=[str(sender)], name="a", language="en")

    async def handle(attempt: int) -> Outcome:
        delivery: Any = Delivery(work, tenant, "id", "cause", attempt, "s", "WORK", 1, datetime.now(UTC), 1)
        return await handled(storage, Shelf([]), delivery, broker)

    assert isinstance(await handle(1), Retry)
    assert (sorted(broker.hurried), broker.woken) == (sorted(ids), 1)
    assert isinstance(await handle(2), Done)
    broker.parked = set(ids)
    assert isinstance(await handle(1), Done)


async def test_what_waits_for_room_in_a_portfolio_is_released_whatever_its_template(
    storage: Storage, tenant: str
) -> None:
    sender, broker = await number(storage, tenant), Broker()
    now = datetime.now(UTC)
    waiting: dict[str, Any] = {"sender_id": sender, "lane": "utility", "to": "+1", "status": "queued", "due_at": now}
    held: dict[str, Any] = {"reason": "portfolio_limit", "deferred_until": now + timedelta(hours=24)}
    mine = held | {"content": {"template": {"name": "a", "language": "en"}}}
    async with storage.tenant(tenant):
        row = await Message.create(**waiting, **mine)
        await Message.create(**waiting, **(mine | {"reason": "template_paused"}))
        await Message.create(**waiting, **(mine | {"error_code": 132015, "deferred_until": None}))
    broker.parked = {str(row.id)}
    work = Release(sender_ids=[str(sender)])
    delivery: Any = Delivery(work, tenant, "id", "cause", 1, "s", "WORK", 1, now, 1)
    assert isinstance(await handled(storage, Shelf([]), delivery, broker), Done)
    assert (broker.hurried, broker.woken) == ([str(row.id)], 1)


async def test_what_a_tenants_settings_held_back_is_released_by_its_reason(storage: Storage, tenant: str) -> None:
    sender, broker, now = await number(storage, tenant), Broker(), datetime.now(UTC)
    held: dict[str, Any] = {"sender_id": sender, "lane": "marketing", "to": "+1", "status": "queued", "due_at": now}
    held |= {"content": {"body": "Sale"}, "deferred_until": now + timedelta(hours=24)}
    async with storage.tenant(tenant):
        row = await Message.create(**held, reason="frequency_cap")
        for other in ("portfolio_limit", "quiet_hours"):
            await Message.create(**held, reason=other)
    broker.parked = {str(row.id)}
    work = Release(sender_ids=[str(sender)], reasons=["frequency_cap"])
    delivery: Any = Delivery(work, tenant, "id", "cause", 1, "s", "WORK", 1, now, 1)
    assert isinstance(await handled(storage, Shelf([]), delivery, broker), Done)
    assert (broker.hurried, broker.woken) == ([str(row.id)], 1)


async def test_what_whatsapp_refused_until_a_number_had_rested_is_released_when_it_goes_on(
    storage: Storage, tenant: str
) -> None:
    sender, broker = await number(storage, tenant), Broker()
    now = datetime.now(UTC)
    waiting: dict[str, Any] = {
        "sender_id": sender,
        "lane": "utility",
        "to": "+1",
        "status": "queued",
        "due_at": now,
    } | {"content": {}}
    async with storage.tenant(tenant):
        rows = [await Message.create(**waiting, error_code=code) for code in (131048, 131064, 133016, 429, 2)]
        rows.append(await Message.create(**(waiting | {"status": "unknown"}), error_code=131048))
        for code in (131056, 132015, 131000, None):  # its pair, its template, itself, nothing
            await Message.create(**waiting, error_code=code)
        await Message.create(**(waiting | {"status": "failed"}), error_code=131048)
        await Message.create(**waiting, reason="portfolio_limit", deferred_until=now + timedelta(hours=1))
    broker.parked = {str(row.id) for row in rows}
    work = Release(sender_ids=[str(sender)], resumed=True)
    delivery: Any = Delivery(work, tenant, "id", "cause", 1, "s", "WORK", 1, now, 1)
    assert isinstance(await handled(storage, Shelf([]), delivery, broker), Done)
    assert sorted(broker.hurried) == sorted(broker.parked)


async def test_who_is_refused_is_told_why_and_what_was_known_stays(storage: Storage, tenant: str) -> None:
    sender, shelf = await number(storage, tenant), Shelf([listed("a")])
    await sync(storage, shelf, tenant, sender)
    shelf.answer = Refused(190, "no", "the token has expired", rule_for(190))
    [(name, event)] = told(await sync(storage, shelf, tenant, sender))
    assert (name, event.reason) == ("TemplatesNotSynced", "190: the token has expired")
    shelf.answer = Unknown("no answer")
    assert isinstance(await sync(storage, shelf, tenant, sender), Retry)
    async with storage.batch((tenant,)) as con:
        assert list(await templates.statuses(con, tenant, sender)) == [("a", "en")]


async def test_a_number_without_an_account_is_not_asked_for(storage: Storage, tenant: str) -> None:
    shelf = Shelf([])
    sender = await number(storage, tenant, waba_id=None)
    assert told(await sync(storage, shelf, tenant, sender)) == []
    assert told(await sync(storage, shelf, tenant, uuid7())) == []
    assert shelf.asked == []


async def test_each_number_has_its_turn_once_in_a_while(storage: Storage, tenant: str) -> None:
    hour = timedelta(hours=1)
    ours = {await number(storage, tenant) for _ in range(3)}
    await number(storage, tenant, waba_id=None)
    await number(storage, tenant, provider="waha")
    async with storage.anonymous() as con:
        due = await templates.stale(con, 10_000, hour)
    assert {sender for owner, sender, _ in due if owner == tenant} == ours
    async with storage.anonymous() as con:
        again = await templates.stale(con, 10_000, hour)
    assert [sender for owner, sender, _ in again if owner == tenant] == []
    async with storage.anonymous() as con:
        later = await templates.stale(con, 10_000, timedelta(0))
    assert {sender for owner, sender, _ in later if owner == tenant} == ours


async def tick(storage: Storage, shelf: Shelf) -> Outcome:
    delivery: Any = Delivery(TemplatesTick(), "", "id", "cause", 1, "s", "WORK", 1, datetime.now(UTC), 1)
    return await handled(storage, shelf, delivery)


async def test_what_somebody_has_just_read_is_not_read_again_at_the_tick(storage: Storage, tenant: str) -> None:
    token = str(uuid7())
    sender = await number(storage, tenant, waba_id=token)
    await sync(storage, Shelf([listed("a")]), tenant, sender)
    shelf = Shelf([listed("a")])
    await tick(storage, shelf)
    assert ("secret", token) not in shelf.asked
    # Nor if it was read after the tick had claimed it.
    async with storage.tenant(tenant):
        await Sender.filter(id=sender).update(templates_tried_at=None)
    async with storage.anonymous() as con:
        [claimed] = [at for _, one, at in await templates.stale(con, 10_000, timedelta(hours=1)) if one == sender]
    librarian = Librarian(storage, shelf, VAULT, Broker().hurry, Broker().wake)
    await sync(storage, Shelf([listed("a")]), tenant, sender)
    assert await librarian.sync(tenant, sender, "id", "", claimed) == Done()
    assert ("secret", token) not in shelf.asked


async def test_an_account_that_does_not_answer_or_can_t_be_asked_keeps_no_other_waiting(
    storage: Storage, tenant: str
) -> None:
    dead, well = str(uuid7()), str(uuid7())
    for account in (dead, well):
        await number(storage, tenant, waba_id=account)
    async with storage.tenant(tenant):
        locked = await number(storage, tenant, waba_id=str(uuid7()))
        await Sender.filter(id=locked).update(access_token=Vault("l" * 32).seal("secret"))
    others_read = asyncio.Event()

    class HalfDead(Shelf):
        async def templates(self, credentials: Credentials, waba_id: str) -> list[Listed] | Problem:
            if waba_id == dead:
                await asyncio.wait_for(others_read.wait(), 30)
            elif waba_id == well:
                others_read.set()
            return await super().templates(credentials, waba_id)

    shelf = HalfDead([listed("a")])
    await tick(storage, shelf)
    assert {dead, well} <= {account for _, account in shelf.asked}


async def test_what_is_refused_while_the_gateway_is_asked_is_newer_than_its_answer(
    storage: Storage, tenant: str
) -> None:
    sender, shelf = await number(storage, tenant), Shelf([listed("a")])
    await sync(storage, shelf, tenant, sender)
    refusal = Refusal(tenant, sender, rule_for(132015), 132015, "it is paused", timedelta(), ("a", "en"))

    class Slow(Shelf):
        async def templates(self, credentials: Credentials, waba_id: str) -> list[Listed] | Problem:
            async with storage.batch((tenant,)) as con:
                await halt(con, refusal)
            return await super().templates(credentials, waba_id)

    assert [name for name, _ in told(await sync(storage, Slow([listed("a")]), tenant, sender))] == ["TemplatesSynced"]
    async with storage.batch((tenant,)) as con:
        assert await statuses(con, tenant, sender) == {("a", "en"): "paused"}
    assert [subject for subject, _ in await later(storage, tenant)] == ["evt.alert.raised"]
    # The next answer counts.
    await sync(storage, shelf, tenant, sender)
    assert [subject for subject, _ in await later(storage, tenant)] == ["evt.alert.resolved", "work.librarian.release"]


async def test_what_becomes_known_while_the_gateway_is_asked_is_not_forgotten(storage: Storage, tenant: str) -> None:
    sender = await number(storage, tenant)

    class Slow(Shelf):
        async def templates(self, credentials: Credentials, waba_id: str) -> list[Listed] | Problem:
            async with storage.batch((tenant,)) as con:
                await templates.set_status(con, tenant, sender, "new", "en", "APPROVED")
            return await super().templates(credentials, waba_id)

    await sync(storage, Slow([listed("a")]), tenant, sender)
    async with storage.batch((tenant,)) as con:
        assert await statuses(con, tenant, sender) == {("a", "en"): "approved", ("new", "en"): "approved"}


async def test_news_that_is_told_late_undoes_nothing_that_was_told_of_a_later_time(
    storage: Storage, tenant: str
) -> None:
    sender, now = await number(storage, tenant), datetime.now(UTC)

    async def became(status: str, minutes_ago: float | None) -> bool:
        at = None if minutes_ago is None else now - timedelta(minutes=minutes_ago)
        async with storage.batch((tenant,)) as con:
            return await releasing.became(con, tenant, sender, "a", "en", status, None, "cause", at)

    async def known() -> str:
        async with storage.batch((tenant,)) as con:
            return (await statuses(con, tenant, sender))["a", "en"]

    assert await became("APPROVED", 10)
    assert not await became("APPROVED", 5), "no news, but of a later time"
    assert not await became("PAUSED", 7), "it was so before"
    assert await known() == "approved"
    assert await became("PAUSED", 5), "of one second whatever comes last"
    assert await became("approved", None), "what a refusal says, or reading them, is of now"
    assert not await became("PAUSED", 8)
    assert await became("PAUSED", 1)
    assert await known() == "paused"


async def test_what_is_new_and_may_be_used_is_read_at_once(storage: Storage, tenant: str) -> None:
    """A webhook tells its status alone: not that it is marketing, nor what it takes."""
    known, alone = await number(storage, tenant), await number(storage, tenant, waba_id=None)
    for sender, name, status in (
        (known, "a", "pending"), (known, "b", "PAUSED"), (known, "b", "APPROVED"), (alone, "c", "APPROVED"),
    ):  # fmt: skip
        async with storage.batch((tenant,)) as con:
            assert await releasing.became(con, tenant, sender, name, "en", status, None, "cause")
    asked = [(subject, told) for subject, told in await later(storage, tenant) if subject.startswith("cmd.")]
    assert asked == [("cmd.template.sync", {"sender_id": str(known)})]
    await sync(storage, Shelf([listed("b")]), tenant, known)
    await later(storage, tenant)
    async with storage.batch((tenant,)) as con:
        assert await releasing.became(con, tenant, known, "b", "en", "paused", None, "cause")
        assert await releasing.became(con, tenant, known, "b", "en", "approved", None, "cause")
    assert not [subject for subject, _ in await later(storage, tenant) if subject.startswith("cmd.")]


async def test_where_nobody_can_be_asked_a_refused_template_is_tried_again(storage: Storage, tenant: str) -> None:
    sender, shelf = await number(storage, tenant, waba_id=None), Shelf([])
    async with storage.batch((tenant,)) as con:
        await halt(con, Refusal(tenant, sender, rule_for(132015), 132015, "it is paused", timedelta(), ("a", "en")))
    await later(storage, tenant)
    [(name, event)] = told(await sync(storage, shelf, tenant, sender))
    assert (name, event.templates, shelf.asked) == ("TemplatesSynced", 1, [])
    assert [subject for subject, _ in await later(storage, tenant)] == ["evt.alert.resolved", "work.librarian.release"]
    async with storage.batch((tenant,)) as con:
        assert await statuses(con, tenant, sender) == {("a", "en"): "approved"}
