"""Conversations: what contacts and our numbers say to each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from harkara.http import media
from harkara.http.context import Context
from harkara.http.lists import before, cursor, page
from harkara.http.message_list import why
from harkara.http.problems import invalid, not_found
from harkara.http.search import LOOKED_AT, Search, Searched
from harkara.ids import time_of
from harkara.policy.fits import wording
from harkara.policy.window import closes_at
from harkara.schemas.api import (
    ConversationQuery,
    ConversationShown,
    MediaShown,
    Page,
    Paging,
    ReplyQuery,
    ReplyShown,
    Said,
)
from harkara.schemas.content import Template

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Filters, of which the first that is given is served by an index together with the order; the others pick.
FILTERS = ("contact_id", "assigned_to", "unassigned", "sender_id", "status")

#: In the place of a user's id: whoever asks.
ME = "me"

SHOWN = """
select c.id, c.contact_id, k.name as contact_name, k.phone as contact_phone, c.sender_id, c.status, c.assigned_to,
       c.last_inbound_at, c.last_activity, c.read_at, c.closed_at, c.created_at, s."window" as sender_window
from {found} c join contacts k on k.id = c.contact_id join senders s on s.id = c.sender_id
"""

ONE = SHOWN.format(found="conversations") + " where c.id = $1"

#: Both sides, newest first. Each side is cut to a page before they are put together.
MESSAGES = """
(select r.id, 'in' as direction, r.received_at as at, r.type, r.text, r.payload::text as content, null as status,
        r.reply_to, r.context_wamid as reply_to_wamid, null as reason, null::int as error_code, null as components
 from replies r
 where r.tenant_id = (select app.tenant()) and r.conversation_id = $1 and r.id < $4 order by r.id desc limit $5)
union all
(select m.id, 'out', coalesce(m.sent_at, m.created_at), null, m.content ->> 'body', m.content::text, m.status,
        m.reply_to, null, m.reason, m.error_code,
        (select e.components::text from templates e
         where e.tenant_id = m.tenant_id and e.sender_id = m.sender_id and e.name = m.content -> 'template' ->> 'name'
           and e.language = coalesce(m.content -> 'template' ->> 'language', 'en'))
 from messages m
 where m.tenant_id = (select app.tenant()) and m.contact_id = $2 and m.sender_id = $3 and m.id < $4
 order by m.id desc limit $5)
