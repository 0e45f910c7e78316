"""Before a request: facts, verdicts, limits and the intent, for all messages at once whose turn has come.

What policy says is `harkara/policy/gate.py`; here it is asked, under locks, and written down.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from msgspec.structs import replace

from harkara.actors import limits
from harkara.actors.deferrals import deferrals
from harkara.batching import Batcher
from harkara.policy.gate import Defer, Go, Resend, Suppress, Verdict, Wait, judge
from harkara.storage import deferring, due, goals, holding, sending
from harkara.storage.sending import Attempt, Facts, Intent
from harkara.storage.storage import Storage, is_away

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


class Judged(msgspec.Struct, frozen=True, gc=False):
    """The gate's verdict on an attempt, with the facts it was judged on."""

    verdict: Verdict
    facts: Facts


class Gate:
    """Judges attempts, and writes the intents of those that leave, in batches."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        #: Judge an attempt, and write what becomes of it.
        self.begin: Batcher[Attempt, Judged] = Batcher(self._begin_batch)
        self._park: Batcher[due.Waiting, None] = Batcher(self._park_batch)

    def park(self, attempt: Attempt) -> asyncio.Future[None]:
        """Have its enrolment keep its place; resuming schedules the message again."""
        return self._park((attempt.tenant, _enrollment(attempt), attempt.message_id))

    async def _begin_batch(self, attempts: Sequence[Attempt]) -> list[Judged]:
        judged: list[Judged] = []
        intended, transaction = set[UUID](), None
        try:
            async with self._looking(attempts) as (con, facts):
                verdicts = _judge(attempts, facts)
                await self._judge_conditions(con, attempts, facts, verdicts)
                verdicts = [_kept_back(*one) for one in zip(attempts, verdicts, facts, strict=True)]
                await limits.judge(con, attempts, facts, verdicts)
                intended, transaction = await sending.intend(con, _intents(attempts, verdicts, facts))
                written = intended | await deferring.defer(con, deferrals(attempts, verdicts))
                await self._taken(con, attempts, verdicts, written)
                judged = list(map(Judged, verdicts, facts))
        except Exception as error:
            # Nothing has left yet: an intent that was written after all is no ambiguous send, but ours to go on with.
            if transaction is None or not is_away(error) or not await self._stand(attempts, intended, transaction):
                raise
        return judged

    @asynccontextmanager
    async def _looking(self, attempts: Sequence[Attempt]) -> AsyncGenerator[tuple[Connection, list[Facts]]]:
        """A transaction with the facts, while nobody may write a hold on the contacts that these are about.

        That one was merged into another is among the facts: then it is looked again, with that one's hold kept out too.
        """
        contacts = {attempt.contact_id for attempt in attempts if attempt.contact_id}
        while True:
            async with self._storage.batch({attempt.tenant for attempt in attempts}) as con:
                await holding.share(con, contacts)
                facts = await sending.facts(con, attempts)
                merged = {fact.contact_id for fact in facts if fact.contact_id} - contacts
                if not merged:
                    yield con, facts
                    return
                contacts |= merged

    async def _stand(self, attempts: Sequence[Attempt], intended: Collection[UUID], transaction: str) -> bool:
        """Whether what a transaction wrote is there, whose end was not heard. Waits until the database answers."""
        one = next(attempt for attempt in attempts if attempt.message_id in intended)
        seen = partial(sending.stands, message_id=one.message_id, transaction=transaction)
        return await self._storage.committed(transaction, one.tenant, seen)

    async def _taken(
        self,
        con: Connection,
        attempts: Sequence[Attempt],
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
            await limits.uncount(con, [(attempts[i], verdicts[i]) for i in taken])
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

    async def _park_batch(self, waiting: Sequence[due.Waiting]) -> list[None]:
        await due.park(self._storage, waiting)
        return [None for _ in waiting]


def _kept_back(attempt: Attempt, verdict: Verdict, facts: Facts) -> Verdict:
    """Policy lets it go, and a budget of its own does not: it waits, if it will still be of use.

    One in doubt stays so meanwhile, and is not deferred.
    """
    denied = attempt.denied
    if denied is None or not isinstance(verdict, Go | Resend):
        return verdict
    if isinstance(verdict, Resend):
        return Wait(denied.after, denied.reason)
    until = facts.now + denied.after
    expires = attempt.expires_at is not None and attempt.expires_at <= until
    return Suppress("expired") if expires else Defer(until, denied.reason)


_TAKEN = Wait(timedelta(seconds=1), "another copy of this work is being handled")


def _judge(attempts: Sequence[Attempt], facts: Sequence[Facts]) -> list[Verdict]:
    """A verdict on each; of two copies of the same work, the second waits for what becomes of the first."""
    verdicts: list[Verdict] = []
    seen: set[UUID] = set()
    for attempt, fact in zip(attempts, facts, strict=True):
        verdicts.append(_TAKEN if attempt.message_id in seen else judge(fact, attempt))
        seen.add(attempt.message_id)
    return verdicts


def _intents(attempts: Sequence[Attempt], verdicts: Sequence[Verdict], facts: Sequence[Facts]) -> list[Intent]:
    rows: list[Intent] = []
    for attempt, verdict, fact in zip(attempts, verdicts, facts, strict=True):
        if isinstance(verdict, Go):
            rows.append(Intent(attempt, "sending", None, fact.delivery))
        elif isinstance(verdict, Suppress):
            rows.append(Intent(attempt, "suppressed", verdict.reason, fact.delivery))
    return rows


def _enrollment(attempt: Attempt) -> UUID:
    assert attempt.enrollment_id is not None, "only a step of an enrolment is parked"  # noqa: S101
    return attempt.enrollment_id
