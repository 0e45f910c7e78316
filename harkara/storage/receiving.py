"""What receipts read and write: statuses that only move forward, contacts, conversations and replies."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

import msgspec

from harkara.ids import second_of, uuid7

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: The way of a message; a status never moves back. `failed` ends it from anywhere before `delivered`.
FORWARD = ("queued", "sending", "unknown", "sent", "delivered", "read")


class Receipt(msgspec.Struct, frozen=True, gc=False):
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
    #: As JSON, with the `status` that told it.
    pricing: str | None
    priced_by: str | None = None


class Moved(msgspec.Struct, frozen=True, gc=False):
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
    variant: str | None
    resent: bool
    to: str
    #: If its price is told with this: the price as JSON, what was told of it before, and the month in which it left.
    pricing: str | None
    priced_before: str | None
    month: date


_BY_WAMID = """
select m.id, m.tenant_id, m.wamid from messages m
join unnest($1::text[], $2::text[]) as i (tenant_id, wamid) on m.tenant_id || '' = i.tenant_id and m.wamid = i.wamid
where m.wamid = any ($2)
"""

#: Locked in the order of their ids, as results are: the two never deadlock. Of a message that was sent twice, or was
#: refused at once before, only the failure of the attempt that it is known by is its failure: the other may arrive. One
#: that was refused at once waits to be tried again, whatever a status says of that. What has arrived has no reason any
#: more. A price is that of the furthest status which tells one.
_RECEIPTS = """
with locked as (
  select i.*, m.status as before,
         case
           when m.status = 'suppressed' then m.status
           when i.status = 'failed' and (m.resent and m.wamid is distinct from i.wamid
             or m.attempts > 1 and m.wamid <> i.wamid or m.attempts > 0 and m.status = 'queued') then m.status
           when i.status = 'failed' then case when m.status in ('delivered', 'read') then m.status else 'failed' end
           when m.status = 'failed' then case when i.status in ('delivered', 'read') then i.status else m.status end
           when array_position($12::text[], i.status) > array_position($12::text[], m.status::text) then i.status
           else m.status end as after,
         case when m.pricing is null or coalesce(array_position($12::text[], i.pricing::jsonb ->> 'status'), 0)
                > coalesce(array_position($12::text[], m.pricing ->> 'status'), 0) then i.pricing end as price,
         m.pricing::text as priced_before,
         date_trunc('month', coalesce(m.attempted_at, now()) at time zone 'utc')::date as month
  from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::timestamptz[],
              $8::timestamptz[], $9::int[], $10::text[], $11::text[])
    as i (id, tenant_id, status, wamid, sent_at, delivered_at, read_at, failed_at, error_code, error, pricing)
  join messages m on m.id = i.id and m.tenant_id || '' = i.tenant_id
  order by m.id for no key update of m)
update messages m
set status = i.after,
    wamid = case when i.status = 'failed' and i.after <> 'failed' then m.wamid else coalesce(m.wamid, i.wamid) end,
    sent_at = coalesce(m.sent_at, i.sent_at),
    delivered_at = coalesce(m.delivered_at, i.delivered_at),
    read_at = coalesce(m.read_at, i.read_at),
    failed_at = case when i.after = 'failed' then coalesce(m.failed_at, i.failed_at) end,
    error_code = case when i.after = 'failed' then coalesce(i.error_code, m.error_code)
                      when i.after not in ('sent', 'delivered', 'read') then m.error_code end,
    reason = case when i.after = 'failed' then coalesce(i.error, m.reason)
                  when i.after not in ('sent', 'delivered', 'read') then m.reason end,
    deferred_until = case when i.after not in ('sent', 'delivered', 'read') then m.deferred_until end,
    pricing = coalesce(i.price::jsonb, m.pricing),
    updated_at = now()
