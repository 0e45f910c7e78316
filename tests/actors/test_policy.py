"""What the gate holds back, in the database: who waits until when, who counts, and what is told."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import asyncpg
import msgspec
import pytest
from enrolled import Enrolled, enrolled
from support import Database, NewTenant

from harkara.actors.attempts import attempt_of
from harkara.actors.numbers import Number
from harkara.actors.sender import Sender
from harkara.actors.ticker import Ticker
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Done, Outcome, Retry
from harkara.gateway.errors import rule_for
from harkara.gateway.protocol import Accepted, Answer, Credentials, NotSent, Refused
from harkara.ids import uuid7
from harkara.policy import allowance
from harkara.schemas.content import Content, Template
from harkara.schemas.work import Send
from harkara.storage import deferring, due, enrolling, models, templates
from harkara.storage.deferring import claim_at
from harkara.storage.models import (
    Campaign,
    CampaignStep,
    Contact,
    ContactCampaignProgress,
    Message,
    MonthlyUsage,
    Tenant,
)
from harkara.storage.sending import Denied
from harkara.storage.storage import Storage
from harkara.storage.templates import Found


class World:
    """All that the sender works with: a number with room, and a gateway that takes everything, or refuses it."""

    def __init__(self, answer: Answer | None = None) -> None:
        self.taken = self.given_back = 0
        self.answer = answer or Accepted("wamid.1")

    async def get(self, tenant: str, sender_id: str) -> Number:
        return Number(Credentials(sender_id=sender_id, phone_number_id="1", access_token="t"), 80)

    async def acquire(self, *_: Any) -> None:
        return None

    async def away(self, *_: Any) -> None:
        pass

    def give_back(self, _: str) -> None:
        self.given_back += 1

    async def send(self, *_: Any, **__: Any) -> Answer:
        self.taken += 1
        return self.answer


def sender(storage: Storage, world: World) -> Sender:
    """A sender, as another process has one."""
    parts: Any = world
    return Sender(storage, parts, parts, parts, lambda: None)


def delivery(work: Send, tenant: str) -> Delivery[Send]:
    return Delivery(work, tenant, "id", "cause", 1, "subject", "SEND", 1, datetime.now(UTC), 1)


async def send(storage: Storage, world: World, one: Enrolled, **changed: Any) -> Outcome:
    work = msgspec.structs.replace(one.work(), **changed)
    (outcome,) = await sender(storage, world).handle([delivery(work, one.tenant)])
    return outcome


def told(outcome: Outcome) -> list[Any]:
    """The events of an outcome."""
    assert isinstance(outcome, Done | Retry)
    return [event.message for event in outcome.events]


async def message(storage: Storage, one: Enrolled, id_: UUID | None = None) -> Message:
    async with storage.tenant(one.tenant):
        return await Message.get(id=id_ or one.message)


async def settings(storage: Storage, one: Enrolled, **changed: Any) -> None:
    """Change the tenant."""
    async with storage.tenant(one.tenant):
        await Tenant.filter(id=one.tenant).update(**changed)


INDIA = ZoneInfo("Asia/Kolkata")


def around_now(hours: float = 1) -> dict[str, str]:
    """Quiet hours, in India, that have begun and end in so many hours."""
    now = datetime.now(INDIA)
    return {
        "start": (now - timedelta(hours=1)).strftime("%H:%M"),
        "end": (now + timedelta(hours=hours, minutes=1)).strftime("%H:%M"),
    }


def end_of(quiet: dict[str, str]) -> datetime:
    """The next time a clock in India shows their end."""
    now = datetime.now(INDIA)
    hour, minute = map(int, quiet["end"].split(":"))
    at = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (at if at > now else at + timedelta(days=1)).astimezone(UTC)


@pytest.fixture
async def one(storage: Storage, new_tenant: NewTenant) -> Enrolled:
    return await enrolled(storage, await new_tenant())


@pytest.mark.parametrize("of", ["campaign", "tenant"])
async def test_a_step_in_quiet_hours_waits_in_the_database_until_they_end(
    storage: Storage, one: Enrolled, of: str
) -> None:
    quiet = around_now()
    async with storage.tenant(one.tenant):
        if of == "campaign":
            await Campaign.filter(id=one.campaign).update(quiet_hours=quiet)
        else:
            await Tenant.filter(id=one.tenant).update(quiet_hours=quiet)
    world, before = World(), await one.row(storage)
    outcome = await send(storage, world, one)
    assert (world.taken, world.given_back) == (0, 1), "what does not leave costs its number nothing"
    [event] = told(outcome)
    assert (type(event).__name__, event.reason, event.deferred_until) == (
        "MessageDeferred",
        "quiet_hours",
        end_of(quiet),
    )
    row, waiting = await one.row(storage), await message(storage, one)
    assert row.deferred_until == end_of(quiet)
    assert row.next_claim_at is not None
    assert timedelta() <= row.next_claim_at - end_of(quiet) < timedelta(milliseconds=100)
    assert (row.status, row.next_message_id, row.next_step_scheduled_at) == (
        "active",
        one.message,
        before.next_step_scheduled_at,
    )
    assert (waiting.status, waiting.reason, waiting.deferred_until) == ("queued", "quiet_hours", end_of(quiet))
    assert waiting.content == {"body": "Hello"}
    async with storage.tenant(one.tenant):
        await Message.filter(id=one.message).update(reason="Template is paused", error_code=132015)
    # The work that comes again tells the same, and no other reason is left.
    assert await send(storage, world, one) == outcome
    waiting = await message(storage, one)
    assert [waiting.reason, waiting.error_code] == ["quiet_hours", None]
    # When they are over it leaves, under the same id, and the wait is forgotten.
    async with storage.tenant(one.tenant):
        await Campaign.filter(id=one.campaign).update(quiet_hours=None)
    await settings(storage, one, quiet_hours=None)
    assert [type(event).__name__ for event in told(await send(storage, world, one))] == [
        "MessageSent",
        "EnrollmentCompleted",
    ]
    sent = await message(storage, one)
    assert [sent.status, sent.reason, sent.deferred_until] == ["sent", None, None]


async def test_any_other_marketing_message_waits_in_the_broker(storage: Storage, one: Enrolled) -> None:
    quiet = around_now()
    await settings(storage, one, quiet_hours=quiet)
    id_ = uuid7()
    loose = {"message_id": str(id_), "enrollment_id": None, "campaign_id": None, "step_id": None, "step": None}
    content = Content(body="Sale")
    outcome = await send(storage, World(), one, **loose, content=content)
    assert isinstance(outcome, Retry)
    assert outcome.after is not None
    assert abs(datetime.now(UTC) + outcome.after - end_of(quiet)) < timedelta(minutes=1)
    assert [event.deferred_until for event in told(outcome)] == [end_of(quiet)]
    assert (await message(storage, one, id_)).reason == "quiet_hours"
    world = World()
    for lane in ("otp", "utility"):
        await send(storage, world, one, **(loose | {"message_id": str(uuid7())}), content=content, lane=lane)
    assert world.taken == 2


@pytest.mark.parametrize(
    ("why", "reason"), [("by_hand", "enrollment_stopped"), ("campaign_archived", "campaign_inactive")]
)
async def test_who_stops_while_a_step_waits_stops_the_message_too(
    storage: Storage, one: Enrolled, admin: asyncpg.Connection, why: str, reason: str
) -> None:
    await settings(storage, one, quiet_hours=around_now())
    await send(storage, World(), one)
    async with storage.batch((one.tenant,)) as con:
        await enrolling.stop(con, [(one.tenant, one.campaign, one.contact, why)])
    stopped = await message(storage, one)
    assert (stopped.status, stopped.reason, stopped.deferred_until) == ("suppressed", reason, None)
    rows = await admin.fetch("select subject, body, name from outbox where tenant_id = $1", one.tenant)
    [row] = [dict(row) for row in rows]
    body = msgspec.json.decode(row.pop("body"))
    assert row == {
        "subject": f"t.{one.tenant}.evt.message.suppressed",
        "name": f"{one.message}.suppressed",
    }
    assert body == {
        "id": str(one.message),
        "contact_id": str(one.contact),
        "sender_id": str(one.sender),
        "campaign_id": str(one.campaign),
        "enrollment_id": str(one.id),
        "step": 0,
        "reason": reason,
    }


class Bus:
    """Takes down what is published."""

    def __init__(self) -> None:
        self.published: list[Any] = []

    async def publish_many(self, outs: Any) -> list[Any]:
        self.published += outs
        return [None for _ in outs]

    def wake(self, *_: Any) -> None:
        return None


async def claim_all(ticker: Ticker) -> None:
    """Claim all that is due: other tests may have left more than one claim takes."""
    while await ticker._claim_once():
        pass


async def claimed(storage: Storage, one: Enrolled, bus: Bus) -> list[Any]:
    """What a ticker makes of this tenant's due steps: the events it tells."""
    await claim_all(Ticker(storage, bus))  # type: ignore[arg-type]
    return [out.message for out in bus.published if out.tenant == one.tenant]


