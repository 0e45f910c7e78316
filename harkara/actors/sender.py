"""Sends messages through one number after the other's turn.

takes: `work.send.<sender>.<lane>`, through one durable a sender and lane
says: message.sent, .failed, .suppressed, .deferred, .unknown, .resent; enrollment.completed, .stopped
retries: what was provably not accepted; what may have been once, if no receipt comes and its policy says so
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar
from uuid import UUID

import msgspec
from loguru import logger
from msgspec.structs import replace

from harkara.actors import limits
from harkara.actors.attempts import attempt_of, said
from harkara.actors.budget import Budgets, Place, Spending
from harkara.actors.deferrals import deferrals, deferred
from harkara.actors.halting import OF_NUMBERS, Refusal, halt, reaches_further
from harkara.actors.hearing import MARKETING_REFUSED, opted
from harkara.actors.learning import learn
from harkara.actors.numbers import PAUSED_REST, Numbers
from harkara.actors.steps import Step, Steps
from harkara.batching import Batcher
from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Drop, Outcome, Retry
from harkara.bus.schedule import PATIENT, Schedule
from harkara.gateway.errors import Action, Scope
from harkara.gateway.protocol import Accepted, Answer, Gateway, NotSent, Refused, Unknown
from harkara.ids import id_of
from harkara.policy.gate import (
    DUE_SOON,
    Ambiguous,
    Defer,
    Go,
    InDoubt,
    Park,
    Resend,
    Settled,
    Stale,
    Suppress,
    Verdict,
    Wait,
    judge,
)
from harkara.rendering import Unsayable
from harkara.schemas import events
from harkara.schemas.base import Message
from harkara.schemas.content import Content
from harkara.schemas.reasons import NOT_AGAIN
from harkara.schemas.work import Send
from harkara.storage import counting, deferring, due, goals, holding, opting, resting, sending
from harkara.storage.opting import Word
from harkara.storage.sending import Advance, Attempt, Denied, Elsewhere, Facts, Intent, Result
from harkara.storage.storage import Storage, is_away, reason_of
from harkara.values import country

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: How often a message that the gateway refuses for now is tried, when its error says no other number.
MOST_TRIES = 8

#: A message whose turn has not come in hand waits so long on the broker before it asks again: its number may be held
#: for hours, and no message may fail over that.
TURN_AGAIN = timedelta(seconds=20)

#: How soon a message is back in its queue whose number was stopped: from there nothing is fetched until it goes on.
STOPPED_WAIT = timedelta(seconds=2)

#: The longest wait between tries to reach a gateway that doesn't listen.
UNREACHABLE_CEILING = timedelta(seconds=30)

#: A next step that is due sooner than this would miss the ticker's look-ahead, so the ticker is woken.
WAKE_WITHIN = timedelta(seconds=2)

#: How long a message in doubt waits for a receipt before its policy decides, and how long it waits more if receipts
#: have come that nobody has read yet.
UNKNOWN_WAIT = timedelta(minutes=10)
RECEIPTS_BEHIND = timedelta(seconds=30)


class Finish(msgspec.Struct, frozen=True, gc=False):
    """The message is dealt with; `stop` says why its enrolment can't go on, if so."""

    status: str
    reason: str | None = None
    error_code: int | None = None
    stop: str | None = None
    #: In doubt: it is sent once more after this long, unless a receipt comes before.
    resend_after: timedelta | None = None


class Again(msgspec.Struct, frozen=True, gc=False):
    """It was provably not accepted: it goes back into the queue. `alone` says that others of its number go on."""

    after: timedelta
    reason: str
    error_code: int | None = None
    alone: bool = False


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
        return Again(wait, reason, answer.code, alone=rule.scope not in OF_NUMBERS)
    if rule.action is Action.RETRY and tries <= (MOST_TRIES if rule.attempts is None else rule.attempts):
        return Again(wait, reason, answer.code)
    if rule.waits and (rule.scope in OF_NUMBERS or tries <= MOST_TRIES):
        return Again(STOPPED_WAIT, reason, answer.code)
    return Finish("failed", reason, answer.code, stop="unreachable" if rule.unreachable else None)


class Judged(msgspec.Struct, frozen=True, gc=False):
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