from locked i
where m.id = i.id and m.tenant_id || '' = i.tenant_id
returning m.id, m.tenant_id, i.before, m.status, m.contact_id, m.sender_id, m.campaign_id, m.enrollment_id, m.step,
          m.wamid, m.cause, m.reason, m.error_code, m.variant, m.resent, m."to", i.price, i.priced_before, i.month
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
    settled = [m for m in moved if m.enrollment_id and _was_in_doubt(m) and m.after != m.before]
    if settled:
        await con.execute(_COUNTED, [m.enrollment_id for m in settled], [m.tenant for m in settled])
    return moved


def _was_in_doubt(message: Moved) -> bool:
    return message.before == "unknown" or (message.before == "sending" and message.resent)


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


class Known(NamedTuple):
    """A contact, and what it has opted out of by a number or an id that it has only just gained: `remembered`.

    `elsewhere`: it is known by its user id, and has another number than the one that WhatsApp says. `lacks`: it has no
    number, or no user id, and WhatsApp says one. `made`: it is there only since this transaction.
    """

    id: UUID
    gained: frozenset[str] = frozenset()
    elsewhere: bool = False
    lacks: bool = False
    made: bool = False


#: What contact `k` has opted out of; where a statement returns it, before the database gives back what is remembered.
OUTS = """array(select jsonb_object_keys(k.opt_outs))
       || case when k.opted_out_at is null then '{}' else array['all'] end"""

_OUTS_NOW = f"select {OUTS} from contacts k where k.tenant_id = $1 and k.id = $2"  # noqa: S608 - our own words

#: By the first number, else a further one, else the business-scoped user id.
_CONTACT = """
select id, phone, wa_user_id, rank from (
  select c.id, c.phone, c.wa_user_id, 0 as rank from contacts c where c.tenant_id = $1 and c.phone = $2
  union all
  select c.id, c.phone, c.wa_user_id, 1 from phone_numbers p
  join contacts c on c.id = p.contact_id and c.tenant_id = p.tenant_id where p.tenant_id = $1 and p.phone = $2
  union all
  select c.id, c.phone, c.wa_user_id, 2 from contacts c where c.tenant_id = $1 and c.wa_user_id = $3) found
order by rank limit 1
"""

_BY_USER_ID = 2

_AS_KNOWN = """
select i.tenant_id, i.phone, known.phone from unnest($1::text[], $2::text[]) as i (tenant_id, phone)
cross join lateral (select l.phone from app.line(i.tenant_id, i.phone) l limit 1) known
"""

#: In the order of their ids, so that two who look for each other's don't block each other.
_LINE = """
select k.id from contacts k
where k.tenant_id = $1 and k.id = any (array(select $2::uuid union all select app.same_line($1, $2)))
order by k.id for no key update
"""

#: Somebody who writes to us becomes a contact; that is no consent to marketing.
_NEW_CONTACT = """
insert into contacts (id, tenant_id, name, phone, wa_user_id) values ($1, $2, $3, $4, $5)
on conflict do nothing returning id
"""

_CONVERSATION = """
insert into conversations (id, tenant_id, contact_id, sender_id, last_inbound_at, last_activity)
values ($1, $2, $3, $4, $5, $6)
on conflict (tenant_id, sender_id, contact_id) do update
set last_inbound_at = greatest(conversations.last_inbound_at, excluded.last_inbound_at),
    last_activity = greatest(conversations.last_activity, excluded.last_activity), updated_at = now()
returning id
"""

#: A message opens a closed conversation again; one that was written before, and is only told again, does not. That it
#: was is seen by WhatsApp's id among what was said in the same second; its conversation, which is written before, is
#: locked meanwhile.
_REPLY = """
with before as (
  select r.id from replies r where r.tenant_id = $2 and r.id >= $18 and r.id < $19 and r.wamid = $6 limit 1),
written as (
  insert into replies (id, tenant_id, conversation_id, contact_id, sender_id, wamid, type, text, payload, context_wamid,
                       received_at, message_id, campaign_id, step, step_id, variant, reply_to)
  select $1::uuid, $2, $3::uuid, $4::uuid, $5::uuid, $6, $7, $8, $9::jsonb, $10, $11::timestamptz, $12::uuid,
         $13::uuid, $14::int, $15::uuid, $16, $20::uuid
  where not exists (select from before)
  on conflict (id) do nothing returning id),
reopened as (
  update conversations set status = 'open', closed_at = null, updated_at = now()
  where id = $3 and status <> 'open' and $17 and exists (select from written))
select id from before
"""

