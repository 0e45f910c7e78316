"""Enrolments over versions and runs, moves, launches and goals: on a real database, with everything delivered twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from enrolled import Enrolled, enrolled
from support import NewTenant, until

from harkara.actors import enrollment
from harkara.actors.enrollment import Enrollment
from harkara.actors.numbers import Number
from harkara.actors.sender import Sender
from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Outcome, Retry
from harkara.gateway.protocol import Accepted, Credentials
from harkara.ids import uuid7
from harkara.schemas.base import Message
from harkara.schemas.commands import BulkEnroll, MoveEnrollments, ReachGoal, StartEnrollment, StopEnrollment
from harkara.schemas.events import (
    EnrollmentBulkDone,
    EnrollmentCompleted,
    EnrollmentMoved,
    EnrollmentStopped,
    MessageSuppressed,
)
from harkara.schemas.work import EnrollPage, LaunchAudience, MovePage, StopPage
from harkara.storage import due, pausing
from harkara.storage.models import (
    Campaign,
    CampaignStep,
    CampaignVersion,
    Contact,
    ContactCampaignProgress,
    Invoice,
    Segment,
)
from harkara.storage.models import Message as MessageRow
from harkara.storage.storage import Storage

#: What the actor writes into the outbox, by its subject behind the tenant.
SAID: dict[str, type[Message]] = {
    type_.subject.partition("{tenant}.")[2]: type_
    for type_ in (EnrollPage, MovePage, EnrollmentMoved, EnrollmentCompleted, MessageSuppressed)
}


class Parts:
    """All that the actors work with besides the database: nudges that nobody hears, a gateway that takes everything."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.on_the_way: Callable[[], Any] | None = None

    def wake(self, *_: Any) -> None:
        """Nobody hears it."""

    async def get(self, tenant: str, sender_id: str) -> Number:
        return Number(Credentials(sender_id=sender_id, phone_number_id="1", access_token="t"), 80)

    async def acquire(self, *_: Any) -> None:
        """It is always its turn."""

    async def away(self, *_: Any) -> None:
        pass

    def give_back(self, _: str) -> None:
        pass

    async def send(self, credentials: Credentials, to: str, content: Any, **_: Any) -> Accepted:
        self.sent.append(content.body)
        if self.on_the_way is not None:
            await self.on_the_way()
        return Accepted("wamid.1")


def delivery(message: Message, tenant: str, id_: str | None = None, *, deliveries: int = 1) -> Delivery[Any]:
    return Delivery(message, tenant, id_ or str(uuid7()), "cause", 1, "s", "WORK", 1, datetime.now(UTC), deliveries)


def asked(stop: StopEnrollment) -> dict[str, str]:
    """What a command to stop says, as the event has it."""
    return {"campaign_id": stop.campaign_id, "contact_id": stop.contact_id, "reason": stop.reason}


