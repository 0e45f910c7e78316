"""What the dispatcher reads and writes: recipients, and messages that wait for their number."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from harkara.schemas.events import MessageSuppressed

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


class Recipient(msgspec.Struct, frozen=True, gc=False):
    """Whom a command means, as far as is known."""

    sender_found: bool
    contact_id: UUID | None
    phone: str | None
    name: str | None
    locale: str | None
    attributes: dict[str, Any]
    opted_out: bool
    consents_to_marketing: bool


class NewMessage(msgspec.Struct, frozen=True, gc=False):
    """A message to be written as `queued`, or as `suppressed` or `failed` with the reason."""

    id: UUID
    tenant: str
    contact_id: UUID | None
    sender_id: UUID
    lane: str
    to: str
    content: str
    status: str
    reason: str | None
    cause: str
    due_at: datetime
    is_test: bool = False
    delivery: str = "at_most_once"
    invoice_id: UUID | None = None
    reply_to: UUID | None = None


#: Who is found by another spelling of their number is written to under their own.
_RECIPIENTS = """
select s.id is not null, k.id, coalesce(who.phone, i.phone, k.phone, k.wa_user_id), k.name, k.locale,
       coalesce(k.attributes::text, '{}'),
       case when k.id is null and i.phone is not null then app.opted_out(i.tenant_id, i.phone, i.lane)
            else k.opted_out_at is not null or k.opt_outs ? i.lane end,
       k.opted_in_at is not null and (k.consent_categories = '{}' or 'marketing' = any (k.consent_categories))
from unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[], $5::text[]) with ordinality
     as i (tenant_id, sender_id, contact_id, phone, lane, place)
left join senders s on s.id = i.sender_id and s.tenant_id || '' = i.tenant_id
left join lateral (
  select c.id, null::text as phone from contacts c where c.tenant_id || '' = i.tenant_id and c.id = i.contact_id
  union all
  select l.contact_id, l.phone from app.line(i.tenant_id, i.phone) l where i.contact_id is null
  union all
  select g.contact_id, null from contact_merges g where g.id = i.contact_id and g.tenant_id || '' = i.tenant_id
  limit 1) who on true
left join contacts k on k.id = who.id and k.tenant_id || '' = i.tenant_id
order by i.place
"""

_QUEUE = """
insert into messages (id, tenant_id, contact_id, sender_id, lane, "to", content, status, reason, cause, due_at,
                      is_test, delivery, invoice_id, reply_to, failed_at)
select i.id, i.tenant_id, i.contact_id, i.sender_id, i.lane, i.recipient, i.content::jsonb, i.status, i.reason, i.cause,
       i.due_at, i.is_test, i.delivery, i.invoice_id, i.reply_to, case i.status when 'failed' then clock_timestamp() end
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::timestamptz[], $12::bool[], $13::text[], $14::uuid[], $15::uuid[])
     as i (id, tenant_id, contact_id, sender_id, lane, recipient, content, status, reason, cause, due_at, is_test,
           delivery, invoice_id, reply_to)
on conflict (id) do nothing
returning id
"""

#: Of a message that ended before it was tried, why.
_KEPT = """
select m.id, m.content::text,
       case when m.attempted_at is null and m.status in ('suppressed', 'failed') then m.status end, m.reason
from unnest($1::uuid[], $2::text[]) as i (id, tenant_id)
join messages m on m.id = i.id and m.tenant_id || '' = i.tenant_id
"""

#: From `queued` only: the sender takes a message out of it before it leaves, and whoever is first has it.
_CANCEL = """
with i as (select * from unnest($1::uuid[], $2::text[]) as i (id, tenant_id)),
gone as (
  update messages m
  set status = 'suppressed', reason = 'cancelled', error_code = null, deferred_until = null, updated_at = now()
  from i where m.id = i.id and m.tenant_id || '' = i.tenant_id and m.status = 'queued'
  returning m.id, m.contact_id, m.sender_id)
select * from gone
union
select m.id, m.contact_id, m.sender_id from messages m join i on m.id = i.id and m.tenant_id || '' = i.tenant_id
where m.status = 'suppressed' and m.reason = 'cancelled'
"""


#: From `queued` only, too. What is about to leave finds the contact gone, or has left.
_LEAVE_NONE = """
update messages
set status = 'suppressed', reason = 'contact_deleted', error_code = null, deferred_until = null, updated_at = now()
where tenant_id = $1 and contact_id = $2 and status = 'queued'
returning id, sender_id, campaign_id, enrollment_id, step, variant
"""


async def recipients(
    con: Connection, wanted: Sequence[tuple[str, UUID, UUID | None, str | None, str]]
) -> list[Recipient]:
    """Whom each (tenant, sender, contact or None, phone or None, lane) means, in order."""
    rows = await con.fetch(_RECIPIENTS, *map(list, zip(*wanted, strict=True)))
    return [_recipient([*row]) for row in rows]


def _recipient(columns: list[Any]) -> Recipient:
    columns[5] = msgspec.json.decode(columns[5])
    return Recipient(*columns)


async def queue(con: Connection, new: Sequence[NewMessage]) -> set[UUID]:
    """Write messages that are not there yet, and tell which those were; a redelivered command changes nothing."""
    rows = await con.fetch(
        _QUEUE,
        [n.id for n in new],
        [n.tenant for n in new],
        [n.contact_id for n in new],
        [n.sender_id for n in new],
        [n.lane for n in new],
        [n.to for n in new],
        [n.content for n in new],
        [n.status for n in new],
        [n.reason for n in new],
        [n.cause for n in new],
        [n.due_at for n in new],
        [n.is_test for n in new],
        [n.delivery for n in new],
        [n.invoice_id for n in new],
        [n.reply_to for n in new],
    )
    return {row[0] for row in rows}


async def kept(con: Connection, wanted: Sequence[NewMessage]) -> dict[UUID, tuple[str, str | None, str | None]]:
    """What these messages say that had been written before, and as what and why they ended, if they never left."""
    if not wanted:
        return {}
    rows = await con.fetch(_KEPT, [n.id for n in wanted], [n.tenant for n in wanted])
    return {row[0]: (row[1], row[2], row[3]) for row in rows}


async def cancel(con: Connection, wanted: Sequence[tuple[str, UUID]]) -> dict[UUID, tuple[UUID | None, UUID]]:
    """Keep these (tenant, message) from leaving: (contact, sender) of those that stay, now or since an earlier try."""
    rows = await con.fetch(_CANCEL, [id_ for _, id_ in wanted], [tenant for tenant, _ in wanted])
    return {row[0]: (row[1], row[2]) for row in rows}


async def leave_none(con: Connection, tenant: str, contact_id: UUID) -> list[MessageSuppressed]:
    """Keep all that waits for a contact, who is about to be deleted, from leaving. Returns what is to be told."""
    rows = await con.fetch(_LEAVE_NONE, tenant, contact_id)
    return [
        MessageSuppressed(
            id=str(id_),
            contact_id=str(contact_id),
            sender_id=str(sender_id),
            campaign_id=str(campaign_id) if campaign_id else None,
            enrollment_id=str(enrollment_id) if enrollment_id else None,
            step=step,
            variant=variant,
            reason="contact_deleted",
        )
        for id_, sender_id, campaign_id, enrollment_id, step, variant in rows
    ]
