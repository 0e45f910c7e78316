"""Enrolments that go on with another version of their campaign: a page of those that don't yet, and where they go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


@dataclass(frozen=True, slots=True)
class Waiting:
    """An enrolment on an earlier version, held. `untouched`: its next step was never claimed, and won't be yet."""

    id: UUID
    contact_id: UUID
    version_id: UUID
    started_at: datetime
    current_step: int
    step_id: UUID
    message_id: UUID
    passed: list[UUID]
    untouched: bool


@dataclass(frozen=True, slots=True)
class Place:
    """A step of a version: what it is (`origin`), where it stands, and when it is due after the enrolment."""

    id: UUID
    origin: UUID
    position: int
    delay_hours: float


@dataclass(frozen=True, slots=True)
class Moved:
    """Where an enrolment stands in the other version; nothing is left to send if there is no step."""

    id: UUID
    position: int
    step_id: UUID | None
    message_id: UUID | None
    due_at: datetime | None
    passed: tuple[UUID, ...]


#: Held, so that no other version becomes the current one while a page goes on with this.
_CURRENT = "select version_id from campaigns where id = $2 and tenant_id || '' = $1 and status <> 'archived' for share"

#: A claim takes what is due within about a second: what is due later than in five was never claimed, and can't be
#: while it is held.
_PAGE = """
select p.id, p.contact_id, p.version_id, p.started_at, p.current_step, p.next_step_id, p.next_message_id,
       coalesce(p.passed, '{}'), p.next_step_scheduled_at > clock_timestamp() + interval '5 s'
from contact_campaign_progress p
where p.tenant_id = $1 and p.campaign_id = $2 and p.id > $3 and p.version_id <> $4
  and p.status in ('active', 'paused') and p.next_step_id is not null
order by p.id limit $5 for no key update
"""

_PLACES = """
select s.version_id, s.id, coalesce(s.origin, s.id), s.position, s.delay_hours
from unnest($2::uuid[]) as i (id)
join campaign_steps s on s.version_id = i.id and s.tenant_id = $1
order by s.version_id, s.position
"""

_MOVE = """
update contact_campaign_progress p
set version_id = $2, current_step = i.position, next_step_id = i.step_id, next_message_id = i.message_id,
    next_step_scheduled_at = i.due_at, next_claim_at = i.due_at, deferred_until = null,
    passed = nullif(i.passed::uuid[], '{}'),
    status = case when i.step_id is null then 'completed' else p.status end,
    finished_at = case when i.step_id is null then now() end, updated_at = now()
from unnest($3::uuid[], $4::int[], $5::uuid[], $6::uuid[], $7::timestamptz[], $8::text[])
     as i (id, position, step_id, message_id, due_at, passed)
where p.id = i.id and p.tenant_id || '' = $1
"""


async def current(con: Connection, tenant: str, campaign_id: UUID) -> UUID | None:
    """The campaign's current version; None if there is no such campaign, or not any more."""
    found: UUID | None = await con.fetchval(_CURRENT, tenant, campaign_id)
    return found


async def page(
    con: Connection, tenant: str, campaign_id: UUID, version_id: UUID, after: UUID, most: int
) -> list[Waiting]:
    """The next enrolments that run on other versions than this, held until the transaction ends."""
    return [Waiting(*row) for row in await con.fetch(_PAGE, tenant, campaign_id, after, version_id, most)]


async def places(con: Connection, tenant: str, versions: Sequence[UUID]) -> dict[UUID, list[Place]]:
    """The steps of these versions, in order."""
    found: dict[UUID, list[Place]] = {id_: [] for id_ in versions}
    for row in await con.fetch(_PLACES, tenant, list(versions)):
        columns: list[Any] = [*row]
        found[columns[0]].append(Place(*columns[1:]))
    return found


async def move(con: Connection, tenant: str, version_id: UUID, moved: Sequence[Moved]) -> None:
    """Have these go on with this version."""
    await con.execute(
        _MOVE,
        tenant,
        version_id,
        [m.id for m in moved],
        [m.position for m in moved],
        [m.step_id for m in moved],
        [m.message_id for m in moved],
        [m.due_at for m in moved],
        [f"{{{','.join(map(str, m.passed))}}}" for m in moved],
    )
