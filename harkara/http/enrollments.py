"""Enrolling contacts in campaigns, one or many, and stopping them: commands that the bus carries out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from harkara.http.accepting import Expected, accept
from harkara.http.context import Answer, Context
from harkara.http.lists import newest, page
from harkara.http.problems import Problem, conflict, invalid, not_found
from harkara.http.route import PREFIX
from harkara.http.rows import shown
from harkara.ids import uuid7
from harkara.schemas.api import (
    Accepted,
    BulkAccepted,
    EnrollMany,
    EnrollmentQuery,
    EnrollmentShown,
    Outcome,
    Page,
)
from harkara.schemas.commands import BulkEnroll, StartEnrollment, StopEnrollment
from harkara.storage.models import Campaign, ContactCampaignProgress

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: All that decides about one enrolment, for many at once (`harkara/http/asking.py`).
FACTS = """
select c.status, k.id is not null as has_contact, k.opted_out_at is not null as opted_out,
       k.opted_in_at is not null and (k.consent_categories = '{}' or 'marketing' = any (k.consent_categories))
         as consents,
       p.id as enrollment_id, p.status as enrollment_status
from unnest($1::text[], $2::uuid[], $3::uuid[]) with ordinality as i (tenant_id, campaign_id, contact_id, place)
left join campaigns c on c.id = i.campaign_id and c.tenant_id || '' = i.tenant_id
left join contacts k on k.id = i.contact_id and k.tenant_id || '' = i.tenant_id
left join contact_campaign_progress p
  on p.tenant_id = i.tenant_id and p.contact_id = i.contact_id and p.campaign_id = i.campaign_id
order by i.place
"""

#: Who of those meant can be enrolled as things stand.
COUNT = """
select count(*) from contacts k
where ($2::uuid[] is null or k.id = any ($2)) and ($3::text is null or k.tags @> array[$3::text])
  and k.opted_out_at is null and k.opted_in_at is not null
  and (k.consent_categories = '{}' or 'marketing' = any (k.consent_categories))
  and not exists (select from contact_campaign_progress p where p.campaign_id = $1 and p.contact_id = k.id)
"""

#: Unknown contacts that are named when a list has some.
NAMED = 100


async def index(ctx: Context[None, EnrollmentQuery]) -> Page[EnrollmentShown]:
    """The enrolments of a campaign, newest first."""
    query, campaign_id = ctx.query, ctx.id("campaign_id")
    async with ctx.transaction():
        if not await Campaign.filter(id=campaign_id).exists():
            raise not_found("campaign")
        rows = newest(ContactCampaignProgress.filter(campaign_id=campaign_id), ctx.tenant, query)
        if query.contact_id is not None:
            rows = rows.filter(contact_id=query.contact_id)
        if query.status is not None:
            rows = rows.filter(status=query.status)
        found = await rows
    return page([shown(row, EnrollmentShown) for row in found], query)


async def enroll(ctx: Context[None, None]) -> Answer[Accepted | Outcome]:
    """Enrol one contact. What is known to stand in the way is told now; the actor judges again."""
    campaign_id, contact_id = ctx.id("campaign_id"), ctx.id("contact_id")
    _refuse(await ctx.door.questions.ask(FACTS, ctx.tenant, campaign_id, contact_id), contact_id)
    id_ = uuid7()
    command = StartEnrollment(campaign_id=str(campaign_id), contact_id=str(contact_id))
    expected = Expected(frozenset({"enrollment.started", "enrollment.refused"}), id_)
    return await accept(ctx, command, Accepted(id=id_), _location(campaign_id, contact_id), expected)


def _refuse(facts: Any, contact_id: UUID) -> None:
    _need_both(facts)
    if facts["status"] != "active":
        raise _not_active(facts["status"])
    if facts["enrollment_id"] is not None:
        raise conflict(
            f"this contact is enrolled already (it is {facts['enrollment_status']}): once per campaign is all there is",
            enrollment_id=str(facts["enrollment_id"]),
        )
    if facts["opted_out"]:
        raise conflict(
            "this contact has opted out: once they agree again, PATCH the contact with consent {source, at}",
            contact_id=str(contact_id),
        )
    if not facts["consents"]:
        raise conflict(
            "this contact has not agreed to marketing messages: PATCH the contact with their consent first",
            contact_id=str(contact_id),
        )


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
    runs = facts["enrollment_status"] in ("active", "paused")
    expected = Expected(frozenset({"enrollment.stopped"}), facts["enrollment_id"]) if runs else None
    return await accept(ctx, command, Accepted(id=uuid7()), _location(campaign_id, contact_id), expected)


async def enroll_many(ctx: Context[EnrollMany, None]) -> Answer[BulkAccepted | Outcome]:
    """Enrol these contacts, those with a tag, or all; those who may not be are left out."""
    wanted, campaign_id = ctx.body, ctx.id("campaign_id")
    if [wanted.contact_ids is not None, wanted.tag is not None, wanted.all].count(True) != 1:
        raise invalid(("", "give exactly one of contact_ids, tag and all: true"))
    async with ctx.transaction() as con:
        status: str | None = await con.fetchval("select status from campaigns where id = $1", campaign_id)
        if status is None:
            raise not_found("campaign")
        if status != "active":
            raise _not_active(status)
        if wanted.contact_ids is not None:
            await _need_all(con, wanted.contact_ids)
        count: int = await con.fetchval(COUNT, campaign_id, wanted.contact_ids, wanted.tag)
    id_ = uuid7()
    location = f"{PREFIX}/campaigns/{campaign_id}/enrollments"
    expected = Expected(frozenset({"enrollment.bulk_completed"}), id_)
    return await accept(ctx, _command(campaign_id, wanted), BulkAccepted(id=id_, count=count), location, expected)


async def _need_all(con: Connection, contact_ids: list[UUID]) -> None:
    rows = await con.fetch("select id from contacts where id = any ($1::uuid[])", contact_ids)
    known = {row["id"] for row in rows}
    missing = [index for index, id_ in enumerate(contact_ids) if id_ not in known]
    if missing:
        errors = [(f"contact_ids[{index}]", f"there is no contact {contact_ids[index]}") for index in missing[:NAMED]]
        raise Problem(404, f"{len(missing)} of these contacts do not exist: see errors", errors=errors)


def _command(campaign_id: UUID, wanted: EnrollMany) -> BulkEnroll:
    ids = None if wanted.contact_ids is None else [str(id_) for id_ in dict.fromkeys(wanted.contact_ids)]
    return BulkEnroll(campaign_id=str(campaign_id), contact_ids=ids, tag=wanted.tag, all=wanted.all)
