"""What an answer other than success proves at gateways without numbered errors: a table of statuses and texts.

Only what the table lists is known to mean that nothing was sent. All else is Unknown, because such a gateway may fail
after WhatsApp took the message, and say so with the same status.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from harkara.gateway.errors import Action, Rule, Scope
from harkara.gateway.exchange import Reply
from harkara.gateway.protocol import Refused, Unknown

#: Under this code we refuse what a gateway can't do, without asking it.
NOT_SUPPORTED = 501

_LONGEST_WAIT_S = 86400


@dataclass(frozen=True, slots=True)
class Case:
    """An answer that proves that nothing was sent: its HTTP status, and a pattern that its text contains."""

    status: int
    says: re.Pattern[str]
    rule: Rule


def case(status: int, says: str, rule: Rule) -> Case:
    """One row of a table; the pattern takes any case."""
    return Case(status, re.compile(says, re.IGNORECASE), rule)


def stop(title: str) -> Rule:
    """The message waits and its number is paused until a person has acted."""
    return Rule(Action.STOP, Scope.NUMBER, title, alert=True, waits=True)


def wait(title: str, seconds: float) -> Rule:
    """The number waits; then the same message again."""
    return Rule(Action.BACK_OFF, Scope.NUMBER, title, delay=timedelta(seconds=seconds), ceiling=timedelta(minutes=5))


def again(title: str, seconds: float, attempts: int) -> Rule:
    """The same message again, a few times."""
    return Rule(Action.RETRY, Scope.MESSAGE, title, delay=timedelta(seconds=seconds), attempts=attempts)


def give_up(title: str, scope: Scope = Scope.MESSAGE) -> Rule:
    """This message fails for good."""
    return Rule(Action.GIVE_UP, scope, title)


UNSUPPORTED = give_up("This gateway can't send it")

UNREACHABLE = give_up("This gateway can't reach the recipient", Scope.RECIPIENT)

#: What every gateway's table ends with.
ANYWHERE = (
    case(429, "", wait("The gateway is asked too much", 1)),
    *(case(status, "", stop("The gateway is not at this address")) for status in (301, 302, 303, 307, 308, 405, 410)),
)


def judged(table: Sequence[Case], reply: Reply, text: str) -> Refused | Unknown:
    """What an answer proves: the first row that fits. `text` is all that it says in words."""
    for row in table:
        if row.status == reply.status and row.says.search(text):
            return Refused(reply.status, row.rule.title, text[:500], row.rule, _retry_after(reply))
    return Unknown(f"the gateway answered {reply.status}, which doesn't prove that nothing was sent: {text[:300]}")


def unsupported(what: str) -> Refused:
    """We don't even ask."""
    return Refused(NOT_SUPPORTED, UNSUPPORTED.title, what, UNSUPPORTED)


def unreachable(to: str) -> Refused:
    """A recipient who is known only by an id of another kind of gateway."""
    return Refused(NOT_SUPPORTED, UNREACHABLE.title, f"{to} is no phone number: give the contact one", UNREACHABLE)


def _retry_after(reply: Reply) -> timedelta | None:
    seconds = reply.headers.get("Retry-After", "")
    if not re.fullmatch(r"[0-9]{1,9}", seconds):
        return None
    return timedelta(seconds=min(int(seconds), _LONGEST_WAIT_S))