async def test_a_step_in_quiet_hours_never_reaches_its_number(storage: Storage, one: Enrolled) -> None:
    quiet = around_now()
    await settings(storage, one, quiet_hours=quiet)
    [event] = await claimed(storage, one, Bus())
    assert (event.reason, event.deferred_until) == ("quiet_hours", end_of(quiet))
    assert (await message(storage, one)).content == {"body": "Hello"}
    row = await one.row(storage)
    assert row.deferred_until == end_of(quiet)
    assert await claimed(storage, one, Bus()) == []


async def test_a_step_that_is_of_no_use_after_quiet_hours_goes_on_to_be_told_so(
    storage: Storage, one: Enrolled
) -> None:
    await settings(storage, one, quiet_hours=around_now(hours=3))
    async with storage.tenant(one.tenant):
        await CampaignStep.filter(id=one.step).update(expires_after_hours=1)
    ticker = Ticker(storage, Bus())  # type: ignore[arg-type]
    await claim_all(ticker)
    assert [held.step.message_id for held in ticker._held if held.step.tenant == one.tenant] == [str(one.message)]
    assert isinstance(await send(storage, World(), one), Done)
    ended, row = await message(storage, one), await one.row(storage)
    assert (ended.status, ended.reason, ended.deferred_until) == ("suppressed", "expired", None)
    assert row.next_message_id != one.message, "what comes next does not wait"


