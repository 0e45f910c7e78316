"""Steps that fall due: claimed across tenants, held while they wait in the broker, given back on stopping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from harkara.storage.storage import Storage


@dataclass(frozen=True, slots=True)
class DueStep:
    """A claimed step with all that sending needs to know of its contact."""

    enrollment_id: str
    tenant: str
    campaign_id: str
    contact_id: str
    message_id: str
    step: int
    step_id: str
    due_at: datetime
    cause: str
    sender_id: str
    phone: str | None
    name: str
    locale: str | None
    attributes: dict[str, object]


_decode_attributes = msgspec.json.Decoder(dict[str, object]).decode

#: Ids come as the text they go onto the bus as.
_CLAIM = """
select enrollment_id::text, tenant_id, campaign_id::text, contact_id::text, message_id::text, step, step_id::text,
       due_at, cause, sender_id::text, phone, name, locale, attributes
from app.claim_due($1, $2, $3)
"""

#: Of the steps that still wait for this message. One that somebody else works on now needs nothing from us.
_HOLD = """
with waiting as (
  select p.id from unnest($1::uuid[], $2::uuid[]) as i (id, message_id)
  join contact_campaign_progress p on p.id = i.id and p.next_message_id = i.message_id
  where p.status = 'active' and p.next_claim_at < 'infinity' for no key update of p skip locked)
update contact_campaign_progress p set next_claim_at = coalesce(now() + $3, next_step_scheduled_at)
from waiting where p.id = waiting.id
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

#: An enrolment and the message it waits for, with its tenant: what `hold`, `release` and `park` take.
Waiting = tuple[str, str | UUID, str | UUID]


async def claim(storage: Storage, most: int, horizon: timedelta, lease: timedelta) -> tuple[int, list[DueStep]]:
    """Take at most `most` steps due within `horizon`, soonest first; nobody else gets them for `lease`.

    Returns how many were taken, and those of them that can be sent: the others' campaigns are not active.
    """
    async with storage.anonymous() as con:
        rows = await con.fetch(_CLAIM, most, horizon, lease)
    return len(rows), [_step([*row]) for row in rows if row["sender_id"] is not None]


def _step(columns: list[Any]) -> DueStep:
    columns[-1] = _decode_attributes(columns[-1])
    return DueStep(*columns)


async def prepare_months(storage: Storage, ahead: int) -> int:
    """Make the partitions of the months to come that aren't there yet; returns how many were made."""
    async with storage.anonymous() as con:
        made: int = await con.fetchval("select app.prepare_months($1)", ahead)
    return made


async def hold(storage: Storage, waiting: Sequence[Waiting], until: timedelta) -> None:
    """Lengthen the lease of steps that wait in the broker for their number: it keeps them now."""
    await _update(storage, _HOLD, waiting, until)


async def release(storage: Storage, held: Sequence[Waiting]) -> None:
    """Give claimed steps back, so that another process sends them at their time."""
    await _update(storage, _HOLD, held, None)


async def park(storage: Storage, parked: Sequence[Waiting]) -> None:
    """Set steps aside until their campaign is resumed; if it has been meanwhile, they are claimed again."""
    await _update(storage, _PARK, parked)


async def _update(storage: Storage, sql: str, waiting: Sequence[Waiting], *more: object) -> None:
    if waiting:
        async with storage.batch({tenant for tenant, _, _ in waiting}) as con:
            await con.execute(sql, [row[1] for row in waiting], [row[2] for row in waiting], *more)