class Sender:
    """Gate, budget, intent row, request, result row, next step due, ack: in this order, for every message."""

    name: ClassVar[str] = "send"
    takes: ClassVar[tuple[type[Message], ...]] = (Send,)
    retries: ClassVar[Schedule] = PATIENT
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
        unknown_wait: timedelta = UNKNOWN_WAIT,
        receipts_read: Callable[[str], Awaitable[bool]] | None = None,
    ) -> None:
        self._storage, self._gateway, self._budgets, self._numbers = storage, gateway, budgets, numbers
        self._steps, self._wake, self._speed = Steps(storage), wake, speed
        self._unknown_wait, self._receipts_read = unknown_wait, receipts_read
        #: The messages whose results wait for the database.
        self._kept = set[UUID]()
        self._begin: Batcher[Attempt, Judged] = Batcher(self._begin_batch)
        self._finish: Batcher[Result, bool | Elsewhere] = Batcher(self._finish_batch)
        self._halt: Batcher[Refusal, list[UUID]] = Batcher(self._halt_batch)
        self._park: Batcher[due.Waiting, None] = Batcher(self._park_batch)

    async def handle(self, batch: Sequence[Delivery[Send]]) -> Sequence[Outcome]:
        """Send each; the batch is one message, because each waits for its own turn and answer."""
        if len(batch) == 1:
            return [await self._one(batch[0])]
        return await asyncio.gather(*(self._one(delivery) for delivery in batch))

    async def end_waiting(self) -> None:
        """Cancel the handling of whatever waits for its number's turn, so that it goes back to the queue at once."""
        await self._budgets.close()

    async def _one(self, delivery: Delivery[Send]) -> Outcome:
        work, now = delivery.message, datetime.now(UTC)
        early = work.due_at - now
        if early > DUE_SOON and work.step_id is None:
            return Retry("its time has not come", early, counts=False)
        number = await self._numbers.get(delivery.tenant, work.sender_id)
        if number is None:
            return Drop(f"tenant {delivery.tenant} has no sender {work.sender_id}")
        if rest := number.rest(now):
            return Retry("its number is stopped", min(rest, STOPPED_WAIT), counts=False, park=True)
        step = await self._steps.get(delivery.tenant, id_of(work.step_id)) if work.step_id else None
        variant = step.variant(id_of(work.contact_id)) if step and step.variants and work.contact_id else None
        content = said(work, step, variant)
        attempt = attempt_of(delivery.tenant, delivery.cause, work, content, step, variant, self._speed)
        template = f"{attempt.template}/{attempt.language}" if attempt.template else None
        spending = number.spending(delivery.tenant, work.to, template)
        try:
            turn = await self._budgets.acquire(work.sender_id, number.rate, work.lane, spending)
        except TimeoutError:
            return Retry("its number is held, or has more to send than it may", TURN_AGAIN, counts=False)
        denied = turn if isinstance(turn, Denied) else None
        judged = await self._begin(replace(attempt, denied=denied) if denied else attempt)
        if isinstance(judged.verdict, Resend):
            if self._receipts_read is not None and not await self._receipts_read(delivery.tenant):
                await self._give_back(work.sender_id, turn)
                return Retry(
                    "receipts wait to be read, and one may settle it", RECEIPTS_BEHIND, counts=False, park=True
                )
            attempt = replace(attempt, resend=True)
            judged = await self._begin(attempt)
        if isinstance(judged.verdict, Go) and not isinstance(content, Unsayable):
            answer = await self._gateway.send(
                number.credentials, work.to, content, opaque=work.message_id, reply_to=work.quoted
            )
            if isinstance(turn, Place) and isinstance(answer, Refused | NotSent):
                await self._budgets.free(turn)
            return await self._answered(attempt, step, judged.facts, content, answer, spending)
        await self._give_back(work.sender_id, turn)
        return await self._not_sent(delivery, attempt, step, judged, content)

    async def _give_back(self, sender_id: str, turn: Denied | Place | None) -> None:
        """It does not leave: what it has cost its number and its portfolio is another's."""
        if isinstance(turn, Denied):  # it has cost nothing
            return
        self._budgets.give_back(sender_id)
        if turn is not None:
            await self._budgets.free(turn)

    async def _not_sent(
        self,
        delivery: Delivery[Send],
        attempt: Attempt,
        step: Step | None,
        judged: Judged,
        content: Content | Unsayable,
    ) -> Outcome:
        """What becomes of a message that the gate, or its own content, keeps from leaving now."""
        match judged.verdict:
            case Go():
                return await self._settle(attempt, step, judged.facts, Finish("failed", f"content: {content}"))
            case Suppress(reason, stop):
                return await self._settle(attempt, step, judged.facts, Finish("suppressed", reason, stop=stop))
            case Ambiguous():
                lost = Finish("unknown", "the process ended during the request, before its answer was written down")
                return await self._settle(attempt, step, judged.facts, self._doubted(attempt, judged.facts, lost))
            case InDoubt(after):
                doubted = Finish("unknown", judged.facts.reason, judged.facts.error_code, resend_after=after)
                return await self._settle(attempt, step, judged.facts, doubted)
            case Wait(after, reason):
                return Retry(reason, after, counts=False)
            case Defer(until, reason):
                return deferred(deferring.Deferral(attempt, until, reason), judged.facts.now)
            case Park():
                await self._park((delivery.tenant, _enrollment(attempt), attempt.message_id))
                return Done()
            case Settled(status, against):
                facts = judged.facts
                if against is not None:
                    facts = replace(facts, reason=f"{facts.reason}; {NOT_AGAIN}{against}")
                    async with self._storage.batch((delivery.tenant,)) as con:
                        await sending.keep(con, delivery.tenant, attempt.message_id, facts.reason)
                if facts.resend_at and not facts.resent and delivery.deliveries == 1:
                    return Done()  # it has only waited for a receipt, and what came of it was told by that
                before = Finish(status, facts.reason, facts.error_code)
                return await self._settle(attempt, step, facts, before, facts.wamid)
            case Stale() | Resend():
                return Done()

    def _doubted(self, attempt: Attempt, facts: Facts, finish: Finish) -> Finish:
        """A message in doubt is sent once more, later, if its policy says so and it has not been."""
        again = facts.delivery == "at_least_once" and not facts.resent and not attempt.resend
        return replace(finish, resend_after=self._unknown_wait) if again else finish

    # -- the gate and the intent ----------------------------------------------------------------------------------

    async def _begin_batch(self, attempts: Sequence[Attempt]) -> list[Judged]:
        judged: list[Judged] = []
        intended, transaction = set[UUID](), None
        try:
            async with self._storage.batch({attempt.tenant for attempt in attempts}) as con:
                await holding.share(con, {attempt.contact_id for attempt in attempts if attempt.contact_id})
                facts = await sending.facts(con, attempts)
                verdicts = _judge(attempts, facts)
                await self._judge_conditions(con, attempts, facts, verdicts)
                verdicts = [_kept_back(*one) for one in zip(attempts, verdicts, facts, strict=True)]
                await limits.judge(con, attempts, facts, verdicts)
                intended, transaction = await sending.intend(con, _intents(attempts, verdicts, facts))
                written = intended | await deferring.defer(con, deferrals(attempts, verdicts))
                await self._taken(con, attempts, facts, verdicts, written)
                judged = list(map(Judged, verdicts, facts))
        except Exception as error:
            # Nothing has left yet: an intent that was written after all is no ambiguous send, but ours to go on with.
            if transaction is None or not is_away(error) or not await self._stand(attempts, intended, transaction):
                raise
        return judged

    async def _stand(self, attempts: Sequence[Attempt], intended: Collection[UUID], transaction: str) -> bool:
        """Whether what a transaction wrote is there, whose end was not heard. Waits until the database answers."""
        one = next(attempt for attempt in attempts if attempt.message_id in intended)
        seen = partial(sending.stands, message_id=one.message_id, transaction=transaction)
        return await self._storage.committed(transaction, one.tenant, seen)

    async def _taken(
        self,
        con: Connection,
        attempts: Sequence[Attempt],
        facts: Sequence[Facts],
        verdicts: list[Verdict],
        written: Collection[UUID],
    ) -> None:
        """What could not be written is handled elsewhere at this very moment: it counts there, and waits here."""
        taken = [
            i
            for i, attempt in enumerate(attempts)
            if isinstance(verdicts[i], Go | Suppress | Defer) and attempt.message_id not in written
        ]
        if taken:
            await limits.uncount(con, [(attempts[i], facts[i], verdicts[i]) for i in taken])
        for i in taken:
            verdicts[i] = _TAKEN

    async def _judge_conditions(
        self, con: Connection, attempts: Sequence[Attempt], facts: list[Facts], verdicts: list[Verdict]
    ) -> None:
        """Judge again those that may go, and whose campaigns have a goal or an exit."""
        again = [i for i, fact in enumerate(facts) if (fact.goal or fact.exit) and isinstance(verdicts[i], Go)]
        if not again:
            return
        met = await goals.met(con, [(_enrollment(attempts[i]), facts[i].goal, facts[i].exit) for i in again])
        for i in again:
            goal, exit_ = met.get(_enrollment(attempts[i]), (False, False))
            facts[i] = replace(facts[i], goal_met=goal, exit_met=exit_)
            verdicts[i] = judge(facts[i], attempts[i])

    async def _halt_batch(self, refusals: Sequence[Refusal]) -> list[list[UUID]]:
        """Stop what these are about. A number that is refused is so for all that it has in hand: that is one lesson."""
        first = {_about(one): one for one in reversed(refusals)}
        async with self._storage.batch({one.tenant for one in refusals}) as con:
            halted = {key: await halt(con, one) for key, one in sorted(first.items(), key=lambda item: item[0][:3])}
        return [halted[_about(one)] for one in refusals]

    async def _park_batch(self, waiting: Sequence[due.Waiting]) -> list[None]:
        await due.park(self._storage, waiting)
        return [None for _ in waiting]

    # -- the result -----------------------------------------------------------------------------------------------

    async def _answered(
        self,
        attempt: Attempt,
        step: Step | None,
        facts: Facts,
        content: Content,
        answer: Answer,
        spending: Spending,
    ) -> Outcome:
        decision = decide(answer, facts.attempts + 1)
        wait = decision.after if isinstance(decision, Again) else timedelta()
        await learn(self._budgets, str(attempt.sender_id), spending, answer, wait)
        outcome = await self._carried_out(attempt, step, facts, answer, decision)
        if isinstance(answer, Refused):  # only now: what can't be written down must not leave the message in doubt
            await self._stop(attempt, content, decision.reason or answer.title, wait, answer)
        return outcome

    async def _carried_out(
        self, attempt: Attempt, step: Step | None, facts: Facts, answer: Answer, decision: Finish | Again
    ) -> Outcome:
        if isinstance(decision, Finish):
            wamid = answer.wamid if isinstance(answer, Accepted) else None
            if decision.status == "unknown":
                decision = self._doubted(attempt, facts, decision)
            outcome = await self._settle(attempt, step, facts, decision, wamid)
            if isinstance(answer, Refused) and answer.rule.rest:
                await self._rest(attempt, facts, answer.rule.rest)
            if isinstance(answer, Refused) and answer.code == MARKETING_REFUSED and isinstance(outcome, Done):
                return Done((*outcome.events, *await self._heed(attempt)))
            return outcome
        # One in doubt stays in doubt: that it was not accepted a second time says nothing of the first.
        status = "unknown" if attempt.resend else "queued"
        await self._write(
            Result(
                attempt.message_id,
                attempt.tenant,
                status,
                reason=decision.reason,
                error_code=decision.error_code,
                unsent=attempt.resend,
            )
        )
        return Retry(decision.reason, decision.after, counts=False, park=attempt.resend or decision.alone)

    async def _stop(self, attempt: Attempt, content: Content, reason: str, wait: timedelta, answer: Refused) -> None:
        """Let what the refusal is about rest, in this process at once and in the others soon."""
        if not reaches_further(answer.rule, wait):
            return
        template = (content.template.name, content.template.language) if content.template else None
        refusal = Refusal(
            attempt.tenant,
            attempt.sender_id,
            answer.rule,
            answer.code,
            reason,
            wait,
            template,
            attempt.cause,
            country=country(attempt.to) if answer.rule.scope is Scope.COUNTRY else None,
        )
        rest = wait if answer.rule.action is Action.BACK_OFF else PAUSED_REST
        self._numbers.halted(attempt.tenant, await self._halt(refusal), rest)

    async def _rest(self, attempt: Attempt, facts: Facts, rest: timedelta) -> None:
        """Send a contact no more marketing for so long, which WhatsApp would refuse."""
        if facts.contact_id is not None:
            until = datetime.now(UTC) + rest / self._speed
            async with self._storage.batch((attempt.tenant,)) as con:
                await resting.rest(con, [resting.Rest(attempt.tenant, facts.contact_id, until)])

    async def _heed(self, attempt: Attempt) -> Sequence[Outgoing]:
        """Note that somebody has turned off marketing in WhatsApp, which it tells by refusing it."""
        if attempt.contact_id is None:
            return ()
        word = Word("marketing", True, datetime.now(UTC), "whatsapp")
        async with self._storage.batch((attempt.tenant,)) as con:
            new = await opting.hear(con, attempt.tenant, attempt.contact_id, word)
        event, id_ = opted(attempt.contact_id, word, str(attempt.message_id))
        return (Outgoing(event, attempt.tenant, id_, attempt.cause),) if new else ()

    async def _settle(
        self, attempt: Attempt, step: Step | None, facts: Facts, finish: Finish, wamid: str | None = None
    ) -> Outcome:
        """Write the result, move the enrolment on, and tell."""
        refused_again = attempt.resend and finish.status == "failed"
        if refused_again:
            finish = replace(
                finish, status="unknown", reason=f"sent once more, and refused: {finish.reason}", stop=None
            )
        second = facts.resent or attempt.resend
        resent = second and not refused_again
        advance = await self._advance(attempt, step, facts, finish)
        while True:
            result = Result(
                attempt.message_id,
                attempt.tenant,
                finish.status,
                wamid,
                finish.reason,
                finish.error_code,
                advance,
                finish.resend_after,
                resent=resent,
                unsent=refused_again,
            )
            ended = await self._write(result)
            if not isinstance(ended, Elsewhere):
                break
            facts = replace(facts, expected_step_id=ended.step_id, passed=list(ended.passed))
            advance = await self._advance(attempt, step, facts, finish)
        if advance and advance.due_at and advance.due_at - facts.now < WAKE_WITHIN:
            self._wake()
        told = _message_events(attempt, finish, wamid, second=second, resent=resent)
        if ended and advance:
            told += _enrollment_events(attempt, advance.status, advance.reason)
        elif _had_ended(facts) and not second:  # that was told with the first doubt
            told += _enrollment_events(attempt, facts.enrollment_status or "", facts.stopped_reason)
        if finish.resend_after is not None:
            return Retry(
                "in doubt, and no receipt yet", finish.resend_after, counts=False, park=True, events=tuple(told)
            )
        return Done(tuple(told))

    async def _advance(self, attempt: Attempt, step: Step | None, facts: Facts, finish: Finish) -> Advance | None:
        """Where the enrolment goes from the step that it waits for: another one than was sent, if it was moved."""
        if step is None or attempt.enrollment_id is None or facts.started_at is None:
            return None
        if facts.expected_message_id != attempt.message_id:
            return None
        if facts.expected_step_id is not None and facts.expected_step_id != step.id:
            step = await self._steps.get(attempt.tenant, facts.expected_step_id) or step
        if finish.stop:
            status = "failed" if finish.status == "failed" else "stopped"
            return step.end(attempt.enrollment_id, status, finish.stop)
        return step.next_after(attempt.enrollment_id, facts.started_at, self._speed, facts.passed or ())

    async def _write(self, result: Result) -> bool | Elsewhere:
        """Write a result however long it takes: forgetting it would leave the message in doubt.

        Returns whether its enrolment has ended with it, or where it waits for the message now.
        """
        wait = 0.05
        try:
            while True:
                try:
                    return await self._finish(result)
                except Exception as error:
                    if not is_away(error):
                        raise
                    if not self._kept:  # once for all that wait
                        logger.warning(
                            "the database is away ({}): results of messages are kept, and written once it is there",
                            reason_of(error),
                        )
                    self._kept.add(result.message_id)
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, 2.0)
        finally:
            self._kept.discard(result.message_id)

    async def _finish_batch(self, results: Sequence[Result]) -> list[bool | Elsewhere]:
        """Write results; the answer to each is whether its enrolment has ended with it."""
        async with self._storage.batch({result.tenant for result in results}) as con:
            if refused := [(r.message_id, r.tenant) for r in results if r.status == "failed" and not r.resent]:
                await counting.give_back(con, refused)
            ended, elsewhere = await sending.finish(con, results)
        return [
            False if result.advance is None else elsewhere.get(id_ := result.advance.enrollment_id, id_ in ended)
            for result in results
        ]


