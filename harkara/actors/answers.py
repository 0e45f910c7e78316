"""What the gateway's answer means for its message: it is dealt with, or it is tried again."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from harkara.actors.halting import OF_NUMBERS
from harkara.gateway.errors import Action
from harkara.gateway.protocol import Accepted, Answer, NotSent, Refused, Unknown

#: How often a message that the gateway refuses for now is tried, when its error says no other number.
MOST_TRIES = 8

#: How soon a message is back in its queue whose number was stopped: from there nothing is fetched until it goes on.
STOPPED_WAIT = timedelta(seconds=2)

#: The longest wait between tries to reach a gateway that doesn't listen.
UNREACHABLE_CEILING = timedelta(seconds=30)


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
