"""What the sender reads and writes, in batches: the gate's facts, the intent before a request, the result after it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


@dataclass(frozen=True, slots=True)
class Attempt:
    """A message that is about to leave."""

    message_id: UUID
    tenant: str
    contact_id: UUID | None
    sender_id: UUID
    campaign_id: UUID | None
    enrollment_id: UUID | None
    step: int | None
    lane: str
    to: str
    content: str
    cause: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """What the gate judges: the state of everything that may have changed since the message was scheduled."""

    now: datetime
    message_status: str | None
    attempts: int
    attempted_at: datetime | None
    sender_status: str | None
    contact_found: bool
    opted_out: bool
    consents_to_marketing: bool
    enrollment_status: str | None
    expected_message_id: UUID | None
    started_at: datetime | None
    campaign_status: str | None
    tenant_active: bool
    wamid: str | None = None
    reason: str | None = None
    error_code: int | None = None
    stopped_reason: str | None = None


_FACTS = """
select clock_timestamp(), m.status, coalesce(m.attempts, 0), m.attempted_at, s.status, k.id is not null,
       k.opted_out_at is not null,
       k.opted_in_at is not null and (k.consent_categories = '{}' or 'marketing' = any (k.consent_categories)),
       p.status, p.next_message_id, p.started_at, c.status, coalesce(t.is_active, false),
       m.wamid, m.reason, m.error_code, p.stopped_reason
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[]) with ordinality
     as i (id, tenant_id, contact_id, sender_id, campaign_id, enrollment_id, place)
left join messages m on m.id = i.id and m.tenant_id || '' = i.tenant_id
left join tenants t on t.id = i.tenant_id
left join senders s on s.id = i.sender_id and s.tenant_id || '' = i.tenant_id
left join contacts k on k.id = i.contact_id and k.tenant_id || '' = i.tenant_id
left join campaigns c on c.id = i.campaign_id and c.tenant_id || '' = i.tenant_id
left join contact_campaign_progress p
  on p.id = i.enrollment_id and p.tenant_id || '' = i.tenant_id
order by i.place
"""

#: Writes the attempt. A row that is already there is taken only from `queued`: that is what keeps two copies of the
#: same work from both going out.
_INTENTS = """
insert into messages (id, tenant_id, contact_id, sender_id, campaign_id, enrollment_id, step, lane, "to", content,
                      cause, due_at, status, reason, attempts, attempted_at)
select i.id, i.tenant_id, i.contact_id, i.sender_id, i.campaign_id, i.enrollment_id, i.step, i.lane, i.recipient,
       i.content::jsonb, i.cause, i.due_at, i.status, i.reason,
       case i.status when 'sending' then 1 else 0 end, case i.status when 'sending' then clock_timestamp() end
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::int[], $8::text[], $9::text[],
            $10::text[], $11::text[], $12::timestamptz[], $13::text[], $14::text[])
     as i (id, tenant_id, contact_id, sender_id, campaign_id, enrollment_id, step, lane, recipient, content, cause,
           due_at, status, reason)
on conflict (id) do update
set status = excluded.status, reason = excluded.reason, attempts = messages.attempts + excluded.attempts,
    attempted_at = coalesce(excluded.attempted_at, messages.attempted_at), updated_at = now()
where messages.status = 'queued' and messages.tenant_id = excluded.tenant_id
returning id, pg_current_xact_id()::text
"""


async def facts(con: Connection, attempts: Sequence[Attempt]) -> list[Facts]:
    """The gate's facts of each attempt, in order, in one read."""
    rows = await con.fetch(
        _FACTS,
        [a.message_id for a in attempts],
        [a.tenant for a in attempts],
        [a.contact_id for a in attempts],
        [a.sender_id for a in attempts],
        [a.campaign_id for a in attempts],
        [a.enrollment_id for a in attempts],
    )
    return [Facts(*row) for row in rows]


async def intend(con: Connection, attempts: Sequence[tuple[Attempt, str, str | None]]) -> tuple[set[UUID], str | None]:
    """Write (attempt, status, reason) rows: `sending` before the request, `suppressed` instead of it.

    Returns the ids that were written and the transaction that did it, None if there are none. An id that is missing is
    already being handled elsewhere.
    """
    if not attempts:
        return set(), None
    rows = await con.fetch(
        _INTENTS,
        [a.message_id for a, _, _ in attempts],
        [a.tenant for a, _, _ in attempts],
        [a.contact_id for a, _, _ in attempts],
        [a.sender_id for a, _, _ in attempts],
        [a.campaign_id for a, _, _ in attempts],
        [a.enrollment_id for a, _, _ in attempts],
        [a.step for a, _, _ in attempts],
        [a.lane for a, _, _ in attempts],
        [a.to for a, _, _ in attempts],
        [a.content for a, _, _ in attempts],
        [a.cause for a, _, _ in attempts],
        [a.due_at for a, _, _ in attempts],
        [status for _, status, _ in attempts],
        [reason for _, _, reason in attempts],
    )
    return {row[0] for row in rows}, rows[0][1] if rows else None


@dataclass(frozen=True, slots=True)
class Advance:
    """Where an enrolment goes from a message that is dealt with: on to a next step, or to its end."""

    enrollment_id: UUID
    status: str
    reason: str | None = None
    step: int = 0
    step_id: UUID | None = None
    message_id: UUID | None = None
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What became of an attempt: sent, failed, unknown, suppressed, or queued (to be tried again)."""

    message_id: UUID
    tenant: str
    status: str
    wamid: str | None = None
    reason: str | None = None
    error_code: int | None = None
    advance: Advance | None = None


#: Rows are locked in the order of their ids, as the receipts do: two batches over the same rows then never deadlock.
#: A webhook may have been faster than we are: then its status stays and only what it could not know is added.
_RESULTS = """
with locked as (
  select i.* from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[])
    as i (id, tenant_id, status, wamid, reason, error_code)
  join messages m on m.id = i.id and m.tenant_id || '' = i.tenant_id
  order by m.id for no key update of m)
