"""The files that came with messages: what is known of them, and where they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from harkara.storage.storage import Connection


@dataclass(frozen=True, slots=True)
class NewMedia:
    """A file that has yet to be fetched from the gateway, where it is known as `gateway_id`."""

    id: UUID
    tenant: str
    reply_id: UUID
    contact_id: UUID
    gateway_id: str
    mime_type: str | None
    filename: str | None


def key_of(tenant: str, id_: UUID | str) -> str:
    """Where a file is kept."""
    return f"{tenant}/{id_}"


_ADD = """
insert into media (id, tenant_id, reply_id, contact_id, gateway_id, mime_type, filename)
values ($1, $2, $3, $4, $5, $6, $7) on conflict (id) do nothing
"""

_STATE = "select status, contact_id, reply_id from media where id = $1 and tenant_id || '' = $2"

_STORED = """
update media set status = 'stored', reason = null, mime_type = $3, size = $4, sha256 = $5, stored_at = now(),
                 updated_at = now()
where id = $1 and tenant_id || '' = $2 returning contact_id, reply_id
"""

_FAILED = """
update media set status = 'failed', reason = $3, updated_at = now()
where id = $1 and tenant_id || '' = $2 and status <> 'stored' returning contact_id, reply_id
"""


async def add(con: Connection, new: NewMedia) -> None:
    """Write down that there is a file; one that is known already stays as it is."""
    values = (new.id, new.tenant, new.reply_id, new.contact_id, new.gateway_id, new.mime_type, new.filename)
    await con.execute(_ADD, *values)


async def state(con: Connection, tenant: str, id_: UUID) -> Any:
    """(status, contact, reply) of a file; None if it is not wanted any more."""
    return await con.fetchrow(_STATE, id_, tenant)


async def stored(con: Connection, tenant: str, id_: UUID, mime_type: str, size: int, sha256: str) -> Any:
    """It is kept now: (contact, reply), or None if it is not wanted any more."""
    return await con.fetchrow(_STORED, id_, tenant, mime_type, size, sha256)


async def failed(con: Connection, tenant: str, id_: UUID, reason: str) -> Any:
    """It can't be had: (contact, reply), or None if there is nothing to note."""
    return await con.fetchrow(_FAILED, id_, tenant, reason)


async def of_contacts(con: Connection, tenant: str, contacts: Sequence[UUID]) -> list[UUID]:
    """The files that came from these contacts."""
    rows = await con.fetch(
        "select id from media where tenant_id = $1 and contact_id = any ($2::uuid[])", tenant, list(contacts)
    )
    return [row[0] for row in rows]