@pytest.mark.parametrize(
    ("hours", "status", "reason"), [(1, "suppressed", "expired"), (48, "queued", "portfolio_limit")]
)
async def test_a_message_without_room_waits_only_as_long_as_it_is_of_use(
    storage: Storage, one: Enrolled, hours: float, status: str, reason: str
) -> None:
    async with storage.tenant(one.tenant):
        await CampaignStep.filter(id=one.step).update(expires_after_hours=hours)

    class Full(World):
        async def acquire(self, *_: Any) -> Any:
            return Denied("portfolio_limit", timedelta(hours=24))

    world = Full()
    await send(storage, world, one)
    found = await message(storage, one)
    assert (found.status, found.reason, world.taken) == (status, reason, 0)


async def test_what_waits_in_the_broker_when_its_ticker_stops_is_not_published_again(
    storage: Storage, one: Enrolled
) -> None:
    ticker = Ticker(storage, Bus())  # type: ignore[arg-type]
    await claim_all(ticker)
    ready = [held for held in ticker._held if held.step.enrollment_id == str(one.id)]
    ticker._held = [held for held in ticker._held if held not in ready]
    await ticker._publish(ready, datetime.now(UTC))
    await ticker.stop()
    claimed_again = (await one.row(storage)).next_claim_at
    assert claimed_again is not None
    assert claimed_again > datetime.now(UTC) + timedelta(hours=5)


