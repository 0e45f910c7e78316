"""What the dispatcher reads and writes: recipients, and messages that wait for their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


@dataclass(frozen=True, slots=True)
class Recipient:
    """Whom a command means, as far as is known."""

    sender_found: bool
    contact_id: UUID | None
    phone: str | None
    name: str
    locale: str | None
    attributes: dict[str, Any]
    opted_out: bool
    consents_to_marketing: bool


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message to be written as `queued`, or as `suppressed` with the reason."""

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


_RECIPIENTS = """
select s.id is not null, k.id, coalesce(k.phone, k.wa_user_id, i.phone), coalesce(k.name, ''), k.locale,
       coalesce(k.attributes::text, '{}'), k.opted_out_at is not null,
       k.opted_in_at is not null and (k.consent_categories = '{}' or 'marketing' = any (k.consent_categories))
from unnest($1::text[], $2::uuid[], $3::uuid[], $4::text[]) with ordinality
     as i (tenant_id, sender_id, contact_id, phone, place)
left join senders s on s.id = i.sender_id and s.tenant_id || '' = i.tenant_id
left join lateral (
  select * from contacts k where k.tenant_id || '' = i.tenant_id and k.id = i.contact_id
  union all
  select * from contacts k where k.tenant_id = i.tenant_id and k.phone = i.phone and i.contact_id is null
  limit 1) k on true
order by i.place
"""

_QUEUE = """
insert into messages (id, tenant_id, contact_id, sender_id, lane, "to", content, status, reason, cause, due_at)
select i.id, i.tenant_id, i.contact_id, i.sender_id, i.lane, i.recipient, i.content::jsonb, i.status, i.reason, i.cause,
       i.due_at
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::timestamptz[])
     as i (id, tenant_id, contact_id, sender_id, lane, recipient, content, status, reason, cause, due_at)
on conflict (id) do nothing
"""


#: From `queued` only: the sender takes a message out of it before it leaves, and whoever is first has it.
_CANCEL = """
with i as (select * from unnest($1::uuid[], $2::text[]) as i (id, tenant_id)),
gone as (
  update messages m set status = 'suppressed', reason = 'cancelled', updated_at = now()
  from i where m.id = i.id and m.tenant_id || '' = i.tenant_id and m.status = 'queued'
  returning m.id, m.contact_id, m.sender_id)
select * from gone
union
select m.id, m.contact_id, m.sender_id from messages m join i on m.id = i.id and m.tenant_id || '' = i.tenant_id
where m.status = 'suppressed' and m.reason = 'cancelled'
"""


async def recipients(con: Connection, wanted: Sequence[tuple[str, UUID, UUID | None, str | None]]) -> list[Recipient]:
    """Whom each (tenant, sender, contact or None, phone or None) means, in order."""
    rows = await con.fetch(_RECIPIENTS, *map(list, zip(*wanted, strict=True)))
    return [_recipient([*row]) for row in rows]


def _recipient(columns: list[Any]) -> Recipient:
    columns[5] = msgspec.json.decode(columns[5])
    return Recipient(*columns)


async def queue(con: Connection, new: Sequence[NewMessage]) -> None:
    """Write messages that are not there yet; a redelivered command changes nothing."""
    await con.execute(
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
    )


async def cancel(con: Connection, wanted: Sequence[tuple[str, UUID]]) -> dict[UUID, tuple[UUID | None, UUID]]:
    """Keep these (tenant, message) from leaving: (contact, sender) of those that stay, now or since an earlier try."""
    rows = await con.fetch(_CANCEL, [id_ for _, id_ in wanted], [tenant for tenant, _ in wanted])
    return {row[0]: (row[1], row[2]) for row in rows}
