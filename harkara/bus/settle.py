"""The one place where an outcome becomes what the broker is told: ack, wait, park on a schedule, or dead-letter.

Copies and events are stored first; only then is the delivery acked.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import msgspec
from loguru import logger

from harkara.bus import headers
from harkara.bus.binding import of_raw
from harkara.bus.errors import BusError, Refused
from harkara.bus.intake import Raw, attempt_of, message_id, original_subject, stored_at
from harkara.bus.messages import Ack, Outgoing, Packet
from harkara.bus.outcomes import Done, Drop, Outcome, Retry
from harkara.bus.schedule import Schedule
from harkara.bus.subjects import as_token
from harkara.measures import Tally
from harkara.schemas.base import tenant_of

if TYPE_CHECKING:
    from loguru import Logger

#: Up to this a retry is a delayed nak; beyond it a schedule, because a nak keeps its place in the consumer's window.
LONGEST_NAK = timedelta(seconds=30)
#: Waiting that does not count is a nak this often; then a schedule, for the same reason.
UNCOUNTED_NAKS = 3
_LONGEST_BACKOFF_S = 15.0
_LONGEST_REASON = 400


class Acked(msgspec.Struct, frozen=True, gc=False):
    """The delivery is finished: handled, or its copy is `dead` or `parked`."""

    dead: bool = False
    parked: bool = False
    #: What the message needs is away: pulling may rest a little.
    away: bool = False


class Nacked(msgspec.Struct, frozen=True, gc=False):
    """The delivery comes back after `after`; `uncounted` when that is no attempt that failed."""

    after: timedelta
    uncounted: bool = False
    away: bool = False


Verdict = Acked | Nacked
Send = Callable[[Sequence[Packet]], Awaitable[list[Ack | BusError]]]
Clock = Callable[[], datetime]


class Plan(msgspec.Struct, frozen=True, gc=False):
    """What must be stored before the verdict may be told. The first packets are those of `events`."""

    packets: tuple[Packet, ...]
    verdict: Verdict
    events: tuple[Outgoing, ...] = ()


@dataclass(frozen=True, slots=True)
class Settler:
    """Settles for one actor: knows its name and schedule, and stores through `send`."""

    actor: str
    retries: Schedule
    send: Send
    now: Clock
    tally: Tally = field(default_factory=Tally)

    async def settle(self, judged: Sequence[tuple[Raw, Outcome]]) -> list[Verdict]:
        """Store what the outcomes ask for, then say what the broker may be told: one verdict per delivery."""
        plans = [self._possible(raw, outcome) for raw, outcome in judged]
        failed = await self._store(plans)
        if not failed:
            return [plan.verdict for plan in plans]
        for index, error in failed.items():
            plans[index] = self._instead(judged[index][0], error)
        still = await self._store([plans[index] for index in failed])
        for place, index in enumerate(failed):
            if place in still:
                self._log(judged[index][0]).error("Cannot be settled yet: {}", still[place])
                plans[index] = Plan((), Nacked(backoff(judged[index][0].deliveries), uncounted=True, away=True))
        return [plan.verdict for plan in plans]

    async def _store(self, plans: Sequence[Plan]) -> dict[int, BusError]:
        """Publish every packet at once; the plans that could not be stored whole, each with its worst error."""
        packets = [packet for plan in plans for packet in plan.packets]
        if not packets:
            return {}
        results = await self.send(packets)
        failed: dict[int, BusError] = {}
        place = 0
        for index, plan in enumerate(plans):
            answers = results[place : place + len(plan.packets)]
            place += len(answers)
            for event, answer in zip(plan.events, answers, strict=False):
                if type(answer) is Ack and not answer.duplicate:
                    self.tally.add(event.message, event.tenant)
            if errors := [one for one in answers if isinstance(one, BusError)]:
                failed[index] = next((one for one in errors if isinstance(one, Refused)), errors[0])
        return failed

    def _instead(self, raw: Raw, error: BusError) -> Plan:
        """What becomes of a message whose events could not be stored: never possible, or not possible now."""
        if isinstance(error, Refused):
            return self._dead(raw, f"what it publishes was refused: {error}")
        self._log(raw).warning("Waiting, because what it publishes cannot be stored: {}", error)
        return self._wait(raw, backoff(raw.deliveries), str(error), counts=False, away=True)

    def _possible(self, raw: Raw, outcome: Outcome) -> Plan:
        try:
            return self.plan(raw, outcome)
        except ValueError as error:
            return self.plan(raw, Retry(f"an event has no subject: {error}"))

    def plan(self, raw: Raw, outcome: Outcome) -> Plan:
        """What one outcome means for one delivery. Raises ValueError if an event cannot be put on a subject."""
        match outcome:
            case Done(events=events):
                return Plan(tuple(event.packet() for event in events), Acked(), events)
            case Drop(reason=reason):
                return self._dead(raw, reason)
            case Retry():
                plan = self._again(raw, outcome)
                told = outcome.events
                return Plan((*(event.packet() for event in told), *plan.packets), plan.verdict, told)

    def _again(self, raw: Raw, retry: Retry) -> Plan:
        if not retry.counts:
            delay = backoff(raw.deliveries) if retry.after is None else retry.after
            return self._wait(raw, delay, retry.reason, counts=False, away=retry.after is None, park=retry.park)
        scheduled = self.retries.after(attempt_of(raw))
        if scheduled is None:
            return self._dead(raw, f"gave up after {attempt_of(raw)} attempts: {retry.reason}")
        delay = jittered(scheduled) if retry.after is None else retry.after
        return self._wait(raw, delay, retry.reason, park=retry.park)

    def _wait(
        self,
        raw: Raw,
        delay: timedelta,
        reason: str,
        *,
        counts: bool = True,
        away: bool = False,
        park: bool = False,
    ) -> Plan:
        short = delay <= LONGEST_NAK and not park
        if short and (counts or raw.deliveries <= UNCOUNTED_NAKS):
            return Plan((), Nacked(max(delay, timedelta()), uncounted=not counts, away=away))
        attempts = attempt_of(raw) if counts else attempt_of(raw) - 1
        packet = self._parked(raw, self.now() + delay, attempts, reason)
        return Plan((packet,), Acked(parked=True, away=away))

    def _parked(self, raw: Raw, until: datetime, attempts: int, reason: str) -> Packet:
        """A copy that the broker brings back at `until`: on the subject it came from, or the actor's retry subject."""
        slot, target = self._slot(raw)
        named = carried(raw)
        named[headers.DEDUPE] = f"park.{raw.stream}.{raw.seq}.{self.actor}"
        named[headers.ATTEMPT] = str(attempts)
        named[headers.SUBJECT] = original_subject(raw)
        named[headers.REASON] = in_one_line(reason)
        named[headers.SCHEDULE] = "@at " + rfc3339(until)
        named[headers.SCHEDULE_TARGET] = target
        return Packet(slot, raw.body, named)

    def _slot(self, raw: Raw) -> tuple[str, str]:
        """The schedule's subject, unique to this copy, and its target, which must lie in the same stream."""
        unique = f"{raw.stream}-{raw.seq}"
        tokens = raw.subject.split(".")
        if tokens[0] != "t":
            return f"sys.at.{self.actor}-{unique}", raw.subject
        tenant, key = tokens[1], f"{as_token(message_id(raw))}.{unique}"
        if tokens[2] == "work":
            return f"t.{tenant}.at.{tokens[3]}.{key}", raw.subject
        return f"t.{tenant}.at.{self.actor}.{key}", f"t.{tenant}.work.{self.actor}.retry"

    def _dead(self, raw: Raw, reason: str) -> Plan:
        """A copy for the dead letters with all that is needed to see why and to replay it."""
        tenant = tenant_of(raw.subject)
        named = carried(raw)
        named[headers.DEDUPE] = f"dead.{raw.stream}.{raw.seq}.{self.actor}"
        named[headers.SUBJECT] = original_subject(raw)
        named[headers.STREAM] = raw.stream
        named[headers.SEQ] = str(raw.seq)
        named[headers.ACTOR] = self.actor
        named[headers.REASON] = in_one_line(reason)
        named[headers.ATTEMPT] = str(attempt_of(raw))
        subject = f"t.{tenant}.dead.{self.actor}" if tenant else f"sys.dead.{self.actor}"
        self._log(raw).warning("Dead letter: {}", named[headers.REASON])
        return Plan((Packet(subject, raw.body, named),), Acked(dead=True))

    def _log(self, raw: Raw) -> Logger:
        return logger.bind(**of_raw(self.actor, raw))


def carried(raw: Raw) -> dict[str, str]:
    """The headers that follow a message to its next place: its own, with id and first storing time made explicit."""
    named = {key: value for key, value in raw.headers.items() if not key.startswith(headers.OF_THE_BROKER)}
    named[headers.ID] = message_id(raw)
    named[headers.AT] = stored_at(raw).isoformat()
    return named


def jittered(delay: timedelta) -> timedelta:
    """The delay, up to a fifth shorter or longer, so that what failed together does not come back together."""
    return delay * random.uniform(0.8, 1.2)  # noqa: S311 - spreads load, guards nothing


def backoff(deliveries: int) -> timedelta:
    """How long to wait for something that is away: one second, doubling up to fifteen."""
    return jittered(timedelta(seconds=min(2.0 ** min(deliveries - 1, 10), _LONGEST_BACKOFF_S)))


def rfc3339(instant: datetime) -> str:
    """The instant as the broker's schedules take it, to the millisecond."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def in_one_line(text: str) -> str:
    """The text fit for a header: one line, not too long."""
    return " ".join(text.split())[:_LONGEST_REASON]
