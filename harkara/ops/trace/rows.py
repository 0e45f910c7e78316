"""What the database knows of an id: whose it is, the rows that hang on it, and what decides about them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from harkara.ids import time_of
from harkara.storage.storage import Storage

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

Row = dict[str, Any]

#: Messages and enrolments that are told of one id: the newest.
MOST = 20

#: Looking for what a request set off reads all rows that are younger: not for longer than this.
PATIENCE_MS = 10_000

#: A request's id is made a little before those of its rows, perhaps by another clock.
BEFORE = timedelta(minutes=1)

#: Every table whose rows an id may name.
_WHOSE = """
select 'message' as kind, tenant_id from messages where id = $1
union all select 'enrollment', tenant_id from contact_campaign_progress where id = $1
union all select 'contact', tenant_id from contacts where id = $1
union all select 'reply', tenant_id from replies where id = $1
union all select 'invoice', tenant_id from invoices where id = $1
union all select 'campaign', tenant_id from campaigns where id = $1
union all select 'sender', tenant_id from senders where id = $1
union all select 'next message', tenant_id from contact_campaign_progress where next_message_id = $1
"""

_BY_CAUSE = """
(select 'cause' as kind, tenant_id from messages where id >= app.uuid7_floor($2) and cause = $1 limit 1)
union all
(select 'cause', tenant_id from contact_campaign_progress where id >= app.uuid7_floor($2) and cause = $1 limit 1)
union all
(select 'cause', tenant_id from audit_log where id >= app.uuid7_floor($2) and request_id = $1 limit 1)
"""

_MESSAGES = {
    "message": "id = $1::uuid",
    "enrollment": "enrollment_id = $1::uuid and contact_id = (select contact_id from contact_campaign_progress"
    " where id = $1::uuid)",
    "contact": "contact_id = $1::uuid",
    "invoice": "invoice_id = $1::uuid",
    "reply": "id = (select message_id from replies where id = $1::uuid)",
    "cause": "cause = $1::text and id >= app.uuid7_floor($3)",
    "campaign": "campaign_id = $1::uuid",
    "sender": "sender_id = $1::uuid",
}

_ENROLLMENTS = {
    "next message": "next_message_id = $1::uuid",
    "enrollment": "id = $1::uuid",
    "contact": "contact_id = $1::uuid",
    "invoice": "invoice_id = $1::uuid",
    "cause": "cause = $1::text and id >= app.uuid7_floor($3)",
}

#: What messages and enrolments name.
_NAMED = ("contact_id", "sender_id", "campaign_id", "invoice_id")

_AUDIT = """
select created_at, action, entity, entity_id, request_id, via, address from audit_log
where tenant_id = $1 and id >= app.uuid7_floor($3) and (entity_id = any ($2) or request_id = any ($2))
order by id limit 100
"""

#: How a number's gateway answers at the moment: requests without an answer yet, and what waits for its turn.
_ANSWERS = """
select count(*) filter (where m.status = 'sending') as in_the_air,
       min(m.attempted_at) filter (where m.status = 'sending') as since,
       count(*) filter (where m.status = 'queued' and m.due_at <= now() and coalesce(m.deferred_until, now()) <= now())
         as waiting
from messages m where m.tenant_id = $1 and m.sender_id = $2 and m.sent_at is null
  and m.id >= app.uuid7_floor(now() - interval '1 day')
