"""Enrols contacts in campaigns and stops enrolments.

takes: `cmd.enrollment.start`, `.stop`, `.bulk`; `work.enrollment.page`
says: enrollment.started, .refused, .stopped, .bulk_completed
retries: while the database is away
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, ClassVar
from uuid import UUID

from harkara.actors.steps import delay
from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Drop, Outcome
from harkara.bus.publisher import Publisher
from harkara.bus.schedule import Schedule
from harkara.ids import uuid7, uuid7_for
from harkara.schemas.base import Message
from harkara.schemas.commands import BulkEnroll, StartEnrollment, StopEnrollment
from harkara.schemas.events import EnrollmentBulkDone, EnrollmentRefused, EnrollmentStarted, EnrollmentStopped
from harkara.schemas.work import EnrollPage
from harkara.storage import enrolling
from harkara.storage.enrolling import CampaignStart, NewEnrollment
from harkara.storage.storage import Storage

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
    takes: ClassVar[tuple[type[Message], ...]] = (StartEnrollment, StopEnrollment, BulkEnroll, EnrollPage)
    retries: ClassVar[Schedule] = Schedule.seconds(1, 5, 30, 120, 600, 3600, 21600)
    batch: ClassVar[int] = 200
    in_flight: ClassVar[int] = 1

    def __init__(self, storage: Storage, publisher: Publisher, *, speed: float = 1.0) -> None:
        self._storage, self._publisher, self._speed = storage, publisher, speed
        self._handlers: dict[type[Message], Callable[[Any], Awaitable[list[Outcome]]]] = {
            StartEnrollment: self._start,
            StopEnrollment: self._stop,
            BulkEnroll: self._bulk,
            EnrollPage: self._page,
        }

    async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
        """Handle runs of the same command together; their order stays."""
        outcomes: list[Outcome] = []
        for kind, run in groupby(batch, key=_kind):
            outcomes += await self._handlers[kind](list(run))
        return outcomes

    async def _start(self, batch: list[Delivery[StartEnrollment]]) -> list[Outcome]:
        async with self._storage.batch({d.tenant for d in batch}) as con:
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
                    new.append(self._new(d, id_, campaign_id, UUID(d.message.contact_id), d.at, start))
            refused |= await enrolling.enroll(con, new)
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
            uuid7(max(due_at, datetime.now(UTC))),  # as in Step.next_after
            due_at,
        )

    def _wake(self, new: Sequence[NewEnrollment]) -> None:
        """Steps that are due now should not wait for the next tick."""
        now = datetime.now(UTC)
        if any((n.due_at - now).total_seconds() < WAKE_WITHIN_S for n in new):
            self._publisher.wake(WAKE_DUE)

    async def _stop(self, batch: list[Delivery[StopEnrollment]]) -> list[Outcome]:
        stops = [(d.tenant, UUID(d.message.campaign_id), UUID(d.message.contact_id), d.message.reason) for d in batch]
        async with self._storage.batch({d.tenant for d in batch}) as con:
            stopped = {(row[1], row[2], row[3]): row[0] for row in await enrolling.stop(con, stops)}
        outcomes: list[Outcome] = []
        for d, (tenant, campaign_id, contact_id, reason) in zip(batch, stops, strict=True):
            id_ = stopped.pop((tenant, campaign_id, contact_id), None)
            event = EnrollmentStopped(
                id=str(id_), campaign_id=str(campaign_id), contact_id=str(contact_id), reason=reason
            )
            outcomes.append(Done((Outgoing(event, tenant, f"{id_}.stopped", d.cause),) if id_ else ()))
        return outcomes

    async def _bulk(self, batch: list[Delivery[BulkEnroll]]) -> list[Outcome]:
        """A bulk enrolment is a chain of pages: each is a message, so a crash repeats one page at most."""
        outcomes: list[Outcome] = []
        for d in batch:
            bulk = d.message
            if [bool(bulk.contact_ids), bulk.tag is not None, bulk.all].count(True) != 1:
                outcomes.append(Drop("give exactly one of contact_ids, tag and all"))
                continue
            first = EnrollPage(
                bulk_id=str(entity_id(d)),
                campaign_id=bulk.campaign_id,
                started_at=d.at,
                contact_ids=bulk.contact_ids,
                tag=bulk.tag,
            )
            outcomes.append(Done((Outgoing(first, d.tenant, f"{d.id}.0", d.cause or d.id),)))
        return outcomes

    async def _page(self, batch: list[Delivery[EnrollPage]]) -> list[Outcome]:
        return [await self._one_page(d) for d in batch]

    async def _one_page(self, d: Delivery[EnrollPage]) -> Outcome:
        page, campaign_id = d.message, UUID(d.message.campaign_id)
        async with self._storage.batch((d.tenant,)) as con:
            start = (await enrolling.campaigns(con, [(d.tenant, campaign_id)])).get((d.tenant, campaign_id))
            if start is None or start.status not in OPEN:
                return Drop(
                    f"campaign {campaign_id} can't be enrolled in: it is {start.status if start else 'not there'}"
                )
            if page.contact_ids is not None:
                ids, rest = [UUID(id_) for id_ in page.contact_ids[:PAGE]], page.contact_ids[PAGE:]
            else:
                ids = await enrolling.page(con, d.tenant, UUID(page.after) if page.after else None, page.tag, PAGE)
                rest = ["more"] if len(ids) == PAGE else []
            # The same page enrols the same ids again: a redelivery finds its own rows.
            new = [
                self._new(
                    d, uuid7_for(page.started_at, page.bulk_id, str(id_)), campaign_id, id_, page.started_at, start
                )
                for id_ in ids
            ]
            refused = await enrolling.enroll(con, new)
        self._wake(new)
        told = [
            _told(d, n.id, StartEnrollment(campaign_id=page.campaign_id, contact_id=str(n.contact_id)), refused[n.id])
            for n in new
        ]
        enrolled = page.enrolled + sum(reason is None for reason in refused.values())
        return Done((*told, self._after(d, ids, rest, enrolled)))

    def _after(self, d: Delivery[EnrollPage], ids: list[UUID], rest: list[str], enrolled: int) -> Outgoing:
        """The next page, or the news that this was the last."""
        page = d.message
        if not rest:
            done = EnrollmentBulkDone(id=page.bulk_id, campaign_id=page.campaign_id, enrolled=enrolled)
            return Outgoing(done, d.tenant, f"{page.bulk_id}.completed", d.cause)
        following = EnrollPage(
            bulk_id=page.bulk_id,
            campaign_id=page.campaign_id,
            started_at=page.started_at,
            contact_ids=rest if page.contact_ids is not None else None,
            tag=page.tag,
            after=str(ids[-1]),
            enrolled=enrolled,
        )
        return Outgoing(following, d.tenant, f"{page.bulk_id}.{ids[-1]}", d.cause)


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
