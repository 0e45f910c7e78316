"""Who has the phone number and the business-scoped user id that WhatsApp has named together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from harkara.storage.receiving import OUTS, Known

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


class Named(NamedTuple):
    """One person, by what WhatsApp calls them: a user id, and with it a number or a message of ours that they quote.

    `phone` is E.164; `quoted` is WhatsApp's id of a message from the number `sender_id`.
    """

    tenant: str
    user_id: str
    phone: str | None = None
    quoted: str | None = None
    sender_id: UUID | None = None


class Found(NamedTuple):
    """The contact with the number, or without a user id and sent what is quoted; and the one with the id."""

    by_phone: UUID | None
    phone: str | None
    user_id: str | None
    by_user_id: UUID | None
    phone_of_user: str | None


class Learned(NamedTuple):
    """What a contact has from now on; None: what it had."""

    tenant: str
    contact_id: UUID
    phone: str | None
    user_id: str | None


#: By the first number, else a further one, else what is quoted. Senders are compared as text so that the index by
#: WhatsApp's id is the only one that serves.
_FIND = """
select a.id, a.phone, a.wa_user_id, b.id, b.phone
from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::uuid[]) with ordinality
     as i (tenant_id, user_id, phone, quoted, sender_id, place)
left join lateral (
  select c.id, c.phone, c.wa_user_id, 0 as rank from contacts c where c.tenant_id = i.tenant_id and c.phone = i.phone
  union all
  select c.id, c.phone, c.wa_user_id, 1 from phone_numbers p
  join contacts c on c.id = p.contact_id and c.tenant_id = p.tenant_id
  where p.tenant_id = i.tenant_id and p.phone = i.phone
  union all
  select c.id, c.phone, c.wa_user_id, 2 from messages m
  join contacts c on c.id = m.contact_id and c.tenant_id = m.tenant_id
  where m.wamid = i.quoted and m.tenant_id || '' = i.tenant_id and m.sender_id::text = i.sender_id::text
    and c.wa_user_id is null
  order by rank limit 1) a on true
left join contacts b on b.tenant_id = i.tenant_id and b.wa_user_id = i.user_id
order by i.place
"""

#: Locked in the order of their ids.
_LEARN = f"""
with locked as (
  select i.*, {OUTS} as outs
  from unnest($1::text[], $2::uuid[], $3::text[], $4::text[]) as i (tenant_id, id, phone, user_id)
  join contacts k on k.id = i.id and k.tenant_id || '' = i.tenant_id order by k.id for update of k)
update contacts k
set phone = coalesce(i.phone, k.phone), wa_user_id = coalesce(i.user_id, k.wa_user_id), updated_at = now()
from locked i where k.id = i.id and k.tenant_id || '' = i.tenant_id
returning k.tenant_id, k.id, i.outs
"""  # noqa: S608 - our own words

_OUTS_OF = f"""
select k.id, {OUTS} from unnest($1::text[], $2::uuid[]) as i (tenant_id, id)
join contacts k on k.id = i.id and k.tenant_id || '' = i.tenant_id
"""  # noqa: S608 - our own words


async def find(con: Connection, named: Sequence[Named]) -> list[Found]:
    """The contacts behind each of these, in order."""
    return [Found(*row) for row in await con.fetch(_FIND, *map(list, zip(*named, strict=True)))]


async def learn(con: Connection, learned: Sequence[Learned]) -> list[Known]:
    """Write numbers and ids that nobody else has. Returns the contacts that opted out of something by gaining them.

    Somebody who gets one of them at the same moment makes this fail: it is to be tried anew.
    """
    if not learned:
        return []
    rows = await con.fetch(_LEARN, *map(list, zip(*learned, strict=True)))
    before = {row[1]: frozenset(row[2]) for row in rows}
    now = await con.fetch(_OUTS_OF, [row[0] for row in rows], [row[1] for row in rows])
    return [Known(row[0], gained) for row in now if (gained := frozenset(row[1]) - before[row[0]])]