def _kept_back(attempt: Attempt, verdict: Verdict, facts: Facts) -> Verdict:
    """Policy lets it go, and a budget of its own does not. One in doubt stays so meanwhile, and is not deferred."""
    denied = attempt.denied
    if denied is None or not isinstance(verdict, Go | Resend):
        return verdict
    return (
        Defer(facts.now + denied.after, denied.reason) if isinstance(verdict, Go) else Wait(denied.after, denied.reason)
    )


_TAKEN = Wait(timedelta(seconds=1), "another copy of this work is being handled")


def _judge(attempts: Sequence[Attempt], facts: Sequence[Facts]) -> list[Verdict]:
    """A verdict on each; of two copies of the same work, the second waits for what becomes of the first."""
    verdicts: list[Verdict] = []
    seen: set[UUID] = set()
    for attempt, fact in zip(attempts, facts, strict=True):
        verdicts.append(_TAKEN if attempt.message_id in seen else judge(fact, attempt))
        seen.add(attempt.message_id)
    return verdicts


def _about(refusal: Refusal) -> tuple[Any, ...]:
    return refusal.tenant, refusal.sender_id, refusal.code, refusal.template, refusal.country


def _intents(attempts: Sequence[Attempt], verdicts: Sequence[Verdict], facts: Sequence[Facts]) -> list[Intent]:
    rows: list[Intent] = []
    for attempt, verdict, fact in zip(attempts, verdicts, facts, strict=True):
        if isinstance(verdict, Go):
            rows.append(Intent(attempt, "sending", None, fact.delivery))
        elif isinstance(verdict, Suppress):
            rows.append(Intent(attempt, "suppressed", verdict.reason, fact.delivery))
    return rows


