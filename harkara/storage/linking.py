"""What is read and written of phones that lend their accounts: their sessions, and messages that had no answer."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: The states of a session in which no phone is linked: its number sends nothing.
UNLINKED = ("scan_qr", "stopped", "failed")

#: Messages to one contact, or to the number that is none's, through one number that have no id of WhatsApp's, with what
#: they say; none if the echo's id is known already. WhatsApp may write a number otherwise than it was written to.
_UNANSWERED = """
with who as (
  select contact_id as id from app.line($1, $3)
  union all
  select id from contacts where tenant_id = $1 and wa_user_id = $4
  limit 1),
reached as (
  select m.* from who join messages m on m.tenant_id = $1 and m.contact_id = who.id
  union all
  select m.* from messages m
  where m.tenant_id = $1 and m.contact_id is null and m.sent_at is null and m."to" = any (app.spellings($3)))
select m.id, case when m.content ? 'body' then m.content ->> 'body'
                  when m.content ? 'media' then m.content -> 'media' ->> 'caption'
                  else m.content -> 'interactive' ->> 'body' end
from reached m
where m.sender_id = $2 and m.wamid is null and m.status in ('sending', 'unknown') and m.attempted_at between $6 and $7
  and not exists (select from messages o where o.wamid = $5 and o.tenant_id || '' = $1)
"""

#: Only forward by the gateway's own clock: its reports may overtake each other.
_SESSION = """
with before as (
  select id, coalesce(session_state, '') as state from senders
  where tenant_id = $1 and id = $2 and (session_clock is null or session_clock <= $5) for no key update)
update senders s
set session_state = $3, session_detail = $4, session_clock = $5, session_at = now(), updated_at = now()
from before where s.id = before.id and s.tenant_id = $1
returning before.state
"""


async def unanswered(
    con: Connection,
    tenant: str,
    sender_id: UUID,
    phone: str | None,
    user_id: str | None,
    wamid: str,
    between: tuple[datetime, datetime],
) -> list[tuple[UUID, str | None]]:
    """Messages without an answer that were tried in this time: id, and text if there is one."""
    rows = await con.fetch(_UNANSWERED, tenant, sender_id, phone, user_id, wamid, *between)
    return [(row[0], row[1]) for row in rows]


async def session_changed(
    con: Connection, tenant: str, sender_id: UUID, state: str, detail: str | None, clock: datetime
) -> str | None:
    """Write a session's state; what it was before, empty if nothing was known. None if more recent things are known."""
    found: str | None = await con.fetchval(_SESSION, tenant, sender_id, state, detail, clock)
    return found
