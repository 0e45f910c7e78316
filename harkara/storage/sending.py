"""What the sender reads and writes, in batches: the gate's facts, the intent before a request, the result after it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from harkara.schemas.reasons import Reason
from harkara.storage.holding import HELD
from harkara.storage.linking import UNLINKED

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


class Denied(msgspec.Struct, frozen=True, gc=False):
    """A budget keeps back one message, whatever its number has left: why (`pair_limit`, …), and for how long."""

    reason: Reason
    after: timedelta


class Attempt(msgspec.Struct, frozen=True, gc=False):
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
    step_id: UUID | None = None
    variant: str | None = None
    #: It is in doubt, the wait for a receipt is over, and it is to be sent once more.
    resend: bool = False
    #: Why and how long a budget keeps it back, if one does.
    denied: Denied | None = None
    confirms: bool = False
    template: str | None = None
    language: str | None = None
    expires_at: datetime | None = None
    #: What becomes of it in doubt, if it says so itself; else its campaign does.
    delivery: str | None = None
    #: What it is a reminder of: it leaves only while that is open.
    invoice_id: UUID | None = None
    #: It goes to whatever number its contact has by then; else to `to`, as long as that is the contact's.
    follows: bool = False


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What the gate judges: the state of everything that may have changed since the message was scheduled.

    `opted_out` is of the category that the message's lane is, and of marketing if its template is that to WhatsApp.
    Since `template_unread_since` the template's status is known, and WhatsApp has yet to say what it is.
    """

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
    expected_step_id: UUID | None = None
    passed: list[UUID] | None = None
    goal: str | None = None
    exit: str | None = None
    delivery: str = "at_most_once"
    resent: bool = False
    resend_at: datetime | None = None
    contact_id: UUID | None = None
    keeps_window: bool = False
    last_inbound_at: datetime | None = None
    quiet_hours: str | None = None
    timezone: str | None = None
    tenant_timezone: str | None = None
    frequency_caps: str | None = None
    plan: str | None = None
    templates_known: bool = False
    template_status: str | None = None
    rests_until: datetime | None = None
    held: bool = False
    invoice_status: str | None = None
    marketing_template: bool = False
    template_unread_since: datetime | None = None
    #: Where it goes, if it is to a contact: None is where it says.
    address: str | None = None
    goal_met: bool = False
    exit_met: bool = False


#: Whether a number sends: its own status, unless the phone that it needs is not linked.
_SENDER_STATUS = f"""case when s.status = 'active' and s.session_state in {UNLINKED}
            then 'disconnected' else s.status end"""

#: Costs nothing where there is no invoice. One that is gone is owed by nobody.
_INVOICE_STATUS = """case when i.invoice_id is not null then coalesce((
         select b.status from invoices b where b.id = i.invoice_id and b.tenant_id || '' = i.tenant_id), 'void') end"""

#: What its template is to WhatsApp, whatever its lane. A test goes to whoever made the step.
_MARKETING_TEMPLATE = "coalesce(e.category = 'marketing' and m.is_test is not true, false)"

#: Known by its status alone, as a webhook tells it, and the account has not answered yet what it is.
_TEMPLATE_UNREAD = """case when e.category = '' and s.waba_id is not null and s.provider in ('cloud', 'sandbox')
            and m.is_test is not true then e.updated_at end"""

#: Where a message to a contact goes, unless that is the number that was asked for: one of the contact's, perhaps in
#: another spelling.
_ADDRESS = """case when k.id is not null and (i.fixed is not null and (
         i.fixed = k.phone or i.fixed = k.wa_user_id or exists (
           select from unnest(app.spellings(i.fixed)) as s (phone) where s.phone = k.phone or exists (
             select from phone_numbers n
             where n.tenant_id = i.tenant_id and n.phone = s.phone and n.contact_id = k.id)))) is not true
       then coalesce(k.phone, k.wa_user_id) end"""

