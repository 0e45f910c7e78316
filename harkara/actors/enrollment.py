"""Enrols contacts in campaigns and stops enrolments.

takes: `cmd.enrollment.start`, `.stop`, `.goal`, `.bulk`, `.move`;
       `work.enrollment.page`, `.launch`, `.move`, `.stop`
says: enrollment.started, .refused, .stopped, .goal_reached, .bulk_completed, .moved, .completed
retries: while the database is away
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from uuid import UUID

import msgspec
from msgspec import structs

from harkara.actors.moving import moved
from harkara.actors.noting import Noting
from harkara.actors.steps import delay, message_id
from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Drop, Outcome, Retry
from harkara.bus.publisher import Publisher
from harkara.bus.schedule import PATIENT, Schedule
from harkara.callers import Callers
from harkara.ids import uuid7_beside, uuid7_for
from harkara.schemas.audience import Audience
from harkara.schemas.base import Message
from harkara.schemas.commands import (
    BulkEnroll,
    MoveEnrollments,
    ReachGoal,
    StartEnrollment,
    StopEnrollment,
)
from harkara.schemas.conditions import Condition, Tagged
from harkara.schemas.events import (
    EnrollmentBulkDone,
    EnrollmentCompleted,
    EnrollmentGoalReached,
    EnrollmentMoved,
    EnrollmentRefused,
    EnrollmentStarted,
    EnrollmentStopped,
)
from harkara.schemas.work import EnrollPage, LaunchAudience, MovePage, StopPage
from harkara.storage import enrolling, goals, holding, merging, moving, outbox, segments
from harkara.storage.auditing import Note, note, noted
from harkara.storage.enrolling import CampaignStart, NewEnrollment
from harkara.storage.goals import Reached
from harkara.storage.moving import Moved
from harkara.storage.storage import Storage

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: What is asked of one contact.
OfContact = TypeVar("OfContact", StartEnrollment, StopEnrollment, ReachGoal)

#: Contacts a page of a bulk enrolment: one transaction, then the next page is a message of its own.
PAGE = 1000

#: What a campaign may be when an enrolment that was accepted while it was active is carried out: paused meanwhile, it
#: keeps those who come too, and they wait with the others.
OPEN = ("active", "paused")

WAKE_DUE = "sys.wake.due"

#: A first step due within the ticker's horizon should not wait for its next tick.
WAKE_WITHIN_S = 2.0


class Enrollment:
    """Turns commands into rows of contact_campaign_progress, in the order in which they came."""

    name: ClassVar[str] = "enrollment"
    takes: ClassVar[tuple[type[Message], ...]] = (
        StartEnrollment,
        StopEnrollment,
        ReachGoal,
        BulkEnroll,
        EnrollPage,
        LaunchAudience,
        MoveEnrollments,
        MovePage,
        StopPage,
    )
    retries: ClassVar[Schedule] = PATIENT
    batch: ClassVar[int] = 200
    in_flight: ClassVar[int] = 1

    def __init__(
        self, storage: Storage, publisher: Publisher, *, speed: float = 1.0, callers: Callers | None = None
    ) -> None:
        self._noting = Noting(callers)
        self._storage, self._publisher, self._speed = storage, publisher, speed
        self._handlers: dict[type[Message], Callable[[Any], Awaitable[list[Outcome]]]] = {
            StartEnrollment: self._start,
            StopEnrollment: self._stop,
            ReachGoal: self._goal,
            BulkEnroll: _each(self._bulk),
            EnrollPage: _each(self._page),
            LaunchAudience: _each(self._audience),
            MoveEnrollments: _each(self._move),
            MovePage: _each(self._move_page),
            StopPage: _each(self._stop_page),
        }

    async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
        """Handle runs of the same command together; their order stays."""
        outcomes: list[Outcome] = []
        for kind, run in groupby(batch, key=_kind):
            outcomes += await self._handlers[kind](list(run))
        return outcomes

    async def _start(self, batch: list[Delivery[StartEnrollment]]) -> list[Outcome]:
        async with self._storage.batch({d.tenant for d in batch}) as con:
            batch = await _of_kept(con, batch)
            wanted = [(d.tenant, UUID(d.message.campaign_id)) for d in batch]
            starts = await enrolling.campaigns(con, wanted)
            new: list[NewEnrollment] = []
            refused: dict[UUID, str | None] = {}
            for d in batch:
                campaign_id = UUID(d.message.campaign_id)
                start = starts.get((d.tenant, campaign_id))
                id_ = entity_id(d)
                if start is None or start.status not in OPEN:
                    refused[id_] = "campaign_not_active" if start else "campaign_not_found"
                else:
                    one = self._new(d, id_, campaign_id, UUID(d.message.contact_id), d.at, start)
                    new.append(replace(one, invoice_id=UUID(d.message.invoice_id)) if d.message.invoice_id else one)
            refused |= await enrolling.enroll(con, new)
            await note(con, [self._started(d) for d in batch if refused[entity_id(d)] is None])
        self._wake(new)
        return [Done((_told(d, entity_id(d), d.message, refused[entity_id(d)]),)) for d in batch]

    def _new(
        self,
        d: Delivery[Any],
        id_: UUID,
        campaign_id: UUID,
        contact_id: UUID,
        started_at: datetime,
        start: CampaignStart,
    ) -> NewEnrollment:
        due_at = started_at + delay(start.delay_hours, self._speed)
        return NewEnrollment(
            id_,
            d.tenant,
            campaign_id,
            contact_id,
            d.cause or d.id,
            start.version_id,
            started_at,
            start.step_id,
            message_id(id_, due_at),
            due_at,
        )

    def _wake(self, new: Sequence[NewEnrollment]) -> None:
        """Steps that are due now should not wait for the next tick."""
        now = datetime.now(UTC)
        if any((n.due_at - now).total_seconds() < WAKE_WITHIN_S for n in new):
            self._publisher.wake(WAKE_DUE)

    async def _stop(self, batch: list[Delivery[StopEnrollment]]) -> list[Outcome]:
        """Stop what runs. A command that was carried out before is told again, and stops nobody who came since."""
        ids = [self._noting.id_of(d) for d in batch]
        async with self._storage.batch({d.tenant for d in batch}) as con:
            await holding.exclude(con, {UUID(d.message.contact_id) for d in batch})  # until the holds are committed
            batch = await _of_kept(con, batch)
            stops = [
                (d.tenant, UUID(d.message.campaign_id), UUID(d.message.contact_id), d.message.reason) for d in batch
            ]
            done = await noted(con, ids)
            new = [stop for stop, id_ in zip(stops, ids, strict=True) if id_ not in done]
            stopped = {(row[1], row[2], row[3]): row[0] for row in await enrolling.stop(con, new)}
            await holding.release(con, [(d.tenant, entity_id(d)) for d in batch])
            notes: list[Note] = []
            for d, id_, stop in zip(batch, ids, stops, strict=True):
                # Who asks for it twice has stopped it once.
                if id_ not in done and (enrollment_id := stopped.pop(stop[:3], None)) is not None:
                    after = {"status": "stopped", "stopped_reason": d.message.reason}
                    notes.append(self._noting.note(d, "update", "enrollment", enrollment_id, after=after))
            await note(con, notes)
        done |= {one.id: one.entity_id for one in notes}
        return [Done((_stopped(d, done[id_]),) if id_ in done else ()) for d, id_ in zip(batch, ids, strict=True)]

    async def _goal(self, batch: list[Delivery[ReachGoal]]) -> list[Outcome]:
        """Note who has reached it. A command that was carried out before is told again, of nobody who came since."""
        ids = [self._noting.id_of(d) for d in batch]
        async with self._storage.batch({d.tenant for d in batch}) as con:
            await holding.exclude(con, {UUID(d.message.contact_id) for d in batch})
            batch = await _of_kept(con, batch)
            wanted = [(d.tenant, UUID(d.message.campaign_id), UUID(d.message.contact_id)) for d in batch]
            done = await noted(con, ids)
            new = [key for key, id_ in zip(wanted, ids, strict=True) if id_ not in done]
            found = {(r.tenant, r.campaign_id, r.contact_id): r for r in await goals.reach(con, new)}
            again = {str(r.id): r for r in await goals.reach_of(con, [UUID(id_) for id_ in done.values()])}
            reached = [
                again.get(done[id_]) if id_ in done else found.get(key) for id_, key in zip(ids, wanted, strict=True)
            ]
            await holding.release(con, [(d.tenant, entity_id(d)) for d in batch])
            both = zip(batch, reached, strict=True)
            await note(con, [self._reached(d, one) for d, one in both if one is not None])
        return [
            Done(goal_events(one, d.cause) if one is not None else ()) for d, one in zip(batch, reached, strict=True)
        ]

    async def _bulk(self, d: Delivery[BulkEnroll]) -> Outcome:
        """A bulk enrolment is a chain of pages: each is a message, so a crash repeats one page at most."""
        bulk, condition = d.message, None
        if [bool(bulk.contact_ids), bulk.tag is not None, bulk.segment_id is not None, bulk.all].count(True) != 1:
            return Drop("give exactly one of contact_ids, tag, segment_id and all")
        if bulk.tag is not None or bulk.segment_id is not None:
            segment_id = UUID(bulk.segment_id) if bulk.segment_id is not None else None
            async with self._storage.batch((d.tenant,)) as con:
                condition = await self._condition(con, d.tenant, bulk.tag, segment_id)
            if condition is None:
                return Drop(f"there is no segment {bulk.segment_id}")
        first = EnrollPage(
            bulk_id=str(entity_id(d)),
            campaign_id=bulk.campaign_id,
            started_at=d.at,
            contact_ids=bulk.contact_ids,
            condition=condition,
            said=self._noting.said(d),
        )
        return Done((Outgoing(first, d.tenant, f"{d.id}.0", d.cause or d.id),))

    @staticmethod
    async def _condition(con: Connection, tenant: str, tag: str | None, segment_id: UUID | None) -> Condition | None:
        """What a tag or a segment means now: what changes it later changes no bulk that has begun."""
        if segment_id is None:
            return Tagged(tag=tag) if tag is not None else None
        return await segments.condition_of(con, tenant, segment_id)

    async def _page(self, d: Delivery[EnrollPage]) -> Outcome:
        """Find the contacts of a page, which then comes again with them; or enrol those who were found.

        Apart, because enrolling somebody may change whom the page means.
        """
        page, campaign_id = d.message, UUID(d.message.campaign_id)
        async with self._storage.batch((d.tenant,)) as con:
            start = (await enrolling.campaigns(con, [(d.tenant, campaign_id)])).get((d.tenant, campaign_id))
            if start is None or start.status not in OPEN:
                return Drop(
                    f"campaign {campaign_id} can't be enrolled in: it is {start.status if start else 'not there'}"
                )
            if page.contact_ids is None and page.found is None:
                return Done((await _find(con, d),))
            ids, following = _ids_of(page)
            merged = await merging.kept(con, [(d.tenant, id_) for id_ in ids]) if page.contact_ids else {}
            ids = list(dict.fromkeys(merged.get(id_, id_) for id_ in ids))
            # The same page enrols the same ids again: a redelivery finds its own rows.
            new = [
                self._new(
                    d,
                    uuid7_beside(id_, page.started_at, page.bulk_id, str(id_)),
                    campaign_id,
                    id_,
                    page.started_at,
                    start,
                )
                for id_ in ids
            ]
            refused = await enrolling.enroll(con, new)
            count = list(refused.values()).count(None)
            left_out = Counter(reason for reason in refused.values() if reason is not None)
            await note(con, self._many_started(d, count))
        self._wake(new)
        told = [
            _told(d, n.id, StartEnrollment(campaign_id=page.campaign_id, contact_id=str(n.contact_id)), refused[n.id])
            for n in new
        ]
        return Done((*told, _after(d, following, count, left_out)))

    async def _audience(self, d: Delivery[LaunchAudience]) -> Outcome:
        """Launch a broadcast: its time is what the campaign says when it has come, not what it said when activated.

        One that is paused is not: whoever resumes it asks for it again.
        """
        campaign_id = UUID(d.message.campaign_id)
        async with self._storage.batch((d.tenant,)) as con:
            found = await enrolling.launch(con, d.tenant, campaign_id)
            if found is None or found.status != "active" or found.audience is None or found.launched_at is not None:
                return Done()
            early = found.scheduled_at - found.now if found.scheduled_at else timedelta()
            if early > timedelta():
                return Retry("its time has not come", early, counts=False)
            audience = msgspec.json.decode(found.audience, type=Audience)
            condition = await self._condition(con, d.tenant, audience.tag, audience.segment_id)
            if condition is None and not audience.all:
                return Drop(f"there is no segment {audience.segment_id}")
            await enrolling.launched(con, d.tenant, campaign_id)
            first = EnrollPage(
                bulk_id=d.message.campaign_id,
                campaign_id=d.message.campaign_id,
                started_at=found.now,
                condition=condition,
                said=d.message.said,
            )
            await outbox.put(con, d.tenant, first, f"{campaign_id}.launch.0", d.cause or d.id)
        self._publisher.wake(outbox.WAKE)
        return Done()

    async def _move_page(self, d: Delivery[MovePage]) -> Outcome:
        """Move a page. What is told of it is committed with it: once moved, they are not found again."""
        page, campaign_id = d.message, UUID(d.message.campaign_id)
        after = UUID(page.after) if page.after else UUID(int=0)
        async with self._storage.batch((d.tenant,)) as con:
            version = await moving.current(con, d.tenant, campaign_id)
            if await noted(con, [self._noting.id_of(d)]):
                return Done()
            rows = [] if version is None else await moving.page(con, d.tenant, campaign_id, version, after, PAGE)
            done, gone = list[Moved](), list[tuple[Message, str]]()
            if version is not None and rows:
                places = await moving.places(con, d.tenant, list({version, *(row.version_id for row in rows)}))
                now = datetime.now(UTC)
                done = [moved(row, places[row.version_id], places[version], now, self._speed) for row in rows]
                left = [row.message_id for row, m in zip(rows, done, strict=True) if row.message_id != m.message_id]
                gone += await enrolling.end_messages(con, d.tenant, left, "step_removed")
                await moving.move(con, d.tenant, version, done)
                after_ = {"version_id": str(version), "moved": len(done)}
                moved_ = self._noting.note(d, "move", "campaign", page.campaign_id, after=after_, said=page.said)
                await note(con, [moved_])
            contacts = {row.id: row.contact_id for row in rows}
            told = [*gone, *(_completed(d, m.id, contacts[m.id]) for m in done if m.step_id is None)]
            told.append(_after_move(d, rows[-1].id if len(rows) == PAGE else None, page.moved + len(done)))
            await outbox.put_all(con, d.tenant, told, d.cause)
        self._publisher.wake(WAKE_DUE)
        self._publisher.wake(outbox.WAKE)
        return Done()

    async def _stop_page(self, d: Delivery[StopPage]) -> Outcome:
        """An archived campaign sends nothing any more; here its enrolments end, and each is told."""
        page, reason = d.message, "campaign_archived"
        after = UUID(page.after) if page.after else UUID(int=0)
        async with self._storage.batch((d.tenant,)) as con:
            found = await enrolling.stop_page(con, d.tenant, UUID(page.campaign_id), after, reason, PAGE)
            if count := sum(ran for _, _, ran in found):
                what = {"campaign_id": page.campaign_id, "stopped": count}
                await note(
                    con, [self._noting.note(d, "stop", "enrollment", page.campaign_id, after=what, said=page.said)]
                )
        told = [
            Outgoing(
                EnrollmentStopped(id=str(id_), campaign_id=page.campaign_id, contact_id=str(contact_id), reason=reason),
                d.tenant,
                f"{id_}.stopped",
                d.cause,
            )
            for id_, contact_id, _ in found
        ]
        if len(found) == PAGE:
            last = str(found[-1][0])
            more = msgspec.structs.replace(page, after=last)
            told.append(Outgoing(more, d.tenant, f"{page.campaign_id}.stop.{last}", d.cause))
        return Done(tuple(told))

    async def _move(self, d: Delivery[MoveEnrollments]) -> Outcome:
        first = MovePage(move_id=str(entity_id(d)), campaign_id=d.message.campaign_id, said=self._noting.said(d))
        return Done((Outgoing(first, d.tenant, f"{d.id}.0", d.cause or d.id),))

    def _started(self, d: Delivery[StartEnrollment]) -> Note:
        after = {"campaign_id": d.message.campaign_id, "contact_id": d.message.contact_id, "status": "active"}
        if d.message.invoice_id is not None:
            after["invoice_id"] = d.message.invoice_id
        return self._noting.note(d, "create", "enrollment", entity_id(d), after=after)

    def _reached(self, d: Delivery[ReachGoal], reached: Reached) -> Note:
        after = {"goal": "reached", "stopped": reached.stopped}
        return self._noting.note(d, "update", "enrollment", reached.id, after=after)

    def _many_started(self, d: Delivery[EnrollPage], count: int) -> list[Note]:
        """A page of a bulk enrolment is one note: its rows carry the request's id as their cause."""
        page = d.message
        if not count:
            return []
        after = {"campaign_id": page.campaign_id, "enrolled": count}
        return [self._noting.note(d, "enroll", "enrollment", page.bulk_id, after=after, said=page.said)]


