"""Enrolling contacts in campaigns, one or many, and stopping them: commands that the bus carries out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec import structs

from harkara.http.accepting import Expected, accept
from harkara.http.checks import Faults
from harkara.http.context import Answer, Context
from harkara.http.holding import landed, not_accepted
from harkara.http.invoices import owed
from harkara.http.lists import given, newest, page
from harkara.http.problems import Problem, conflict, not_found
from harkara.http.route import PREFIX
from harkara.http.rows import shown
from harkara.schemas.api import (
    Accepted,
    BulkAccepted,
    EnrollMany,
    EnrollmentQuery,
    EnrollmentShown,
    EnrollOne,
    Outcome,
    Page,
)
from harkara.schemas.commands import BulkEnroll, ReachGoal, StartEnrollment, StopEnrollment
from harkara.schemas.conditions import Condition, Tagged
from harkara.storage import holding, segments
from harkara.storage.enrolling import LAST_RUN, REFUSAL
from harkara.storage.models import Campaign, ContactCampaignProgress

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: All that decides about one enrolment, for many at once (`harkara/http/asking.py`).
FACTS = f"""
select c.status, k.id is not null as has_contact, ({REFUSAL}) as refusal, p.id as enrollment_id,
       p.status as enrollment_status, c.reentry_days is not null as may_come_again
from unnest($1::text[], $2::uuid[], $3::uuid[]) with ordinality as i (tenant_id, campaign_id, contact_id, place)
left join campaigns c on c.id = i.campaign_id and c.tenant_id || '' = i.tenant_id
left join contacts k on k.id = i.contact_id and k.tenant_id || '' = i.tenant_id
{LAST_RUN}
order by i.place
"""  # noqa: S608 - our own words

#: Who of those meant can be enrolled as things stand (null), and who can't, by reason.
COUNT = f"""
select ({REFUSAL}) as reason, count(*) as contacts from contacts k join campaigns c on c.id = $1
{LAST_RUN}
where k.tenant_id = $2 and ($3::uuid[] is null or k.id = any ($3)) and {{meant}} group by 1
"""  # noqa: S608 - our own words

#: Why an enrolment is refused at once, and what to do.
REFUSED = {
    "already_enrolled": "this contact was enrolled before (that enrolment is {status}), and once is all there is: the"
    " campaign has no `reentry`",
    "too_soon": "this contact's enrolment (it is {status}) ended too short a time ago: the campaign's `reentry` says"
    " when it may come again",
    "opted_out": "this contact has opted out: once they agree again, PATCH the contact with consent {{source, at}}",
    "no_consent": "this contact has not agreed to marketing messages: PATCH the contact with their consent first",
    "no_phone": "this contact has no phone number: PATCH the contact with one",
}

#: The same of a contact whose enrolment still runs, by whether the campaign has a `reentry`.
RUNS = {
    True: "this contact's enrolment still runs (it is {status}): they may come again, as the campaign's `reentry` says,"
    " once it has ended; POST …/stop ends it",
    False: "this contact is enrolled already (it is {status}), and once is all there is: the campaign has no `reentry`",
}

#: One enrolment that was held, and goes on: what was due meanwhile is due now.
PAUSE = """
update contact_campaign_progress set status = 'paused', updated_at = now()
where id = $1 and status = 'active' returning id
"""
RESUME = """
update contact_campaign_progress set status = 'active', next_claim_at = next_step_scheduled_at, updated_at = now()
where id = $1 and status = 'paused' returning id
"""

#: Statuses of an enrolment that has not ended.
RUNNING = ("active", "paused")

#: Nudges the ticker: something became due.
WAKE_DUE = "sys.wake.due"

#: Unknown contacts that are named when a list has some.
NAMED = 100


async def index(ctx: Context[None, EnrollmentQuery]) -> Page[EnrollmentShown]:
    """The enrolments of a campaign, newest first."""
    query, campaign_id = ctx.query, ctx.id("campaign_id")
    async with ctx.transaction():
        if not await Campaign.filter(id=campaign_id).exists():
            raise not_found("campaign")
        wanted = given(query, ("contact_id", "invoice_id", "status"))
        found = await newest(ContactCampaignProgress.filter(campaign_id=campaign_id, **wanted), ctx.tenant, query)
    return page([_shown(row) for row in found], query)


def _shown(row: ContactCampaignProgress) -> EnrollmentShown:
    """An enrolment as users see it: of one that has ended no step comes next, though its row remembers which did."""
    told = shown(row, EnrollmentShown)
    return told if row.status in RUNNING else structs.replace(told, next_step_scheduled_at=None)


async def enroll(ctx: Context[EnrollOne | None, None]) -> Answer[Accepted | Outcome]:
    """Enrol one contact. What is known to stand in the way is told now; the actor judges again.

    With an `invoice_id` it is stopped once that invoice is paid or void, and its steps may name it: `invoice.number`,
    `invoice.amount` and `invoice.due_date`. Steps are marketing, of reminders too: they need consent and keep quiet
    hours. A contact runs in a campaign once at a time: for a second invoice use another campaign, or `reentry`.
    """
    campaign_id, contact_id = ctx.id("campaign_id"), ctx.id("contact_id")
    id_ = ctx.new_id()
    facts: Any = await ctx.door.questions.ask(FACTS, ctx.tenant, campaign_id, contact_id)
    _need_both(facts)
    if facts["enrollment_id"] != id_:  # else it was done, and this is the same request again
        _refuse(facts, contact_id)
    invoice_id = None if ctx.body is None else ctx.body.invoice_id
    if invoice_id is not None:
        await owed(ctx, invoice_id, contact_id)
    command = StartEnrollment(
        campaign_id=str(campaign_id),
        contact_id=str(contact_id),
        invoice_id=None if invoice_id is None else str(invoice_id),
    )
    expected = Expected(frozenset({"enrollment.started", "enrollment.refused"}), id_)
    return await accept(ctx, command, Accepted(id=id_), _location(campaign_id, contact_id), expected)


def _refuse(facts: Any, contact_id: UUID) -> None:
    if facts["status"] != "active":
        raise _not_active(facts["status"])
    reason = facts["refusal"]
    if reason is None:
        return
    extra = {"contact_id": str(contact_id)}
    if facts["enrollment_id"] is not None:
        extra["enrollment_id"] = str(facts["enrollment_id"])
    status = facts["enrollment_status"]
    runs = reason == "already_enrolled" and status in RUNNING
    text = RUNS[facts["may_come_again"]] if runs else REFUSED[reason]
    raise conflict(text.format(status=status), reason=reason, **extra)


def _need_both(facts: Any) -> None:
    if not facts["has_contact"]:
        raise not_found("contact")
    if facts["status"] is None:
        raise not_found("campaign")


def _not_active(status: str) -> Problem:
    todo = {"draft": "activate it first", "paused": "resume it first"}.get(status, "make a new one")
    return conflict(f"this campaign is {status}: {todo}")


def _location(campaign_id: UUID, contact_id: UUID) -> str:
    return f"{PREFIX}/campaigns/{campaign_id}/enrollments?contact_id={contact_id}"


async def stop(ctx: Context[None, None]) -> Answer[Accepted | Outcome]:
    """Stop one contact's enrolment: nothing more of it is sent."""
    campaign_id, contact_id = ctx.id("campaign_id"), ctx.id("contact_id")
    facts: Any = await ctx.door.questions.ask(FACTS, ctx.tenant, campaign_id, contact_id)
    _need_both(facts)
    command = StopEnrollment(campaign_id=str(campaign_id), contact_id=str(contact_id))
    runs = facts["enrollment_status"] in RUNNING
    expected = Expected(frozenset({"enrollment.stopped"}), facts["enrollment_id"]) if runs else None
    return await _accept_end(ctx, command, expected)


