"""A body that is not of its type is looked through all the same: its sender learns all that is wrong at once."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from harkara.http.checks import Faults
from harkara.http.context import Context
from harkara.http.decoding import Misshapen
from harkara.http.problems import Problem, invalid

REGION = "select default_region from tenants"


async def all_faults(ctx: Context[Any, Any], misshapen: Misshapen) -> Problem:
    """The faults of a body's shape, and what the route's own check finds in all that has the right one."""
    check, faults = ctx.route.check, Faults(is_made_up=misshapen.mending.is_about)
    if check is None:
        return misshapen
    ctx.body = misshapen.mended
    with suppress(Problem):  # a database that is away hides no fault that is known without it
        check(ctx, faults, await _region(ctx))
    further = [fault for fault in faults if not misshapen.mending.is_about(fault[0])]
    return invalid(*misshapen.errors, *further)


async def _region(ctx: Context[Any, Any]) -> str | None:
    if not ctx.tenant:
        return None
    async with ctx.transaction() as con:
        found: str | None = await con.fetchval(REGION)
    return found