def _each(handle: Callable[[Delivery[Any]], Awaitable[Outcome]]) -> Callable[[Any], Awaitable[list[Outcome]]]:
    """Handles a batch one by one."""

    async def run(batch: list[Delivery[Any]]) -> list[Outcome]:
        return [await handle(d) for d in batch]

    return run


#: What a page leaves to the next: the contacts that are named, or the contact after which it begins.
Following = list[str] | UUID | None


async def _find(con: Connection, d: Delivery[EnrollPage]) -> Outgoing:
    """A page with its contacts; or what comes after it, if it has none."""
    page = d.message
    condition = Tagged(tag=page.tag) if page.tag is not None else page.condition
    after = UUID(page.after) if page.after else None
    found = await enrolling.page(con, d.tenant, UUID(page.campaign_id), after, condition, PAGE)
    left_out = Counter(found.refused)
    if not found.ids:
        return _after(d, found.next, 0, left_out)
    more = msgspec.structs.replace(
        page,
        found=[str(id_) for id_ in found.ids],
        after=None if found.next is None else str(found.next),
        refused=dict(Counter(page.refused) + left_out),
    )
    return Outgoing(more, d.tenant, f"{page.bulk_id}.{page.after or 'first'}.found", d.cause)


async def _of_kept(con: Connection, batch: list[Delivery[OfContact]]) -> list[Delivery[OfContact]]:
    """The same commands, about the one whom a contact was merged into since they were given."""
    merged = await merging.kept(con, [(d.tenant, UUID(d.message.contact_id)) for d in batch])
    if not merged:
        return batch
    kept = [merged.get(UUID(d.message.contact_id)) for d in batch]
    return [
        d if id_ is None else structs.replace(d, message=structs.replace(d.message, contact_id=str(id_)))
        for d, id_ in zip(batch, kept, strict=True)
    ]


