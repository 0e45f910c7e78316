"""What is read of numbers that have something to send and can't: no phone is linked to them, or nobody is where their
gateway should be."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

from harkara.storage.linking import UNLINKED

if TYPE_CHECKING:
    import asyncpg

    from harkara.storage.storage import Connection


@dataclass(frozen=True, slots=True)
class Number:
    """A number that is not stopped; `unlinked` says why no phone is linked to it, None if one is or none is needed."""

    id: UUID
    tenant: str
    name: str
    provider: str
    unlinked: str | None


_NUMBERS = f"""
select id, tenant_id, name, provider,
       case when session_state in {UNLINKED} then coalesce(session_detail, session_state) end
from senders where status = 'active' and (id = any ($1) or ($1 is null and session_state in {UNLINKED}))
order by tenant_id, name, id limit $2
"""  # noqa: S608 - our own words


async def numbers(con: Connection | asyncpg.Connection[Any], ids: Collection[UUID] | None, most: int) -> list[Number]:
    """Those of these numbers that are not stopped; without ids all that no phone is linked to."""
    return [Number(*row) for row in await con.fetch(_NUMBERS, None if ids is None else list(ids), most)]


async def providers(con: Connection) -> set[str]:
    """Those whose numbers are not all stopped."""
    return {row[0] for row in await con.fetch("select distinct provider from senders where status = 'active'")}
