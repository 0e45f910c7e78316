"""The audit log, for those who answer for a tenant: who changed what, and who took personal data out."""

from __future__ import annotations

from typing import Any

import msgspec

from harkara.http.context import Context
from harkara.http.lists import cursor
from harkara.http.search import Search, Searched
from harkara.ids import time_of
from harkara.schemas.api import AuditQuery, AuditShown, Changes, Page

AUDIT_LOG = Searched(
    table="audit_log",
    columns=(
        "id", "user_id", "api_key_id", "action", "entity", "entity_id", "request_id", "address", "via",
        "before", "after",
    ),
    found_by=("user_id", "api_key_id", "entity", "entity_id"),
    picked_by=("action", "request_id"),
)  # fmt: skip


async def index(ctx: Context[None, AuditQuery]) -> Page[AuditShown]:
    """What was changed and by whom, newest first. A filter that few entries pass gives short pages: follow `next`."""
    async with ctx.transaction() as con:
        rows, last = await Search(AUDIT_LOG, ctx.tenant, ctx.query).run(con)
    return Page(items=[_shown(row) for row in rows], next=None if last is None else cursor(last))


def _shown(row: Any) -> AuditShown:
    told = dict(row)
    before, after = told.pop("before"), told.pop("after")
    changes = Changes(before=_decoded(before), after=_decoded(after))
    return AuditShown(at=time_of(told["id"]), changes=changes, **told)


def _decoded(text: str | None) -> dict[str, Any] | None:
    return None if text is None else msgspec.json.decode(text, type=dict[str, Any])