def _text(id_: UUID | None) -> str | None:
    return str(id_) if id_ else None


def _enrollment(attempt: Attempt) -> UUID:
    assert attempt.enrollment_id is not None, "only a step of an enrolment is parked"  # noqa: S101
    return attempt.enrollment_id


def _had_ended(facts: Facts) -> bool:
    """Whether the enrolment had ended with one of its messages: perhaps this one, and before it could be told."""
    return facts.expected_message_id is None and facts.enrollment_status in ("completed", "stopped", "failed")


def _message_events(
    attempt: Attempt, finish: Finish, wamid: str | None, *, second: bool, resent: bool
) -> list[Outgoing]:
    """What became of a message; what the `second` attempt leaves in doubt is another event than the first doubt."""
    kinds: list[tuple[type[events.MessageEvent], str]] = [(events.MessageResent, "resent")] if resent else []
    name = _EVENTS[finish.status].subject.rpartition(".")[2]
    kinds.append((_EVENTS[finish.status], "unknown.resent" if second and name == "unknown" else name))
    return [_message_event(kind, name, attempt, finish, wamid) for kind, name in kinds]


def _message_event(
    kind: type[events.MessageEvent], name: str, attempt: Attempt, finish: Finish, wamid: str | None
) -> Outgoing:
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
        variant=attempt.variant,
    )
    # A stable id: told again after a crash, it is the same event.
    return Outgoing(event, attempt.tenant, f"{attempt.message_id}.{name}", attempt.cause)


def _enrollment_events(attempt: Attempt, status: str, reason: str | None) -> list[Outgoing]:
    kinds: list[tuple[type[events.EnrollmentEvent], str]] = [
        (events.EnrollmentCompleted if status == "completed" else events.EnrollmentStopped, status)
    ]
    if reason == "goal_reached":
        kinds.append((events.EnrollmentGoalReached, reason))
    return [
        Outgoing(
            kind(
                id=str(attempt.enrollment_id),
                campaign_id=str(attempt.campaign_id),
                contact_id=str(attempt.contact_id),
                reason=reason,
            ),
            attempt.tenant,
            f"{attempt.enrollment_id}.{name}",
            attempt.cause,
        )
        for kind, name in kinds
    ]
