"""What WhatsApp charges for: counted when it tells a message's price, which it does once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


class Priced(NamedTuple):
    """One message that has a price now: whose, of which month, and in WhatsApp's words what kind of message it was."""

    tenant: str
    month: date
    category: str
    billable: bool


_decode = msgspec.json.Decoder(dict[str, Any]).decode


def priced(tenant: str, month: date, pricing: str) -> Priced:
    """A message by what its status tells of its price, as JSON. What isn't said to be free is charged."""
    told = _decode(pricing)
    category = str(told.get("category") or "unknown").lower().replace("\0", "")[:32]
    return Priced(tenant, month, category, told.get("billable") is not False)


#: In one order, so that two batches never deadlock.
_COUNT = """
insert into usage_by_category (id, tenant_id, month, category, billable, messages)
select app.uuid7(), i.tenant_id, i.month, i.category, i.billable, i.messages
from unnest($1::text[], $2::date[], $3::text[], $4::bool[], $5::bigint[])
  as i (tenant_id, month, category, billable, messages)
order by i.tenant_id, i.month, i.category, i.billable
on conflict (tenant_id, month, category, billable) do update
set messages = usage_by_category.messages + excluded.messages, updated_at = now()
"""


async def count(con: Connection, found: Iterable[Priced]) -> None:
    """Count messages whose price was told just now. Holds the counts: the last that a transaction does."""
    counts = Counter(found)
    if counts:
        await con.execute(_COUNT, *map(list, zip(*((*one, number) for one, number in counts.items()), strict=True)))
