"""What answers teach about budgets: down when WhatsApp says that it is too much, and back up by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import timedelta
from typing import NamedTuple, Protocol

from harkara.actors.budget import Spending
from harkara.actors.halting import OF_NUMBERS, reaches_further
from harkara.gateway.errors import Action, Rule, Scope, rule_for
from harkara.gateway.protocol import Accepted, Answer, NotSent, Refused
from harkara.schemas.reasons import NO_GATEWAY

#: Codes that say that a number, or its account, was too fast; the others of that kind only want a rest.
TOO_FAST = frozenset({130429, 80007, 4})

#: From this much of its allowance on, in percent, an account goes more slowly.
NEAR_LIMIT = 80

#: A template of which WhatsApp takes messages and keeps them, until it has looked at its quality (those of a paused one
#: end as `failed`, 132015), leaves this often, for so long.
KEPT = frozenset({"held_for_quality_assessment", "paused"})
PACED_PER_S, PACED = 1.0, timedelta(hours=1)

#: What a status says of how fast a number may go is past by then: statuses come late, and again.
NEWS = timedelta(minutes=1)


class Lessons(Protocol):
    """Where what was learned is kept."""

    async def hold(self, sender_id: str, seconds: float) -> None: ...
    async def away(self, sender_id: str, where: str | None) -> None: ...
    async def slow_down(self, sender_id: str) -> None: ...
    async def ease(self, sender_id: str) -> None: ...
    async def hold_pair(self, sender_id: str, to: str, seconds: float) -> None: ...
    async def pace(self, template: str, per_s: float, seconds: float) -> None: ...


async def learn(lessons: Lessons, sender_id: str, spending: Spending, answer: Answer, wait: timedelta) -> None:
    """Take an answer to heart; `wait` is how long its message waits, if it does."""
    await lessons.away(sender_id, answer.reason.removeprefix(NO_GATEWAY) if isinstance(answer, NotSent) else None)
    if isinstance(answer, Accepted):
        if answer.usage >= NEAR_LIMIT:
            await lessons.ease(sender_id)
        if answer.status in KEPT and spending.template:
            await lessons.pace(spending.template, PACED_PER_S, PACED.total_seconds())
    elif isinstance(answer, Refused) and answer.rule.action is Action.BACK_OFF:
        await _rest(lessons, sender_id, spending.to, answer.rule, wait)
        if answer.code in TOO_FAST:
            await lessons.slow_down(sender_id)


class Failure(NamedTuple):
    """A message that WhatsApp took and could not deliver, as a status said so long after."""

    sender_id: str
    to: str
    code: int
    late: timedelta


async def learn_late(lessons: Lessons, failures: Iterable[Failure]) -> None:
    """Take failures to heart as if they had been answers; what is the same of many is one lesson."""
    fresh = {
        (one.sender_id, one.to if rule_for(one.code).scope is Scope.PAIR else "", one.code)
        for one in failures
        if rule_for(one.code).action is Action.BACK_OFF and one.late <= NEWS
    }
    await asyncio.gather(*(_learn_late(lessons, *one) for one in sorted(fresh)))


async def _learn_late(lessons: Lessons, sender_id: str, to: str, code: int) -> None:
    """What holds a number for longer is on its row (`halting.halt_for`), which knows what was resumed since."""
    rule = rule_for(code)
    wait = rule.wait(1)
    if not reaches_further(rule, wait):
        await _rest(lessons, sender_id, to, rule, wait)
    if code in TOO_FAST:
        await lessons.slow_down(sender_id)


async def _rest(lessons: Lessons, sender_id: str, to: str, rule: Rule, wait: timedelta) -> None:
    if rule.scope is Scope.PAIR:
        await lessons.hold_pair(sender_id, to, wait.total_seconds())
    elif rule.scope in OF_NUMBERS:
        await lessons.hold(sender_id, wait.total_seconds())
