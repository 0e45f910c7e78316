"""Keeps the message templates of all numbers as their gateways have them.

takes: `cmd.template.sync`, and `sys.tick.templates`, at which it asks for those that were not asked for in an hour;
       `work.librarian.release`, when one may be used again, a number may write to more people, or goes on after a
       rest: then it hurries what waits for that
says: template.synced, .sync_failed, .updated
retries: while the database or the gateway is away; once more what was about to wait just when it was to be hurried
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import ClassVar, Protocol
from uuid import UUID

from loguru import logger

from harkara.actors import releasing
from harkara.actors.halting import RESTING
from harkara.actors.sender import Sender
from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Outcome, Retry
from harkara.bus.schedule import Schedule
from harkara.gateway.protocol import Credentials, Listed, Problem, Refused
from harkara.ids import uuid7_text
from harkara.policy.templates import HELD, STOPPED
from harkara.schemas.base import Message
from harkara.schemas.commands import SyncTemplates
from harkara.schemas.events import TemplatesNotSynced, TemplatesSynced, TemplateUpdated
from harkara.schemas.reasons import Reason
from harkara.schemas.work import Release, TemplatesTick
from harkara.storage import templates
from harkara.storage.storage import Storage
from harkara.storage.templates import Account, Found
from harkara.vault import Vault

#: How often a number's templates are asked for by themselves, and how many numbers at one tick.
EVERY = timedelta(hours=1)
AT_A_TICK = 100

#: So many of them are read at once: an account that doesn't answer keeps few others waiting.
AT_ONCE = 10

#: Messages that are hurried at once, and when those are looked for again that could not be found.
HURRIED = 500
LOOK_AGAIN = timedelta(seconds=5)

#: With what WhatsApp refuses a template that it has paused.
TEMPLATE_PAUSED = 132015

#: Before every id.
_FIRST = UUID(int=0)

#: Brings messages of an actor back that wait on a schedule: tenant, actor, ids; how many it found.
Hurry = Callable[[str, str, Sequence[str]], Awaitable[int]]


class Source(Protocol):
    """Whoever knows an account's templates."""

    async def templates(self, credentials: Credentials, waba_id: str) -> list[Listed] | Problem:
        """All of them."""
        ...


