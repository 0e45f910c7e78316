"""Messages that policy holds back for a while: written as waiting, and steps moved to when that is over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

from harkara.storage.sending import Attempt, of_new_rows

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: What was due within this time before the instant to which it is deferred keeps its order.
_ORDERED = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Deferral:
    """A message that waits until then, with the reason."""

    attempt: Attempt
    until: datetime
    reason: str


_WAITING = """
insert into messages (id, tenant_id, contact_id, sender_id, campaign_id, enrollment_id, step, lane, "to", content,
                      cause, due_at, status, reason, step_id, variant, deferred_until,
                      invoice_id)
select i.id, i.tenant_id, i.contact_id, i.sender_id, i.campaign_id, i.enrollment_id, i.step, i.lane, i.recipient,
       i.content::jsonb, i.cause, i.due_at, 'queued', i.reason, i.step_id, i.variant, i.until,
       i.invoice_id
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::int[], $8::text[], $9::text[],
            $10::text[], $11::text[], $12::timestamptz[], $13::text[], $14::uuid[], $15::text[], $16::timestamptz[],
            $17::uuid[])
     as i (id, tenant_id, contact_id, sender_id, campaign_id, enrollment_id, step, lane, recipient, content, cause,
           due_at, reason, step_id, variant, until, invoice_id)
order by i.id
on conflict (id) do update
set reason = excluded.reason, error_code = null, deferred_until = excluded.deferred_until,
    "to" = excluded."to", content = excluded.content, step = excluded.step, step_id = excluded.step_id,
    variant = excluded.variant, updated_at = now()
where messages.status = 'queued' and messages.tenant_id = excluded.tenant_id
returning id
"""

#: Only of steps that still wait for this very message: one that was stopped or parked meanwhile stays so. The status is
#: spelt so that the index of all steps that are due, which is small when this is planned, is not searched for each one.
_STEPS = """
with locked as (
  select i.* from unnest($1::uuid[], $2::text[], $3::uuid[], $4::timestamptz[], $5::timestamptz[])
    as i (id, tenant_id, message_id, until, claim_at)
  join contact_campaign_progress p
    on p.id = i.id and p.tenant_id || '' = i.tenant_id and p.next_message_id = i.message_id
  where p.status || '' = 'active' and p.next_claim_at < 'infinity' order by p.id for no key update of p)
update contact_campaign_progress p set next_claim_at = i.claim_at, deferred_until = i.until, updated_at = now()
from locked i where p.id = i.id and p.tenant_id || '' = i.tenant_id
returning p.next_message_id
"""


#: What is claimed already is judged anyway.
_LOOK_AGAIN = """
update contact_campaign_progress set next_claim_at = next_step_scheduled_at, deferred_until = null, updated_at = now()
where tenant_id = $1 and campaign_id = $2 and status = 'active'
  and deferred_until > now() and next_claim_at < 'infinity'
"""


async def look_again(con: Connection, tenant: str, campaign_id: UUID) -> None:
    """Have the steps of a campaign that wait judged again now, because what holds them back changed."""
    await con.execute(_LOOK_AGAIN, tenant, campaign_id)


async def defer(con: Connection, deferrals: Sequence[Deferral]) -> set[UUID]:
    """Write these messages as waiting. Returns the ids of those that do, and of steps only those that come back.

    A message that is missing is being handled elsewhere; a step that is missing was stopped, parked or moved on, and
    is not written.
    """
    if not deferrals:
        return set()
    moved = await _move(con, [one for one in deferrals if one.attempt.enrollment_id is not None])
    waiting = [d for d in deferrals if d.attempt.enrollment_id is None or d.attempt.message_id in moved]
    attempts = [one.attempt for one in waiting]
    rows = await con.fetch(
        _WAITING,
        *of_new_rows(attempts),
        [one.reason for one in waiting],
        [a.step_id for a in attempts],
        [a.variant for a in attempts],
        [one.until for one in waiting],
        [a.invoice_id for a in attempts],
    )
    return {row[0] for row in rows}


async def _move(con: Connection, steps: Sequence[Deferral]) -> set[UUID]:
    if not steps:
        return set()
    rows = await con.fetch(
        _STEPS,
        [one.attempt.enrollment_id for one in steps],
        [one.attempt.tenant for one in steps],
        [one.attempt.message_id for one in steps],
        [one.until for one in steps],
        [claim_at(one.until, one.attempt.due_at) for one in steps],
    )
    return {row[0] for row in rows}


def claim_at(until: datetime, due_at: datetime) -> datetime:
    """When a deferred step is claimed: a microsecond later for each second that it was due later.

    So those that wait for the same instant are claimed in the order in which they were due.
    """
    after = min(max(due_at - (until - _ORDERED), timedelta()), _ORDERED)
    return until + timedelta(microseconds=after // timedelta(seconds=1))
