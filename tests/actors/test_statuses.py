"""Statuses in any order, as often as they like, in batches of any size: the same row in the end."""

from __future__ import annotations

import json
import random
from datetime import UTC, date, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import msgspec
import pytest
from enrolled import Enrolled, enrolled
from support import NewTenant

from harkara.actors.answers import Finish, decide
from harkara.actors.hearing import MARKETING_REFUSED
from harkara.actors.receipts import Receipts
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Done
from harkara.gateway.errors import rule_for
from harkara.gateway.protocol import Refused
from harkara.ids import uuid7
from harkara.schemas.work import Inbound
from harkara.storage.models import CategoryUsage, ContactCampaignProgress, Message
from harkara.storage.storage import Storage

AT = datetime(2026, 3, 1, tzinfo=UTC)
SECOND = int(AT.timestamp())

#: What one message goes through, in the order in which it happens.
LIVES: dict[str, tuple[str, ...]] = {
    "read": ("sent", "delivered", "read"),
    "read without delivered": ("sent", "read"),
    "delivered": ("sent", "delivered"),
    "failed": ("sent", "failed"),
    "failed alone": ("failed",),
    "failed and yet delivered": ("sent", "failed", "delivered"),
    "failed and yet read": ("failed", "delivered", "read"),
}
PRICING = {"billable": True, "pricing_model": "PMP", "type": "regular", "category": "marketing"}

#: What a message goes through of which WhatsApp tells more than one price, by the status that does; the last counts.
PRICES: dict[str, dict[str, dict[str, Any] | None]] = {
    "delivered": {"sent": PRICING, "delivered": PRICING | {"category": "utility"}},
    "read": {"sent": PRICING, "delivered": PRICING | {"billable": False}, "read": PRICING | {"category": "service"}},
    "read, which tells none": {"sent": PRICING, "delivered": PRICING | {"category": "utility"}, "read": None},
    "failed, which tells one": {"failed": PRICING | {"billable": False}, "sent": PRICING, "delivered": PRICING},
}
KEPT = (
    *("status", "wamid", "sent_at", "delivered_at", "read_at"),
    *("failed_at", "reason", "error_code", "pricing"),
)


class Nobody:
    """Nobody hears."""

    def wake(self, *_: Any) -> None: ...


def status(
    name: str, place: int, wamid: str, id_: UUID, prices: dict[str, dict[str, Any] | None] | None = None
) -> dict[str, Any]:
    """As Meta writes it: a failure has no contacts, and the pricing comes with only one of them, or with `prices`."""
    made: dict[str, Any] = {"id": wamid, "status": name, "timestamp": str(SECOND + place)}
    if name == "failed":
        made["errors"] = [{"code": 131026, "title": "Message undeliverable", "error_data": {"details": "gone"}}]
    if prices is not None:
        made |= {"pricing": prices[name]} if prices[name] else {}
    elif name == "sent":
        made |= {"pricing": PRICING, "conversation": {"id": "c", "origin": {"type": "marketing"}}}
    return made | {"biz_opaque_callback_data": str(id_)}


def webhook(one: Enrolled, statuses: list[dict[str, Any]], *, deliveries: int) -> Delivery[Inbound]:
    value = {"messaging_product": "whatsapp", "metadata": {"phone_number_id": "1"}, "statuses": statuses}
    body = json.dumps({"entry": [{"id": "1", "changes": [{"field": "messages", "value": value}]}]}).encode()
    inbound = Inbound(source="whatsapp", sender_id=str(one.sender), body=msgspec.Raw(body))
    return Delivery(
        inbound, one.tenant, str(uuid4()), "", 1, f"t.{one.tenant}.in.whatsapp", "INBOUND", 1, AT, deliveries
    )


async def sending(storage: Storage, one: Enrolled) -> UUID:
    """A message that has left and has no answer yet."""
    id_ = uuid7()
    async with storage.tenant(one.tenant):
        await Message.create(
            id=id_, contact_id=one.contact, sender_id=one.sender, lane="utility", to="+919876543210",
            content={"body": "Hi"}, status="sending", due_at=AT, attempted_at=AT,
        )  # fmt: skip
    return id_