async def _accept_end(
    ctx: Context[None, None], command: StopEnrollment | ReachGoal, expected: Expected | None
) -> Answer[Accepted | Outcome]:
    """Accept what ends an enrolment: once it is answered, nothing more of it leaves."""
    campaign_id, contact_id, accepted = ctx.id("campaign_id"), ctx.id("contact_id"), Accepted(id=ctx.new_id())
    async with ctx.transaction() as con:
        held = await holding.hold(con, ctx.tenant, accepted.id, [contact_id])
    try:
        location = _location(campaign_id, contact_id)
        answer = await accept(ctx, command, accepted, location, expected)
    except BaseException:
        if ctx.seed is None:  # else its transaction takes it back
            await not_accepted(ctx.door.storage, ctx.tenant, accepted.id, held)
        raise
    await landed(ctx.transaction, ctx.tenant, [contact_id])
    return answer


async def reach_goal(ctx: Context[None, None]) -> Answer[Accepted | Outcome]:
    """Say that a contact did what the campaign is for: it counts in the funnel, and nothing more of it is sent.

    After the last step it counts too.
    """
    campaign_id, contact_id = ctx.id("campaign_id"), ctx.id("contact_id")
    facts: Any = await ctx.door.questions.ask(FACTS, ctx.tenant, campaign_id, contact_id)
    _need_enrolled(facts)
    command = ReachGoal(campaign_id=str(campaign_id), contact_id=str(contact_id))
    return await _accept_end(ctx, command, Expected(frozenset({"enrollment.goal_reached"}), facts["enrollment_id"]))


def _need_enrolled(facts: Any) -> None:
    _need_both(facts)
    if facts["enrollment_id"] is None:
        raise conflict("this contact was never enrolled in this campaign: enroll it first")


