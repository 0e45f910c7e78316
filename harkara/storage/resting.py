"""Contacts to whom WhatsApp gives no more marketing for a while: none is sent to them until that is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


@dataclass(frozen=True, slots=True)
class Rest:
    """A contact of a tenant, and until when it rests."""

    tenant: str
    contact_id: UUID
    until: datetime


#: Locked in the order of their ids. What is told again, or late, shortens no rest.
_REST = """
with resting as (
  select id, tenant_id, max(until) as until
  from unnest($1::uuid[], $2::text[], $3::timestamptz[]) as i (id, tenant_id, until) group by 1, 2),
locked as (
  select i.* from contacts k join resting i on i.id = k.id and k.tenant_id || '' = i.tenant_id
  order by k.id for no key update of k)
update contacts k set marketing_rests_until = i.until
from locked i
where k.id = i.id and k.tenant_id || '' = i.tenant_id and coalesce(k.marketing_rests_until < i.until, true)
"""


async def rest(con: Connection, rests: Sequence[Rest]) -> None:
    """Have these contacts rest."""
    if rests:
        await con.execute(
            _REST, [one.contact_id for one in rests], [one.tenant for one in rests], [one.until for one in rests]
        )