async def test_a_step_that_is_claimed_before_what_defers_it_ends_keeps_no_timer(
    storage: Storage, one: Enrolled
) -> None:
    """As one that was paused and goes on meanwhile: its lease would end before the timer, time and again."""
    until = datetime.now(UTC) + timedelta(hours=8)
    async with storage.tenant(one.tenant):
        await ContactCampaignProgress.filter(id=one.id).update(deferred_until=until)
    ticker = Ticker(storage, Bus())  # type: ignore[arg-type]
    await claim_all(ticker)
    assert not [held for held in ticker._held if held.step.enrollment_id == str(one.id)]
    assert (await one.row(storage)).next_claim_at == until


async def test_steps_that_wait_are_judged_again_when_what_holds_them_back_changes(
    storage: Storage, one: Enrolled, new_tenant: NewTenant
) -> None:
    other = await enrolled(storage, await new_tenant())
    for each in (one, other):
        await settings(storage, each, quiet_hours=around_now())
        await send(storage, World(), each)
    async with storage.tenant(one.tenant) as con:
        await deferring.look_again(con, one.tenant, uuid7())
    assert (await one.row(storage)).deferred_until is not None
    async with storage.tenant(one.tenant) as con:
        await deferring.look_again(con, one.tenant, one.campaign)
    row = await one.row(storage)
    assert (row.deferred_until, row.next_claim_at) == (None, row.next_step_scheduled_at)
    assert (await other.row(storage)).deferred_until is not None


def test_what_waits_for_the_same_instant_keeps_its_order() -> None:
    until = datetime(2026, 3, 2, 9, tzinfo=UTC)
    dues = [until - timedelta(days=3), until - timedelta(hours=9), until - timedelta(hours=9, seconds=-1), until]
    claims = [claim_at(until, at) for at in dues]
    assert claims == sorted(claims)
    assert len(set(claims)) == len(claims)
    assert until <= claims[0]
    assert claims[-1] - until < timedelta(milliseconds=100)


@pytest.mark.parametrize(("hours", "status"), [(1.0, "sent"), (0.0001, "suppressed")])
async def test_a_step_that_comes_too_late_is_passed_over(
    storage: Storage, one: Enrolled, hours: float, status: str
) -> None:
    async with storage.tenant(one.tenant):
        await CampaignStep.filter(id=one.step).update(expires_after_hours=hours)
    outcome = await send(storage, World(), one, due_at=datetime.now(UTC) - timedelta(minutes=1))
    assert [type(event).__name__ for event in told(outcome)][1:] == ["EnrollmentCompleted"]
    row = await message(storage, one)
    assert (row.status, row.reason) == (status, None if status == "sent" else "expired")


CAPS = [{"max": 2, "per_hours": 24}]


async def another(storage: Storage, one: Enrolled) -> Enrolled:
    """The same contact in another campaign."""
    made = Enrolled(one.tenant, one.sender, uuid7(), one.contact, uuid7(), uuid7(), uuid7())
    now = datetime.now(UTC)
    async with storage.tenant(one.tenant):
        version = (await Campaign.get(id=one.campaign)).version_id
        await Campaign.create(
            id=made.campaign, name="More", type="drip", sender_id=one.sender, status="active", version_id=version
        )
        await ContactCampaignProgress.create(
            id=made.id,
            campaign_id=made.campaign,
            version_id=version,
            contact_id=one.contact,
            started_at=now,
            next_step_id=one.step,
            next_message_id=made.message,
            next_step_scheduled_at=now,
            next_claim_at=now,
        )
    return Enrolled(made.tenant, made.sender, made.campaign, made.contact, one.step, made.id, made.message)