async def pause(ctx: Context[None, None]) -> EnrollmentShown:
    """Hold one contact's enrolment: nothing of it leaves until it is resumed."""
    return await _hold(ctx, PAUSE, "active", "paused")


async def resume(ctx: Context[None, None]) -> EnrollmentShown:
    """Go on with one contact's enrolment where it stopped: what became due in the meantime leaves now."""
    shown_ = await _hold(ctx, RESUME, "paused", "resumed")
    ctx.when_committed(lambda: ctx.door.publisher.wake(WAKE_DUE))
    return shown_


async def _hold(ctx: Context[None, None], sql: str, needed: str, done: str) -> EnrollmentShown:
    campaign_id, contact_id = ctx.id("campaign_id"), ctx.id("contact_id")
    facts: Any = await ctx.door.questions.ask(FACTS, ctx.tenant, campaign_id, contact_id)
    _need_enrolled(facts)
    async with ctx.transaction() as con:
        held = await con.fetchval(sql, facts["enrollment_id"])
        row = await ContactCampaignProgress.get(id=facts["enrollment_id"])
    if held is None:
        raise conflict(f"this enrolment is {row.status}: only one that is {needed} can be {done}")
    return _shown(row)


async def enroll_many(ctx: Context[EnrollMany, None]) -> Answer[BulkAccepted | Outcome]:
    """Enrol these contacts, those with a tag, those of a segment, or all; those who may not be are left out.

    The answer counts those by reason as things stand, the event `enrollment.bulk_completed` as it came out.
    """
    wanted, campaign_id, faults = ctx.body, ctx.id("campaign_id"), Faults()
    check_meant(ctx, faults)
    faults.refuse()
    async with ctx.transaction() as con:
        status: str | None = await con.fetchval("select status from campaigns where id = $1", campaign_id)
        if status is None:
            raise not_found("campaign")
        if status != "active":
            raise _not_active(status)
        where, values = segments.compiled(await meant(con, ctx.tenant, wanted), taken=3)
        sql = COUNT.replace("{meant}", where)
        rows = await con.fetch(sql, campaign_id, ctx.tenant, wanted.contact_ids, *values)
    counts: dict[str | None, int] = {row["reason"]: row["contacts"] for row in rows}
    count, refused = counts.pop(None, 0), {reason: number for reason, number in counts.items() if reason is not None}
    id_ = ctx.new_id()
    location = f"{PREFIX}/campaigns/{campaign_id}/enrollments"
    expected = Expected(frozenset({"enrollment.bulk_completed"}), id_)
    accepted = BulkAccepted(id=id_, count=count, refused=refused)
    return await accept(ctx, _command(campaign_id, wanted), accepted, location, expected)


def check_meant(ctx: Context[Any, Any], faults: Faults, _region: str | None = None) -> None:
    """Exactly one way to mean contacts is used."""
    wanted: EnrollMany = ctx.body
    ways = (wanted.contact_ids is not None, wanted.tag is not None, wanted.segment_id is not None, wanted.all)
    if ways.count(True) != 1:
        faults.add("", "give exactly one of contact_ids, tag, segment_id and all: true")


async def meant(con: Connection, tenant: str, wanted: EnrollMany) -> Condition | None:
    """The condition of those who are meant, beside being named; None if there is none.

    Raises Problem 404 for contacts and segments that are not.
    """
    if wanted.contact_ids is not None:
        await _need_all(con, wanted.contact_ids)
    if wanted.tag is not None:
        return Tagged(tag=wanted.tag)
    if wanted.segment_id is None:
        return None
    condition = await segments.condition_of(con, tenant, wanted.segment_id)
    if condition is None:
        raise Problem(404, "there is no such segment: check segment_id", errors=[("segment_id", "is no segment")])
    return condition


async def _need_all(con: Connection, contact_ids: list[UUID]) -> None:
    rows = await con.fetch("select id from contacts where id = any ($1::uuid[])", contact_ids)
    known = {row["id"] for row in rows}
    missing = [index for index, id_ in enumerate(contact_ids) if id_ not in known]
    if missing:
        errors = [(f"contact_ids[{index}]", f"there is no contact {contact_ids[index]}") for index in missing[:NAMED]]
        raise Problem(404, f"{len(missing)} of these contacts do not exist: see errors", errors=errors)


def _command(campaign_id: UUID, wanted: EnrollMany) -> BulkEnroll:
    ids = None if wanted.contact_ids is None else [str(id_) for id_ in dict.fromkeys(wanted.contact_ids)]
    segment_id = None if wanted.segment_id is None else str(wanted.segment_id)
    return BulkEnroll(
        campaign_id=str(campaign_id), contact_ids=ids, tag=wanted.tag, segment_id=segment_id, all=wanted.all
    )
