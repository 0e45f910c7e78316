"""Where contacts are held: every table with a column `contact_id`, today's and tomorrow's, and what hangs on those."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from harkara.ids import time_of
from harkara.storage import media

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: What users call a table, where that is not its name.
CALLED = {"contact_campaign_progress": "enrollments", "contact_merges": "merged"}

#: Kept by triggers, from what is told anyway.
DERIVED = frozenset({"contact_terms"})

_TABLES = """
select c.relname::text from pg_class c join pg_attribute a on a.attrelid = c.oid
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
and a.attname = 'contact_id' and not a.attisdropped order by 1
"""

_PAGE = """
select t.id, (to_jsonb(t) - 'tenant_id')::text from {table} t
where t.tenant_id = $1 and {condition} and t.id < $3 order by t.id desc limit $4
"""

_LEADS = "t.lead_id in (select id from leads where tenant_id = $1 and contact_id = $2)"
_AUDIT = "t.entity_id = $2::uuid::text"


async def tables(con: Connection) -> list[str]:
    """The tables whose rows belong to a contact."""
    return [row[0] for row in await con.fetch(_TABLES) if row[0] not in DERIVED]


async def sections(con: Connection) -> dict[str, str]:
    """What is held about a contact, by name: statements with the tenant, the contact, an id and a limit as places."""
    found = {CALLED.get(table, table): _page(table, "t.contact_id = $2") for table in await tables(con)}
    return found | {"lead_changes": _page("lead_changes", _LEADS), "audit": _page("audit_log", _AUDIT)}


def _page(table: str, condition: str) -> str:
    return _PAGE.format(table=table, condition=condition)


_BACK = """
select c.id from contacts c
where c.tenant_id = $1 and (c.id = $2 or ((c.phone = any ($3::text[]) or c.wa_user_id = $4) and (
  c.import_id < $5 or exists (select from replies r
                              where r.tenant_id = c.tenant_id and r.contact_id = c.id and r.received_at < $6))))
"""

_DELETE = "delete from {table} where tenant_id = $1 and contact_id = any ($2::uuid[]) returning id"

#: Messages to the number that were of no contact.
_SENT_TO = 'delete from messages where tenant_id = $1 and "to" = any ($2::text[]) and id < $3'

_WAITING = "select exists (select from import_chunks where tenant_id = $1 and created_at < $2)"
_FORGET = "select app.audit_forget($1::text[])"


@dataclass(frozen=True, slots=True)
class Erased:
    """What is left to do: an import is still `waiting` that may bring the contact back, and these files are theirs."""

    waiting: bool
    files: list[UUID]


async def erase(
    con: Connection, tenant: str, contact_id: UUID, phones: list[str], user_id: str | None, before: UUID
) -> Erased:
    """Delete every row of a contact, and what the audit log knows of them but who did something when.

    A contact with one of its numbers that came back meanwhile goes too, if it came from what was sent before: an
    import, or a message. `before` is an id of that time.
    """
    at = time_of(before)
    found = await con.fetch(_BACK, tenant, contact_id, phones, user_id, before, at)
    ids = [contact_id, *(row[0] for row in found if row[0] != contact_id)]
    forgotten = [str(id_) for id_ in ids]
    files = await media.of_contacts(con, tenant, ids)
    for table in await tables(con):
        gone = await con.fetch(_DELETE.format(table=table), tenant, ids)
        forgotten += [str(row[0]) for row in gone]
    reached = [*phones, *([user_id] if user_id else [])]
    await con.execute(_SENT_TO, tenant, reached, before)
    await con.execute("delete from contacts where tenant_id = $1 and id = any ($2::uuid[])", tenant, ids)
    await con.execute(_FORGET, forgotten)
    waiting: bool = await con.fetchval(_WAITING, tenant, at)
    return Erased(waiting, files)
