"""What a refusal means besides its message: for numbers and templates, and for the contact."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from harkara.actors.halting import Refusal, halt, reaches_further
from harkara.actors.hearing import turned_off
from harkara.actors.numbers import PAUSED_REST, Numbers
from harkara.batching import Batcher
from harkara.gateway.errors import Action, Scope
from harkara.gateway.protocol import Refused
from harkara.schemas.content import Content
from harkara.storage import outbox, resting
from harkara.storage.sending import Attempt, Facts
from harkara.storage.storage import Storage
from harkara.values import country


class Aftermath:
    """Writes what refusals say of more than their messages."""

    def __init__(self, storage: Storage, numbers: Numbers, speed: float) -> None:
        self._storage, self._numbers, self._speed = storage, numbers, speed
        self._halt: Batcher[Refusal, list[UUID]] = Batcher(self._halt_batch)

    async def stop(self, attempt: Attempt, content: Content, reason: str, wait: timedelta, answer: Refused) -> None:
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

    async def rest(self, attempt: Attempt, facts: Facts, rest: timedelta) -> None:
        """Send a contact no more marketing for so long, which WhatsApp would refuse."""
        if facts.contact_id is not None:
            until = datetime.now(UTC) + rest / self._speed
            async with self._storage.batch((attempt.tenant,)) as con:
                await resting.rest(con, [resting.Rest(attempt.tenant, facts.contact_id, until)])

    async def heed(self, attempt: Attempt, facts: Facts) -> None:
        """Note that the contact has turned off marketing in WhatsApp, as if a status had told it."""
        if facts.contact_id is None:
            return
        now, name = datetime.now(UTC), str(attempt.message_id)
        async with self._storage.batch((attempt.tenant,)) as con:
            heard, stopped = await turned_off(con, attempt.tenant, facts.contact_id, now, name)
            await outbox.put_all(con, attempt.tenant, [*heard, *stopped], attempt.cause)

    async def _halt_batch(self, refusals: Sequence[Refusal]) -> list[list[UUID]]:
        """Stop what these are about. A number that is refused is so for all that it has in hand: that is one lesson."""
        first = {_about(one): one for one in reversed(refusals)}
        async with self._storage.batch({one.tenant for one in refusals}) as con:
            halted = {key: await halt(con, one) for key, one in sorted(first.items(), key=lambda item: item[0][:3])}
        return [halted[_about(one)] for one in refusals]


def _about(refusal: Refusal) -> tuple[Any, ...]:
    return refusal.tenant, refusal.sender_id, refusal.code, refusal.template, refusal.country