class Actor:
    """The enrollment actor; what it passes on to itself is worked off to the end, what lies in the outbox too."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._actor = Enrollment(storage, Parts())  # type: ignore[arg-type]

    async def __call__(self, one: Delivery[Any]) -> Outcome:
        """Handle one delivery."""
        (outcome,) = await self._actor.handle([one])
        return outcome

    async def batch(self, some: list[Delivery[Any]]) -> list[Outcome]:
        """Handle several at once."""
        return list(await self._actor.handle(some))

    async def to_the_end(self, one: Delivery[Any]) -> list[str]:
        """Handle one and what comes of it; gives what was told."""
        told, left, self.last = list[str](), [one], Message()
        while left:
            outcome = await self(left.pop())
            assert isinstance(outcome, Done), outcome
            out = [(event.message, event.id) for event in outcome.events]
            for message, id_ in out + await self._from_outbox(one.tenant):
                if type(message) in Enrollment.takes:
                    left.append(delivery(message, one.tenant, id_))
                else:
                    told.append(message.subject.rpartition("evt.")[2])
                    self.last = message
        return told

    async def _from_outbox(self, tenant: str) -> list[tuple[Message, str]]:
        async with self._storage.tenant(tenant) as con:
            rows = await con.fetch("delete from outbox returning id, subject, body, name")
        return [
            (msgspec.json.decode(row["body"], type=SAID[row["subject"].partition(f".{tenant}.")[2]]), row["name"])
            for row in sorted(rows, key=lambda row: row["id"])
        ]


@pytest.fixture
def actor(storage: Storage) -> Actor:
    return Actor(storage)


@pytest.fixture
async def one(storage: Storage, new_tenant: NewTenant) -> Enrolled:
    return await enrolled(storage, await new_tenant())


async def rows(storage: Storage, one: Enrolled) -> list[ContactCampaignProgress]:
    async with storage.tenant(one.tenant):
        return await ContactCampaignProgress.filter(campaign_id=one.campaign).order_by("run", "id")


async def change(storage: Storage, one: Enrolled, **columns: Any) -> None:
    async with storage.tenant(one.tenant):
        await Campaign.filter(id=one.campaign).update(**columns)


async def ended(storage: Storage, one: Enrolled, *, days_ago: float = 0) -> None:
    async with storage.tenant(one.tenant):
        await ContactCampaignProgress.filter(id=one.id).update(
            status="completed", finished_at=datetime.now(UTC) - timedelta(days=days_ago), next_claim_at=None
        )


def start(one: Enrolled, id_: str | None = None) -> Delivery[Any]:
    command = StartEnrollment(campaign_id=str(one.campaign), contact_id=str(one.contact))
    return delivery(command, one.tenant, id_)


async def version(storage: Storage, one: Enrolled, *steps: tuple[str, float, UUID | None]) -> list[UUID]:
    """Put a new version with these (body, delay, origin) in place, as activating does; gives its steps' ids."""
    made, ids = uuid7(), [uuid7() for _ in steps]
    async with storage.tenant(one.tenant):
        count = await CampaignVersion.filter(campaign_id=one.campaign).count()
        await CampaignVersion.create(id=made, campaign_id=one.campaign, number=count + 1, frozen_at=datetime.now(UTC))
        for position, (id_, (body, delay, origin)) in enumerate(zip(ids, steps, strict=True)):
            await CampaignStep.create(
                id=id_, campaign_id=one.campaign, version_id=made, position=position, name=body, delay_hours=delay,
                content={"body": body}, origin=origin,
            )  # fmt: skip
        await Campaign.filter(id=one.campaign).update(version_id=made)
    return ids


async def move(actor: Actor, one: Enrolled) -> list[str]:
    return await actor.to_the_end(delivery(MoveEnrollments(campaign_id=str(one.campaign)), one.tenant))


# Again


@pytest.mark.parametrize(
    ("reentry_days", "days_ago", "event"),
    [
        (None, 100, "EnrollmentRefused already_enrolled"),
        (0, 0, "EnrollmentStarted None"),
        (7, 3, "EnrollmentRefused too_soon"),
        (7, 8, "EnrollmentStarted None"),
    ],
)
async def test_a_contact_comes_again_as_the_campaign_says(
    actor: Actor, storage: Storage, one: Enrolled, reentry_days: float | None, days_ago: float, event: str
) -> None:
    await change(storage, one, reentry_days=reentry_days)
    await ended(storage, one, days_ago=days_ago)
    outcome = await actor(start(one))
    assert isinstance(outcome, Done)
    told: Any = outcome.events[0].message
    assert f"{type(told).__name__} {told.reason}" == event
    assert [row.run for row in await rows(storage, one)] == ([1, 2] if "Started" in event else [1])


async def test_somebody_who_runs_does_not_come_again(actor: Actor, storage: Storage, one: Enrolled) -> None:
    await change(storage, one, reentry_days=0)
    await actor(start(one))
    assert len(await rows(storage, one)) == 1


