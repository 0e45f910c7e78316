"""Enrolments: started one by one or a page at a time, and stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


@dataclass(frozen=True, slots=True)
class CampaignStart:
    """What an enrolment in a campaign begins with."""

    status: str
    version_id: UUID
    step_id: UUID
    delay_hours: float


@dataclass(frozen=True, slots=True)
class NewEnrollment:
    """An enrolment to be written, if its contact may be enrolled."""

    id: UUID
    tenant: str
    campaign_id: UUID
    contact_id: UUID
    cause: str
    version_id: UUID
    started_at: datetime
    step_id: UUID
    message_id: UUID
    due_at: datetime


_CAMPAIGNS = """
select c.tenant_id, c.id, c.status, c.version_id, s.id, s.delay_hours
from unnest($1::text[], $2::uuid[]) as i (tenant_id, id)
join campaigns c on c.id = i.id and c.tenant_id || '' = i.tenant_id
join campaign_steps s on s.version_id = c.version_id and s.tenant_id = c.tenant_id and s.position = 0
"""

_ENROLL = """
insert into contact_campaign_progress (id, tenant_id, campaign_id, version_id, contact_id, cause, started_at,
                                       next_step_id, next_message_id, next_step_scheduled_at, next_claim_at)
select i.id, i.tenant_id, i.campaign_id, i.version_id, i.contact_id, i.cause, i.started_at,
       i.step_id, i.message_id, i.due_at, i.due_at
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::timestamptz[], $8::uuid[],
            $9::uuid[], $10::timestamptz[])
     as i (id, tenant_id, campaign_id, version_id, contact_id, cause, started_at, step_id, message_id, due_at)
join contacts k on k.id = i.contact_id and k.tenant_id || '' = i.tenant_id
where k.opted_out_at is null and k.opted_in_at is not null
  and (k.consent_categories = '{}' or 'marketing' = any (k.consent_categories))
on conflict (tenant_id, campaign_id, contact_id) do nothing
"""

#: Why each is not there, or null if it is: a redelivered command finds the row that it wrote before.
#: Campaigns are compared as text so that the index by contact is the only one that serves.
_REFUSED = """
select i.id,
       case when p.id = i.id then null
            when p.id is not null then 'already_enrolled'
            when k.id is null then 'contact_not_found'
            when k.opted_out_at is not null then 'opted_out'
            else 'no_consent' end
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[]) as i (id, tenant_id, campaign_id, contact_id)
left join contacts k on k.id = i.contact_id and k.tenant_id || '' = i.tenant_id
left join contact_campaign_progress p
  on p.tenant_id = i.tenant_id and p.contact_id = i.contact_id and p.campaign_id::text = i.campaign_id::text
"""

_STOP = """
update contact_campaign_progress p
set status = 'stopped', stopped_reason = i.reason, finished_at = now(), next_claim_at = null, updated_at = now()
from unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[]) as i (tenant_id, campaign_id, contact_id, reason)
where p.tenant_id = i.tenant_id and p.contact_id = i.contact_id and p.campaign_id::text = i.campaign_id::text
  and p.status in ('active', 'paused')
returning p.id, p.tenant_id, p.campaign_id, p.contact_id
"""

_STOP_CONTACTS = """
update contact_campaign_progress p
set status = 'stopped', stopped_reason = i.reason, finished_at = now(), next_claim_at = null, updated_at = now()
from unnest($1::text[], $2::uuid[], $3::text[]) as i (tenant_id, contact_id, reason), campaigns c
where p.tenant_id = i.tenant_id and p.contact_id = i.contact_id and p.status in ('active', 'paused')
  and c.tenant_id = p.tenant_id and c.id = p.campaign_id and (i.reason <> 'reply' or c.stop_on_reply)
returning p.id, p.tenant_id, p.campaign_id, p.contact_id, p.stopped_reason
"""

_PAGE = """
select id from contacts
where tenant_id = $1 and ($2::uuid is null or id > $2) and ($3::text is null or tags @> array[$3::text])
  and opted_out_at is null and opted_in_at is not null
order by id limit $4
"""


async def campaigns(con: Connection, wanted: Sequence[tuple[str, UUID]]) -> dict[tuple[str, UUID], CampaignStart]:
    """How enrolments in these (tenant, campaign) begin; one that has no steps or doesn't exist is missing."""
    rows = await con.fetch(_CAMPAIGNS, [tenant for tenant, _ in wanted], [id_ for _, id_ in wanted])
    return {(row[0], row[1]): CampaignStart(*row[2:]) for row in rows}


async def enroll(con: Connection, new: Sequence[NewEnrollment]) -> dict[UUID, str | None]:
    """Write enrolments. Returns for each id why it was refused, or None if it stands (now or from an earlier try)."""
    if not new:
        return {}
    await con.execute(
        _ENROLL,
        [n.id for n in new],
        [n.tenant for n in new],
        [n.campaign_id for n in new],
        [n.version_id for n in new],
        [n.contact_id for n in new],
        [n.cause for n in new],
        [n.started_at for n in new],
        [n.step_id for n in new],
        [n.message_id for n in new],
        [n.due_at for n in new],
    )
    rows = await con.fetch(
        _REFUSED,
        [n.id for n in new],
        [n.tenant for n in new],
        [n.campaign_id for n in new],
        [n.contact_id for n in new],
    )
    return {row[0]: row[1] for row in rows}


async def stop(con: Connection, stops: Sequence[tuple[str, UUID, UUID, str]]) -> list[Any]:
    """Stop (tenant, campaign, contact, reason). Returns those that ran: (id, tenant, campaign, contact)."""
    return list(await con.fetch(_STOP, *map(list, zip(*stops, strict=True))))


async def stop_contacts(con: Connection, stops: Sequence[tuple[str, UUID, str]]) -> list[Any]:
    """Stop all that runs for (tenant, contact, reason); `reply` stops only campaigns that say so.

    Returns those that ran: (id, tenant, campaign, contact, reason).
    """
    return list(await con.fetch(_STOP_CONTACTS, *map(list, zip(*stops, strict=True))))


async def page(con: Connection, tenant: str, after: UUID | None, tag: str | None, most: int) -> list[UUID]:
    """The next contacts of a tenant, in the order of their ids, that may be enrolled."""
    return [row[0] for row in await con.fetch(_PAGE, tenant, after, tag, most)]
