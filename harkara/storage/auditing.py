"""Notes in the audit log of what commands did: written by their actors, in the transaction of what they note.

By its note a command that comes again is known to have been carried out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True, slots=True)
class Note:
    """What a command did. `said` is what the front door says of who asked, as JSON; empty for a partner's command.

    `id` always comes out the same for the same command, so that a redelivery notes nothing.
    """

    id: UUID
    tenant: str
    said: str
    action: str
    entity: str
    entity_id: str
    cause: str
    via: str
    before: dict[str, Any] | None
    after: dict[str, Any] | None


_NOTE = """
insert into audit_log (id, tenant_id, user_id, api_key_id, action, entity, entity_id, request_id, address, via,
                       before, after)
select i.id, i.tenant_id, (i.said ->> 'user_id')::uuid, (i.said ->> 'api_key_id')::uuid, i.action, i.entity,
       i.entity_id, i.cause, coalesce(i.said ->> 'address', ''), coalesce(i.said ->> 'via', i.via), i.before, i.after
from unnest($1::uuid[], $2::text[], $3::jsonb[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::jsonb[], $10::jsonb[])
     as i (id, tenant_id, said, action, entity, entity_id, cause, via, before, after)
on conflict (id) do nothing
"""


_NOTED = "select id, entity_id from audit_log where id = any ($1::uuid[])"


async def noted(con: Connection, ids: Sequence[UUID]) -> dict[UUID, str]:
    """Of these notes those that are written: what each is about."""
    return {row[0]: row[1] for row in await con.fetch(_NOTED, ids)}


async def note(con: Connection, notes: Sequence[Note]) -> None:
    """Write them all in one statement."""
    if not notes:
        return
    await con.execute(
        _NOTE,
        [n.id for n in notes],
        [n.tenant for n in notes],
        [n.said or None for n in notes],
        [n.action for n in notes],
        [n.entity for n in notes],
        [n.entity_id for n in notes],
        [n.cause for n in notes],
        [n.via for n in notes],
        [_json(n.before) for n in notes],
        [_json(n.after) for n in notes],
    )


def _json(value: dict[str, Any] | None) -> str | None:
    return None if value is None else _encode(value).decode()
