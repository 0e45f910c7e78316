"""Sends messages through one number after the other's turn.

takes: `work.send.<sender>.<lane>`, through one durable a sender and lane
says: message.sent, .failed, .suppressed, .unknown; enrollment.completed, .stopped
retries: what was provably not accepted; never what may have been
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from uuid import UUID

import msgspec
from loguru import logger

from harkara.actors.budget import Budgets
from harkara.actors.gate import Ambiguous, Go, Park, Settled, Stale, Suppress, Verdict, Wait, judge
from harkara.actors.numbers import Numbers
from harkara.actors.steps import Step, Steps
from harkara.batching import Batcher
from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Drop, Outcome, Retry
from harkara.bus.schedule import Schedule
from harkara.gateway.errors import Action, Scope
from harkara.gateway.protocol import Accepted, Answer, Gateway, NotSent, Refused, Unknown
from harkara.schemas import events
from harkara.schemas.base import Message
from harkara.schemas.content import Content
from harkara.schemas.work import Send
from harkara.storage import due, sending
from harkara.storage.sending import Advance, Attempt, Facts, Result
from harkara.storage.storage import Storage, is_away
from harkara.templating import TemplateFault

#: How often a message that the gateway refuses for now is tried, when its error says no other number.
MOST_TRIES = 8

#: How long a message waits for its number's turn in hand, and then on the broker, before it asks again: a number may be
#: held for hours, and no message may fail over that.
TURN_PATIENCE = timedelta(seconds=120)
TURN_AGAIN = timedelta(seconds=20)

#: The longest wait between tries to reach a gateway that doesn't listen.
UNREACHABLE_CEILING = timedelta(seconds=30)

#: A next step that is due sooner than this would miss the ticker's look-ahead, so the ticker is woken.
WAKE_WITHIN = timedelta(seconds=2)


#: Clocks of two machines differ by less: what is due within that is due.
DUE_SOON = timedelta(milliseconds=500)


@dataclass(frozen=True, slots=True)
class Finish:
    """The message is dealt with; `stop` says why its enrolment can't go on, if so."""

    status: str
    reason: str | None = None
    error_code: int | None = None
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class Again:
    """It was provably not accepted: it goes back into the queue. `hold` says that its whole number waits."""

    after: timedelta
    reason: str
    error_code: int | None = None
    hold: bool = False
    pause: bool = False


def decide(answer: Answer, tries: int) -> Finish | Again:
    """What the gateway's answer to try number `tries` (from 1) means for the message."""
    match answer:
        case Accepted():
            return Finish("sent")
        case Unknown(reason):
            return Finish("unknown", reason)
        case NotSent(reason):
            return Again(min(timedelta(seconds=2 ** min(tries - 1, 5)), UNREACHABLE_CEILING), reason)
        case Refused():
            return _refused(answer, tries)


def _refused(answer: Refused, tries: int) -> Finish | Again:
    rule, reason = answer.rule, f"{answer.title}: {answer.details}" if answer.details else answer.title
    wait = answer.retry_after or rule.wait(tries)
    if rule.action is Action.BACK_OFF:
        return Again(wait, reason, answer.code, hold=rule.scope in (Scope.NUMBER, Scope.WABA, Scope.ACCOUNT, Scope.APP))
    if rule.action is Action.RETRY and tries <= (MOST_TRIES if rule.attempts is None else rule.attempts):
        return Again(wait, reason, answer.code)
    if rule.action is Action.STOP and rule.scope in (Scope.NUMBER, Scope.WABA, Scope.ACCOUNT, Scope.APP):
        return Again(timedelta(seconds=60), reason, answer.code, pause=True)
    stop = "unreachable" if rule.scope is Scope.RECIPIENT and not rule.marketing else None
    return Finish("failed", reason, answer.code, stop=stop)


@dataclass(frozen=True, slots=True)
class Judged:
    """The gate's verdict on an attempt, with the facts it was judged on."""

    verdict: Verdict
    facts: Facts