def _ids_of(page: EnrollPage) -> tuple[list[UUID], Following]:
    """The contacts of a page that has them, and what is left for the next."""
    if page.contact_ids is not None:
        return [UUID(id_) for id_ in page.contact_ids[:PAGE]], page.contact_ids[PAGE:] or None
    return [UUID(id_) for id_ in page.found or ()], UUID(page.after) if page.after else None


def _after(d: Delivery[EnrollPage], following: Following, count: int, left_out: Counter[str]) -> Outgoing:
    """The next page, or the news that this was the last; `count` of this page are enrolled, others `left_out`."""
    page = d.message
    enrolled, refused = page.enrolled + count, dict(Counter(page.refused) + left_out)
    if following is None:
        done = EnrollmentBulkDone(id=page.bulk_id, campaign_id=page.campaign_id, enrolled=enrolled, refused=refused)
        return Outgoing(done, d.tenant, f"{page.bulk_id}.completed", d.cause)
    named = following if isinstance(following, list) else None
    place = named[0] if named else str(following)
    more = msgspec.structs.replace(
        page, contact_ids=named, found=None, after=None if named else place, enrolled=enrolled, refused=refused
    )
    return Outgoing(more, d.tenant, f"{page.bulk_id}.{place}", d.cause)


def _after_move(d: Delivery[MovePage], last: UUID | None, count: int) -> tuple[Message, str]:
    """The next page of a move, or the news that this was the last."""
    page = d.message
    if last is None:
        done = EnrollmentMoved(id=page.move_id, campaign_id=page.campaign_id, moved=count)
        return done, f"{page.move_id}.moved"
    return msgspec.structs.replace(page, after=str(last), moved=count), f"{page.move_id}.{last}"