"""


@dataclass(slots=True)
class Rows:
    """What was found. `kind` says what the id is; empty if no row has it."""

    tenant: str = ""
    kind: str = ""
    now: datetime = field(default_factory=lambda: datetime.now(UTC))
    messages: list[Row] = field(default_factory=list[Row])
    enrollments: list[Row] = field(default_factory=list[Row])
    contacts: dict[UUID, Row] = field(default_factory=dict[UUID, Row])
    senders: dict[UUID, Row] = field(default_factory=dict[UUID, Row])
    campaigns: dict[UUID, Row] = field(default_factory=dict[UUID, Row])
    steps: dict[UUID, Row] = field(default_factory=dict[UUID, Row])
    invoices: dict[UUID, Row] = field(default_factory=dict[UUID, Row])
    replies: list[Row] = field(default_factory=list[Row])
    audit: list[Row] = field(default_factory=list[Row])
    answers: dict[UUID, Row] = field(default_factory=dict[UUID, Row])
    held: set[UUID] = field(default_factory=set[UUID])
    active: bool = True


async def whose(storage: Storage, named: str) -> tuple[str, str]:
    """The tenant and kind of what has this id, looked for in all tenants' rows; empty if nothing has.

    A request's id is found by what it set off, if that can be done in a few seconds.
    """
    async with storage.anonymous() as con:
        tenants: list[str] = await con.fetchval("select app.all_tenants()")
    id_ = as_uuid(named)
    if id_ is None or not tenants:
        return "", ""
    async with storage.batch(tenants) as con:
        row = await con.fetchrow(_WHOSE, id_)
        if row is None:
            await con.execute(f"set local statement_timeout = {PATIENCE_MS}")
            try:
                row = await con.fetchrow(_BY_CAUSE, named, _since(id_))
            except asyncpg.QueryCanceledError:
                return "", ""
    return ("", "") if row is None else (row["tenant_id"], row["kind"])


async def kind_of(storage: Storage, tenant: str, named: str) -> str:
    """What a tenant's id is the id of; empty if of no row, which may still be a request's."""
    id_ = as_uuid(named)
    if id_ is None:
        return ""
    async with storage.batch((tenant,)) as con:
        row = await con.fetchrow(_WHOSE, id_)
    return "" if row is None else row["kind"]


async def gather(storage: Storage, tenant: str, kind: str, named: str) -> Rows:
    """All rows that an id leads to. Raises what the driver raises if the database is away."""
    found = Rows(tenant=tenant, kind=kind)
    id_ = as_uuid(named)
    if id_ is None:
        return found
    async with storage.tenant(tenant) as con:
        await con.execute(f"set local statement_timeout = {PATIENCE_MS}")
        found.now = await con.fetchval("select now()")
        found.active = bool(await con.fetchval("select is_active from tenants where id = $1", tenant))
        kind = kind or "cause"
        found.messages = await _newest(con, "messages", _MESSAGES, kind, named, tenant, id_)
        found.enrollments = await _newest(con, "contact_campaign_progress", _ENROLLMENTS, kind, named, tenant, id_)
        await _surroundings(con, found, kind, id_)
        found.audit = await _audit(con, found, named, id_)
    if not found.kind and (found.messages or found.enrollments or found.audit):
        found.kind = "cause"
    return found


async def _newest(
    con: Connection, table: str, conditions: dict[str, str], kind: str, named: str, tenant: str, id_: UUID
) -> list[Row]:
    condition = conditions.get(kind)
    if condition is None:
        return []
    wanted = f"select * from {table} where tenant_id = $2 and {condition} order by id desc limit {MOST}"  # noqa: S608 - our own words
    value: Any = named if kind == "cause" else id_
    arguments = (value, tenant, _since(id_)) if kind == "cause" else (value, tenant)
    return [dict(row) for row in reversed(await con.fetch(wanted, *arguments))]


async def _surroundings(con: Connection, found: Rows, kind: str, id_: UUID) -> None:
    """Whom the messages go to, from which number, as part of which campaign; and what decides about them."""
    rows = [*found.messages, *found.enrollments]
    of = {name: {row[name] for row in rows if row.get(name)} for name in _NAMED}
    known = {row["id"] for row in found.enrollments}
    missing = {row["enrollment_id"] for row in found.messages if row["enrollment_id"]} - known
    if kind == "contact":
        of["contact_id"].add(id_)
        found.replies = await _fetch(con, "select * from replies where contact_id = $1 order by id desc limit 20", id_)
    if kind == "reply":
        found.replies = await _fetch(con, "select * from replies where id = $1", id_)
    found.enrollments += await _all(con, "contact_campaign_progress", missing)
    of["campaign_id"] |= {row["campaign_id"] for row in found.enrollments}
    if kind == "invoice":
        of["invoice_id"].add(id_)
    found.invoices = {row["id"]: row for row in await _all(con, "invoices", of["invoice_id"])}
    of["contact_id"] |= {row["contact_id"] for row in found.invoices.values()}
    if kind in ("campaign", "sender"):
        of[f"{kind}_id"].add(id_)
    found.campaigns = {row["id"]: row for row in await _all(con, "campaigns", of["campaign_id"])}
    of["sender_id"] |= {row["sender_id"] for row in found.campaigns.values()}
    found.contacts = {row["id"]: row for row in await _all(con, "contacts", of["contact_id"])}
    found.senders = {row["id"]: row for row in await _all(con, "senders", of["sender_id"])}
    steps = {row["next_step_id"] for row in found.enrollments if row["next_step_id"]}
    found.steps = {row["id"]: row for row in await _all(con, "campaign_steps", steps)}
    for sender in of["sender_id"]:
        found.answers[sender] = dict(await con.fetchrow(_ANSWERS, found.tenant, sender) or {})
    held = await con.fetch("select contact_id from contact_holds where contact_id = any ($1)", list(of["contact_id"]))
    found.held = {row[0] for row in held}


async def _audit(con: Connection, found: Rows, named: str, id_: UUID) -> list[Row]:
    ids = {named} | {str(row["id"]) for row in (*found.messages, *found.enrollments)}
    ids |= {row["cause"] for row in (*found.messages, *found.enrollments) if row["cause"]}
    times = [_since(one) for text in ids if (one := as_uuid(text)) is not None]
    return await _fetch(con, _AUDIT, found.tenant, sorted(ids), min(times, default=_since(id_)))


async def _all(con: Connection, table: str, ids: set[UUID]) -> list[Row]:
    return await _fetch(con, f"select * from {table} where id = any ($1)", list(ids)) if ids else []  # noqa: S608


async def _fetch(con: Connection, statement: str, *arguments: Any) -> list[Row]:
    return [dict(row) for row in await con.fetch(statement, *arguments)]


def as_uuid(named: str) -> UUID | None:
    """The id as it is in rows; None if it is none."""
    try:
        return UUID(named)
    except ValueError:
        return None


def _since(id_: UUID) -> datetime:
    """From when on there may be something of this id."""
    if id_.version != 7:
        return datetime(2020, 1, 1, tzinfo=UTC)
    return min(time_of(id_), datetime.now(UTC)) - BEFORE
