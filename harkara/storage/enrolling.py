"""Enrolments: started one by one or a page at a time, and stopped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from harkara.ids import uuid7
from harkara.schemas.conditions import Condition
from harkara.schemas.events import MessageSuppressed
from harkara.schemas.reasons import Reason
from harkara.schemas.work import LaunchAudience
from harkara.storage import outbox
from harkara.storage.opting import OUT_OF_MARKETING
from harkara.storage.segments import CONSENTS, compiled

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
    invoice_id: UUID | None = None


#: Held, so that none is archived while somebody is enrolled in it: whoever stops all of it then finds them. Not in the
#: statement that reads them, which would find no steps of one that gets a new version at this moment.
_HOLD = """
select from unnest($1::text[], $2::uuid[]) as i (tenant_id, id)
join campaigns c on c.id = i.id and c.tenant_id || '' = i.tenant_id for share of c
"""

_CAMPAIGNS = """
select c.tenant_id, c.id, c.status, c.version_id, s.id, s.delay_hours
from unnest($1::text[], $2::uuid[]) as i (tenant_id, id)
join campaigns c on c.id = i.id and c.tenant_id || '' = i.tenant_id
join campaign_steps s on s.version_id = c.version_id and s.tenant_id = c.tenant_id and s.position = 0
"""

#: Why contact `k`, whose last enrolment in campaign `c` is `p`, can't be enrolled in it; null if they can. This one
#: expression decides at the door, in a dry run, and when it comes to it.
REFUSAL = f"""
case when k.id is null then 'contact_not_found'
     when p.id is not null and (p.status in ('active', 'paused') or c.reentry_days is null) then 'already_enrolled'
     when p.finished_at + make_interval(secs => c.reentry_days * 86400) > now() then 'too_soon'
     when {OUT_OF_MARKETING} then 'opted_out'
     when not {CONSENTS} then 'no_consent'
     when k.phone is null and k.wa_user_id is null then 'no_phone' end
"""

#: The last enrolment of contact `k` in campaign `c`, as `p`. Campaigns are compared as text so that the index by
#: contact is the only one that serves.
LAST_RUN = """
left join lateral (
  select e.id, e.status, e.finished_at, e.run from contact_campaign_progress e
  where e.tenant_id = k.tenant_id and e.contact_id = k.id and e.campaign_id::text = c.id::text
  order by e.run desc limit 1) p on true
"""

#: Why an enrolment that is about an invoice must not begin any more: it was paid or voided since it was asked for.
_OWED_NO_MORE = """
case when i.invoice_id is not null then (
  select 'invoice_' || b.status from invoices b
  where b.id = i.invoice_id and b.tenant_id || '' = i.tenant_id and b.status <> 'open') end
"""

#: A row that is there keeps its id from being used again, and of two that come at once one has the next run.
_ENROLL = f"""
insert into contact_campaign_progress (id, tenant_id, campaign_id, version_id, contact_id, cause, started_at,
                                       next_step_id, next_message_id, next_step_scheduled_at, next_claim_at, run,
                                       invoice_id)
select i.id, i.tenant_id, i.campaign_id, i.version_id, i.contact_id, i.cause, i.started_at,
       i.step_id, i.message_id, i.due_at, i.due_at, coalesce(p.run, 0) + 1, i.invoice_id
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::timestamptz[], $8::uuid[],
            $9::uuid[], $10::timestamptz[], $11::uuid[])
     as i (id, tenant_id, campaign_id, version_id, contact_id, cause, started_at, step_id, message_id, due_at,
           invoice_id)
join campaigns c on c.id = i.campaign_id and c.tenant_id || '' = i.tenant_id
join contacts k on k.id = i.contact_id and k.tenant_id || '' = i.tenant_id
{LAST_RUN}
where ({REFUSAL}) is null and ({_OWED_NO_MORE}) is null
  and not exists (select from contact_campaign_progress e where e.id = i.id and e.tenant_id || '' = i.tenant_id)
on conflict do nothing
"""  # noqa: S608 - our own words

#: Why each is not there, or null if it is: a redelivered command finds the row that it wrote before.
_REFUSED = f"""
select i.id, case when own.id is null then coalesce(({REFUSAL}), ({_OWED_NO_MORE}), 'already_enrolled') end
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::uuid[])
     as i (id, tenant_id, campaign_id, contact_id, invoice_id)
