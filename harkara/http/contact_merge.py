"""POST /contacts/{id}/merge: two records of one person become one, in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from harkara.http import contacts
from harkara.http.context import Context
from harkara.http.problems import Problem, invalid, not_found
from harkara.ids import uuid7
from harkara.schemas.api import ContactShown, MergeContact
from harkara.schemas.events import ContactMerged, EnrollmentStopped
from harkara.storage import enrolling, opting
from harkara.storage.models import Contact, ContactMerge, PhoneNumber

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: What hangs on a contact and simply moves. Conversations and enrolments are one each of a kind, and don't.
MOVED = ("phone_numbers", "messages", "leads", "contact_merges", "replies", "invoices")

#: Of two conversations with the same number, the merged one's goes up in the kept one's.
_JOINED = """
with pairs as (
  select gone.id as gone_id, kept.id as kept_id, gone.last_inbound_at, gone.last_activity, gone.status, gone.assigned_to
  from conversations gone join conversations kept
    on kept.tenant_id = gone.tenant_id and kept.sender_id = gone.sender_id and kept.contact_id = $1
  where gone.contact_id = $2),
moved as (
  update replies r set conversation_id = pairs.kept_id, contact_id = $1 from pairs
  where r.conversation_id = pairs.gone_id)
update conversations c
set last_inbound_at = greatest(c.last_inbound_at, pairs.last_inbound_at),
    last_activity = greatest(c.last_activity, pairs.last_activity),
    assigned_to = coalesce(c.assigned_to, pairs.assigned_to),
    status = case when 'open' in (c.status, pairs.status) then 'open' else c.status end,
    closed_at = case when 'open' in (c.status, pairs.status) then null else c.closed_at end, updated_at = now()
from pairs where c.id = pairs.kept_id returning pairs.gone_id
"""

#: Those of both contacts, and whether a message of theirs is in the air: that one must be settled under its own id.
#: Who was enrolled again has a row for each run, of which only the last can still go on.
_ENROLLMENTS = """
select p.id, p.contact_id, p.campaign_id, p.status, p.current_step,
       p.run = max(p.run) over (partition by p.contact_id, p.campaign_id) as last,
       exists (select from messages m where m.id = p.next_message_id) as in_the_air
from (select * from contact_campaign_progress where contact_id in ($1, $2) order by id for no key update) p
"""

#: Out of the way of those that are there already, until all are numbered anew.
_OUT_OF_THE_WAY = 100_000

#: A new message id makes void what waits in the broker for the merged contact: it is claimed anew, for the kept one.
_MOVE_ENROLLMENT = """
update contact_campaign_progress
set contact_id = $2, run = run + $5, updated_at = now(),
    next_message_id = case when status in ('active', 'paused') and not $4 then $3 else next_message_id end,
    next_claim_at = case when status = 'active' and not $4 then next_step_scheduled_at else next_claim_at end,
    deferred_until = case when status in ('active', 'paused') and not $4 then null else deferred_until end
where id = $1
"""

#: Runs from 1 in the order in which they began, the one that goes on last; in two moves, as they stay unique meanwhile.
_NUMBER_RUNS = """
update contact_campaign_progress p set run = 2 * $3 + o.run
from (select id, row_number() over (partition by campaign_id
                                    order by status in ('active', 'paused'), started_at, id) as run
      from contact_campaign_progress where contact_id = $1 and campaign_id = any ($2::uuid[])) o
where p.id = o.id
"""
_NUMBERED = """
update contact_campaign_progress set run = run - 2 * $3
where contact_id = $1 and campaign_id = any ($2::uuid[])
"""

#: How far an enrolment has come, by its status first.
_FURTHER = ("failed", "stopped", "paused", "active", "completed")


async def merge(ctx: Context[MergeContact, None]) -> ContactShown:
    """Make another contact part of this one: its numbers, tags, messages, enrolments, leads and all else move here.

    Where both say something (name, attributes, time zone), this one's word stays. Consent is the stricter of the two:
    an opt-out of either stands, and only what both agreed to is agreed to. Of two enrolments in one campaign the one
    that has come further stays. The other's id answers 410 from then on, and says where it went.
    """
    if ctx.body.contact_id == ctx.id("contact_id"):
        raise invalid(("contact_id", "is the contact itself: name the other one"))
    async with ctx.transaction() as con:
        kept, gone = await _both(ctx)
        if gone is not None:
            await _move(ctx, con, kept, gone)
            await _join(con, kept, gone)
            await ctx.tell(con, ContactMerged(id=str(kept.id), merged_id=str(gone.id)), f"{gone.id}.merged")
            if opting.STOPS_CAMPAIGNS & contacts.standing(kept).outs.keys():
                await _stop(ctx, con, kept.id)
    return contacts.told(vars(kept))


async def _both(ctx: Context[MergeContact, None]) -> tuple[Contact, Contact | None]:
    """The two, locked in the order of their ids so that two merges can't block each other; none if it is done."""
    ids = [ctx.id("contact_id"), ctx.body.contact_id]
    found = {row.id: row for row in await Contact.filter(id__in=ids).order_by("id").select_for_update()}
    kept, gone = found.get(ids[0]), found.get(ids[1])
    if kept is None:
        kept = await contacts.get(ctx)  # says what became of it
    if gone is None:
        merged = await ContactMerge.get_or_none(id=ids[1])
        if merged is None:
            raise not_found("contact to merge")
        if merged.contact_id != kept.id:
            detail = f"contact {ids[1]} was merged into contact {merged.contact_id}: merge that one"
            raise Problem(409, detail, extra={"contact_id": str(merged.contact_id)})
    return kept, gone


