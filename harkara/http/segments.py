"""Segments: groups of contacts by a condition, which is judged whenever the group is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from msgspec import UNSET

from harkara.http.campaign_fields import condition as checked
from harkara.http.checks import Faults
from harkara.http.contact_search import COLUMNS
from harkara.http.contacts import told
from harkara.http.context import Context
from harkara.http.lists import before, cursor, listed, picked
from harkara.http.problems import conflict, not_found
from harkara.http.rows import amend, shown
from harkara.schemas.api import ContactShown, Page, Paging, SegmentQuery
from harkara.schemas.campaigns import NewSegment, PatchSegment, SegmentCount, SegmentShown
from harkara.schemas.conditions import Condition
from harkara.storage import segments
from harkara.storage.models import Segment
from harkara.storage.opting import OUT_OF_MARKETING

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Contacts looked at for one page at most: a page of what is rare is as quick as any other, and may be short.
LOOKED_AT = 10_000

PAGE = """
with stretch as materialized (
  select k.* from contacts k where k.tenant_id = $1 and k.id < $2 order by k.id desc limit $3)
select (select array_agg(id order by id desc) from (
          select k.id from stretch k where {condition} order by k.id desc limit $4) found),
       (select id from stretch order by id limit 1), (select count(*) from stretch) = $3
"""

THESE = f"select {COLUMNS} from contacts where id = any ($1)"  # noqa: S608 - our own words

COUNT = f"""
select count(*) as contacts, count(*) filter (where not {OUT_OF_MARKETING} and {segments.CONSENTS}) as reachable
from contacts k where k.tenant_id = $1 and
"""  # noqa: S608 - our own words

#: Broadcasts that are still to be launched to a segment.
USED = (
    "select name from campaigns where audience ->> 'segment_id' = $1 and launched_at is null and status <> 'archived'"
)


async def index(ctx: Context[None, SegmentQuery]) -> Page[SegmentShown]:
    """Segments, newest first."""
    async with ctx.transaction():
        rows, last = await picked(Segment.all(), ctx.tenant, ctx.query, {"name__icontains": ctx.query.q})
    return listed([shown(row, SegmentShown) for row in rows], last)


async def create(ctx: Context[NewSegment, None]) -> SegmentShown:
    """A new segment."""
    faults = Faults()
    columns = check(ctx, faults)
    faults.refuse()
    async with ctx.transaction():
        return shown(await Segment.create(**columns), SegmentShown)


def check(ctx: Context[Any, None], faults: Faults, _region: str | None = None) -> dict[str, Any]:
    """The columns that a body gives, of a new segment or a changed one."""
    body, columns = ctx.body, dict[str, Any]()
    if body.name is not UNSET:
        columns["name"] = faults.filled("name", body.name)
    if body.condition is not UNSET:
        columns["condition"] = checked("condition", body.condition, faults)
    return columns


async def show(ctx: Context[None, None]) -> SegmentShown:
    """One segment."""
    async with ctx.transaction():
        return shown(await _get(ctx), SegmentShown)


async def change(ctx: Context[PatchSegment, None]) -> SegmentShown:
    """Change what is given. An enrolment of the segment that has begun goes on with what it meant then."""
    faults = Faults()
    changes = check(ctx, faults)
    faults.refuse()
    async with ctx.transaction():
        segment = await _get(ctx)
        await amend(segment, changes)
        return shown(segment, SegmentShown)


async def delete(ctx: Context[None, None]) -> None:
    """Delete a segment; its contacts stay. 409 while a broadcast waits to be launched to it."""
    async with ctx.transaction() as con:
        segment = await _get(ctx)
        waiting: str | None = await con.fetchval(USED, str(segment.id))
        if waiting is not None:
            raise conflict(f"the broadcast {waiting!r} is for this segment: give it another audience, or archive it")
        await segment.delete()


async def contacts(ctx: Context[None, Paging]) -> Page[ContactShown]:
    """The contacts of a segment now, newest first.

    A condition that few contacts pass gives short pages: read on as long as there is a `next`.
    """
    async with ctx.transaction() as con:
        condition = _condition(await _get(ctx))
        ids, last = await _page(con, ctx.tenant, condition, ctx.query)
        found = {row["id"]: row for row in await con.fetch(THESE, ids)} if ids else {}
    items = [told(found[id_]) for id_ in ids if id_ in found]
    return Page(items=items, next=None if last is None else cursor(last))


async def _page(con: Connection, tenant: str, condition: Condition, query: Paging) -> tuple[list[UUID], UUID | None]:
    """The ids of a page, and the last one that was looked at if there are more."""
    where, values = segments.compiled(condition, taken=4)
    sql = PAGE.replace("{condition}", where)
    row: Any = await con.fetchrow(sql, tenant, before(query), LOOKED_AT, query.limit + 1, *values)
    ids: list[UUID] = row[0] or []
    if len(ids) > query.limit:
        return ids[: query.limit], ids[query.limit - 1]
    return ids, row[1] if row[2] else None


async def count(ctx: Context[None, None]) -> SegmentCount:
    """How many contacts a segment has now."""
    async with ctx.transaction() as con:
        where, values = segments.compiled(_condition(await _get(ctx)), taken=1)
        row: Any = await con.fetchrow(COUNT + where, ctx.tenant, *values)
    return msgspec.convert(dict(row), SegmentCount)


def _condition(segment: Segment) -> Condition:
    row: Any = segment
    return segments.read(row.condition)


async def _get(ctx: Context[Any, Any]) -> Segment:
    segment = await Segment.get_or_none(id=ctx.id("segment_id"))
    if segment is None:
        raise not_found("segment")
    return segment