left join contact_campaign_progress own on own.id = i.id and own.tenant_id || '' = i.tenant_id
left join campaigns c on c.id = i.campaign_id and c.tenant_id || '' = i.tenant_id
left join contacts k on k.id = i.contact_id and k.tenant_id || '' = i.tenant_id
{LAST_RUN}
"""  # noqa: S608 - our own words

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

#: Locked in the order of their ids, as the sender's results are.
_UNREACHABLE = """
with locked as (
  select p.id from unnest($1::text[], $2::uuid[]) as i (tenant_id, id)
  join contact_campaign_progress p on p.id = i.id and p.tenant_id || '' = i.tenant_id
  where p.status in ('active', 'paused') order by p.id for no key update of p)
update contact_campaign_progress p
set status = 'failed', stopped_reason = 'unreachable', finished_at = now(), next_claim_at = null, updated_at = now()
from locked where p.id = locked.id
returning p.id, p.tenant_id, p.campaign_id, p.contact_id, p.stopped_reason
"""

#: One that is about to leave, or comes back because WhatsApp did not take it, finds that out by itself.
_END_MESSAGES = """
update messages m
set status = 'suppressed', reason = $3, error_code = null, deferred_until = null, updated_at = now()
from unnest($2::uuid[]) as i (id) where m.id = i.id and m.tenant_id || '' = $1 and m.status = 'queued'
returning m.id, m.contact_id, m.sender_id, m.campaign_id, m.enrollment_id, m.step, m.variant
"""

#: Those that were stopped for the same reason are of the page too: after a crash it finds what it is to tell again.
_STOP_PAGE = """
with page as materialized (
  select p.id, p.contact_id from contact_campaign_progress p
  where p.tenant_id = $1 and p.campaign_id = $2 and p.id > $3
    and (p.status in ('active', 'paused') or p.stopped_reason = $4)
  order by p.id limit $5 for no key update),
stopped as (
  update contact_campaign_progress p
  set status = 'stopped', stopped_reason = $4, finished_at = now(), next_claim_at = null, updated_at = now()
  from page where p.id = page.id and p.tenant_id || '' = $1 and p.status in ('active', 'paused')
  returning p.id)
select id, contact_id, id in (select id from stopped) from page order by id
"""

#: How many contacts a page looks at for each that it may give: a page of what is rare is as quick as any other.
_LOOKED_AT = 4

#: The next contacts that may be meant, of a stretch of all; where it ends; whether it is as long as it may be; and, up
#: to the last of those contacts if there are more, who else is meant, by why they can't be enrolled in campaign $5.
_PAGE = f"""
with stretch as materialized (
  select k.* from contacts k where k.tenant_id = $1 and ($2::uuid is null or k.id > $2) order by k.id limit $3),
meant as materialized (
  select k.*, not {OUT_OF_MARKETING} and k.opted_in_at is not null as agrees from stretch k where {{condition}}),
found as materialized (select id from meant where agrees order by id limit $4),
refused as (
  select ({REFUSAL}) as reason, count(*) as contacts
  from meant k join campaigns c on c.id = $5 and c.tenant_id || '' = k.tenant_id
  {LAST_RUN}
  where not k.agrees and k.id <= coalesce((select id from found order by id offset $4 - 1), k.id) group by 1)
select (select array_agg(id order by id) from found), (select id from stretch order by id desc limit 1),
       (select count(*) from stretch) = $3, (select jsonb_object_agg(reason, contacts)::text from refused)