async def after(
    storage: Storage,
    one: Enrolled,
    life: tuple[str, ...],
    chance: random.Random | None,
    prices: dict[str, dict[str, Any] | None] | None = None,
) -> Any:
    """The row after these statuses: in order, or shuffled, with repetitions and in batches by `chance`."""
    nobody: Any = Nobody()
    receipts, id_ = Receipts(storage, nobody), await sending(storage, one)
    told = [status(name, place, f"wamid.{id_}", id_, prices) for place, name in enumerate(life)]
    if chance is not None:
        told += chance.choices(told, k=chance.randint(0, 4))
        chance.shuffle(told)
    while told:
        size = chance.randint(1, len(told)) if chance else 1
        part, told = told[:size], told[size:]
        count = chance.randint(1, size) if chance else 1
        webhooks = [webhook(one, part[index::count], deliveries=1) for index in range(count)]
        outcomes = await receipts.handle(webhooks)
        assert all(isinstance(outcome, Done) for outcome in outcomes)
    async with storage.tenant(one.tenant):
        row = await Message.get(id=id_)
    return {name: getattr(row, name) for name in KEPT} | {"wamid": row.wamid == f"wamid.{id_}"}


@pytest.mark.parametrize("life", LIVES)
async def test_any_order_leaves_the_same_row(storage: Storage, new_tenant: NewTenant, life: str) -> None:
    one = await enrolled(storage, await new_tenant())
    expected = await after(storage, one, LIVES[life], None)
    assert expected["wamid"]
    if "sent" in LIVES[life]:
        assert expected["pricing"] == PRICING | {"origin": "marketing", "status": "sent"}
    for seed in range(10):
        found = await after(storage, one, LIVES[life], random.Random(f"{life} {seed}"))
        assert found == expected, f"seed {seed}"


@pytest.mark.parametrize("life", LIVES)
async def test_a_price_is_counted_once_in_any_order(storage: Storage, new_tenant: NewTenant, life: str) -> None:
    one = await enrolled(storage, await new_tenant())
    for seed in range(3):
        await after(storage, one, LIVES[life], random.Random(f"{life} {seed}"))
    async with storage.tenant(one.tenant):
        counted = [(row.month, row.category, row.billable, row.messages) for row in await CategoryUsage.all()]
        priced = await Message.filter(pricing__isnull=False).count()
    category = (date(AT.year, AT.month, 1), PRICING["category"], PRICING["billable"])
    assert counted == ([(*category, 3)] if priced else [])
    assert priced in (0, 3)


@pytest.mark.parametrize("life", PRICES)
async def test_the_price_of_the_furthest_status_counts_and_counts_once(
    storage: Storage, new_tenant: NewTenant, life: str
) -> None:
    one, prices = await enrolled(storage, await new_tenant()), PRICES[life]
    by = next(name for name in ("read", "delivered") if prices.get(name))
    last = {**(prices[by] or {}), "status": by}
    for seed in range(10):
        found = await after(storage, one, tuple(prices), random.Random(f"{life} {seed}"), prices)
        assert found["pricing"] == last, f"seed {seed}"
    async with storage.tenant(one.tenant):
        counted = [(row.category, row.billable, row.messages) for row in await CategoryUsage.filter(messages__not=0)]
    assert counted == [(last["category"], last["billable"], 10)]


async def test_what_was_priced_before_prices_were_counted_is_not_taken_back(
    storage: Storage, new_tenant: NewTenant
) -> None:
    one, nobody = await enrolled(storage, await new_tenant()), cast("Any", Nobody())
    id_ = await sending(storage, one)
    async with storage.tenant(one.tenant):
        await Message.filter(id=id_).update(pricing=PRICING)
    told = status("delivered", 1, "wamid.1", id_, {"delivered": PRICING | {"category": "utility"}})
    await Receipts(storage, nobody).handle([webhook(one, [told], deliveries=1)])
    async with storage.tenant(one.tenant):
        counted = [(row.category, row.messages) for row in await CategoryUsage.all()]
    assert counted == [("utility", 1)]


async def test_a_price_that_the_database_can_not_hold_keeps_no_status_from_being_read(
    storage: Storage, new_tenant: NewTenant
) -> None:
    one, prices = await enrolled(storage, await new_tenant()), {"delivered": PRICING | {"category": "util\0ity"}}
    found = await after(storage, one, ("delivered",), None, {**prices})
    assert (found["status"], found["pricing"]["category"]) == ("delivered", "utility")


async def test_what_failed_tells_why_and_what_arrived_has_not_failed(storage: Storage, new_tenant: NewTenant) -> None:
    one = await enrolled(storage, await new_tenant())
    failed = await after(storage, one, LIVES["failed alone"], None)
    assert (failed["status"], failed["error_code"], failed["reason"]) == ("failed", 131026, "gone")
    arrived = await after(storage, one, LIVES["failed and yet read"], None)
    assert (arrived["status"], arrived["error_code"], arrived["reason"], arrived["failed_at"]) == (
        "read",
        None,
        None,
        None,
    )