_LATEST = """
select not exists (select from replies where tenant_id = $1 and contact_id = $2 and received_at > $3)
"""

#: So many of a contact's last replies are looked at for the one that is quoted.
LOOKED_BACK = 1000

#: What a reply answers: the message that it quotes, else the last that was sent. WhatsApp tells whole seconds.
_QUOTED = """
select m.id, m.campaign_id, m.step, m.step_id, m.variant from messages m
where m.wamid = $3 and m.tenant_id || '' = $1 and coalesce(m.contact_id, $2) = $2
"""
#: They may quote themselves too. Gateways that lend a phone's account name what is quoted by the end of its id alone.
_QUOTED_REPLY = """
select r.id from (
  select id, wamid from replies where tenant_id = $1 and contact_id = $2 order by id desc limit $4) r
where r.wamid = $3 or right(r.wamid, length($3) + 1) = '_' || $3 limit 1
"""
_LAST_SENT = """
select m.id, m.campaign_id, m.step, m.step_id, m.variant from messages m
where m.tenant_id = $1 and m.contact_id = $2 and m.sent_at <= $3::timestamptz + interval '1 s'
order by m.id desc limit 1
"""

_BY_NUMBER = """
select s.tenant_id, s.phone_number_id, s.id from unnest($1::text[], $2::text[]) as i (tenant_id, number)
join senders s on s.tenant_id = i.tenant_id and s.phone_number_id = i.number and s.provider in ('cloud', 'sandbox')
"""

_KEYWORDS = "select id, keywords::text from tenants where id || '' = any ($1::text[])"


async def by_number(con: Connection, wanted: Collection[tuple[str, str]]) -> dict[tuple[str, str], UUID]:
    """The senders with these (tenant, phone_number_id) that WhatsApp's Cloud API knows."""
    if not wanted:
        return {}
    rows = await con.fetch(_BY_NUMBER, *map(list, zip(*wanted, strict=True)))
    return {(row[0], row[1]): row[2] for row in rows}