class Librarian:
    """Reads templates number by number; several may run."""

    name: ClassVar[str] = "librarian"
    takes: ClassVar[tuple[type[Message], ...]] = (SyncTemplates, TemplatesTick, Release)
    retries: ClassVar[Schedule] = Schedule.seconds(1, 5, 30, 120)
    #: One each: an account that doesn't answer holds up nothing that is to be released.
    batch: ClassVar[int] = 1
    in_flight: ClassVar[int] = 16

    def __init__(
        self, storage: Storage, source: Source, vault: Vault, hurry: Hurry, wake_ticker: Callable[[], None]
    ) -> None:
        self._storage, self._source, self._vault = storage, source, vault
        self._hurry, self._wake_ticker = hurry, wake_ticker

    async def handle(self, batch: Sequence[Delivery[SyncTemplates | TemplatesTick | Release]]) -> Sequence[Outcome]:
        """Do what each asks for."""
        return [await self._one(delivery) for delivery in batch]

    async def _one(self, d: Delivery[SyncTemplates | TemplatesTick | Release]) -> Outcome:
        if isinstance(d.message, SyncTemplates):
            return await self.sync(d.tenant, UUID(d.message.sender_id), d.id, d.cause or d.id)
        if isinstance(d.message, Release):
            return await self._release(d.tenant, d.message, d.attempt)
        return await self._read_stale()

    async def _read_stale(self) -> Outcome:
        """Those that it is time for; what somebody else has read meanwhile is as fresh as it would be."""
        async with self._storage.anonymous() as con:
            stale = await templates.stale(con, AT_A_TICK, EVERY)
        turn = asyncio.Semaphore(AT_ONCE)

        async def read(tenant: str, sender_id: UUID, claimed: datetime) -> Sequence[Outgoing]:
            async with turn:
                try:
                    outcome = await self.sync(tenant, sender_id, uuid7_text(), "", claimed)
                except ValueError as error:  # its secret can't be decrypted; no reason to read none of the others
                    outcome = Retry(str(error))
            if isinstance(outcome, Retry):
                logger.warning("templates of number {} of {} could not be read: {}", sender_id, tenant, outcome.reason)
            return outcome.events if isinstance(outcome, Done) else ()

        told = await asyncio.gather(*(read(*number) for number in stale))
        return Done(tuple(event for events in told for event in events))

    async def _release(self, tenant: str, work: Release, attempt: int) -> Outcome:
        """Have judged again now what waits for what is over: steps in the database, all else on the broker."""
        reasons, codes = _waits(work)
        meant = ([UUID(id_) for id_ in work.sender_ids], work.name, work.language, reasons)
        async with self._storage.batch((tenant,)) as con:
            await templates.release_steps(con, tenant, *meant)
        self._wake_ticker()
        after, missed = _FIRST, 0
        while True:
            async with self._storage.batch((tenant,)) as con:
                ids = await templates.waiting(con, tenant, *meant, codes, after, HURRIED)
            missed += len(ids) - await self._hurry(tenant, Sender.name, [str(id_) for id_ in ids])
            if len(ids) < HURRIED:
                break
            after = ids[-1]
        if missed and attempt == 1:
            about = "their number" if work.resumed else work.name or "room"
            return Retry(f"{missed} messages wait for {about} and are not on the broker yet", LOOK_AGAIN)
        return Done()

    async def sync(
        self, tenant: str, sender_id: UUID, id_: str, cause: str, claimed: datetime | None = None
    ) -> Outcome:
        """Read one number's templates; `id_` names the occasion.

        Whoever has claimed it says when, and leaves it alone if it was read since.
        """
        async with self._storage.batch((tenant,)) as con:
            account = await templates.account(con, tenant, sender_id)
        if account is None or (claimed is not None and account.tried_at != claimed):
            return Done()
        if account.waba_id is None:
            return await self._try_again(tenant, sender_id, id_, cause)
        found = await self._source.templates(self._credentials(sender_id, account), account.waba_id)
        if isinstance(found, Refused):
            async with self._storage.batch((tenant,)) as con:
                unread = await templates.unread_of(con, tenant, sender_id)
                await templates.asked(con, tenant, sender_id, account.asked_at)
                await releasing.release(con, tenant, [sender_id], unread, cause)
            failed = TemplatesNotSynced(id=str(sender_id), reason=f"{found.code}: {found.details or found.title}")
            return Done((Outgoing(failed, tenant, f"{id_}.sync_failed", cause),))
        if not isinstance(found, list):
            return Retry(f"the gateway is away: {found.reason}")
        async with self._storage.batch((tenant,)) as con:
            before = await templates.statuses(con, tenant, sender_id)
            unread = await templates.unread_of(con, tenant, sender_id)
            gone = await templates.replace(con, tenant, sender_id, _rows(found), account.asked_at)
            now = await templates.statuses(con, tenant, sender_id)
            await templates.asked(con, tenant, sender_id, account.asked_at)
            waited = [key for key, status in before.items() if status in HELD or key in unread]
            freed = [key for key in waited if now.get(key) not in HELD]
            await releasing.release(con, tenant, [sender_id], freed, cause)
            await releasing.resolve(con, tenant, sender_id, cause)
            await releasing.tell_over(con, tenant, gone, cause, reason="template_missing")
        told = [
            updated_event(tenant, sender_id, one.name, one.language, one.status, one.reason, id_, cause)
            for one in found
            if before and before.get((one.name, one.language)) != one.status == now[one.name, one.language]
        ]
        done = TemplatesSynced(id=str(sender_id), templates=len(found))
        return Done((*told, Outgoing(done, tenant, f"{id_}.synced", cause)))

    async def _try_again(self, tenant: str, sender_id: UUID, id_: str, cause: str) -> Outcome:
        """Of a number that names no account only refusals tell, and never that one is over: somebody says so."""
        async with self._storage.batch((tenant,)) as con:
            known = await templates.statuses(con, tenant, sender_id)
            stopped = sorted(key for key, status in known.items() if status in STOPPED)
            for name, language in stopped:
                await releasing.became(con, tenant, sender_id, name, language, "approved", None, cause)
        if not stopped:
            return Done()
        return Done(
            (Outgoing(TemplatesSynced(id=str(sender_id), templates=len(known)), tenant, f"{id_}.synced", cause),)
        )

    def _credentials(self, sender_id: UUID, account: Account) -> Credentials:
        return Credentials(
            sender_id=str(sender_id),
            phone_number_id=account.phone_number_id,
            access_token=self._vault.open(account.access_token) or "",
            provider=account.provider,
        )


def _waits(work: Release) -> tuple[list[Reason], list[int]]:
    """Why the gate holds back what is released, and with which codes WhatsApp has refused it."""
    if work.reasons:
        return work.reasons, []
    if work.resumed:
        return [], [*RESTING]
    return (["portfolio_limit"], []) if work.name is None else ([*HELD.values(), "template_unread"], [TEMPLATE_PAUSED])


def _rows(found: Sequence[Listed]) -> list[Found]:
    """What is listed, each once: a name and a language are a template's identity."""
    rows = {
        (one.name, one.language): Found(
            one.name, one.language, one.category, one.status, one.reason, one.quality, one.components.decode()
        )
        for one in found
    }
    return list(rows.values())


def updated_event(
    tenant: str, sender_id: UUID, name: str, language: str, status: str, reason: str | None, id_: str, cause: str
) -> Outgoing:
    """That a template's status is another now; `id_` names the occasion."""
    event = TemplateUpdated(id=str(sender_id), name=name, language=language, status=status, reason=reason)
    return Outgoing(event, tenant, f"{id_}.{name}.{language}.updated", cause)
