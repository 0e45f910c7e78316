"""Sends messages through one number after the other's turn.

takes: `work.send.<sender>.<lane>`, through one durable a sender and lane
says: message.sent, .failed, .suppressed, .deferred, .unknown, .resent; enrollment.completed, .stopped
retries: what was provably not accepted; what may have been once, if no receipt comes and its policy says so

Here is the order; each part is a module: what work asks for (`attempts`), its number's turn (`budget`), the gate and
the intent (`gating`), what an answer means for the message (`answers`), for its number's speed (`learning`) and for all
else (`aftermath`), the result (`results`), the next step (`steps`), the events (`telling`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from msgspec.structs import replace

from harkara.actors.aftermath import Aftermath
from harkara.actors.air import Air
from harkara.actors.answers import STOPPED_WAIT, Again, Finish, decide
from harkara.actors.attempts import attempt_of, said
from harkara.actors.budget import Budgets, Place, Spending
from harkara.actors.deferrals import deferred
from harkara.actors.gating import Gate, Judged
from harkara.actors.hearing import MARKETING_REFUSED
from harkara.actors.learning import learn
from harkara.actors.lengths import Lengths
from harkara.actors.linking import may_settle
from harkara.actors.numbers import Numbers
from harkara.actors.results import Results
from harkara.actors.steps import Step, Steps
from harkara.actors.telling import enrollment_events, had_ended, message_events
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Done, Outcome, Retry
from harkara.bus.schedule import PATIENT, Schedule
from harkara.gateway.protocol import Accepted, Answer, Gateway, NotSent, Refused
from harkara.ids import id_of
from harkara.policy.gate import (
    DUE_SOON,
    Ambiguous,
    Defer,
    Go,
    InDoubt,
    Park,
    Readdress,
    Resend,
    Settled,
    Stale,
    Suppress,
    Wait,
)
from harkara.rendering import Unsayable
from harkara.schemas.base import Message
from harkara.schemas.content import Content
from harkara.schemas.reasons import NOT_AGAIN
from harkara.schemas.work import Send
from harkara.storage import deferring, sending
from harkara.storage.sending import Advance, Attempt, Denied, Elsewhere, Facts, Result
from harkara.storage.storage import Storage

#: A message whose turn has not come in hand waits so long on the broker before it asks again: its number may be held
#: for hours, and no message may fail over that.
TURN_AGAIN = timedelta(seconds=20)

#: A next step that is due sooner than this would miss the ticker's look-ahead, so the ticker is woken.
WAKE_WITHIN = timedelta(seconds=2)

#: How long a message in doubt waits for a receipt before its policy decides, and how long it waits more if receipts
#: have come that nobody has read yet.
UNKNOWN_WAIT = timedelta(minutes=10)
RECEIPTS_BEHIND = timedelta(seconds=30)


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
        air: Air | None = None,
        speed: float = 1.0,
        unknown_wait: timedelta = UNKNOWN_WAIT,
        receipts_read: Callable[[str, Callable[[bytes], bool]], Awaitable[bool]] | None = None,
    ) -> None:
        self._storage, self._gateway, self._budgets, self._numbers = storage, gateway, budgets, numbers
        self._air = air or Air()
        self._steps, self._wake, self._speed = Steps(storage), wake, speed
        self._unknown_wait, self._receipts_read = unknown_wait, receipts_read
        self._gate, self._results, self._lengths = Gate(storage), Results(storage), Lengths(storage)
        self._aftermath = Aftermath(storage, numbers, speed)

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
        if number is not None and (rest := number.rest(now)):
            return Retry("its number is stopped", min(rest, STOPPED_WAIT), counts=False, park=True)
        step = await self._steps.get(delivery.tenant, id_of(work.step_id)) if work.step_id else None
        variant = step.variant(id_of(work.contact_id)) if step and step.variants and work.contact_id else None
        content = said(work, step, variant)
        if isinstance(content, Content) and content.template is not None:
            content = await self._lengths.fitting(delivery.tenant, work.sender_id, content)
        attempt = attempt_of(delivery.tenant, delivery.cause, work, content, step, variant, self._speed)
        if number is None:  # it was deleted: the gate says what becomes of the message, and nothing leaves
            return await self._not_sent(delivery, attempt, step, await self._gate.begin(attempt), content)
        template = f"{attempt.template}/{attempt.language}" if attempt.template else None
        spending = number.spending(delivery.tenant, work.to, template)
        try:
            turn = await self._budgets.acquire(work.sender_id, number.rate, work.lane, spending)
        except TimeoutError:
            return Retry("its number is held, or has more to send than it may", TURN_AGAIN, counts=False)
        denied = turn if isinstance(turn, Denied) else None
        judged = await self._gate.begin(replace(attempt, denied=denied) if denied else attempt)
        if isinstance(judged.verdict, Resend):
            if self._receipts_read is not None and not await self._receipts_read(delivery.tenant, may_settle(work)):
                await self._give_back(work.sender_id, turn)
                return Retry("a receipt that may settle it waits to be read", RECEIPTS_BEHIND, counts=False, park=True)
            attempt = replace(attempt, resend=True)
            judged = await self._gate.begin(attempt)
        if judged.facts.contact_id not in (None, attempt.contact_id):  # merged into another meanwhile
            attempt = replace(attempt, contact_id=judged.facts.contact_id)
        if isinstance(judged.verdict, Go) and not isinstance(content, Unsayable):
            self._air.took_off(work.sender_id)
            try:
                answer = await self._gateway.send(
                    number.credentials, work.to, content, opaque=work.message_id, reply_to=work.quoted
                )
            finally:
                self._air.landed(work.sender_id)
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
                await self._gate.park(attempt)
                return Done()
            case Readdress(to):
                return await self._one(replace(delivery, message=replace(delivery.message, to=to)))
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
            await self._aftermath.stop(attempt, content, decision.reason or answer.title, wait, answer)
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
                await self._aftermath.rest(attempt, facts, answer.rule.rest)
            if isinstance(answer, Refused) and answer.code == MARKETING_REFUSED:
                await self._aftermath.heed(attempt, facts)
            return outcome
        # One in doubt stays in doubt: that it was not accepted a second time says nothing of the first.
        status = "unknown" if attempt.resend else "queued"
        await self._results.write(
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
            ended = await self._results.write(result)
            if not isinstance(ended, Elsewhere):
                break
            facts = replace(facts, expected_step_id=ended.step_id, passed=list(ended.passed))
            advance = await self._advance(attempt, step, facts, finish)
        if advance and advance.due_at and advance.due_at - facts.now < WAKE_WITHIN:
            self._wake()
        told = message_events(attempt, finish, wamid, second=second, resent=resent)
        if ended and advance:
            told += enrollment_events(attempt, advance.status, advance.reason)
        elif had_ended(facts) and not second:  # that was told with the first doubt
            told += enrollment_events(attempt, facts.enrollment_status or "", facts.stopped_reason)
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