async def test_a_command_that_comes_again_after_its_enrolment_ended_enrols_nobody(
    actor: Actor, storage: Storage, one: Enrolled
) -> None:
    await change(storage, one, reentry_days=0)
    outcome = await actor(start(one, str(one.id)))
    await ended(storage, one)
    assert await actor(start(one, str(one.id))) == outcome
    assert [row.id for row in await rows(storage, one)] == [one.id]


async def test_of_two_commands_at_once_one_enrols(actor: Actor, storage: Storage, one: Enrolled) -> None:
    await change(storage, one, reentry_days=0)
    await ended(storage, one)
    await asyncio.gather(*(Actor(storage)(start(one)) for _ in range(4)))
    assert [row.run for row in await rows(storage, one)] == [1, 2]


async def test_a_stop_that_dies_before_it_is_told_is_told_when_it_comes_again_and_stops_nobody_who_came_since(
    actor: Actor, storage: Storage, one: Enrolled
) -> None:
    await change(storage, one, reentry_days=0)
    stop = StopEnrollment(campaign_id=str(one.campaign), contact_id=str(one.contact))
    works = [delivery(stop, one.tenant) for _ in range(2)]
    first = await actor.batch(works)
    told = Done((Outgoing(EnrollmentStopped(id=str(one.id), **asked(stop)), one.tenant, f"{one.id}.stopped", "cause"),))
    assert first == [told, Done()]
    await actor(start(one))
    assert await actor.batch(works[:1]) == [told]
    assert [row.status for row in await rows(storage, one)] == ["stopped", "active"]
    async with storage.tenant(one.tenant) as con:
        assert (
            await con.fetchval("select count(*) from audit_log where entity = 'enrollment' and action = 'update'") == 1
        )


async def test_a_goal_that_comes_again_is_told_of_the_run_that_reached_it(
    actor: Actor, storage: Storage, one: Enrolled
) -> None:
    await change(storage, one, reentry_days=0)
    goal = delivery(ReachGoal(campaign_id=str(one.campaign), contact_id=str(one.contact)), one.tenant)
    first = await actor(goal)
    assert isinstance(first, Done)
    assert [out.id for out in first.events] == [f"{one.id}.goal_reached", f"{one.id}.stopped"]
    await actor(start(one))
    assert await actor(goal) == first
    assert [(row.status, row.goal_at is None) for row in await rows(storage, one)] == [
        ("stopped", False),
        ("active", True),
    ]


async def test_stopping_stops_the_run_that_runs(actor: Actor, storage: Storage, one: Enrolled) -> None:
    await change(storage, one, reentry_days=0)
    await ended(storage, one)
    await actor(start(one))
    await actor(delivery(StopEnrollment(campaign_id=str(one.campaign), contact_id=str(one.contact)), one.tenant))
    assert [row.status for row in await rows(storage, one)] == ["completed", "stopped"]


# Many


async def people(storage: Storage, one: Enrolled, count: int) -> list[UUID]:
    now = datetime.now(UTC)
    async with storage.tenant(one.tenant):
        made = [
            Contact(name=str(n), phone=f"+9198{10_000_000 + n}", opted_in_at=now, attributes={"n": n})
            for n in range(count)
        ]
        await Contact.bulk_create(made)
    return [contact.id for contact in made]


