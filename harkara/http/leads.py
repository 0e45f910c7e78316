"""Leads: what may become of a contact, how far it has come, and who moved it when."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from msgspec import UNSET, structs

from harkara.http.context import Context
from harkara.http.lists import given, listed, newest, page, picked
from harkara.http.problems import not_found
from harkara.http.rows import amend, shown
from harkara.schemas.api import (
    LeadChanges,
    LeadChangeShown,
    LeadQuery,
    LeadShown,
    NewLead,
    Page,
    Paging,
    PatchLead,
)
from harkara.schemas.events import LeadCreated, LeadUpdated
from harkara.storage.models import Contact, Lead, LeadChange

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Filters that an index serves together with the order.
FOUND_BY = ("contact_id", "stage")


async def index(ctx: Context[None, LeadQuery]) -> Page[LeadShown]:
    """Leads, newest first."""
    query = ctx.query
    async with ctx.transaction():
        found = Lead.filter(**given(query, FOUND_BY))
        rows, last = await picked(found, ctx.tenant, query, {"score__gte": query.min_score, "source": query.source})
    return listed([shown(row, LeadShown) for row in rows], last)


async def create(ctx: Context[NewLead, None]) -> LeadShown:
    """A new lead of a contact."""
    wanted = structs.asdict(ctx.body)
    async with ctx.transaction() as con:
        if not await Contact.filter(id=ctx.body.contact_id).select_for_update().exists():
            raise not_found("contact")
        lead = await Lead.create(**wanted)
        await _note(ctx, lead.id, None, {name: wanted[name] for name in ("stage", "score", "source")})
        await ctx.tell(con, LeadCreated(**_news(lead)), f"{lead.id}.created")
    return shown(lead, LeadShown)


async def show(ctx: Context[None, None]) -> LeadShown:
    """One lead."""
    async with ctx.transaction():
        return shown(await _get(ctx), LeadShown)


async def change(ctx: Context[PatchLead, None]) -> LeadShown:
    """Change what is given and leave the rest; its history tells who did."""
    async with ctx.transaction() as con:
        lead = await _get(ctx, lock=True)
        given = {name: value for name, value in structs.asdict(ctx.body).items() if value is not UNSET}
        changes = {name: value for name, value in given.items() if value != getattr(lead, name)}
        if changes:
            was = {name: getattr(lead, name) for name in changes}
            await amend(lead, changes)
            change_id = await _note(ctx, lead.id, was, changes)
            await _tell_change(ctx, con, lead, change_id, was)
    return shown(lead, LeadShown)


async def _tell_change(
    ctx: Context[Any, Any], con: Connection, lead: Lead, change_id: UUID, was: dict[str, Any]
) -> None:
    event = LeadUpdated(**_news(lead), stage_before=was.get("stage"), score_before=was.get("score"))
    await ctx.tell(con, event, f"{lead.id}.updated.{change_id}")


async def history(ctx: Context[None, Paging]) -> Page[LeadChangeShown]:
    """Who changed what of a lead when, newest first; the oldest is how it began."""
    async with ctx.transaction():
        lead = await _get(ctx)
        rows = await newest(LeadChange.filter(lead_id=lead.id), ctx.tenant, ctx.query)
    return page([_change(row) for row in rows], ctx.query)


def _change(row: LeadChange) -> LeadChangeShown:
    return LeadChangeShown(
        id=row.id,
        at=row.created_at,
        user_id=row.by_user,
        api_key_id=row.by_key,
        changes=LeadChanges(before=row.before, after=row.after),
    )


async def _note(ctx: Context[Any, Any], lead: UUID, was: dict[str, Any] | None, now: dict[str, Any]) -> UUID:
    row = await LeadChange.create(lead_id=lead, by_user=ctx.who.user_id, by_key=ctx.who.key_id, before=was, after=now)
    return row.id


def _news(lead: Lead) -> dict[str, Any]:
    return {
        "id": str(lead.id),
        "contact_id": str(lead.contact_id),
        "stage": lead.stage,
        "score": lead.score,
        "source": lead.source,
    }


async def _get(ctx: Context[Any, Any], *, lock: bool = False) -> Lead:
    rows = Lead.select_for_update() if lock else Lead.all()
    lead = await rows.get_or_none(id=ctx.id("lead_id"))
    if lead is None:
        raise not_found("lead")
    return lead
