"""What answers teach about budgets: down when WhatsApp says that it is too much, and back up by itself."""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol

from harkara.actors.budget import Spending
from harkara.actors.halting import OF_NUMBERS
from harkara.gateway.errors import Action, Scope
from harkara.gateway.protocol import Accepted, Answer, Refused

#: Codes that say that a number, or its account, was too fast; the others of that kind only want a rest.
TOO_FAST = frozenset({130429, 80007, 4})

#: From this much of its allowance on, in percent, an account goes more slowly.
NEAR_LIMIT = 80

#: A template of which WhatsApp takes messages and keeps them, until it has looked at its quality (those of a paused one
#: end as `failed`, 132015), leaves this often, for so long.
KEPT = frozenset({"held_for_quality_assessment", "paused"})
PACED_PER_S, PACED = 1.0, timedelta(hours=1)


class Lessons(Protocol):
    """Where what was learned is kept."""

    async def hold(self, sender_id: str, seconds: float) -> None: ...
    async def slow_down(self, sender_id: str) -> None: ...
    async def hold_pair(self, sender_id: str, to: str, seconds: float) -> None: ...
    async def pace(self, template: str, per_s: float, seconds: float) -> None: ...


async def learn(lessons: Lessons, sender_id: str, spending: Spending, answer: Answer, wait: timedelta) -> None:
    """Take an answer to heart; `wait` is how long its message waits, if it does."""
    if isinstance(answer, Accepted):
        if answer.usage >= NEAR_LIMIT:
            await lessons.slow_down(sender_id)
        if answer.status in KEPT and spending.template:
            await lessons.pace(spending.template, PACED_PER_S, PACED.total_seconds())
    elif isinstance(answer, Refused) and answer.rule.action is Action.BACK_OFF:
        if answer.rule.scope is Scope.PAIR:
            await lessons.hold_pair(sender_id, spending.to, wait.total_seconds())
        elif answer.rule.scope in OF_NUMBERS:
            await lessons.hold(sender_id, wait.total_seconds())
            if answer.code in TOO_FAST:
                await lessons.slow_down(sender_id)
