"""Brings due steps to their numbers on time.

takes: `sys.tick.due`, which the broker sends every second to one of us: there is no leader
says: nothing; publishes `work.send.<sender>.<lane>`
retries: by itself: an unpublished step comes back when its lease ends
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, NamedTuple
from uuid import UUID

from loguru import logger

from harkara.actors.attempts import attempt_of, said
from harkara.actors.deferrals import deferred_event
from harkara.actors.steps import Steps
from harkara.bus.errors import BusError
from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Outcome
from harkara.bus.publisher import Publisher
from harkara.bus.schedule import Schedule
from harkara.bus.tasks import end
from harkara.policy import quiet_hours
from harkara.schemas.base import Message
from harkara.schemas.commands import Lane
from harkara.schemas.work import DueTick, Send
from harkara.storage import deferring, due
from harkara.storage.deferring import Deferral
from harkara.storage.due import DueStep
from harkara.storage.sending import Attempt
from harkara.storage.storage import Storage
from harkara.templating import variables

#: How far ahead steps are claimed: the tick's second, and a quarter more for a tick that comes late.
HORIZON = timedelta(seconds=1.25)

#: How long a claimed step is ours. If we die, another claims it after that.
LEASE = timedelta(seconds=20)

#: After this long without having been sent, a published step waits for its number: the broker keeps it, so the
#: lease is lengthened. It is published again only if the broker has lost it.
BACKLOG_AFTER = timedelta(seconds=8)
BACKLOG_LEASE = timedelta(hours=6)

#: Rows a claim: bigger ones are slower (the planner turns to reading whole tables).
CLAIM = 1000

#: Steps held at once; while the broker is away no more are claimed, and the rest wait where they are safe.
MOST_HELD = 50 * CLAIM

#: Wake-ups for one number need not be repeated within this time.
WAKE_AGAIN = timedelta(seconds=2)

#: How often the months to come are looked after, and how many are kept ready.
MONTHS_EVERY_S = 6 * 3600.0
MONTHS_AHEAD = 3

#: Idempotency-Keys that count no more are deleted so many at once, now and then, and soon again if there are more.
KEYS, KEYS_EVERY_S, KEYS_REST_S = 5000, 600.0, 1.0

WAKE_DUE = "sys.wake.due"
WAKE_SEND = "sys.wake.send"

LANE: Lane = "marketing"


class Held(NamedTuple):
    """A claimed step in its timer; two are compared by time and order, and no two have the same order."""

    leaves_at: datetime
    order: int
    step: DueStep
    outgoing: Outgoing


class Ticker:
    """Claims what falls due within the next second, holds it in a timer, and publishes each step at its time."""

    name: ClassVar[str] = "ticker"
    takes: ClassVar[tuple[type[Message], ...]] = (DueTick,)
    retries: ClassVar[Schedule] = Schedule.seconds(1)
    batch: ClassVar[int] = 10
    in_flight: ClassVar[int] = 1

    def __init__(self, storage: Storage, publisher: Publisher) -> None:
        self._storage, self._publisher = storage, publisher
        self._steps = Steps(storage)
        self._held: list[Held] = []
        self._order = 0
        self._published: deque[tuple[datetime, list[due.Leased]]] = deque()
        self._claim_wanted, self._timer_changed = asyncio.Event(), asyncio.Event()
        self._woken: dict[tuple[str, str], datetime] = {}
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Start the timers and catch up with what fell due while nobody was here."""
        await self._publisher.subscribe_wake(WAKE_DUE, self._on_wake)
        loops = (self._claiming, self._publishing, self._holding, self._months, self._keys)
        self._tasks = [asyncio.create_task(loop()) for loop in loops]
        self._claim_wanted.set()

    async def stop(self) -> None:
        """Stop, and give what is still in a timer back, so that another process sends it on time.

        What waits in the broker is held, as it would have been soon: nobody is to publish it again.
        """
        await asyncio.gather(*map(end, self._tasks))
        held = [_leased(one.step) for one in self._held]
        published = [one for _, ones in self._published for one in ones]
        self._held.clear()
        self._published.clear()
        try:
            await due.release(self._storage, held)
            await due.hold(self._storage, published, BACKLOG_LEASE)
        except Exception as error:  # the database may be going down with us; the leases end by themselves
            logger.warning(
                "{} claimed steps could not be given back, their leases end by themselves: {}", len(held), error
            )

    async def handle(self, batch: Sequence[Delivery[DueTick]]) -> Sequence[Outcome]:
        """Take note of the tick; the database says what it means."""
        self._claim_wanted.set()
        return [Done() for _ in batch]

    def _on_wake(self, _: bytes) -> None:
        self._claim_wanted.set()

    async def _claiming(self) -> None:
        while True:
            await self._claim_wanted.wait()
            self._claim_wanted.clear()
            try:
                while len(self._held) < MOST_HELD and await self._claim_once() == CLAIM:
                    pass
            except asyncio.CancelledError:
                raise
            except Exception as error:  # the next tick tries again
                logger.warning("due steps could not be claimed, the next tick tries again: {}", error)

    async def _claim_once(self) -> int:
        claimed, steps = await due.claim(self._storage, CLAIM, HORIZON, LEASE)
        quiet: list[tuple[DueStep, str, datetime]] = []
        early: list[due.Leased] = []
        now = datetime.now(UTC)
        # A claim after a pause is new work for the same message: its id alone would be taken for a duplicate.
        claim = int(now.timestamp() * 1000)
        for step in steps:
            if step.leaves_at > now + LEASE:
                early.append(_leased(step))
            elif step.phone is None:
                logger.warning("enrolment {} of {} waits: its contact has no phone", step.enrollment_id, step.tenant)
            elif (until := _quiet_until(step, step.phone, now)) is not None:
                quiet.append((step, step.phone, until))
            else:
                self._hold(step, step.phone, claim)
        # A timer that outlasts its lease would be set again and again, until there is no room for what others have due.
        await due.release(self._storage, early)
        if quiet:
            await self._defer(quiet, claim)
        return claimed

    def _hold(self, step: DueStep, phone: str, claim: int) -> None:
        """Keep a step until it leaves."""
        self._order += 1
        heapq.heappush(self._held, Held(step.leaves_at, self._order, step, _send(step, phone, claim)))
        self._timer_changed.set()

    async def _defer(self, quiet: Sequence[tuple[DueStep, str, datetime]], claim: int) -> None:
        """Steps that fall into quiet hours wait where they are: they cost their number's queue and budget nothing.

        Those that are of no use by then go on, and the gate says so: what comes after them needn't wait.
        """
        deferrals: list[Deferral] = []
        for step, phone, until in quiet:
            attempt = await self._attempt(step, phone)
            if attempt.expires_at is not None and attempt.expires_at <= until:
                self._hold(step, phone, claim)
            else:
                deferrals.append(Deferral(attempt, until, "quiet_hours"))
        async with self._storage.batch({one.attempt.tenant for one in deferrals}) as con:
            written = await deferring.defer(con, deferrals)
        told = [deferred_event(one) for one in deferrals if one.attempt.message_id in written]
        answers = await self._publisher.publish_many(told)
        if failed := [answer for answer in answers if isinstance(answer, BusError)]:
            logger.warning("{} messages were deferred and could not be told of: {}", len(failed), failed[0])

    async def _attempt(self, step: DueStep, phone: str) -> Attempt:
        """The message as it waits; what it says is what it would say now."""
        work = _work(step, phone)
        found = await self._steps.get(step.tenant, UUID(step.step_id))
        variant = found.variant(UUID(step.contact_id)) if found and found.variants else None
        # Compressed time ends no message here: whether it is too late is judged when it leaves.
        return attempt_of(step.tenant, step.cause, work, said(work, found, variant), found, variant, speed=1.0)

    async def _publishing(self) -> None:
        while True:
            self._timer_changed.clear()
            wait = (self._held[0].leaves_at - datetime.now(UTC)).total_seconds() if self._held else None
            if wait is None or wait > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._timer_changed.wait()
                continue
            now = datetime.now(UTC)
            ready: list[Held] = []
            while self._held and self._held[0].leaves_at <= now and len(ready) < CLAIM:
                ready.append(heapq.heappop(self._held))
            try:
                await self._publish(ready, now)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # no defect may silence the clock: their leases end
                logger.opt(exception=error).error("{} due steps could not be published", len(ready))

    async def _publish(self, ready: list[Held], now: datetime) -> None:
        self._wake_numbers(ready, now)
        answers = await self._publisher.publish_many([one.outgoing for one in ready])
        failed = [(one, answer) for one, answer in zip(ready, answers, strict=True) if isinstance(answer, BusError)]
        if failed:
            # Their leases end and they are claimed again: nothing is lost, and the broker gets a pause.
            logger.warning("{} due steps wait for the broker: {}", len(failed), failed[0][1])
        lost = {one.order for one, _ in failed}
        self._published.append((now, [_leased(one.step) for one in ready if one.order not in lost]))

    def _wake_numbers(self, ready: list[Held], now: datetime) -> None:
        """Tell the senders which numbers have work, once in a while for each."""
        for tenant, sender_id in {(one.step.tenant, one.step.sender_id) for one in ready}:
            last = self._woken.get((tenant, sender_id))
            if last is None or now - last > WAKE_AGAIN:
                self._woken[tenant, sender_id] = now
                self._publisher.wake(WAKE_SEND, f"{tenant} {sender_id} {LANE}".encode())
        if len(self._woken) > 10_000:
            self._woken = {key: at for key, at in self._woken.items() if now - at <= WAKE_AGAIN}

    async def _holding(self) -> None:
        """Lengthen the leases of what waits in the broker for its number."""
        while True:
            await asyncio.sleep(1)
            until = datetime.now(UTC) - BACKLOG_AFTER
            old: list[due.Leased] = []
            while self._published and self._published[0][0] <= until and len(old) < 10 * CLAIM:
                old += self._published.popleft()[1]
            try:
                await due.hold(self._storage, old, BACKLOG_LEASE)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # they are published again, which the sender sees through
                logger.warning("{} leases could not be lengthened: {}", len(old), error)

    async def _months(self) -> None:
        """Keep the partitions of the months to come ready: a message without one could not be written."""
        while True:
            try:
                if made := await due.prepare_months(self._storage, MONTHS_AHEAD):
                    logger.info("{} months were made ready", made)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # there are months to try again
                logger.warning("the months to come could not be made ready, trying again: {}", error)
            await asyncio.sleep(MONTHS_EVERY_S)

    async def _keys(self) -> None:
        """Delete the Idempotency-Keys that count no more, a few at a time so that nobody waits for it."""
        while True:
            gone = 0
            try:
                gone = await due.forget_keys(self._storage, KEYS)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # they do no harm meanwhile: an old key counts as none
                logger.warning("old idempotency keys could not be deleted, trying again: {}", error)
            await asyncio.sleep(KEYS_EVERY_S if gone < KEYS else KEYS_REST_S)