async def as_known(con: Connection, asked: Sequence[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Those of these (tenant, number) that a contact has, and how it spells them."""
    rows = await con.fetch(_AS_KNOWN, *map(list, zip(*asked, strict=True)))
    return {(row[0], row[1]): row[2] for row in rows}


async def keywords(con: Connection, tenants: Iterable[str]) -> dict[str, str]:
    """The words by which the contacts of these tenants opt out and in, as JSON."""
    return {row[0]: row[1] for row in await con.fetch(_KEYWORDS, sorted(tenants))}


async def contact_for(
    con: Connection, tenant: str, phone: str | None, user_id: str | None, name: str | None, new_id: UUID
) -> Known:
    """The contact behind a number or a business-scoped user id; made if there is none."""
    found: Any = await con.fetchrow(_CONTACT, tenant, phone, user_id)
    if found is None:
        made: Any = await con.fetchval(_NEW_CONTACT, new_id, tenant, name or phone or "", phone, user_id)
        if made is not None:
            return (await _now_known(con, tenant, UUID(str(made)), ()))._replace(made=True)
        found = await con.fetchrow(_CONTACT, tenant, phone, user_id)  # another process made it at the same moment
    id_, known_phone, known_user = UUID(str(found[0])), found[1], found[2]
    return Known(
        id_,
        elsewhere=found[3] == _BY_USER_ID and bool(phone) and bool(known_phone),
        lacks=bool((phone and not known_phone) or (user_id and not known_user)),
    )


async def line(con: Connection, tenant: str, contact_id: UUID) -> list[UUID]:
    """A contact, and all that have its number in another spelling: one person. They stay locked until the end.

    Looked for twice: who was being made when this began has been waited for.
    """
    await con.fetch(_LINE, tenant, contact_id)
    return [row[0] for row in await con.fetch(_LINE, tenant, contact_id)]


async def outs(con: Connection, tenant: str, contact_id: UUID) -> frozenset[str]:
    """What a contact has opted out of, by category."""
    return frozenset(await con.fetchval(_OUTS_NOW, tenant, contact_id) or ())


async def _now_known(con: Connection, tenant: str, contact_id: UUID, before: Iterable[str]) -> Known:
    return Known(contact_id, await outs(con, tenant, contact_id) - frozenset(before))


#: A further number of its own may become the first; what somebody else has is not taken from them.
_RENUMBER = f"""
with own as (delete from phone_numbers where tenant_id = $1 and contact_id = $2 and phone = $3)
update contacts k
set phone = case when $3::text is null or exists (
              select from contacts c where c.tenant_id = $1 and c.phone = $3 and c.id <> $2
              union all select from phone_numbers p where p.tenant_id = $1 and p.phone = $3 and p.contact_id <> $2)
            then k.phone else $3 end,
    wa_user_id = case when $4::text is null or exists (
              select from contacts c where c.tenant_id = $1 and c.wa_user_id = $4 and c.id <> $2)
            then k.wa_user_id else $4 end,
    updated_at = now()
where k.tenant_id = $1 and k.id = $2
returning (($3::text is null or k.phone = $3) and ($4::text is null or k.wa_user_id = $4)) is true, {OUTS}
"""  # noqa: S608 - our own words


async def renumber(
    con: Connection, tenant: str, contact_id: UUID, phone: str | None, user_id: str | None
) -> Known | None:
    """Give a contact its new number or id; None if somebody else has it, who may be the same person twice."""
    row = await con.fetchrow(_RENUMBER, tenant, contact_id, phone, user_id)
    if row is None or not row[0]:
        return None
    return await _now_known(con, tenant, contact_id, row[1])


async def is_latest(con: Connection, tenant: str, contact_id: UUID, at: datetime) -> bool:
    """Whether a contact has said nothing after this time, as far as is known."""
    found: bool = await con.fetchval(_LATEST, tenant, contact_id, at)
    return found


async def conversation_for(
    con: Connection, tenant: str, contact_id: UUID, sender_id: UUID, at: datetime, new_id: UUID, *, wrote: bool = True
) -> UUID:
    """The conversation of a contact with a number, begun if need be.

    `wrote` says that the contact did something itself, a call too, which opens the 24-hour window (`policy/window.py`).
    """
    inbound = at if wrote else None
    return UUID(str(await con.fetchval(_CONVERSATION, new_id, tenant, contact_id, sender_id, inbound, uuid7(at))))


async def answered(con: Connection, new: NewReply) -> tuple[Any, UUID | None]:
    """The message that a reply answers, with what of a campaign it was; and the message or reply that it quotes."""
    quoted: UUID | None = None
    if new.context_wamid:
        found: Any = await con.fetchrow(_QUOTED, new.tenant, new.contact_id, new.context_wamid)
        if found is not None:
            return found, found[0]
        quoted = await con.fetchval(_QUOTED_REPLY, new.tenant, new.contact_id, new.context_wamid, LOOKED_BACK)
    return await con.fetchrow(_LAST_SENT, new.tenant, new.contact_id, new.received_at), quoted


async def reply(
    con: Connection, new: NewReply, to: Any = None, quoted: UUID | None = None, *, reopens: bool = True
) -> UUID | None:
    """Write a reply, and what it answers (id, campaign, step, step's id, variant) and quotes; its id if it was there.

    `reopens` says that a closed conversation is open again with it.
    """
    before: UUID | None = await con.fetchval(
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
        *(to or (None,) * 5),
        reopens,
        *second_of(new.received_at),
        quoted,
    )
    return before
