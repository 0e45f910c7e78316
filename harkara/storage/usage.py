"""What WhatsApp charges for: counted when it tells a message's price, and counted anew if it tells another one."""

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


#: In one order, so that two batches never deadlock. Nothing is taken back of what was never counted.
_COUNT = """
insert into usage_by_category (id, tenant_id, month, category, billable, messages)
select app.uuid7(), i.tenant_id, i.month, i.category, i.billable, i.messages
from unnest($1::text[], $2::date[], $3::text[], $4::bool[], $5::bigint[])
  as i (tenant_id, month, category, billable, messages)
where i.messages > 0 or exists (
  select from usage_by_category u where u.tenant_id = i.tenant_id and u.month = i.month and u.category = i.category
    and u.billable = i.billable)
order by i.tenant_id, i.month, i.category, i.billable
on conflict (tenant_id, month, category, billable) do update
set messages = greatest(0, usage_by_category.messages + excluded.messages), updated_at = now()
"""


async def count(con: Connection, found: Iterable[Priced], before: Iterable[Priced] = ()) -> None:
    """Count messages whose price was told just now, and no longer what was told of them `before`.

    Holds the counts: the last that a transaction does.
    """
    counts = Counter(found)
    counts.subtract(before)
    changed = [(*one, number) for one, number in counts.items() if number]
    if changed:
        await con.execute(_COUNT, *map(list, zip(*changed, strict=True)))