async def test_what_arrives_after_all_has_no_reason_for_waiting_any_more(
    storage: Storage, new_tenant: NewTenant
) -> None:
    """An answer said that it was not taken, and a webhook says that it was."""
    one, nobody = await enrolled(storage, await new_tenant()), cast("Any", Nobody())
    id_ = await sending(storage, one)
    async with storage.tenant(one.tenant):
        await Message.filter(id=id_).update(
            status="queued", reason="Service unavailable", error_code=131000, deferred_until=AT
        )
    await Receipts(storage, nobody).handle([webhook(one, [status("sent", 1, "wamid.1", id_)], deliveries=1)])
    async with storage.tenant(one.tenant):
        row = await Message.get(id=id_)
    assert [row.status, row.reason, row.error_code, row.deferred_until] == ["sent", None, None, None]


async def of_its_enrolment(storage: Storage, one: Enrolled) -> UUID:
    """A message of its enrolment that has left, while a second one is still to come."""
    id_ = await sending(storage, one)
    async with storage.tenant(one.tenant):
        await Message.filter(id=id_).update(
            status="sent", lane="marketing", enrollment_id=one.id, campaign_id=one.campaign, cause="enrolled"
        )
    return id_


async def told_later(storage: Storage, one: Enrolled) -> list[tuple[str, str, str]]:
    async with storage.tenant(one.tenant) as con:
        rows = await con.fetch("select body::text, name, cause from outbox where subject like '%.evt.enrollment.%'")
    return [(msgspec.json.decode(row[0])["reason"], row[1], row[2]) for row in rows]


@pytest.mark.parametrize("code", [131026, 131030, 131047, 131049, 131050])
async def test_a_status_ends_an_enrolment_as_an_answer_does(storage: Storage, new_tenant: NewTenant, code: int) -> None:
    """Mostly WhatsApp says only in a status that it can't deliver to a number; the same row of the table decides."""
    one, receipts = await enrolled(storage, await new_tenant()), Receipts(storage, cast("Any", Nobody()))
    id_ = await of_its_enrolment(storage, one)
    failed = status("failed", 1, "wamid.1", id_) | {"errors": [{"code": code, "title": "no"}]}
    answer = decide(Refused(code, "no", "", rule_for(code)), 1)
    assert isinstance(answer, Finish)
    for deliveries in (1, 2):
        await receipts.handle([webhook(one, [failed], deliveries=deliveries), webhook(one, [failed], deliveries=1)])
        row = await one.row(storage)
        if answer.stop:
            assert (row.status, row.stopped_reason, row.next_claim_at) == (answer.status, answer.stop, None)
            assert row.finished_at is not None
            assert await told_later(storage, one) == [(answer.stop, f"{one.id}.failed", "enrolled")]
        elif code != MARKETING_REFUSED:  # that one is an opt-out
            assert (row.status, await told_later(storage, one)) == ("active", [])


@pytest.mark.parametrize("ended", ["stopped", "completed"])
async def test_what_ended_before_stays_as_it_was(storage: Storage, new_tenant: NewTenant, ended: str) -> None:
    one, receipts = await enrolled(storage, await new_tenant()), Receipts(storage, cast("Any", Nobody()))
    id_ = await of_its_enrolment(storage, one)
    async with storage.tenant(one.tenant):
        await ContactCampaignProgress.filter(id=one.id).update(status=ended, stopped_reason="opt_out", finished_at=AT)
    await receipts.handle([webhook(one, [status("failed", 1, "wamid.1", id_)], deliveries=1)])
    row = await one.row(storage)
    assert (row.status, row.stopped_reason, row.finished_at) == (ended, "opt_out", AT)
    assert await told_later(storage, one) == []


async def test_what_arrives_after_all_ends_nothing(storage: Storage, new_tenant: NewTenant) -> None:
    one, receipts = await enrolled(storage, await new_tenant()), Receipts(storage, cast("Any", Nobody()))
    id_ = await of_its_enrolment(storage, one)
    for name in ("delivered", "failed"):
        await receipts.handle([webhook(one, [status(name, 1, "wamid.1", id_)], deliveries=1)])
    assert (await one.row(storage)).status == "active"
