"""Goals and exits of campaigns: whether they hold for an enrolment, and enrolments that reached their goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from harkara.storage.segments import Compiler, read

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: A goal that is reached so long after the last step still counts.
LATEST = timedelta(days=7)

#: Judged only of those whose campaigns have one, each pair of conditions once for all of them. What counts is what
#: contacts did since they were enrolled.
_MET = """
select p.id, {goal}, {exit}
from unnest($1::uuid[]) as i (id)
join contact_campaign_progress p on p.id = i.id
join contacts k on k.id = p.contact_id and k.tenant_id || '' = p.tenant_id
"""


@lru_cache(maxsize=1024)
def _met(goal: str | None, exit_: str | None) -> tuple[str, list[Any]]:
    to = Compiler(1, since="p.started_at")
    pieces = [to.compile(read(one)) if one else "false" for one in (goal, exit_)]
    return _MET.format(goal=pieces[0], exit=pieces[1]), to.values


async def met(con: Connection, wanted: Sequence[tuple[UUID, str | None, str | None]]) -> dict[UUID, tuple[bool, bool]]:
    """Whether goal and exit hold for each (enrolment, goal, exit)."""
    groups: dict[tuple[str | None, str | None], list[UUID]] = {}
    for id_, goal, exit_ in wanted:
        groups.setdefault((goal, exit_), []).append(id_)
    found: dict[UUID, tuple[bool, bool]] = {}
    for conditions, ids in groups.items():
        statement, values = _met(*conditions)
        found |= {row[0]: (row[1], row[2]) for row in await con.fetch(statement, ids, *values)}
    return found


_LAST_RUNS = """
select p.id
from unnest($1::text[], $2::uuid[], $3::uuid[]) as i (tenant_id, campaign_id, contact_id)
cross join lateral (
  select e.id from contact_campaign_progress e
  where e.tenant_id = i.tenant_id and e.contact_id = i.contact_id and e.campaign_id::text = i.campaign_id::text
  order by e.run desc limit 1) p
"""

_OPEN_GOALS = """
select p.id, c.goal::text from contact_campaign_progress p
join campaigns c on c.id = p.campaign_id and c.tenant_id || '' = p.tenant_id
where p.tenant_id = $1 and p.contact_id = $2 and p.goal_at is null and c.goal is not null
  and (p.finished_at is null or p.finished_at > now() - $3::interval)
"""

#: Whoever reached it is sent nothing more of the campaign; whoever had ended has ended, and counts.
_REACH = """
with locked as (
  select p.id, p.status in ('active', 'paused') as ran from contact_campaign_progress p
  where p.id = any ($1) order by p.id for no key update)
update contact_campaign_progress p
set goal_at = coalesce(p.goal_at, now()),
    status = case when locked.ran then 'stopped' else p.status end,
    stopped_reason = case when locked.ran then 'goal_reached' else p.stopped_reason end,
    finished_at = case when locked.ran then now() else p.finished_at end,
    next_claim_at = case when locked.ran then null else p.next_claim_at end,
    updated_at = now()
from locked where p.id = locked.id
returning p.id, p.tenant_id, p.campaign_id, p.contact_id, p.stopped_reason is not distinct from 'goal_reached'
"""


@dataclass(frozen=True, slots=True)
class Reached:
    """An enrolment that reached its goal; `stopped` says whether that ended it."""

    id: UUID
    tenant: str
    campaign_id: UUID
    contact_id: UUID
    stopped: bool


async def reach(con: Connection, wanted: Sequence[tuple[str, UUID, UUID]]) -> list[Reached]:
    """Note that the last enrolment of each (tenant, campaign, contact) reached its goal, now or earlier."""
    rows = await con.fetch(_LAST_RUNS, *map(list, zip(*wanted, strict=True))) if wanted else []
    return await reach_of(con, [row[0] for row in rows])


async def reach_by_deed(con: Connection, tenant: str, contact_id: UUID) -> list[Reached]:
    """After a contact did something: note which goals are reached by it."""
    rows = await con.fetch(_OPEN_GOALS, tenant, contact_id, LATEST)
    if not rows:
        return []
    found = await met(con, [(row[0], row[1], None) for row in rows])
    return await reach_of(con, [id_ for id_, (goal, _) in found.items() if goal])


async def reach_of(con: Connection, ids: Sequence[UUID]) -> list[Reached]:
    """Note that these enrolments reached their goal, now or earlier."""
    return [Reached(*row) for row in await con.fetch(_REACH, ids)] if ids else []