_EVENTS: dict[str, type[events.MessageEvent]] = {
    "sent": events.MessageSent,
    "delivered": events.MessageSent,
    "read": events.MessageSent,
    "failed": events.MessageFailed,
    "suppressed": events.MessageSuppressed,
    "unknown": events.MessageUnknown,
}

_encode = msgspec.json.Encoder().encode


class Sender:
    """Gate, budget, intent row, request, result row, next step due, ack: in this order, for every message."""

    name: ClassVar[str] = "send"
    takes: ClassVar[tuple[type[Message], ...]] = (Send,)
    retries: ClassVar[Schedule] = Schedule.seconds(1, 5, 30, 120, 600, 3600, 21600)
    batch: ClassVar[int] = 1
    in_flight: ClassVar[int] = 1024

    def __init__(
        self,
        storage: Storage,
        gateway: Gateway,
        budgets: Budgets,
        numbers: Numbers,
        wake: Callable[[], None],
        *,
        speed: float = 1.0,
    ) -> None:
        self._storage, self._gateway, self._budgets, self._numbers = storage, gateway, budgets, numbers
        self._steps, self._wake, self._speed = Steps(storage), wake, speed
        self._begin: Batcher[Attempt, Judged] = Batcher(self._begin_batch)
        self._finish: Batcher[Result, bool] = Batcher(self._finish_batch)
        self._park: Batcher[due.Waiting, None] = Batcher(self._park_batch)

    async def handle(self, batch: Sequence[Delivery[Send]]) -> Sequence[Outcome]:
        """Send each; the batch is one message, because each waits for its own turn and answer."""
        if len(batch) == 1:
            return [await self._one(batch[0])]
        return await asyncio.gather(*(self._one(delivery) for delivery in batch))

    async def _one(self, delivery: Delivery[Send]) -> Outcome:
        work = delivery.message
        early = work.due_at - datetime.now(UTC)
        if early > DUE_SOON and work.step_id is None:
            return Retry("its time has not come", early, counts=False)
        number = await self._numbers.get(delivery.tenant, work.sender_id)
        if number is None:
            return Drop(f"tenant {delivery.tenant} has no sender {work.sender_id}")
        step = await self._steps.get(delivery.tenant, UUID(work.step_id)) if work.step_id else None
        content = _content(work, step)
        attempt = _attempt(delivery, "{}" if isinstance(content, TemplateFault) else _encode(content).decode())
        try:
            async with asyncio.timeout(TURN_PATIENCE.total_seconds()):
                await self._budgets.acquire(work.sender_id, number.rate, work.lane)
        except TimeoutError:
            return Retry("its number is held, or has more to send than it may", TURN_AGAIN, counts=False)
        judged = await self._begin(attempt)
        match judged.verdict:
            case Go():
                if isinstance(content, TemplateFault):
                    return await self._settle(attempt, step, judged.facts, Finish("failed", f"template: {content}"))
                payload = self._gateway.encode(work.to, content, work.message_id)
                answer = await self._gateway.send_encoded(number.credentials, payload)
                return await self._answered(delivery, attempt, step, judged.facts, answer)
            case Suppress(reason, stop):
                return await self._settle(attempt, step, judged.facts, Finish("suppressed", reason, stop=stop))
            case Ambiguous():
                lost = Finish("unknown", "the process ended during the request, before its answer was written down")
                return await self._settle(attempt, step, judged.facts, lost)
            case Wait(after, reason):
                return Retry(reason, after, counts=False)
            case Park():
                await self._park((delivery.tenant, _enrollment(attempt), attempt.message_id))
                return Done()
            case Settled(status):
                facts = judged.facts
                before = Finish(status, facts.reason, facts.error_code)
                return await self._settle(attempt, step, facts, before, facts.wamid)
            case Stale():
                return Done()

    # -- the gate and the intent ----------------------------------------------------------------------------------

    async def _begin_batch(self, attempts: Sequence[Attempt]) -> list[Judged]:
        judged: list[Judged] = []
        transaction: str | None = None
        try:
            async with self._storage.batch({attempt.tenant for attempt in attempts}) as con:
                facts = await sending.facts(con, attempts)
                verdicts = _judge(attempts, facts)
                written, transaction = await sending.intend(con, _intents(attempts, verdicts))
                for index, attempt in enumerate(attempts):
                    if isinstance(verdicts[index], Go | Suppress) and attempt.message_id not in written:
                        verdicts[index] = _TAKEN
                judged = list(map(Judged, verdicts, facts))
        except Exception as error:
            # Nothing has left yet: an intent that was written after all is no ambiguous send, but ours to go on with.
            if transaction is None or not is_away(error) or not await self._storage.committed(transaction):
                raise
        return judged

    async def _park_batch(self, waiting: Sequence[due.Waiting]) -> list[None]:
        await due.park(self._storage, waiting)
        return [None for _ in waiting]

    # -- the result -----------------------------------------------------------------------------------------------

    async def _answered(
        self, delivery: Delivery[Send], attempt: Attempt, step: Step | None, facts: Facts, answer: Answer
    ) -> Outcome:
        decision = decide(answer, facts.attempts + 1)
        if isinstance(decision, Finish):
            wamid = answer.wamid if isinstance(answer, Accepted) else None
            return await self._settle(attempt, step, facts, decision, wamid)
        await self._write(
            Result(attempt.message_id, attempt.tenant, "queued", reason=decision.reason, error_code=decision.error_code)
        )
        sender_id = delivery.message.sender_id
        if decision.hold:
            await self._budgets.hold(sender_id, decision.after.total_seconds())
        if decision.pause:
            logger.error("number {} of {} is paused: {}", sender_id, delivery.tenant, decision.reason)
            async with self._storage.batch((attempt.tenant,)) as con:
                await sending.pause_sender(con, attempt.tenant, attempt.sender_id, decision.reason)
        return Retry(decision.reason, decision.after, counts=False)

    async def _settle(
        self, attempt: Attempt, step: Step | None, facts: Facts, finish: Finish, wamid: str | None = None
    ) -> Outcome:
        """Write the result, move the enrolment on, and tell."""
        advance = self._advance(attempt, step, facts, finish)
        ended = await self._write(
            Result(attempt.message_id, attempt.tenant, finish.status, wamid, finish.reason, finish.error_code, advance)
        )
        if advance and advance.due_at and advance.due_at - facts.now < WAKE_WITHIN:
            self._wake()
        told = [_message_event(attempt, finish, wamid)]
        if ended and advance:
            told.append(_enrollment_event(attempt, advance.status, advance.reason))
        elif _had_ended(facts):
            told.append(_enrollment_event(attempt, facts.enrollment_status or "", facts.stopped_reason))
        return Done(tuple(told))

    def _advance(self, attempt: Attempt, step: Step | None, facts: Facts, finish: Finish) -> Advance | None:
        if step is None or attempt.enrollment_id is None or facts.started_at is None:
            return None
        if facts.expected_message_id != attempt.message_id:
            return None
        if finish.stop:
            status = "failed" if finish.status == "failed" else "stopped"
            return step.end(attempt.enrollment_id, status, finish.stop)
        return step.next_after(attempt.enrollment_id, facts.started_at, self._speed)

    async def _write(self, result: Result) -> bool:
        """Write a result however long it takes: forgetting it would leave the message in doubt.

        Returns whether its enrolment has ended with it.
        """
        wait = 0.05
        while True:
            try:
                return await self._finish(result)
            except Exception as error:
                if not is_away(error):
                    raise
                logger.warning("message {}: its result waits for the database: {}", result.message_id, error)
                await asyncio.sleep(wait)
                wait = min(wait * 2, 2.0)

    async def _finish_batch(self, results: Sequence[Result]) -> list[bool]:
        """Write results; the answer to each is whether its enrolment has ended with it."""
        async with self._storage.batch({result.tenant for result in results}) as con:
            ended = await sending.finish(con, results)
        return [result.advance is not None and result.advance.enrollment_id in ended for result in results]


