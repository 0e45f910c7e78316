"""Pausing what sends and having it go on: a campaign, a number, or a tenant with all its numbers.

What an operator has paused, only an operator has go on: the tenant's own requests ask here first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

from harkara.storage import enrolling, halting
from harkara.storage.halting import BY_OPERATOR, WITH_TENANT, Bad

if TYPE_CHECKING:
    import asyncpg

    from harkara.storage.storage import Connection

_TODO = "ask the operator, who resumes it"

#: Steps that were set aside while the campaign was paused come back, as late as they are by now.
_TAKE_UP_AGAIN = """
update contact_campaign_progress set next_claim_at = next_step_scheduled_at
where campaign_id = $1 and status = 'active' and next_claim_at = 'infinity'
"""

#: One that its tenant has paused is the operator's from now on.
_PAUSE_CAMPAIGN = f"""
update campaigns set status = 'paused', status_reason = $2, updated_at = now()
where id = $1 and status in ('active', 'paused')
  and not (status = 'paused' and starts_with(coalesce(status_reason, ''), '{BY_OPERATOR}'))
returning id
"""  # noqa: S608 - our own words

_RESUME_CAMPAIGN = """
update campaigns set status = 'active', status_reason = null, updated_at = now()
where id = $1 and status = 'paused' returning audience is not null and launched_at is null
"""


async def take_up_again(con: Connection, campaign_id: UUID) -> None:
    """What became due while a campaign was paused is due now."""
    await con.execute(_TAKE_UP_AGAIN, campaign_id)


async def pause_campaign(con: Connection, campaign_id: UUID, why: str) -> bool:
    """Hold everything of a live campaign back until an operator has it go on; whether that is new."""
    return await con.fetchval(_PAUSE_CAMPAIGN, campaign_id, f"{BY_OPERATOR}: {why}") is not None


async def resume_campaign(con: Connection, tenant: str, campaign_id: UUID) -> bool:
    """Have a paused campaign go on; whether it was paused. Wake the ticker and the outbox afterwards.

    A broadcast that was not launched is, at its time or, if that has passed, now.
    """
    is_ahead = await con.fetchval(_RESUME_CAMPAIGN, campaign_id)
    if is_ahead is None:
        return False
    await take_up_again(con, campaign_id)
    if is_ahead:
        await enrolling.have_launched(con, tenant, campaign_id)
    return True


@dataclass(frozen=True, slots=True)
class AtRest:
    """A tenant that an operator has paused, and why (empty if not); or one whose erasing has begun and not ended."""

    tenant: str
    why: str
    is_ending: bool


@dataclass(frozen=True, slots=True)
class Stopped:
    """A number or campaign that sends nothing until somebody has it go on, and why.

    `why` is empty for numbers that their own tenants have paused; campaigns are told of only if an operator has.
    """

    kind: Literal["number", "campaign"]
    id: UUID
    tenant: str
    name: str
    why: str


#: Those that were paused with their tenant are told of with it. What somebody has to see to comes first, the newest.
_STOPPED = f"""
(select 'campaign', id, tenant_id, name, status_reason from campaigns
 where status = 'paused' and starts_with(status_reason, '{BY_OPERATOR}') order by updated_at desc, id limit $1)
union all
(select 'number', id, tenant_id, name, coalesce(status_reason, '') from senders
 where status <> 'active' and not starts_with(coalesce(status_reason, ''), '{WITH_TENANT}')
 order by status_reason is null, status_since desc nulls last, id limit $1)
"""  # noqa: S608 - our own words


async def stopped(con: Connection | asyncpg.Connection[Any], most: int) -> list[Stopped]:
    """At most so many campaigns, and so many numbers, that are stopped by themselves, of all of this transaction's
    tenants."""
    return [Stopped(*row) for row in await con.fetch(_STOPPED, most)]


_WHY = "select paused_reason from tenants where id = $1"
_WHY_HELD = "select paused_reason from tenants where id = $1 for share"
_WHY_LOCKED = "select paused_reason from tenants where id = $1 for no key update"


async def at_rest(con: Connection | asyncpg.Connection[Any]) -> list[AtRest]:
    """All such tenants. Any transaction may ask."""
    rows = await con.fetch("select id, coalesce(why, ''), is_ending from app.tenants_at_rest()")
    return [AtRest(*row) for row in rows]


async def tenant_paused(con: Connection, tenant: str, *, hold: bool = False) -> str | None:
    """The reason of numbers that are paused with their tenant, if an operator has paused it; None if not.

    With `hold` that stays so until this transaction ends; ask before any of its numbers is locked.
    """
    why = await con.fetchval(_WHY_HELD if hold else _WHY, tenant)
    return None if why is None else f"{WITH_TENANT}: {why}"


def by_operator(reason: str | None) -> bool:
    """Whether a number or a campaign with this reason was paused by an operator."""
    return (reason or "").startswith((WITH_TENANT, BY_OPERATOR))


async def pause_tenant(con: Connection, tenant: str, why: str) -> list[UUID] | None:
    """Stop all numbers of a tenant that are active, and those to come. Returns them; None if all was so already."""
    was = await con.fetchval(_WHY_LOCKED, tenant)
    await con.execute("update tenants set paused_reason = $2, updated_at = now() where id = $1", tenant, why)
    rows = await con.fetch("select id from senders where tenant_id = $1 and status = 'active' order by id", tenant)
    bad = Bad("number", f"{WITH_TENANT}: {why}", _TODO)
    paused = [id_ for row in rows for id_ in await halting.pause(con, tenant, row[0], bad)]
    return None if was is not None and not paused else paused


async def resume_tenant(con: Connection, tenant: str) -> list[UUID] | None:
    """Have the numbers go on that were paused with their tenant. Returns them; None if it was not paused."""
    was = await con.fetchval(_WHY_LOCKED, tenant)
    await con.execute("update tenants set paused_reason = null, updated_at = now() where id = $1", tenant)
    rows = await con.fetch(
        "select id from senders where tenant_id = $1 and status = 'paused' and starts_with(status_reason, $2)"
        " order by id",
        tenant,
        WITH_TENANT,
    )
    resumed = [id_ for row in rows for id_ in await halting.resume(con, tenant, row[0])]
    return None if was is None and not resumed else resumed


#: One that was stopped by something else is the operator's from now on; its alert ends when it goes on.
_TAKE_OVER = """
update senders set status = 'paused', status_reason = $3, status_since = clock_timestamp(), updated_at = now()
where tenant_id = $1 and id = $2 and status <> 'active' and not starts_with(coalesce(status_reason, ''), $4)
returning id
"""


async def pause_sender(con: Connection, tenant: str, sender_id: UUID, why: str) -> bool:
    """Stop one number until an operator has it go on; whether that is new."""
    reason = f"{BY_OPERATOR}: {why}"
    if await halting.pause(con, tenant, sender_id, Bad("number", reason, _TODO)):
        return True
    return await con.fetchval(_TAKE_OVER, tenant, sender_id, reason, BY_OPERATOR) is not None