def _leased(step: DueStep) -> due.Leased:
    return step.tenant, step.enrollment_id, step.leased_until


def _quiet_until(step: DueStep, phone: str, now: datetime) -> datetime | None:
    """Until when it is quiet where the contact lives, at the time at which the step would leave."""
    if step.quiet_hours is None:
        return None
    zone = quiet_hours.zone_of(step.timezone, phone, step.tenant_timezone)
    return quiet_hours.quiet_until(max(now, step.leaves_at), quiet_hours.read(step.quiet_hours), zone)


def _work(step: DueStep, phone: str) -> Send:
    attributes: dict[str, Any] = step.attributes
    invoice = None if step.invoice is None else step.invoice.variables(step.tenant_timezone)
    return Send(
        message_id=step.message_id,
        sender_id=step.sender_id,
        lane=LANE,
        contact_id=step.contact_id,
        to=phone,
        follows=True,
        due_at=step.due_at,
        enrollment_id=step.enrollment_id,
        campaign_id=step.campaign_id,
        step_id=step.step_id,
        step=step.step,
        variables=variables(name=step.name, phone=phone, locale=step.locale, attributes=attributes, invoice=invoice),
        invoice_id=step.invoice_id,
    )


def _send(step: DueStep, phone: str, claim: int) -> Outgoing:
    return Outgoing(_work(step, phone), step.tenant, f"{step.message_id}.{claim}", step.cause)