"""  # noqa: S608 - our own words


async def campaigns(con: Connection, wanted: Sequence[tuple[str, UUID]]) -> dict[tuple[str, UUID], CampaignStart]:
    """How enrolments in these (tenant, campaign) begin; one that has no steps or doesn't exist is missing.

    That stays so until the transaction ends.
    """
    columns = [tenant for tenant, _ in wanted], [id_ for _, id_ in wanted]
    await con.execute(_HOLD, *columns)
    rows = await con.fetch(_CAMPAIGNS, *columns)
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
        [n.invoice_id for n in new],
    )
    rows = await con.fetch(
        _REFUSED,
        [n.id for n in new],
        [n.tenant for n in new],
        [n.campaign_id for n in new],
        [n.contact_id for n in new],
        [n.invoice_id for n in new],
    )
    return {row[0]: row[1] for row in rows}


async def stop(con: Connection, stops: Sequence[tuple[str, UUID, UUID, str]]) -> list[Any]:
    """Stop (tenant, campaign, contact, reason). Returns those that ran: (id, tenant, campaign, contact)."""
    return list(await con.fetch(_STOP, *map(list, zip(*stops, strict=True)))) if stops else []


async def stop_contacts(con: Connection, stops: Sequence[tuple[str, UUID, str]]) -> list[Any]:
    """Stop all that runs for (tenant, contact, reason); `reply` stops only campaigns that say so.

    Returns those that ran: (id, tenant, campaign, contact, reason).
    """
    return list(await con.fetch(_STOP_CONTACTS, *map(list, zip(*stops, strict=True))))


async def unreachable(con: Connection, enrollments: Sequence[tuple[str, UUID]]) -> list[Any]:
    """End these (tenant, enrolment) as failed, because nothing reaches their contacts.

    Returns those that ran: (id, tenant, campaign, contact, reason).
    """
    return list(await con.fetch(_UNREACHABLE, *map(list, zip(*enrollments, strict=True))))


async def end_messages(
    con: Connection, tenant: str, ids: Sequence[UUID], reason: Reason
) -> list[tuple[MessageSuppressed, str]]:
    """Keep what enrolments wait to send, and won't any more, from leaving. Returns what is to be told, and its ids."""
    return [
        (
            MessageSuppressed(
                id=str(row[0]),
                contact_id=str(row[1]),
                sender_id=str(row[2]),
                campaign_id=str(row[3]),
                enrollment_id=str(row[4]),
                step=row[5],
                variant=row[6],
                reason=reason,
            ),
            f"{row[0]}.suppressed",
        )
        for row in await con.fetch(_END_MESSAGES, tenant, ids, reason)
    ]


async def stop_page(
    con: Connection, tenant: str, campaign_id: UUID, after: UUID, reason: str, most: int
) -> list[tuple[UUID, UUID, bool]]:
    """Stop the next enrolments of a campaign that run: (id, contact, whether it ran until now), in order.

    Those that were stopped for this reason before are among them.
    """
    rows = await con.fetch(_STOP_PAGE, tenant, campaign_id, after, reason, most)
    return [(row[0], row[1], row[2]) for row in rows]


@dataclass(frozen=True, slots=True)
class Found:
    """Contacts of a page, after which contact the next one begins (None if this was the last), and who is left out.

    `refused` counts by reason those whom the page passes over: they have not agreed, or have opted out.
    """

    ids: list[UUID]
    next: UUID | None
    refused: dict[str, int]


async def page(
    con: Connection, tenant: str, campaign_id: UUID, after: UUID | None, condition: Condition | None, most: int
) -> Found:
    """The next contacts of a tenant, in the order of their ids, that may be enrolled and for whom a condition holds."""
    where, values = compiled(condition, taken=5)
    statement = _PAGE.replace("{condition}", where)
    row: Any = await con.fetchrow(statement, tenant, after, most * _LOOKED_AT, most, campaign_id, *values)
    ids: list[UUID] = row[0] or []
    refused: dict[str, int] = json.loads(row[3] or "{}")
    last = row[1] if row[2] else None
    return Found(ids, ids[-1] if len(ids) == most else last, refused)


#: What a broadcast is launched with; held, so that it is launched once.
_LAUNCH = """
select status, scheduled_at, launched_at, audience::text, now() from campaigns
where id = $2 and tenant_id || '' = $1 for no key update
"""

_LAUNCHED = "update campaigns set launched_at = now(), updated_at = now() where id = $2 and tenant_id || '' = $1"


@dataclass(frozen=True, slots=True)
class Launch:
    """A broadcast as it stands: whom it is for, and when. `audience` is JSON, `now` the database's time."""

    status: str
    scheduled_at: datetime | None
    launched_at: datetime | None
    audience: str | None
    now: datetime


async def launch(con: Connection, tenant: str, campaign_id: UUID) -> Launch | None:
    """A broadcast, held until the transaction ends; None if there is no such campaign."""
    row = await con.fetchrow(_LAUNCH, tenant, campaign_id)
    return Launch(*row) if row else None


async def launched(con: Connection, tenant: str, campaign_id: UUID) -> None:
    """Note that a broadcast is on its way, as of the transaction's time."""
    await con.execute(_LAUNCHED, tenant, campaign_id)


#: Who acts in this transaction, as the audit log notes it.
_ACTOR = "select coalesce(current_setting('app.actor', true), '')"


async def have_launched(con: Connection, tenant: str, campaign_id: UUID) -> None:
    """Have a broadcast launched if this transaction commits: at its time, or now. Asked for twice, it is done once."""
    said: str = await con.fetchval(_ACTOR)
    cause: str = json.loads(said)["request_id"] if said else ""
    await outbox.put(con, tenant, LaunchAudience(campaign_id=str(campaign_id), said=said), f"launch.{uuid7()}", cause)