async def _move(ctx: Context[Any, Any], con: Connection, kept: Contact, gone: Contact) -> None:
    """Everything that hangs on the other one."""
    joined = [row[0] for row in await con.fetch(_JOINED, kept.id, gone.id)]
    await con.execute("delete from conversations where id = any ($1::uuid[])", joined)
    await con.execute("update conversations set contact_id = $1 where contact_id = $2", kept.id, gone.id)
    for table in MOVED:
        await con.execute(f"update {table} set contact_id = $1 where contact_id = $2", kept.id, gone.id)  # noqa: S608
    rows = await con.fetch(_ENROLLMENTS, kept.id, gone.id)
    for loser in _overtaken(rows, kept.id):
        await con.execute("delete from contact_campaign_progress where id = $1", loser["id"])
        if loser["status"] in ("active", "paused"):
            await ctx.tell(con, _stopped(loser, kept.id, "merged"), f"{loser['id']}.stopped")
        rows.remove(loser)
    moving = [row for row in rows if row["contact_id"] == gone.id]
    for row in moving:
        await con.execute(_MOVE_ENROLLMENT, row["id"], kept.id, uuid7(), row["in_the_air"], _OUT_OF_THE_WAY)
    campaigns = list({row["campaign_id"] for row in moving})
    await con.execute(_NUMBER_RUNS, kept.id, campaigns, _OUT_OF_THE_WAY)
    await con.execute(_NUMBERED, kept.id, campaigns, _OUT_OF_THE_WAY)


def _overtaken(rows: list[Any], kept: UUID) -> list[Any]:
    """Of each campaign that both are enrolled in, the last run that has not come as far as the other's."""
    best: dict[UUID, Any] = {}
    losers: list[Any] = []
    for row in (row for row in rows if row["last"]):
        other = best.setdefault(row["campaign_id"], row)
        if other is not row:
            worse, better = sorted((other, row), key=lambda one: _progress(one, kept))
            best[row["campaign_id"]] = better
            losers.append(worse)
    return losers


def _progress(row: Any, kept: UUID) -> tuple[int, int, bool]:
    return row["current_step"], _FURTHER.index(row["status"]), row["contact_id"] == kept


def _stopped(row: Any, contact: UUID, reason: str) -> EnrollmentStopped:
    return EnrollmentStopped(
        id=str(row["id"]), campaign_id=str(row["campaign_id"]), contact_id=str(contact), reason=reason
    )


async def _stop(ctx: Context[Any, Any], con: Connection, contact: UUID) -> None:
    for row in await enrolling.stop_contacts(con, [(ctx.tenant, contact, "opt_out")]):
        event = EnrollmentStopped(id=str(row[0]), campaign_id=str(row[2]), contact_id=str(contact), reason=row[4])
        await ctx.tell(con, event, f"{row[0]}.stopped")


async def _join(con: Connection, kept: Any, gone: Any) -> None:
    """What the two say of themselves, and the end of the other."""
    phone = gone.phone if kept.phone else None
    for name in ("phone", "wa_user_id", "locale", "timezone", "name"):
        setattr(kept, name, getattr(kept, name) or getattr(gone, name))
    kept.attributes = {**gone.attributes, **kept.attributes}
    kept.tags = list(dict.fromkeys([*kept.tags, *gone.tags]))
    _consent(kept, gone)
    rests = [one.marketing_rests_until for one in (kept, gone) if one.marketing_rests_until is not None]
    kept.marketing_rests_until = max(rests, default=None)
    await gone.delete()
    await kept.save()
    if phone is not None:
        await PhoneNumber.create(contact_id=kept.id, phone=phone)
    await ContactMerge.create(id=gone.id, contact_id=kept.id)


def _consent(kept: Any, gone: Any) -> None:
    """The stricter of the two."""
    joined = opting.join(contacts.standing(kept), contacts.standing(gone))
    for name, value in opting.columns(joined).items():
        setattr(kept, name, value)
    mine: list[str] = kept.consent_categories
    theirs: list[str] = gone.consent_categories
    both = [lane for lane in mine or theirs if lane in (theirs or [lane])]
    if gone.opted_in_at is None or kept.opted_in_at is None or (mine and theirs and not both):
        kept.opted_in_at, kept.consent_source, kept.consent_categories = None, None, []
    else:
        kept.consent_categories = both