#: A message whose contact was merged into another is that one's, whatever the work says. Not `coalesce`, which
#: PostgreSQL doesn't know to keep secrets: under row-level security no index would serve it. `case` is known to.
_FACTS = f"""
select clock_timestamp(), m.status, coalesce(m.attempts, 0), m.attempted_at, {_SENDER_STATUS}, k.id is not null,
       case when k.id is null and i.contact_id is null and m.id is not null
            then app.opted_out(i.tenant_id, m."to", i.lane)
            else k.opted_out_at is not null or k.opt_outs ? i.lane
              or {_MARKETING_TEMPLATE} and k.opt_outs ? 'marketing' end,
       k.opted_in_at is not null and (k.consent_categories = '{{}}' or 'marketing' = any (k.consent_categories)),
       p.status, p.next_message_id, p.started_at, c.status, coalesce(t.is_active, false),
       m.wamid, m.reason, m.error_code, p.stopped_reason, p.next_step_id, p.passed, c.goal::text, c.exit::text,
       coalesce(i.delivery, c.delivery, m.delivery, 'at_most_once'), coalesce(m.resent, false), m.resend_at,
       k.id, coalesce(s."window" = 'enforce', false), v.last_inbound_at, coalesce(c.quiet_hours, t.quiet_hours)::text,
       k.timezone, t.timezone, t.frequency_caps::text, t.plan, s.templates_synced_at is not null, e.status,
       k.marketing_rests_until, {HELD}, {_INVOICE_STATUS}, {_MARKETING_TEMPLATE},
       {_TEMPLATE_UNREAD}, {_ADDRESS}
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::text[], $8::text[], $9::text[],
            $10::text[], $11::uuid[], $12::text[]) with ordinality
     as i (id, tenant_id, contact_id, sender_id, campaign_id, enrollment_id, lane, template, language, delivery,
           invoice_id, fixed, place)
left join messages m on m.id = i.id and m.tenant_id || '' = i.tenant_id
left join tenants t on t.id = i.tenant_id
left join senders s on s.id = i.sender_id and s.tenant_id || '' = i.tenant_id
left join contacts k
  on k.id = case when m.contact_id is null then i.contact_id else m.contact_id end and k.tenant_id || '' = i.tenant_id
left join campaigns c on c.id = i.campaign_id and c.tenant_id || '' = i.tenant_id
left join contact_campaign_progress p
  on p.id = i.enrollment_id and p.tenant_id || '' = i.tenant_id
left join conversations v
  on s."window" = 'enforce' and i.template is null
    and v.tenant_id = i.tenant_id and v.sender_id = i.sender_id and v.contact_id = k.id
left join templates e
  on e.sender_id = i.sender_id and e.name = i.template and e.language = i.language and e.tenant_id || '' = i.tenant_id
order by i.place
"""  # noqa: S608 - our own words

#: Writes the attempt. A row that is already there is taken only from `queued`, or once from `unknown`: that is what
#: keeps two copies of the same work from both going out.
_INTENTS = """
insert into messages (id, tenant_id, contact_id, sender_id, campaign_id, enrollment_id, step, lane, "to", content,
                      cause, due_at, status, reason, step_id, variant, attempts, attempted_at, delivery, invoice_id)
select i.id, i.tenant_id, i.contact_id, i.sender_id, i.campaign_id, i.enrollment_id, i.step, i.lane, i.recipient,
       i.content::jsonb, i.cause, i.due_at, i.status, i.reason, i.step_id, i.variant,
       case i.status when 'sending' then 1 else 0 end, case i.status when 'sending' then clock_timestamp() end,
       i.delivery, i.invoice_id
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[], $5::uuid[], $6::uuid[], $7::int[], $8::text[], $9::text[],
            $10::text[], $11::text[], $12::timestamptz[], $13::text[], $14::text[], $15::uuid[], $16::text[],
            $17::text[], $18::uuid[])
     as i (id, tenant_id, contact_id, sender_id, campaign_id, enrollment_id, step, lane, recipient, content, cause,
           due_at, status, reason, step_id, variant, delivery, invoice_id)
on conflict (id) do update
set status = excluded.status, reason = excluded.reason, error_code = null,
    attempts = messages.attempts + excluded.attempts, "to" = excluded."to", content = excluded.content,
    step = excluded.step,
    step_id = excluded.step_id, variant = excluded.variant,
    attempted_at = coalesce(excluded.attempted_at, messages.attempted_at), deferred_until = null, updated_at = now(),
    delivery = excluded.delivery,
    resent = messages.status = 'unknown'
where messages.tenant_id = excluded.tenant_id
  and (messages.status = 'queued'
       or messages.status = 'unknown' and not messages.resent and messages.id = any ($19::uuid[]))
returning id, pg_current_xact_id()::text
"""


