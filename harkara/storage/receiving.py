"""What receipts read and write: statuses that only move forward, conversations, replies and opt-outs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: The way of a message; a status never moves back. `failed` ends it from anywhere before `delivered`.
FORWARD = ("queued", "sending", "unknown", "sent", "delivered", "read")


@dataclass(frozen=True, slots=True)
class Receipt:
    """All that one batch of webhooks says about one message."""

    message_id: UUID
    tenant: str
    status: str
    wamid: str
    sent_at: datetime | None
    delivered_at: datetime | None
    read_at: datetime | None
    failed_at: datetime | None
    error_code: int | None
    error: str | None
    pricing: str | None


@dataclass(frozen=True, slots=True)
class Moved:
    """A message whose status moved, with what its event tells."""

    id: UUID
    tenant: str
    before: str
    after: str
    contact_id: UUID | None
    sender_id: UUID
    campaign_id: UUID | None
    enrollment_id: UUID | None
    step: int | None
    wamid: str | None
    cause: str
    reason: str | None
    error_code: int | None


_BY_WAMID = """
select m.id, m.tenant_id, m.wamid from messages m
join unnest($1::text[], $2::text[]) as i (tenant_id, wamid) on m.tenant_id || '' = i.tenant_id and m.wamid = i.wamid
where m.wamid = any ($2)
"""

#: Locked in the order of their ids, as results are: the two never deadlock.
_RECEIPTS = """
with locked as (
  select i.*, m.status as before
  from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[],
              $8::timestamptz[], $9::int[], $10::text[], $11::text[])
    as i (id, tenant_id, status, wamid, sent_at, delivered_at, read_at, failed_at, error_code, error, pricing)
  join messages m on m.id = i.id and m.tenant_id || '' = i.tenant_id
  order by m.id for no key update of m)
update messages m
set status = case
      when m.status in ('failed', 'suppressed') then m.status
      when i.status = 'failed' then case when m.status in ('delivered', 'read') then m.status else 'failed' end
      when array_position($12::text[], i.status) > array_position($12::text[], m.status::text) then i.status
      else m.status end,
    wamid = coalesce(m.wamid, i.wamid),
    sent_at = coalesce(m.sent_at, i.sent_at),
    delivered_at = coalesce(m.delivered_at, i.delivered_at),
    read_at = coalesce(m.read_at, i.read_at),
    failed_at = case when i.status = 'failed' and m.status not in ('delivered', 'read')
                     then coalesce(m.failed_at, i.failed_at) else m.failed_at end,
    error_code = coalesce(i.error_code, m.error_code),
    reason = case when i.status = 'failed' then coalesce(i.error, m.reason)
                  when m.status = 'unknown' then null else m.reason end,
    pricing = coalesce(i.pricing::jsonb, m.pricing),
    updated_at = now()
from locked i
where m.id = i.id and m.tenant_id || '' = i.tenant_id
returning m.id, m.tenant_id, i.before, m.status, m.contact_id, m.sender_id, m.campaign_id, m.enrollment_id, m.step,
          m.wamid, m.cause, m.reason, m.error_code
"""


#: A message that was in doubt was not counted when its enrolment moved on.
_COUNTED = """
with i as (
  select id, tenant_id, count(*) as more from unnest($1::uuid[], $2::text[]) as i (id, tenant_id) group by 1, 2),
locked as (
  select i.* from contact_campaign_progress p join i on i.id = p.id and i.tenant_id = p.tenant_id
  order by p.id for no key update of p)
update contact_campaign_progress p set messages_sent = p.messages_sent + i.more, updated_at = now()
from locked i where p.id = i.id
"""


async def by_wamid(con: Connection, wanted: Sequence[tuple[str, str]]) -> dict[tuple[str, str], UUID]:
    """Our ids of messages known only by WhatsApp's, by (tenant, wamid)."""
    if not wanted:
        return {}
    rows = await con.fetch(_BY_WAMID, [tenant for tenant, _ in wanted], [wamid for _, wamid in wanted])
    return {(row[1], row[2]): row[0] for row in rows}


