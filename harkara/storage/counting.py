"""What was sent lately, and this month: read and counted under locks, so that several senders together keep a limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Whoever counts a contact's messages holds the contact: another sender's count comes after this one's commit.
_HOLD_CONTACTS = """
select k.id from contacts k where k.id = any ($1::uuid[]) order by k.id for no key update
"""

#: Ids tell when messages were due, and those that a contact was sent lately may have waited.
_WAITED = timedelta(days=31)

_SENT = """
select i.contact_id, array_agg(m.attempted_at order by m.attempted_at)
from unnest($1::uuid[], $2::text[], $3::interval[]) as i (contact_id, tenant_id, period)
join messages m on m.tenant_id = i.tenant_id and m.contact_id = i.contact_id and m.id >= $4
where (m.lane = 'marketing' or not m.is_test and exists (
    select from templates e
    where e.sender_id = m.sender_id and e.tenant_id = m.tenant_id and e.category = 'marketing'
      and e.name = m.content #>> '{template,name}'
      and e.language = coalesce(m.content #>> '{template,language}', 'en')))
  and m.status in ('sending', 'unknown', 'sent', 'delivered', 'read')
  and m.attempted_at > clock_timestamp() - i.period
group by i.contact_id
"""

_COUNT = """
insert into monthly_usage (id, tenant_id, month, messages)
select app.uuid7(), i.tenant_id, date_trunc('month', now() at time zone 'utc')::date, i.messages
from unnest($1::text[], $2::bigint[]) as i (tenant_id, messages) order by i.tenant_id
on conflict (tenant_id, month) do update set messages = monthly_usage.messages + excluded.messages
returning tenant_id, messages
"""

_KEEP_BACK = """
update monthly_usage u
set messages = u.messages - i.messages, exhausted_at = case when $3 then coalesce(u.exhausted_at, now())
                                                            else u.exhausted_at end
from unnest($1::text[], $2::bigint[]) as i (tenant_id, messages)
where u.tenant_id = i.tenant_id and u.month = date_trunc('month', now() at time zone 'utc')::date
returning u.tenant_id, u.exhausted_at = now()
"""

#: Of those whose attempt ends now; WhatsApp gave none of them an id. In the order in which they are counted.
_GIVE_BACK = """
with back as (
  select m.tenant_id, date_trunc('month', m.attempted_at at time zone 'utc')::date as month, count(*) as messages
  from unnest($1::uuid[], $2::text[]) as i (id, tenant_id)
  join messages m on m.id = i.id and m.tenant_id || '' = i.tenant_id
  where m.status = 'sending' and m.wamid is null group by 1, 2),
locked as (
  select u.id, back.messages from monthly_usage u join back on back.tenant_id = u.tenant_id and back.month = u.month
  order by u.tenant_id, u.month for no key update of u)
update monthly_usage u set messages = greatest(0, u.messages - locked.messages) from locked where u.id = locked.id
"""


async def sent_lately(
    con: Connection, wanted: Mapping[UUID, tuple[str, timedelta]], floor: UUID
) -> dict[UUID, list[datetime]]:
    """When each contact (of a tenant, in a period) was sent marketing, in order. Holds the contacts until the end.

    `floor` is an id of the time before which nothing counts, see `reaches_back`.
    """
    ids = list(wanted)
    await con.execute(_HOLD_CONTACTS, ids)
    rows = await con.fetch(_SENT, ids, [wanted[id_][0] for id_ in ids], [wanted[id_][1] for id_ in ids], floor)
    return {row[0]: row[1] for row in rows}


def reaches_back(period: timedelta) -> timedelta:
    """How old a message's id may be that was sent within this period."""
    return period + _WAITED


async def count(con: Connection, leaving: Mapping[str, int]) -> dict[str, int]:
    """Count messages that are about to leave; returns what each tenant's month has come to. Holds the counts."""
    tenants = sorted(leaving)
    rows = await con.fetch(_COUNT, tenants, [leaving[tenant] for tenant in tenants])
    return {row[0]: row[1] for row in rows}


async def keep_back(con: Connection, messages: Mapping[str, int], *, exhausted: bool) -> set[str]:
    """Take back what was counted and does not leave; `exhausted` says that the plan includes no more.

    Returns the tenants of which that is so for the first time in this month.
    """
    tenants = sorted(messages)
    rows = await con.fetch(_KEEP_BACK, tenants, [messages[tenant] for tenant in tenants], exhausted)
    return {row[0] for row in rows if row[1]}


async def give_back(con: Connection, not_taken: Sequence[tuple[UUID, str]]) -> None:
    """Take back what was counted for (message, tenant) that WhatsApp did not take; before that is written."""
    await con.execute(_GIVE_BACK, [id_ for id_, _ in not_taken], [tenant for _, tenant in not_taken])