def _completed(d: Delivery[MovePage], id_: UUID, contact_id: UUID) -> tuple[Message, str]:
    event = EnrollmentCompleted(id=str(id_), campaign_id=d.message.campaign_id, contact_id=str(contact_id))
    return event, f"{id_}.completed"


def goal_events(reached: Reached, cause: str) -> tuple[Outgoing, ...]:
    """What is told of an enrolment that reached its goal."""
    fields = {"id": str(reached.id), "campaign_id": str(reached.campaign_id), "contact_id": str(reached.contact_id)}
    goal = EnrollmentGoalReached(**fields, reason="goal_reached")
    told = [Outgoing(goal, reached.tenant, f"{reached.id}.goal_reached", cause)]
    if reached.stopped:
        stopped = EnrollmentStopped(**fields, reason="goal_reached")
        told.append(Outgoing(stopped, reached.tenant, f"{reached.id}.stopped", cause))
    return tuple(told)


def _stopped(d: Delivery[StopEnrollment], enrollment_id: str) -> Outgoing:
    command = d.message
    event = EnrollmentStopped(
        id=enrollment_id, campaign_id=command.campaign_id, contact_id=command.contact_id, reason=command.reason
    )
    return Outgoing(event, d.tenant, f"{enrollment_id}.stopped", d.cause)


def _kind(delivery: Delivery[Message]) -> type[Message]:
    return type(delivery.message)


def entity_id(delivery: Delivery[Any]) -> UUID:
    """The id of what a command makes: the command's own if it is a UUIDv7, else one that always comes out for it."""
    try:
        id_ = UUID(delivery.id)
    except ValueError:
        id_ = None
    if id_ is not None and id_.version == 7:
        return id_
    return uuid7_for(delivery.at, delivery.tenant, delivery.id)


def _told(d: Delivery[Any], id_: UUID, command: StartEnrollment, refused: str | None) -> Outgoing:
    kind = EnrollmentStarted if refused is None else EnrollmentRefused
    event = kind(id=str(id_), campaign_id=command.campaign_id, contact_id=command.contact_id, reason=refused)
    return Outgoing(event, d.tenant, f"{id_}.{'started' if refused is None else 'refused'}", d.cause or d.id)