#: The number of a transaction that a crash has taken is given to another one, if nothing under it had reached the log.
_STANDS = "select exists (select from messages where id = $1 and xmin = $2::text::xid8::xid)"


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
        [a.lane for a in attempts],
        [a.template for a in attempts],
        [a.language for a in attempts],
        [a.delivery for a in attempts],
        [a.invoice_id for a in attempts],
        [None if a.follows else a.to for a in attempts],
    )
    return [Facts(*row) for row in rows]


class Intent(msgspec.Struct, frozen=True, gc=False):
    """What is written of an attempt before it leaves, or instead: `sending`, or `suppressed` with a reason."""

    attempt: Attempt
    status: str
    reason: str | None
    delivery: str


def of_new_rows(attempts: Sequence[Attempt]) -> tuple[list[Any], ...]:
    """What statements that may write new messages take first: the columns from the id to when it is due."""
    return (
        [a.message_id for a in attempts],
        [a.tenant for a in attempts],
        [a.contact_id for a in attempts],
        [a.sender_id for a in attempts],
        [a.campaign_id for a in attempts],
        [a.enrollment_id for a in attempts],
        [a.step for a in attempts],
        [a.lane for a in attempts],
        [a.to for a in attempts],
        [a.content for a in attempts],
        [a.cause for a in attempts],
        [a.due_at for a in attempts],
    )


async def intend(con: Connection, intents: Sequence[Intent]) -> tuple[set[UUID], str | None]:
    """Write `sending` before the request, `suppressed` instead of it.

    Returns the ids that were written and the transaction that did it, None if there are none. An id that is missing is
    already being handled elsewhere.
    """
    if not intents:
        return set(), None
    attempts = [one.attempt for one in intents]
    rows = await con.fetch(
        _INTENTS,
        *of_new_rows(attempts),
        [one.status for one in intents],
        [one.reason for one in intents],
        [a.step_id for a in attempts],
        [a.variant for a in attempts],
        [one.delivery for one in intents],
        [a.invoice_id for a in attempts],
        [a.message_id for a in attempts if a.resend],
    )
    return {row[0] for row in rows}, rows[0][1] if rows else None


async def stands(con: Connection, message_id: UUID, transaction: str) -> bool:
    """Whether an intent is there as this transaction has written it."""
    return bool(await con.fetchval(_STANDS, message_id, transaction))


#: Unless a receipt has settled it meanwhile. It has been in doubt since before, which `updated_at` says.
_KEEP = """
update messages set resend_at = null, reason = $3
where tenant_id || '' = $1 and id = $2 and status = 'unknown' and not resent
"""


async def keep(con: Connection, tenant: str, message_id: UUID, reason: str | None) -> None:
    """Note of a message in doubt that it is not sent once more after all, and why."""
    await con.execute(_KEEP, tenant, message_id, reason)


class Advance(msgspec.Struct, frozen=True, gc=False):
    """Where an enrolment goes from a message that is dealt with: on to a next step, or to its end.

    It goes there from the step `after`, and not if it was moved to another version's meanwhile.
    """

    enrollment_id: UUID
    status: str
    reason: str | None = None
    step: int = 0
    step_id: UUID | None = None
    message_id: UUID | None = None
    due_at: datetime | None = None
    after: UUID | None = None


#: Of an enrolment that goes nowhere from its message, and of a message that is of none.
_STAYS = (None,) * len(Advance.__struct_fields__)


class Elsewhere(msgspec.Struct, frozen=True, gc=False):
    """An enrolment that waits for a message as another step of another version: it was moved on the way."""

    step_id: UUID
    passed: tuple[UUID, ...]


class Result(msgspec.Struct, frozen=True, gc=False):
    """What became of an attempt: sent, failed, unknown, suppressed, or queued (to be tried again)."""

    message_id: UUID
    tenant: str
    status: str
    wamid: str | None = None
    reason: str | None = None
    error_code: int | None = None
    advance: Advance | None = None
    #: In doubt: it is sent once more after this long, unless a receipt comes.
    resend_after: timedelta | None = None
    #: It was sent once more; or was to be, and provably was not, so that it still may be.
    resent: bool = False
    unsent: bool = False


