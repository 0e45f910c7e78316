"""Who did what, as the audit log takes it down: the database notes every change itself, once it is told who acts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from harkara.http.route import PREFIX

if TYPE_CHECKING:
    from uuid import UUID

    from harkara.http.context import Context

_encode = msgspec.json.Encoder().encode

NOTE = """
insert into audit_log (id, user_id, api_key_id, action, entity, entity_id, request_id, address, via, after)
select app.uuid7(), (actor ->> 'user_id')::uuid, (actor ->> 'api_key_id')::uuid, $1, $2, $3, actor ->> 'request_id',
       actor ->> 'address', actor ->> 'via', $4::jsonb
from (select $5::jsonb as actor) one
"""


def who_acts(ctx: Context[Any, Any]) -> str:
    """Who makes this request, from where and by which route, as JSON for `Storage.tenant`."""
    who = ctx.who
    said = {
        "user_id": who.user_id,
        "api_key_id": who.key_id,
        "request_id": ctx.cause,
        "address": ctx.origin.peer,
        "via": f"{ctx.route.method} {ctx.route.path.removeprefix(PREFIX)}",
    }
    return _encode(said).decode()


async def audit(
    ctx: Context[Any, Any], action: str, entity: str, detail: Any, entity_id: UUID | str | None = None
) -> None:
    """Note what the database can't see: what is done on the broker, and that personal data is read in bulk.

    Called before it is done: `await audit(ctx, "export", …)`. `detail` says what was asked for, such as the filters and
    the number of rows. Inside a transaction it is part of it.
    """
    async with ctx.transaction() as con:
        told = None if entity_id is None else str(entity_id)
        await con.execute(NOTE, action, entity, told, _encode(detail).decode(), ctx.acting)