_TAKEN = Wait(timedelta(seconds=1), "another copy of this work is being handled")


def _judge(attempts: Sequence[Attempt], facts: Sequence[Facts]) -> list[Verdict]:
    """A verdict on each; of two copies of the same work, the second waits for what becomes of the first."""
    verdicts: list[Verdict] = []
    seen: set[UUID] = set()
    for attempt, fact in zip(attempts, facts, strict=True):
        of_enrollment = attempt.enrollment_id is not None
        verdict = judge(fact, message_id=attempt.message_id, lane=attempt.lane, of_enrollment=of_enrollment)
        verdicts.append(_TAKEN if attempt.message_id in seen else verdict)
        seen.add(attempt.message_id)
    return verdicts


def _intents(attempts: Sequence[Attempt], verdicts: Sequence[Verdict]) -> list[tuple[Attempt, str, str | None]]:
    rows: list[tuple[Attempt, str, str | None]] = []
    for attempt, verdict in zip(attempts, verdicts, strict=True):
        if isinstance(verdict, Go):
            rows.append((attempt, "sending", None))
        elif isinstance(verdict, Suppress):
            rows.append((attempt, "suppressed", verdict.reason))
    return rows


def _content(work: Send, step: Step | None) -> Content | TemplateFault:
    """What the message says, or why that can't be said."""
    if step is None:
        return work.content or TemplateFault(f"the step {work.step_id} is not there any more")
    try:
        return step.rendered(work.variables)
    except TemplateFault as fault:
        return fault


