"""Imports of large files: how far they have come, what was wrong in them, and how to end one."""

from __future__ import annotations

from typing import Any

import msgspec

from harkara.http.context import Context
from harkara.http.lists import cursor, listed, picked, place_of
from harkara.http.problems import conflict, not_found
from harkara.schemas.api import ImportShown, ImportsQuery, Page, Paging, RowError
from harkara.storage.models import Import, ImportChunk, ImportFault

#: States from which nothing more is stored.
ENDED = ("completed", "cancelled")


async def index(ctx: Context[None, ImportsQuery]) -> Page[ImportShown]:
    """Imports of large files, newest first. Small ones are done when they are answered, and are not kept."""
    async with ctx.transaction():
        rows, last = await picked(Import.all(), ctx.tenant, ctx.query, {"status": ctx.query.status})
    return listed([_shown(row) for row in rows], last)


async def show(ctx: Context[None, None]) -> ImportShown:
    """One import, and how far it has come."""
    async with ctx.transaction():
        return _shown(await _get(ctx))


async def errors(ctx: Context[None, Paging]) -> Page[RowError]:
    """What is wrong with the rows of a file, in their order."""
    after = ctx.query.cursor and place_of(ctx.query.cursor)
    async with ctx.transaction():
        found = ImportFault.filter(tenant_id=ctx.tenant, import_id=(await _get(ctx)).id)
        if after:
            found = found.filter(id__gt=after)
        rows = await found.order_by("id").limit(ctx.query.limit + 1)
    shown = rows[: ctx.query.limit]
    items = [RowError(row=row.row, path=row.path, message=row.message) for row in shown]
    return Page(items=items, next=cursor(shown[-1].id) if len(rows) > ctx.query.limit else None)


async def cancel(ctx: Context[None, None]) -> None:
    """End an import: what is stored stays, what is not yet is left out. 409 if it has ended."""
    async with ctx.transaction():
        row = await _get(ctx, lock=True)
        if row.status in ENDED:
            raise conflict(f"this import is {row.status}: there is nothing to cancel")
        await ImportChunk.filter(import_id=row.id).delete()
        row.status, row.finished_at = "cancelled", ctx.door.clock()
        await row.save(update_fields=["status", "finished_at", "updated_at"])


async def _get(ctx: Context[Any, Any], *, lock: bool = False) -> Import:
    rows = Import.select_for_update() if lock else Import.all()
    row = await rows.get_or_none(id=ctx.id("import_id"))
    if row is None:
        raise not_found("import")
    return row


def _shown(row: Import) -> ImportShown:
    told = row.header if isinstance(row.header, dict) else {"columns": row.header}
    return msgspec.convert({**vars(row), **told}, ImportShown)