async def test_two_senders_together_keep_a_cap(storage: Storage, database: Database, one: Enrolled) -> None:
    await settings(storage, one, frequency_caps=CAPS)
    many = [one, *[await another(storage, one) for _ in range(7)]]
    elsewhere, world = Storage(database.app_url, pool=4), World()
    await elsewhere.open()
    try:
        senders = [sender(storage, world), sender(elsewhere, world)]
        await asyncio.gather(
            *(senders[i % 2].handle([delivery(each.work(), each.tenant)]) for i, each in enumerate(many))
        )
    finally:
        await elsewhere.close()
    assert world.taken == 2
    async with storage.tenant(one.tenant):
        rows = await Message.filter(contact_id=one.contact)
    assert sorted((row.status, row.reason) for row in rows) == [("queued", "frequency_cap")] * 6 + [("sent", None)] * 2


async def test_what_has_no_room_waits_for_it_if_that_is_soon(storage: Storage, one: Enrolled) -> None:
    await settings(storage, one, frequency_caps=[{"max": 1, "per_hours": 2}, {"max": 2, "per_hours": 168}])
    world = World()
    await send(storage, world, one)
    sent_at = (await message(storage, one)).attempted_at
    assert sent_at is not None
    second, third = await another(storage, one), await another(storage, one)
    [event] = told(await send(storage, world, second))
    assert (event.reason, event.deferred_until) == ("frequency_cap", sent_at + timedelta(hours=2))
    # The first is three hours old: the second leaves, and with it the week is full, for more than a day.
    async with storage.tenant(one.tenant):
        await Message.filter(id=one.message).update(attempted_at=sent_at - timedelta(hours=3))
    assert "MessageSent" in [type(event).__name__ for event in told(await send(storage, world, second))]
    [event, _] = told(await send(storage, world, third))
    assert (type(event).__name__, event.reason) == ("MessageSuppressed", "frequency_cap")
    # What never left counts for nothing, nor does what is no marketing.
    async with storage.tenant(one.tenant):
        await Message.filter(id=one.message).update(status="failed")
        await Message.filter(id=second.message).update(lane="utility")
    fourth = await another(storage, one)
    assert "MessageSent" in [type(event).__name__ for event in told(await send(storage, world, fourth))]


async def offer(storage: Storage, one: Enrolled, category: str) -> None:
    """Have WhatsApp know the template `offer`, as one of this category."""
    found = Found("offer", "en", category, "approved", None, None, "[]")
    async with storage.batch((one.tenant,)) as con:
        await templates.replace(con, one.tenant, one.sender, [found], datetime.now(UTC))


async def send_offer(storage: Storage, world: World, one: Enrolled, lane: str, *, is_test: bool = False) -> Message:
    """Send that template as a message of no campaign, which was accepted before. Returns what became of it."""
    id_, content = uuid7(), Content(template=Template(name="offer"))
    async with storage.tenant(one.tenant):
        await Message.create(
            id=id_,
            contact_id=one.contact,
            sender_id=one.sender,
            lane=lane,
            to="+919876543210",
            content=msgspec.to_builtins(content),
            status="queued",
            due_at=datetime.now(UTC),
            is_test=is_test,
        )
    loose = {"enrollment_id": None, "campaign_id": None, "step_id": None, "step": None}
    await send(storage, world, one, message_id=str(id_), lane=lane, content=content, **loose)
    return await message(storage, one, id_)


@pytest.mark.parametrize("lane", ["otp", "utility", "marketing"])
@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"opted_in_at": None}, "no_consent"),
        ({"consent_categories": ["utility"]}, "no_consent"),
        ({"opt_outs": {"marketing": {"at": "2026-01-01T00:00:00Z", "source": "api"}}}, "opted_out"),
    ],
)
async def test_a_template_that_is_marketing_by_now_needs_consent_in_every_lane(
    storage: Storage, one: Enrolled, lane: str, changed: dict[str, Any], reason: str
) -> None:
    async with storage.tenant(one.tenant):
        await Contact.filter(id=one.contact).update(**changed)
    world = World()
    await offer(storage, one, "utility")
    before = await send_offer(storage, world, one, lane)
    assert before.status == ("suppressed" if lane == "marketing" else "sent")
    await offer(storage, one, "marketing")
    after, test = [await send_offer(storage, world, one, lane, is_test=is_test) for is_test in (False, True)]
    assert (after.status, after.reason) == ("suppressed", reason)
    # A test is for whoever makes the template.
    assert test.status == before.status