async def receive(con: Connection, receipts: Sequence[Receipt]) -> list[Moved]:
    """Write what webhooks say, forward only. Returns each message once, whether or not its status moved."""
    if not receipts:
        return []
    rows = await con.fetch(
        _RECEIPTS,
        [r.message_id for r in receipts],
        [r.tenant for r in receipts],
        [r.status for r in receipts],
        [r.wamid for r in receipts],
        [r.sent_at for r in receipts],
        [r.delivered_at for r in receipts],
        [r.read_at for r in receipts],
        [r.failed_at for r in receipts],
        [r.error_code for r in receipts],
        [r.error for r in receipts],
        [r.pricing for r in receipts],
        list(FORWARD),
    )
    moved = [Moved(*row) for row in rows]
    settled = [m for m in moved if m.enrollment_id and m.before == "unknown" and m.after != "unknown"]
    if settled:
        await con.execute(_COUNTED, [m.enrollment_id for m in settled], [m.tenant for m in settled])
    return moved


@dataclass(frozen=True, slots=True)
class NewReply:
    """A message from a contact, to be written once however often it comes."""

    id: UUID
    tenant: str
    sender_id: UUID
    contact_id: UUID
    conversation_id: UUID
    wamid: str
    type: str
    text: str | None
    payload: str
    context_wamid: str | None
    received_at: datetime


_CONTACT = """
select id from contacts where tenant_id = $1 and (phone = $2 or wa_user_id = $3)
union all
select contact_id from phone_numbers where tenant_id = $1 and phone = $2
limit 1
"""

#: Somebody who writes to us becomes a contact; that is no consent to marketing.
_NEW_CONTACT = """
insert into contacts (id, tenant_id, name, phone, wa_user_id) values ($1, $2, $3, $4, $5)
on conflict do nothing returning id
"""

_CONVERSATION = """
insert into conversations (id, tenant_id, contact_id, sender_id, last_inbound_at) values ($1, $2, $3, $4, $5)
on conflict (tenant_id, sender_id, contact_id) do update
set last_inbound_at = greatest(conversations.last_inbound_at, excluded.last_inbound_at), status = 'open',
    updated_at = now()
returning id
"""

_REPLY = """
insert into replies (id, tenant_id, conversation_id, contact_id, sender_id, wamid, type, text, payload, context_wamid,
                     received_at)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9::jsonb, $10, $11) on conflict (id) do nothing returning id
"""

_OPT_OUT = """
update contacts set opted_out_at = $3, opted_out_reason = $4, updated_at = now()
where tenant_id = $1 and id = $2 and opted_out_at is null returning id
"""


async def contact_for(
    con: Connection, tenant: str, phone: str | None, user_id: str | None, name: str | None, new_id: UUID
) -> UUID:
    """The contact behind a number or a business-scoped user id; made if there is none."""
    found: Any = await con.fetchval(_CONTACT, tenant, phone, user_id)
    if found is None:
        found = await con.fetchval(_NEW_CONTACT, new_id, tenant, name or phone or "", phone, user_id)
    if found is None:  # another process made it at the same moment
        found = await con.fetchval(_CONTACT, tenant, phone, user_id)
    return UUID(str(found))


async def conversation_for(
    con: Connection, tenant: str, contact_id: UUID, sender_id: UUID, at: datetime, new_id: UUID
) -> UUID:
    """The conversation of a contact with a number, opened if need be."""
    return UUID(str(await con.fetchval(_CONVERSATION, new_id, tenant, contact_id, sender_id, at)))


async def reply(con: Connection, new: NewReply) -> bool:
    """Write a reply; False if it was there before."""
    written = await con.fetchval(
        _REPLY,
        new.id,
        new.tenant,
        new.conversation_id,
        new.contact_id,
        new.sender_id,
        new.wamid,
        new.type,
        new.text,
        new.payload,
        new.context_wamid,
        new.received_at,
    )
    return written is not None


async def opt_out(con: Connection, tenant: str, contact_id: UUID, at: datetime, reason: str) -> bool:
    """Note that a contact wants to hear nothing more; False if that was known."""
    return await con.fetchval(_OPT_OUT, tenant, contact_id, at, reason) is not None