update messages m
set status = case when m.status in ('queued', 'sending') then i.status
                  when m.status = 'unknown' and i.status in ('sent', 'failed') then i.status else m.status end,
    wamid = coalesce(m.wamid, i.wamid),
    reason = case when m.status in ('sending', 'unknown') then i.reason else m.reason end,
    error_code = case when m.status in ('sending', 'unknown') then i.error_code else m.error_code end,
    sent_at = case when i.status = 'sent' then coalesce(m.sent_at, clock_timestamp()) else m.sent_at end,
    failed_at = case when i.status = 'failed' then coalesce(m.failed_at, clock_timestamp()) else m.failed_at end,
    updated_at = now()
from locked i where m.id = i.id and m.tenant_id || '' = i.tenant_id
"""

#: Moves an enrolment on only from the very message it waits for, so that doing it twice changes nothing. One that was
#: stopped meanwhile stays so and waits for nothing any more. A message counts as sent if WhatsApp has an id for it.
_ADVANCES = """
with locked as (
  select i.*, m.wamid is not null as sent
  from unnest($1::uuid[], $2::text[], $3::uuid[], $4::text[], $5::text[], $6::int[], $7::uuid[], $8::uuid[],
              $9::timestamptz[])
    as i (enrollment_id, tenant_id, message_id, status, reason, step, step_id, next_message_id, due_at)
  join contact_campaign_progress p
    on p.id = i.enrollment_id and p.tenant_id || '' = i.tenant_id and p.next_message_id = i.message_id
  join messages m on m.id = i.message_id and m.tenant_id || '' = i.tenant_id
  order by p.id for no key update of p)
update contact_campaign_progress p
set current_step = i.step,
    messages_sent = p.messages_sent + i.sent::int,
    last_step_at = case when i.sent then clock_timestamp() else p.last_step_at end,
    next_step_id = case when p.status in ('active', 'paused') then i.step_id end,
    next_message_id = case when p.status in ('active', 'paused') then i.next_message_id end,
    next_step_scheduled_at = case when p.status in ('active', 'paused') then i.due_at end,
    next_claim_at = case when p.status in ('active', 'paused') then i.due_at end,
    stopped_reason = case when p.status in ('active', 'paused') then i.reason else p.stopped_reason end,
    finished_at = case when p.status in ('active', 'paused') and i.status <> 'active' then clock_timestamp()
                       else p.finished_at end,
    status = case when p.status in ('active', 'paused') and i.status <> 'active' then i.status else p.status end,
    updated_at = now()
from locked i
where p.id = i.enrollment_id and p.tenant_id || '' = i.tenant_id and p.next_message_id = i.message_id
"""

_ENDED = """
select p.id from unnest($1::uuid[], $2::text[], $3::text[]) as i (id, tenant_id, status)
join contact_campaign_progress p on p.id = i.id and p.tenant_id || '' = i.tenant_id and p.status = i.status
"""


async def finish(con: Connection, results: Sequence[Result]) -> set[UUID]:
    """Write results and move their enrolments on.

    Returns the enrolments that have ended as their results say, now or when the same results were written before.
    """
    await con.execute(
        _RESULTS,
        [r.message_id for r in results],
        [r.tenant for r in results],
        [r.status for r in results],
        [r.wamid for r in results],
        [r.reason for r in results],
        [r.error_code for r in results],
    )
    moves = [(r, r.advance) for r in results if r.advance]
    if not moves:
        return set()
    await con.execute(
        _ADVANCES,
        [a.enrollment_id for _, a in moves],
        [r.tenant for r, _ in moves],
        [r.message_id for r, _ in moves],
        [a.status for _, a in moves],
        [a.reason for _, a in moves],
        [a.step for _, a in moves],
        [a.step_id for _, a in moves],
        [a.message_id for _, a in moves],
        [a.due_at for _, a in moves],
    )
    last = [(a.enrollment_id, r.tenant, a.status) for r, a in moves if a.status != "active"]
    if not last:
        return set()
    return {row[0] for row in await con.fetch(_ENDED, *map(list, zip(*last, strict=True)))}


_STEPS = """
select s.id, s.position, s.delay_hours, s.content::text from campaign_steps s
where s.tenant_id = $1 and s.version_id = (select version_id from campaign_steps where id = $2 and tenant_id = $1)
order by s.position
"""

_SENDER = """
select provider, phone_number_id, access_token, mps, status from senders where tenant_id = $1 and id = $2
"""

_PAUSE = """
update senders set status = 'paused', status_reason = $3, updated_at = now()
where tenant_id = $1 and id = $2 and status = 'active'
"""


async def steps(con: Connection, tenant: str, step_id: UUID) -> list[Any]:
    """All steps of the version that a step belongs to, in order: (id, position, delay_hours, content)."""
    return list(await con.fetch(_STEPS, tenant, step_id))


async def sender(con: Connection, tenant: str, sender_id: UUID) -> Any:
    """A number and how to reach its gateway, or None: (provider, phone_number_id, access_token, mps, status)."""
    return await con.fetchrow(_SENDER, tenant, sender_id)


async def pause_sender(con: Connection, tenant: str, sender_id: UUID, reason: str) -> None:
    """Stop a number until a person has looked at it."""
    await con.execute(_PAUSE, tenant, sender_id, reason)