@pytest.mark.parametrize(
    ("answer", "becomes"),
    [
        ("marketing", ("suppressed", "opted_out")),
        ("utility", ("sent", None)),
        (None, ("sent", None)),  # who may not list it must know it by the lane
    ],
)
async def test_what_a_new_template_is_has_to_be_known_before_it_leaves_as_no_marketing(
    storage: Storage, one: Enrolled, answer: str | None, becomes: tuple[str, str | None]
) -> None:
    """A webhook tells that it is approved, and not whether it is marketing; the account says that a moment later."""
    async with storage.tenant(one.tenant):
        await Contact.filter(id=one.contact).update(
            opt_outs={"marketing": {"at": "2026-01-01T00:00:00Z", "source": "api"}}
        )
        await models.Sender.filter(id=one.sender).update(waba_id="77")
    async with storage.batch((one.tenant,)) as con:
        await templates.set_status(con, one.tenant, one.sender, "offer", "en", "approved")
    world = World()
    waits = await send_offer(storage, world, one, "utility")
    assert (waits.status, world.taken) == ("queued", 0)
    assert (await send_offer(storage, world, one, "utility", is_test=True)).status == "sent"
    if answer is not None:
        await offer(storage, one, answer)
    async with storage.batch((one.tenant,)) as con:
        assert await templates.unread_of(con, one.tenant, one.sender) == ([] if answer else [("offer", "en")])
        await templates.asked(con, one.tenant, one.sender, datetime.now(UTC))
    row = await send_offer(storage, world, one, "utility")
    assert (row.status, row.reason) == becomes


async def test_of_a_number_whose_account_nobody_can_ask_the_lane_is_all_there_is(
    storage: Storage, one: Enrolled
) -> None:
    async with storage.batch((one.tenant,)) as con:
        await templates.set_status(con, one.tenant, one.sender, "offer", "en", "approved")
    assert (await send_offer(storage, World(), one, "utility")).status == "sent"


async def test_a_template_that_becomes_too_long_for_one_contact_does_not_leave(storage: Storage, one: Enrolled) -> None:
    parts = '[{"type": "BODY", "text": "%s {{1}}"}]' % ("x" * 1000)
    found = Found("offer", "en", "utility", "approved", None, None, parts)
    async with storage.batch((one.tenant,)) as con:
        await templates.replace(con, one.tenant, one.sender, [found], datetime.now(UTC))
    async with storage.tenant(one.tenant):
        said = {"template": {"name": "offer", "parameters": ["{{ attributes.note }}"]}}
        await CampaignStep.filter(id=one.step).update(content=said)
    world = World()
    await send(storage, world, one, variables={"attributes": {"note": "y" * 24}})
    row = await message(storage, one)
    reason = "content: template.parameters: the template's text becomes 1025 characters long: 1024 are possible"
    assert (row.status, row.reason, world.taken) == ("failed", reason, 0)
    assert row.content["template"]["parameters"] == ["y" * 24]


async def test_a_marketing_template_keeps_quiet_hours_and_caps_in_every_lane(storage: Storage, one: Enrolled) -> None:
    await offer(storage, one, "marketing")
    await settings(storage, one, quiet_hours=around_now())
    world = World()
    assert (await send_offer(storage, world, one, "otp")).reason == "quiet_hours"
    await settings(storage, one, quiet_hours=None, frequency_caps=CAPS)
    rows = [await send_offer(storage, world, one, lane) for lane in ("utility", "otp", "utility", "marketing")]
    assert [(row.status, row.reason) for row in rows] == [("sent", None)] * 2 + [("queued", "frequency_cap")] * 2
    # What is no marketing neither keeps a cap nor counts.
    await offer(storage, one, "utility")
    rows = [await send_offer(storage, world, one, lane) for lane in ("utility", "otp", "utility", "marketing")]
    assert [row.status for row in rows] == ["sent"] * 4