#: Writes results and moves their enrolments on, in one statement, so that each row is looked up once. A webhook may
#: have been faster than we are: then its status stays and only what it could not know is added.
#: An enrolment moves on only from the very message it waits for, so that doing it twice changes nothing. One that was
#: stopped meanwhile stays so and waits for nothing any more. A message counts as sent if WhatsApp has an id for it.
#: Rows are locked in the order of their ids, as the receipts do: two batches over the same rows then never deadlock.
#: Sorting what is joined to them does it: a batch's settings leave no other way than to look up row after row.
_RESULTS = """
with results as (
  update messages m
  set status = case when m.status in ('queued', 'sending') then i.status
                    when m.status = 'unknown' and i.status in ('sent', 'failed') then i.status else m.status end,
      wamid = coalesce(m.wamid, i.wamid),
      reason = case when m.status in ('sending', 'unknown') then i.reason else m.reason end,
      error_code = case when m.status in ('sending', 'unknown') then i.error_code else m.error_code end,
      sent_at = case when i.status = 'sent' then coalesce(m.sent_at, clock_timestamp()) else m.sent_at end,
      failed_at = case when i.status = 'failed' then coalesce(m.failed_at, clock_timestamp()) else m.failed_at end,
      resend_at = coalesce(m.resend_at, clock_timestamp() + i.resend_after),
      resent = m.resent and not i.unsent,
      updated_at = case when m.status = i.status then m.updated_at else now() end
  from (
    select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::interval[],
                         $8::bool[], $9::uuid[], $10::text[], $11::text[], $12::int[], $13::uuid[], $14::uuid[],
                         $15::timestamptz[], $16::uuid[])
      as i (id, tenant_id, status, wamid, reason, error_code, resend_after, unsent, enrollment_id, then_status,
            then_reason, step, step_id, next_message_id, due_at, after)
    order by id) i
  where m.id = i.id and m.tenant_id || '' = i.tenant_id
  returning i.*, m.wamid is not null as sent)
update contact_campaign_progress p
set current_step = i.step,
    messages_sent = p.messages_sent + i.sent::int,
    last_step_at = case when i.sent then clock_timestamp() else p.last_step_at end,
    next_step_id = case when p.status in ('active', 'paused') then i.step_id end,
    next_message_id = case when p.status in ('active', 'paused') then i.next_message_id end,
    next_step_scheduled_at = case when p.status in ('active', 'paused') then i.due_at end,
    next_claim_at = case when p.status in ('active', 'paused') then i.due_at end,
    deferred_until = null,
    stopped_reason = case when p.status in ('active', 'paused') then i.then_reason else p.stopped_reason end,
    finished_at = case when p.status in ('active', 'paused') and i.then_status <> 'active' then clock_timestamp()
                       else p.finished_at end,
    status = case when p.status in ('active', 'paused') and i.then_status <> 'active' then i.then_status
                  else p.status end,
    goal_at = case when p.status in ('active', 'paused') and i.then_reason = 'goal_reached' then clock_timestamp()
                   else p.goal_at end,
    updated_at = now()
from (select * from results where enrollment_id is not null order by enrollment_id) i
where p.id = i.enrollment_id and p.tenant_id || '' = i.tenant_id
  and p.next_message_id = i.id and p.next_step_id = i.after
returning p.id
"""

#: A message that was in doubt was not counted when its enrolment moved on. The row is still locked when the result is
#: written in the same transaction, so that a receipt counts it, or this does.
_COUNT_RESENT = """
with arrived as (
  select m.id, m.tenant_id, m.enrollment_id from unnest($1::uuid[], $2::text[]) as i (id, tenant_id)
  join messages m on m.id = i.id and m.tenant_id || '' = i.tenant_id
  where m.status = 'sending' order by m.id for no key update of m)
update contact_campaign_progress p set messages_sent = p.messages_sent + 1, updated_at = now()
from arrived a where p.id = a.enrollment_id and p.tenant_id || '' = a.tenant_id
"""

_ELSEWHERE = """
select p.id, p.next_step_id, p.passed
from unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[]) as i (id, tenant_id, message_id, after)
join contact_campaign_progress p on p.id = i.id and p.tenant_id || '' = i.tenant_id
where p.next_message_id = i.message_id and p.next_step_id <> i.after
"""

