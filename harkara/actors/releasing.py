"""What follows when WhatsApp says something else of a template: the one place for webhooks, refusals and reading."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from harkara.ids import uuid7
from harkara.policy.templates import HELD, STOPPED
from harkara.schemas.commands import SyncTemplates
from harkara.schemas.reasons import Reason
from harkara.schemas.work import Release
from harkara.storage import halting, outbox, templates
from harkara.storage.templates import Over

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


async def became(
    con: Connection,
    tenant: str,
    sender_id: UUID,
    name: str,
    language: str,
    status: str,
    reason: str | None,
    cause: str,
    at: datetime | None = None,
) -> bool:
    """Note a template's status for all numbers of its account; returns whether that is news. `at` is when, if told.

    What waited for it is judged again at once, and an alert that is over with it is told to be. Of one that may be used
    and is new, the account is asked what it is: it may be marketing, and says what it takes.
    """
    before = await templates.set_status(con, tenant, sender_id, name, language, status, reason, at)
    if status.lower() not in STOPPED:
        for id_ in await templates.unread(con, tenant, before, name, language):
            await outbox.put(con, tenant, SyncTemplates(sender_id=str(id_)), f"sync.{uuid7()}", cause)
    held = [id_ for id_, was in before.items() if was in HELD and status.lower() not in HELD]
    if held:
        await release(con, tenant, held, [(name, language)], cause)
    if before:
        await resolve(con, tenant, sender_id, cause)
    return bool(before)


async def release(
    con: Connection, tenant: str, sender_ids: list[UUID], freed: Iterable[tuple[str, str]], cause: str
) -> None:
    """Have what waits for these templates, by name and language, judged again once this transaction commits."""
    for name, language in freed:
        work = Release(sender_ids=[str(id_) for id_ in sorted(sender_ids)], name=name, language=language)
        await outbox.put(con, tenant, work, f"release.{uuid7()}", cause)


async def resolve(con: Connection, tenant: str, sender_id: UUID, cause: str) -> None:
    """Tell the alerts that are over, because the templates that they were about may be used again."""
    await tell_over(con, tenant, await templates.take_over(con, tenant, sender_id), cause)


async def tell_over(con: Connection, tenant: str, over: Over, cause: str, *, reason: Reason | None = None) -> None:
    """Tell these alerts to be over: their templates may be used again, or not, for this reason."""
    for (alert, name, language), numbers in over.items():
        await halting.resolved(con, tenant, alert, numbers, cause, template=f"{name}/{language}", reason=reason)