async def test_a_segment_is_enrolled_page_by_page_however_rare_its_contacts(
    actor: Actor, storage: Storage, one: Enrolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.actors.enrollment.PAGE", 5)
    await people(storage, one, 60)
    condition = {"type": "attribute", "name": "n", "op": "ge", "value": 50}
    async with storage.tenant(one.tenant):
        segment = await Segment.create(name="S", condition=condition)
    told = await actor.to_the_end(
        delivery(BulkEnroll(campaign_id=str(one.campaign), segment_id=str(segment.id)), one.tenant)
    )
    assert told.count("enrollment.started") == 10
    assert told[-1] == "enrollment.bulk_completed"


async def test_a_page_that_dies_before_it_is_told_is_told_whole_although_enrolling_changed_whom_it_means(
    actor: Actor, storage: Storage, one: Enrolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrollment, "PAGE", 2)
    await people(storage, one, 3)
    others = {"type": "not", "of": {"type": "campaign", "campaign_id": str(one.campaign)}}
    async with storage.tenant(one.tenant):
        segment = await Segment.create(name="The others", condition=others)
    bulk = delivery(BulkEnroll(campaign_id=str(one.campaign), segment_id=str(segment.id)), one.tenant)
    told: list[str] = []
    left = [bulk]
    while left:
        work = left.pop()
        outcome = await actor(work)
        assert await actor(work) == outcome
        assert isinstance(outcome, Done)
        for out in outcome.events:
            if isinstance(out.message, EnrollPage):
                left.append(delivery(out.message, one.tenant, out.id))
            else:
                told.append(type(out.message).__name__)
                actor.last = out.message
    assert told == ["EnrollmentStarted"] * 3 + ["EnrollmentBulkDone"]
    assert isinstance(actor.last, EnrollmentBulkDone)
    assert (actor.last.enrolled, actor.last.refused) == (3, {})


async def test_a_bulk_tells_how_many_it_has_left_out_and_why(
    actor: Actor, storage: Storage, one: Enrolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.actors.enrollment.PAGE", 2)
    ids = await people(storage, one, 7)
    async with storage.tenant(one.tenant):
        await Contact.filter(id__in=ids[1:4]).update(opted_in_at=None)
        await Contact.filter(id__in=ids[5:6]).update(opted_out_at=datetime.now(UTC))
    gone = str(uuid7())
    bulk = BulkEnroll(campaign_id=str(one.campaign), contact_ids=[*map(str, ids), gone])
    await actor.to_the_end(delivery(bulk, one.tenant))
    assert isinstance(actor.last, EnrollmentBulkDone)
    assert actor.last.enrolled == 3
    assert actor.last.refused == {"no_consent": 3, "opted_out": 1, "contact_not_found": 1}


@pytest.mark.parametrize(
    ("meant", "refused"),
    [
        ({"all": True}, {"already_enrolled": 2, "no_consent": 9, "opted_out": 3}),
        ({"tag": "vip"}, {"already_enrolled": 1, "no_consent": 9, "opted_out": 1}),
    ],
)
@pytest.mark.parametrize("page", [2, 3, 1000])
async def test_a_bulk_counts_those_that_its_pages_pass_over(
    actor: Actor,
    storage: Storage,
    one: Enrolled,
    monkeypatch: pytest.MonkeyPatch,
    meant: dict[str, Any],
    refused: dict[str, int],
    page: int,
) -> None:
    monkeypatch.setattr("harkara.actors.enrollment.PAGE", page)
    ids = await people(storage, one, 20)
    named = BulkEnroll(campaign_id=str(one.campaign), contact_ids=[str(ids[1])])
    await actor.to_the_end(delivery(named, one.tenant))  # so that two are enrolled already
    async with storage.tenant(one.tenant):
        await Contact.filter(id__in=ids[1:18]).update(tags=["vip"])
        await Contact.filter(id__in=[ids[1], *ids[4:13]]).update(opted_in_at=None)
        await Contact.filter(id__in=[ids[0], ids[15], ids[19]]).update(opted_out_at=datetime.now(UTC))
    told = await actor.to_the_end(delivery(BulkEnroll(campaign_id=str(one.campaign), **meant), one.tenant))
    assert isinstance(actor.last, EnrollmentBulkDone)
    assert actor.last.refused == refused
    assert actor.last.enrolled == told.count("enrollment.started") == (7 if "all" in meant else 6)


async def test_a_page_that_comes_again_after_a_switch_of_versions_changes_nobodys_version(
    actor: Actor, storage: Storage, one: Enrolled
) -> None:
    ids = await people(storage, one, 3)
    bulk = delivery(BulkEnroll(campaign_id=str(one.campaign), contact_ids=[str(id_) for id_ in ids[:2]]), one.tenant)
    begun = await actor(bulk)
    assert isinstance(begun, Done)
    page = delivery(begun.events[0].message, one.tenant)
    first = await actor(page)
    before = {row.id: row.version_id for row in await rows(storage, one)}
    await version(storage, one, ("new", 0, None))
    assert await actor(page) == first
    assert {row.id: row.version_id for row in await rows(storage, one)} == before


# Moves


async def sent_by(storage: Storage, parts: Parts, one: Enrolled, step: UUID, message: UUID) -> Outcome:
    """What becomes of a piece of send work."""
    parts_: Any = parts
    work = msgspec.structs.replace(one.work(), step_id=str(step), message_id=str(message))
    (outcome,) = await Sender(storage, parts_, parts_, parts_, lambda: None).handle([delivery(work, one.tenant)])
    return outcome


async def test_work_of_an_earlier_version_is_brought_again_as_the_new_ones(
    actor: Actor, storage: Storage, one: Enrolled
) -> None:
    parts = Parts()
    hello, after = await version(storage, one, ("Hello again", 0, one.step), ("after", 24, None))
    assert await move(actor, one) == ["enrollment.moved"]
    row = await one.row(storage)
    assert (row.next_step_id, row.next_message_id) == (hello, one.message)
    assert await sent_by(storage, parts, one, one.step, one.message) == Done()
    assert parts.sent == []
    await sent_by(storage, parts, one, hello, one.message)
    await sent_by(storage, parts, one, one.step, one.message)
    assert parts.sent == ["Hello again"]
    assert (await one.row(storage)).next_step_id == after


async def test_an_enrolment_that_is_moved_while_its_step_is_on_its_way_is_not_sent_it_twice(
    actor: Actor, storage: Storage, one: Enrolled
) -> None:
    parts, ids = Parts(), list[UUID]()

    async def meanwhile() -> None:
        ids.extend(await version(storage, one, ("Hello again", 0, one.step), ("after", 24, None)))
        await move(actor, one)

    parts.on_the_way = meanwhile
    await sent_by(storage, parts, one, one.step, one.message)
    row = await one.row(storage)
    assert parts.sent == ["Hello"]
    assert (row.status, row.next_step_id, row.current_step, row.messages_sent) == ("active", ids[1], 1, 1)


async def test_a_step_that_is_gone_is_not_waited_for(actor: Actor, storage: Storage, one: Enrolled) -> None:
    parts = Parts()
    (later,) = await version(storage, one, ("later", 24, None))
    await move(actor, one)
    row = await one.row(storage)
    assert row.next_step_id == later
    assert row.next_message_id != one.message
    assert await sent_by(storage, parts, one, one.step, one.message) == Done()
    assert parts.sent == []


@pytest.mark.parametrize("kind", ["gone", "gone and nothing comes", "kept"])
@pytest.mark.parametrize("deferred", [True, False])
async def test_what_waits_of_a_step_that_is_gone_does_not_wait_for_ever(
    actor: Actor, storage: Storage, one: Enrolled, kind: str, *, deferred: bool
) -> None:
    until = datetime.now(UTC) + timedelta(hours=1) if deferred else None
    async with storage.tenant(one.tenant):
        await MessageRow.create(
            id=one.message, contact_id=one.contact, sender_id=one.sender, lane="marketing", to="+919876543210",
            content={}, status="queued", reason="quiet_hours", due_at=datetime.now(UTC), deferred_until=until,
            enrollment_id=one.id, campaign_id=one.campaign, step=0,
        )  # fmt: skip
        await ContactCampaignProgress.filter(id=one.id).update(deferred_until=until)
        if kind == "gone and nothing comes":
            await ContactCampaignProgress.filter(id=one.id).update(started_at=datetime.now(UTC) - timedelta(hours=25))
    await version(storage, one, ("later", 24, one.step if kind == "kept" else None))
    told = await move(actor, one)
    async with storage.tenant(one.tenant):
        row = await MessageRow.get(id=one.message)
    if kind == "kept":
        assert (row.status, told) == ("queued", ["enrollment.moved"])
        return
    assert (row.status, row.reason, row.deferred_until) == ("suppressed", "step_removed", None)
    ends = ["enrollment.completed"] if kind == "gone and nothing comes" else []
    assert sorted(told) == sorted(["message.suppressed", *ends, "enrollment.moved"])


async def test_moving_twice_and_moving_nobody_is_harmless(actor: Actor, storage: Storage, one: Enrolled) -> None:
    await version(storage, one, ("Hello", 0, one.step))
    await move(actor, one)
    before = await one.row(storage)
    assert await move(actor, one) == ["enrollment.moved"]
    after = await one.row(storage)
    assert (after.next_message_id, after.next_step_id) == (before.next_message_id, before.next_step_id)


async def test_with_nothing_left_to_send_it_is_completed(actor: Actor, storage: Storage, one: Enrolled) -> None:
    parts = Parts()
    await version(storage, one, ("Hello", 0, one.step), ("more", 24, None))
    await move(actor, one)
    step = (await one.row(storage)).next_step_id
    assert step is not None
    await sent_by(storage, parts, one, step, one.message)
    await version(storage, one, ("Hello", 0, one.step))
    assert await move(actor, one) == ["enrollment.completed", "enrollment.moved"]
    assert (await one.row(storage)).status == "completed"


async def test_a_page_of_a_move_that_dies_before_it_is_told_is_told_once(
    actor: Actor, storage: Storage, one: Enrolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrollment, "PAGE", 2)
    contacts = await people(storage, one, 3)
    named = BulkEnroll(campaign_id=str(one.campaign), contact_ids=[str(id_) for id_ in contacts])
    await actor.to_the_end(delivery(named, one.tenant))
    async with storage.tenant(one.tenant):
        await ContactCampaignProgress.filter(campaign_id=one.campaign).update(current_step=1)
    await version(storage, one, ("Hello", 0, one.step))  # of which nothing is left for them
    first = await actor(delivery(MoveEnrollments(campaign_id=str(one.campaign)), one.tenant))
    assert isinstance(first, Done)
    page = delivery(first.events[0].message, one.tenant)
    assert await actor(page) == Done()
    told = await actor.to_the_end(page)
    assert told == ["enrollment.completed"] * 4 + ["enrollment.moved"]
    assert isinstance(actor.last, EnrollmentMoved)
    assert actor.last.moved == 4


# Goals


async def test_a_goal_counts_while_it_runs_and_after(actor: Actor, storage: Storage, one: Enrolled) -> None:
    goal = delivery(ReachGoal(campaign_id=str(one.campaign), contact_id=str(one.contact)), one.tenant)
    assert await actor.to_the_end(goal) == ["enrollment.goal_reached", "enrollment.stopped"]
    row = await one.row(storage)
    assert (row.status, row.stopped_reason, row.next_claim_at) == ("stopped", "goal_reached", None)
    assert row.goal_at is not None
    assert await actor.to_the_end(goal) == ["enrollment.goal_reached", "enrollment.stopped"]
    assert (await one.row(storage)).goal_at == row.goal_at


@pytest.mark.parametrize(
    ("columns", "tags", "reason"),
    [
        ({"goal": {"type": "tag", "tag": "bought"}}, ["bought"], "goal_reached"),
        ({"exit": {"type": "tag", "tag": "angry"}}, ["angry"], "exit"),
        ({"goal": {"type": "tag", "tag": "bought"}, "exit": {"type": "tag", "tag": "angry"}}, [], None),
        ({"goal": {"type": "replied"}}, [], None),
    ],
)
async def test_goal_and_exit_are_judged_when_a_step_is_about_to_leave(
    storage: Storage, one: Enrolled, columns: dict[str, Any], tags: list[str], reason: str | None
) -> None:
    parts = Parts()
    await change(storage, one, **columns)
    async with storage.tenant(one.tenant):
        await Contact.filter(id=one.contact).update(tags=tags)
    outcome = await sent_by(storage, parts, one, one.step, one.message)
    assert isinstance(outcome, Done)
    row = await one.row(storage)
    assert (row.stopped_reason, bool(parts.sent), row.goal_at is not None) == (
        reason, reason is None, reason == "goal_reached"
    )  # fmt: skip
    async with storage.tenant(one.tenant):
        kept = await MessageRow.get(id=one.message)
    assert kept.status == ("sent" if reason is None else "suppressed")
    assert kept.step_id == one.step


# Launches


async def test_a_broadcast_is_launched_at_its_time_once(actor: Actor, storage: Storage, one: Enrolled) -> None:
    await people(storage, one, 3)
    soon = datetime.now(UTC) + timedelta(hours=1)
    await change(storage, one, type="broadcast", audience={"all": True}, scheduled_at=soon)
    work = LaunchAudience(campaign_id=str(one.campaign))
    early = await actor(delivery(work, one.tenant))
    assert isinstance(early, Retry)
    assert not early.counts
    assert len(await rows(storage, one)) == 1
    await change(storage, one, scheduled_at=datetime.now(UTC))
    # It died before the first page was stored, and comes again.
    assert [await actor(delivery(work, one.tenant)) for _ in range(2)] == [Done(), Done()]
    told = await actor.to_the_end(delivery(work, one.tenant))
    assert told.count("enrollment.started") == 3  # one was enrolled before
    assert len(await rows(storage, one)) == 4


@pytest.mark.parametrize("status", ["draft", "paused", "archived"])
async def test_a_broadcast_that_is_not_active_at_its_time_enrols_nobody(
    actor: Actor, storage: Storage, one: Enrolled, status: str
) -> None:
    await people(storage, one, 3)
    await change(storage, one, type="broadcast", status=status, audience={"all": True})
    assert await actor.to_the_end(delivery(LaunchAudience(campaign_id=str(one.campaign)), one.tenant)) == []
    assert len(await rows(storage, one)) == 1


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_broadcast_that_was_paused_goes_at_its_time_or_if_that_has_passed_once_it_is_resumed(
    actor: Actor, storage: Storage, one: Enrolled, hours: int
) -> None:
    await people(storage, one, 3)
    at = datetime.now(UTC) + timedelta(hours=hours)
    await change(storage, one, type="broadcast", status="paused", audience={"all": True}, scheduled_at=at)
    asked_before = delivery(LaunchAudience(campaign_id=str(one.campaign)), one.tenant)
    assert await actor.to_the_end(asked_before) == []
    async with storage.tenant(one.tenant) as con:
        assert await pausing.resume_campaign(con, one.tenant, one.campaign)
        body = await con.fetchval("delete from outbox where subject like '%.launch' returning body")
    outcome = await actor(delivery(msgspec.json.decode(body, type=LaunchAudience), one.tenant))
    if hours > 0:
        assert isinstance(outcome, Retry)
        assert outcome.after is not None
        assert timedelta(minutes=59) < outcome.after <= timedelta(hours=1)
    told = await actor.to_the_end(asked_before) if hours < 0 else []
    assert told.count("enrollment.started") == (3 if hours < 0 else 0)


# Campaigns that end


async def test_an_archived_campaign_stops_its_enrolments_page_by_page_and_tells_each_whatever_dies(
    actor: Actor, storage: Storage, one: Enrolled, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enrollment, "PAGE", 2)
    contacts = await people(storage, one, 6)
    await actor.to_the_end(delivery(BulkEnroll(campaign_id=str(one.campaign), all=True), one.tenant))
    ids = [row.id for row in sorted(await rows(storage, one), key=lambda row: row.id)]
    async with storage.tenant(one.tenant):
        runs = ContactCampaignProgress.filter(campaign_id=one.campaign)
        await runs.filter(id=ids[1]).update(status="completed")
        await runs.filter(id=ids[2]).update(status="paused")
    await change(storage, one, status="archived")
    work = delivery(StopPage(campaign_id=str(one.campaign)), one.tenant)
    first = await actor(work)
    again = await actor(work)  # the first was committed, and died before it was told
    assert isinstance(first, Done)
    assert [out.id for out in first.events] == [
        f"{ids[0]}.stopped",
        f"{ids[2]}.stopped",
        f"{one.campaign}.stop.{ids[2]}",
    ]
    assert again == first
    told = await actor.to_the_end(work)
    assert told == ["enrollment.stopped"] * len(contacts)  # and one more was enrolled before, and one completed
    assert isinstance(actor.last, EnrollmentStopped)
    assert actor.last.reason == "campaign_archived"
    now = {row.id: row for row in await rows(storage, one)}
    assert now.pop(ids[1]).status == "completed"
    assert {(row.status, row.stopped_reason, row.next_claim_at) for row in now.values()} == {
        ("stopped", "campaign_archived", None)
    }
    assert all(row.finished_at is not None for row in now.values())
    async with storage.tenant(one.tenant) as con:
        noted = await con.fetch("select after from audit_log where action = 'stop' order by id")
    assert [msgspec.json.decode(row["after"])["stopped"] for row in noted] == [2, 2, 2]


async def test_nobody_is_enrolled_beside_the_end_of_a_campaign(
    actor: Actor, storage: Storage, one: Enrolled, admin: asyncpg.Connection
) -> None:
    (contact,) = await people(storage, one, 1)
    command = StartEnrollment(campaign_id=str(one.campaign), contact_id=str(contact))
    async with storage.tenant(one.tenant) as con:
        await con.execute("update campaigns set status = 'archived' where id = $1", one.campaign)
        pid = await con.fetchval("select pg_backend_pid()")
        enrolling = asyncio.create_task(actor.to_the_end(delivery(command, one.tenant)))

        async def waits() -> bool:
            return bool(
                enrolling.done()
                or await admin.fetchval(
                    "select exists (select from pg_locks where not granted and $1 = any (pg_blocking_pids(pid)))", pid
                )
            )

        await until(waits, "the enrolment waits for the end")
    assert await enrolling == ["enrollment.refused"]


# Held


async def test_one_that_is_paused_waits_and_goes_on_where_it_stopped(storage: Storage, one: Enrolled) -> None:
    parts = Parts()
    async with storage.tenant(one.tenant):
        await ContactCampaignProgress.filter(id=one.id).update(status="paused")
    assert await sent_by(storage, parts, one, one.step, one.message) == Done()
    assert parts.sent == []
    _, claimed = await due.claim(storage, 1000, timedelta(), timedelta(seconds=20))
    assert str(one.id) not in {step.enrollment_id for step in claimed}


@pytest.mark.parametrize("status", ["paid", "void"])
async def test_nobody_is_enrolled_to_be_reminded_of_what_is_owed_no_more(
    storage: Storage, one: Enrolled, actor: Actor, status: str
) -> None:
    async with storage.tenant(one.tenant):
        await ContactCampaignProgress.filter(id=one.id).delete()
        ended, owed = [
            await Invoice.create(
                contact_id=one.contact, number=name, amount=1, currency="INR", due_at=datetime.now(UTC), status=name
            )
            for name in (status, "open")
        ]
    campaign, contact = str(one.campaign), str(one.contact)
    for invoice, told in ((ended, "enrollment.refused"), (owed, "enrollment.started")):
        command = StartEnrollment(campaign_id=campaign, contact_id=contact, invoice_id=str(invoice.id))
        start = delivery(command, one.tenant)
        for _ in range(2):
            outcome = await actor(start)
            assert isinstance(outcome, Done)
            [event] = outcome.events
            assert event.message.subject.endswith(told)
            assert getattr(event.message, "reason", None) == (f"invoice_{status}" if invoice is ended else None)
    [row] = await rows(storage, one)
    assert (row.invoice_id, row.status) == (owed.id, "active")