_ENDED = """
select p.id from unnest($1::uuid[], $2::text[], $3::text[]) as i (id, tenant_id, status)
join contact_campaign_progress p on p.id = i.id and p.tenant_id || '' = i.tenant_id and p.status = i.status
"""


async def finish(con: Connection, results: Sequence[Result]) -> tuple[set[UUID], dict[UUID, Elsewhere]]:
    """Write results and move their enrolments on.

    Returns the enrolments that have ended as their results say, now or when the same results were written before; and
    those that could not be moved on because they wait for the same message elsewhere.
    """
    if again := [r for r in results if r.resent and r.status == "sent"]:
        await con.execute(_COUNT_RESENT, [r.message_id for r in again], [r.tenant for r in again])
    rows = await con.fetch(
        _RESULTS,
        [r.message_id for r in results],
        [r.tenant for r in results],
        [r.status for r in results],
        [r.wamid for r in results],
        [r.reason for r in results],
        [r.error_code for r in results],
        [r.resend_after for r in results],
        [r.unsent for r in results],
        *map(list, zip(*[msgspec.structs.astuple(r.advance) if r.advance else _STAYS for r in results], strict=True)),
    )
    moves = [(r, r.advance) for r in results if r.advance]
    done = {row[0] for row in rows}
    elsewhere = await _elsewhere(con, [(r, a) for r, a in moves if a.enrollment_id not in done])
    last = [(a.enrollment_id, r.tenant, a.status) for r, a in moves if a.status != "active"]
    if not last:
        return set(), elsewhere
    return {row[0] for row in await con.fetch(_ENDED, *map(list, zip(*last, strict=True)))}, elsewhere


async def _elsewhere(con: Connection, left: Sequence[tuple[Result, Advance]]) -> dict[UUID, Elsewhere]:
    if not left:
        return {}
    rows = await con.fetch(
        _ELSEWHERE,
        [a.enrollment_id for _, a in left],
        [r.tenant for r, _ in left],
        [r.message_id for r, _ in left],
        [a.after for _, a in left],
    )
    return {row[0]: Elsewhere(row[1], tuple(row[2] or ())) for row in rows}


class StepRow(msgspec.Struct, frozen=True, gc=False):
    """A step as it is stored: content and variants are JSON."""

    id: UUID
    origin: UUID
    position: int
    delay_hours: float
    content: str
    variants: str | None
    expires_after_hours: float | None = None
    delivery: str | None = None


_STEPS = """
select s.id, coalesce(s.origin, s.id), s.position, s.delay_hours, s.content::text, s.variants::text,
       s.expires_after_hours, s.delivery
from campaign_steps s
where s.tenant_id = $1 and s.version_id = (select version_id from campaign_steps where id = $2 and tenant_id = $1)
order by s.position
"""

#: A number that names no limit of its own has its portfolio's: all of them use up the same one.
_SENDER = f"""
select s.provider, s.phone_number_id, s.access_token, s.mps, {_SENDER_STATUS}, s.held_until,
       coalesce(s.daily_limit, (
         select min(o.daily_limit) from senders o
         where o.tenant_id = s.tenant_id
           and coalesce(o.portfolio_id, o.waba_id) = coalesce(s.portfolio_id, s.waba_id))),
       coalesce(s.portfolio_id, s.waba_id, s.id::text), coalesce(s.pair_limit, s.provider = 'cloud'), t.plan
from senders s join tenants t on t.id = s.tenant_id where s.tenant_id = $1 and s.id = $2
"""  # noqa: S608 - no part of it comes from outside


async def steps(con: Connection, tenant: str, step_id: UUID) -> list[StepRow]:
    """All steps of the version that a step belongs to, in order."""
    return [StepRow(*row) for row in await con.fetch(_STEPS, tenant, step_id)]


async def sender(con: Connection, tenant: str, sender_id: UUID) -> Any:
    """A number and how to reach its gateway, or None.

    (provider, phone_number_id, access_token, mps, status, held_until, daily_limit, portfolio, pair_limit, plan)
    """
    return await con.fetchrow(_SENDER, tenant, sender_id)
