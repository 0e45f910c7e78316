"""Steps that fall due: claimed across tenants, held while they wait in the broker, given back on stopping."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from harkara.invoicing import Owed
from harkara.storage.storage import Storage


class DueStep(msgspec.Struct, frozen=True, gc=False):
    """A claimed step with all that sending needs to know of its contact.

    It leaves at `leaves_at`: when it is due, or later if it was deferred. `leased_until` is when the claim ends.
    `quiet_hours` are JSON. With `invoice_id` it is about an invoice, which `invoice` tells.
    """

    enrollment_id: str
    tenant: str
    campaign_id: str
    contact_id: str
    message_id: str
    step: int
    step_id: str
    due_at: datetime
    leaves_at: datetime
    cause: str
    sender_id: str
    phone: str | None
    name: str
    locale: str | None
    attributes: dict[str, object]
    quiet_hours: str | None
    timezone: str | None
    tenant_timezone: str
    leased_until: datetime
    invoice_id: str | None = None
    invoice: Owed | None = None


_decode_attributes = msgspec.json.Decoder(dict[str, object]).decode

_decode_invoice = msgspec.json.Decoder(Owed).decode

_ATTRIBUTES = list(DueStep.__annotations__).index("attributes")

#: Ids come as the text they go onto the bus as. The end of the lease is what the function writes, to the microsecond.
_CLAIM = """
select enrollment_id::text, tenant_id, campaign_id::text, contact_id::text, message_id::text, step, step_id::text,
       due_at, leaves_at, cause, sender_id::text, phone, name, locale, attributes, quiet_hours, timezone,
       tenant_timezone, now() + $2 + $3 as leased_until, invoice_id::text, invoice
from app.claim_due($1, $2, $3)
"""

#: Of the steps that still have the lease they were claimed with. Whoever does anything with one, sends, defers, hurries
#: or sets it aside, gives it another time; one that somebody works on now needs nothing from us.
_HOLD = """
with leased as (
  select p.id from unnest($1::uuid[], $2::timestamptz[]) as i (id, leased_until)
  join contact_campaign_progress p on p.id = i.id and p.next_claim_at = i.leased_until
  for no key update of p skip locked)
update contact_campaign_progress p
set next_claim_at = coalesce(now() + $3, greatest(p.next_step_scheduled_at, p.deferred_until))
from leased where p.id = leased.id
"""

#: Holds the campaign while it sets its steps aside: one that is resumed at this moment would never find them again. One
#: that was resumed just before gets them back at once.
_PARK = """
with parked as (select * from unnest($1::uuid[], $2::uuid[]) as parked (id, message_id)),
campaign as materialized (
  select c.id, c.status from campaigns c
  where c.id in (select p.campaign_id from contact_campaign_progress p join parked on parked.id = p.id)
  order by c.id for share of c)
update contact_campaign_progress p
set next_claim_at = case when p.status = 'active' and campaign.status = 'active' and t.is_active
                         then p.next_step_scheduled_at else 'infinity' end
from parked, campaign, tenants t
where p.id = parked.id and p.next_message_id = parked.message_id and campaign.id = p.campaign_id and t.id = p.tenant_id
  and p.status in ('active', 'paused')
"""

#: A claimed step: tenant, enrolment, and the end of its lease. `hold` and `release` take it.
Leased = tuple[str, str | UUID, datetime]

#: An enrolment and the message it waits for, with its tenant: what `park` takes.
Waiting = tuple[str, str | UUID, str | UUID]


async def claim(storage: Storage, most: int, horizon: timedelta, lease: timedelta) -> tuple[int, list[DueStep]]:
    """Take at most `most` steps due within `horizon`, soonest first; nobody else gets them for `lease`.

    Returns how many were taken, and those of them that can be sent: the others' campaigns are not active.
    """
    async with storage.anonymous() as con:
        rows = await con.fetch(_CLAIM, most, horizon, lease)
    return len(rows), [_step([*row]) for row in rows if row["sender_id"] is not None]


def _step(columns: list[Any]) -> DueStep:
    columns[_ATTRIBUTES] = _decode_attributes(columns[_ATTRIBUTES])
    if columns[-1] is not None:
        columns[-1] = _decode_invoice(columns[-1])
    return DueStep(*columns)


async def prepare_months(storage: Storage, ahead: int) -> int:
    """Make the partitions of the months to come that aren't there yet; returns how many were made."""
    async with storage.anonymous() as con:
        made: int = await con.fetchval("select app.prepare_months($1)", ahead)
    return made


async def forget_keys(storage: Storage, most: int) -> int:
    """Delete Idempotency-Keys that count no more, at most so many of each kind; returns how many were deleted."""
    async with storage.anonymous() as con:
        gone: int = await con.fetchval("select app.forget_keys($1)", most)
    return gone


async def hold(storage: Storage, published: Sequence[Leased], until: timedelta) -> None:
    """Lengthen the lease of steps that wait in the broker for their number: it keeps them now."""
    await _update(storage, _HOLD, published, until)


async def release(storage: Storage, held: Sequence[Leased]) -> None:
    """Give claimed steps back, to be claimed again when they are due, or when what defers them ends."""
    await _update(storage, _HOLD, held, None)


async def park(storage: Storage, parked: Sequence[Waiting]) -> None:
    """Set steps aside until their campaign is resumed; if it has been meanwhile, they are claimed again."""
    await _update(storage, _PARK, parked)


async def _update(storage: Storage, sql: str, steps: Sequence[Waiting] | Sequence[Leased], *more: object) -> None:
    if steps:
        async with storage.batch({tenant for tenant, _, _ in steps}) as con:
            await con.execute(sql, [row[1] for row in steps], [row[2] for row in steps], *more)