def _attempt(delivery: Delivery[Send], content: str) -> Attempt:
    work = delivery.message
    return Attempt(
        UUID(work.message_id),
        delivery.tenant,
        _uuid(work.contact_id),
        UUID(work.sender_id),
        _uuid(work.campaign_id),
        _uuid(work.enrollment_id),
        work.step,
        work.lane,
        work.to,
        content,
        delivery.cause,
        work.due_at,
    )


def _uuid(text: str | None) -> UUID | None:
    return UUID(text) if text else None


def _text(id_: UUID | None) -> str | None:
    return str(id_) if id_ else None


def _enrollment(attempt: Attempt) -> UUID:
    assert attempt.enrollment_id is not None, "only a step of an enrolment is parked"  # noqa: S101
    return attempt.enrollment_id


def _had_ended(facts: Facts) -> bool:
    """Whether the enrolment had ended with one of its messages: perhaps this one, and before it could be told."""
    return facts.expected_message_id is None and facts.enrollment_status in ("completed", "stopped", "failed")


def _message_event(attempt: Attempt, finish: Finish, wamid: str | None) -> Outgoing:
    kind = _EVENTS[finish.status]
    event = kind(
        id=str(attempt.message_id),
        contact_id=_text(attempt.contact_id),
        sender_id=str(attempt.sender_id),
        campaign_id=_text(attempt.campaign_id),
        enrollment_id=_text(attempt.enrollment_id),
        step=attempt.step,
        wamid=wamid,
        reason=finish.reason,
        error_code=finish.error_code,
    )
    # A stable id: told again after a crash, it is the same event.
    return Outgoing(event, attempt.tenant, f"{attempt.message_id}.{kind.subject.rpartition('.')[2]}", attempt.cause)


def _enrollment_event(attempt: Attempt, status: str, reason: str | None) -> Outgoing:
    kind = events.EnrollmentCompleted if status == "completed" else events.EnrollmentStopped
    event = kind(
        id=str(attempt.enrollment_id),
        campaign_id=str(attempt.campaign_id),
        contact_id=str(attempt.contact_id),
        reason=reason,
    )
    return Outgoing(event, attempt.tenant, f"{attempt.enrollment_id}.{status}", attempt.cause)