async def used(storage: Storage, one: Enrolled) -> int:
    async with storage.tenant(one.tenant):
        row = await MonthlyUsage.get_or_none(tenant_id=one.tenant)
    return row.messages if row else 0


async def test_a_plans_messages_are_counted_and_kept_to(
    storage: Storage, one: Enrolled, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.actors.limits.MESSAGES_A_MONTH", {"trial": 2})
    await admin.execute("update tenants set plan = 'trial' where id = $1", one.tenant)
    world = World()
    many = [one, *[await another(storage, one) for _ in range(4)]]
    await sender(storage, world).handle([delivery(each.work(), each.tenant) for each in many])
    assert world.taken == 2
    assert await used(storage, one) == 2
    async with storage.tenant(one.tenant):
        rows = await Message.filter(contact_id=one.contact)
    assert (
        sorted((row.status, row.reason) for row in rows)
        == [("sent", None)] * 2 + [("suppressed", "plan_exhausted")] * 3
    )
    # A code still leaves, and counts.
    content = Content(body="1234")
    loose = {"enrollment_id": None, "campaign_id": None, "step_id": None, "step": None, "content": content}
    for lane, taken in (("otp", 3), ("utility", 3)):
        await send(storage, world, one, message_id=str(uuid7()), lane=lane, **loose)
        assert world.taken == taken
    assert await used(storage, one) == 3
    # It is told once.
    events = await admin.fetch("select name from outbox where tenant_id = $1", one.tenant)
    assert [row["name"] for row in events] == [f"plan.exhausted.{one.tenant}.{datetime.now(UTC):%Y-%m}"]


async def test_what_whatsapp_refuses_counts_for_nothing_and_what_comes_again_counts_once(
    storage: Storage, one: Enrolled
) -> None:
    assert set(allowance.MESSAGES_A_MONTH) == {"trial"}
    refusing = World(Refused(131026, "no", "not on WhatsApp", rule_for(131026)))
    await send(storage, refusing, one)
    assert await used(storage, one) == 0
    await send(storage, refusing, one)
    assert (await used(storage, one), refusing.taken) == (0, 1)
    other, world = await another(storage, one), World()
    work = [delivery(other.work(), other.tenant) for _ in range(3)]
    await sender(storage, world).handle(work)
    await send(storage, world, other)
    assert (await used(storage, one), world.taken) == (1, 1)


async def test_what_does_not_reach_whatsapp_counts_for_nothing_whatever_becomes_of_it(
    storage: Storage, one: Enrolled, admin: asyncpg.Connection
) -> None:
    for answer in (NotSent("nobody listens"), Refused(131000, "no", "again", rule_for(131000))):
        for _ in range(2):
            assert isinstance(await send(storage, World(answer), one), Retry)
            assert ((await message(storage, one)).status, await used(storage, one)) == ("queued", 0)
    # Tried when the month turned, it was of the month before.
    await admin.execute("update monthly_usage set messages = 7 where tenant_id = $1", one.tenant)

    class AtItsTurn(World):
        async def send(self, *_: Any, **__: Any) -> Answer:
            await admin.execute("update messages set attempted_at = '2026-01-31' where id = $1", one.message)
            return self.answer

    assert isinstance(await send(storage, AtItsTurn(NotSent("nobody listens")), one), Retry)
    assert await used(storage, one) == 8
    assert isinstance(await send(storage, World(), one), Done)
    assert await used(storage, one) == 9


async def test_what_is_settled_is_as_old_as_that_when_its_work_comes_again(storage: Storage, one: Enrolled) -> None:
    async with storage.tenant(one.tenant):
        await Contact.filter(id=one.contact).update(opted_out_at=datetime.now(UTC))
    world = World()
    await send(storage, world, one)
    settled = await message(storage, one)
    await send(storage, world, one)
    again = await message(storage, one)
    assert (again.status, again.reason, again.updated_at) == ("suppressed", "opted_out", settled.updated_at)


async def test_who_has_turned_off_marketing_is_sent_no_more_of_it_under_any_spelling(
    storage: Storage, one: Enrolled
) -> None:
    """WhatsApp tells it by refusing the message at once, or in a status: both mean the same."""
    async with storage.tenant(one.tenant):
        step = await CampaignStep.get(id=one.step)
        await CampaignStep.create(
            campaign_id=one.campaign, version_id=step.version_id, position=1, name="2", delay_hours=24,
            content={"body": "Two"},
        )  # fmt: skip
        await Contact.filter(id=one.contact).update(phone="+5511987654321")
        await Contact.create(name="Ravi", phone="+551187654321")
    outcome = await send(storage, World(Refused(131050, "no", "has stopped marketing", rule_for(131050))), one)
    assert [type(event).__name__ for event in told(outcome)] == ["MessageFailed"]
    async with storage.tenant(one.tenant) as con:
        assert ["marketing" in contact.opt_outs for contact in await Contact.all()] == [True, True]
        rows = await con.fetch("select subject, cause from outbox order by id")
    assert [(row[0].rpartition(".evt.")[2], row[1]) for row in rows] == [
        *[("contact.opted_out", "cause")] * 2,
        ("enrollment.stopped", "cause"),
    ]
    assert (await one.row(storage)).stopped_reason == "opt_out"


async def test_a_contact_of_another_tenant_is_not_counted(
    storage: Storage, one: Enrolled, new_tenant: NewTenant
) -> None:
    other = await enrolled(storage, await new_tenant())
    for each in (one, other):
        await settings(storage, each, frequency_caps=[{"max": 1, "per_hours": 24}])
    async with storage.tenant(one.tenant):
        assert await Contact.get(id=one.contact)
    world = World()
    await sender(storage, world).handle([delivery(each.work(), each.tenant) for each in (one, other)])
    assert world.taken == 2


async def test_what_waited_for_the_same_instant_is_claimed_in_the_order_in_which_it_was_due(
    storage: Storage, new_tenant: NewTenant
) -> None:
    """They are deferred in any order, and come in theirs, at the instant for which they waited."""
    now, until = datetime.now(UTC), datetime.now(UTC) + timedelta(seconds=0.3)
    many = [await enrolled(storage, await new_tenant()) for _ in range(4)]
    dues = {each.id: now - timedelta(seconds=90 * place) for place, each in enumerate(many)}
    for each in many:
        async with storage.tenant(each.tenant):
            await ContactCampaignProgress.filter(id=each.id).update(next_step_scheduled_at=dues[each.id])
        attempt = attempt_of(each.tenant, "", msgspec.structs.replace(each.work(), due_at=dues[each.id]),
                             Content(body="Hello"), None, None, 1.0)  # fmt: skip
        async with storage.batch((each.tenant,)) as con:
            assert await deferring.defer(con, [deferring.Deferral(attempt, until, "quiet_hours")]) == {each.message}
    steps, taken = list[due.DueStep](), 1
    while taken:  # other tests may have left more that is due than one claim takes
        taken, more = await due.claim(storage, 1000, timedelta(seconds=1.25), timedelta(minutes=5))
        steps += more
    ours = [step for step in steps if UUID(step.enrollment_id) in dues]
    assert [UUID(step.enrollment_id) for step in ours] == sorted(dues, key=lambda id_: dues[id_])
    assert {step.leaves_at for step in ours} == {until}
    assert [step.due_at for step in ours] == sorted(dues.values())