order by id desc limit $5
"""

#: What is shown of a reply and is no column of that name.
NO_COLUMNS = frozenset({"media", "reply_to_wamid"})

REPLIES = Searched(
    table="replies",
    columns=(*(name for name in ReplyShown.__struct_fields__ if name not in NO_COLUMNS), "context_wamid"),
    found_by=("contact_id", "conversation_id"),
    picked_by=("sender_id",),
)


async def index(ctx: Context[None, ConversationQuery]) -> Page[ConversationShown]:
    """Conversations, the one where something was said last first."""
    if ctx.query.assigned_to == ME and ctx.who.user_id is None:
        raise invalid(("assigned_to", "`me` is a user: with an API key, give the id of one"))
    found = _Found(ctx.tenant, ctx.query, ctx.who.user_id)
    async with ctx.transaction() as con:
        rows = await con.fetch(found.page, *found.values)
        last = rows[ctx.query.limit - 1]["last_activity"] if len(rows) > ctx.query.limit else await found.last(con)
    items = [_shown(row) for row in rows[: ctx.query.limit]]
    return Page(items=items, next=None if last is None else cursor(last))


class _Found:
    """The statement of one page. Names the tenant although row-level security does too: see `lists.newest`."""

    def __init__(self, tenant: str, query: ConversationQuery, me: UUID | None) -> None:
        self._me = me
        self.values: list[Any] = [tenant, before(query)]
        self._limit = query.limit + 1
        given = [name for name in FILTERS if getattr(query, name)]
        by, *picks = [self._is(name, query) for name in given] or ["true"]
        #: How many of the values the inner part has.
        self._inner = 2 + len([name for name in given[:1] if name != "unassigned"])
        self._rows = f"from conversations where tenant_id = $1 and last_activity < $2 and {by}"
        self._picks = " and ".join(picks)

    def _is(self, name: str, query: ConversationQuery) -> str:
        if name == "unassigned":
            return "assigned_to is null"
        self.values.append(self._me if name == "assigned_to" and query.assigned_to == ME else getattr(query, name))
        return f"{name} = ${len(self.values)}"

    @property
    def page(self) -> str:
        """The page, and one more if there are more."""
        rows = f"select * {self._rows} order by last_activity desc limit "
        if self._picks:
            rows = f"select * from ({rows} {LOOKED_AT}) one where {self._picks} order by last_activity desc limit "  # noqa: S608
        return SHOWN.format(found=f"({rows} {self._limit})") + " order by c.last_activity desc"

    async def last(self, con: Connection) -> UUID | None:
        """The last conversation that was looked at, if more are left than a page looks at."""
        if not self._picks:
            return None
        statement = f"select last_activity {self._rows} order by last_activity desc offset {LOOKED_AT - 1} limit 1"
        found: UUID | None = await con.fetchval(statement, *self.values[: self._inner])
        return found


def _shown(row: Any) -> ConversationShown:
    told = dict(row)
    window, inbound = told.pop("sender_window"), told["last_inbound_at"]
    until = closes_at(inbound) if window == "enforce" else None
    return msgspec.convert(
        {**told, "last_activity_at": time_of(told["last_activity"]), "window_until": until}, ConversationShown
    )


async def show(ctx: Context[None, None]) -> ConversationShown:
    """One conversation."""
    async with ctx.transaction() as con:
        return await told(con, ctx.id("conversation_id"))


async def told(con: Connection, id_: UUID) -> ConversationShown:
    """A conversation as it is shown. Raises Problem 404 if there is none."""
    row = await con.fetchrow(ONE, id_)
    if row is None:
        raise not_found("conversation")
    return _shown(row)


async def messages(ctx: Context[None, Paging]) -> Page[Said]:
    """What was said in one conversation by both sides, newest first."""
    id_ = ctx.id("conversation_id")
    async with ctx.transaction() as con:
        found = await con.fetchrow("select contact_id, sender_id from conversations where id = $1", id_)
        if found is None:
            raise not_found("conversation")
        rows = await con.fetch(
            MESSAGES, id_, found["contact_id"], found["sender_id"], before(ctx.query), ctx.query.limit + 1
        )
        files = await media.of_replies(con, ctx.tenant, [row["id"] for row in rows if row["direction"] == "in"])
    return page([_said(row, found["sender_id"], files.get(row["id"])) for row in rows], ctx.query)


def _said(row: Any, sender_id: UUID, file: MediaShown | None) -> Said:
    content: dict[str, Any] = msgspec.json.decode(row["content"])
    text = row["text"]
    if row["components"] is not None:
        text = wording(msgspec.convert(content["template"], Template), msgspec.json.decode(row["components"]))
    return Said(
        id=row["id"],
        direction=row["direction"],
        at=row["at"],
        type=row["type"] or _kind(content),
        text=text,
        content=content,
        status=row["status"],
        why=row["status"] and why(row["id"], sender_id, row["status"], row["reason"], row["error_code"]),
        reply_to=row["reply_to"],
        reply_to_wamid=row["reply_to_wamid"],
        media=file,
    )


def _kind(content: dict[str, Any]) -> str:
    """What one of our messages is: the kind of its content; `body` is a text."""
    kind = next(iter(content), "body")
    return "text" if kind == "body" else kind


async def replies(ctx: Context[None, ReplyQuery]) -> Page[ReplyShown]:
    """What contacts wrote, newest first."""
    async with ctx.transaction() as con:
        rows, last = await Search(REPLIES, ctx.tenant, ctx.query).run(con)
        files = await media.of_replies(con, ctx.tenant, [row["id"] for row in rows])
    items = [_reply(row, files.get(row["id"])) for row in rows]
    return Page(items=items, next=None if last is None else cursor(last))


def _reply(row: Any, file: MediaShown | None) -> ReplyShown:
    told = {**row, "payload": msgspec.json.decode(row["payload"]), "reply_to_wamid": row["context_wamid"]}
    return msgspec.convert({**told, "media": file}, ReplyShown)
