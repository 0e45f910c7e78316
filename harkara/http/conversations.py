"""Conversations: what contacts and our numbers say to each other."""

from __future__ import annotations

from typing import Any

import msgspec

from harkara.http.context import Context
from harkara.http.lists import before, newest, page
from harkara.http.problems import not_found
from harkara.http.rows import shown
from harkara.schemas.api import ConversationShown, Page, Paging, ReplyQuery, ReplyShown, Said
from harkara.storage.models import Reply

LIST = """
select c.id, c.contact_id, k.name as contact_name, k.phone as contact_phone, c.sender_id, c.status, c.last_inbound_at,
       c.created_at
from conversations c join contacts k on k.id = c.contact_id
where c.tenant_id = (select app.tenant()) and c.id < $1 order by c.id desc limit $2
"""

#: Both sides, newest first. Each side is cut to a page before they are put together.
MESSAGES = """
(select r.id, 'in' as direction, r.received_at as at, r.type, r.text, r.payload::text as content, null as status
 from replies r
 where r.tenant_id = (select app.tenant()) and r.conversation_id = $1 and r.id < $4 order by r.id desc limit $5)
union all
(select m.id, 'out', coalesce(m.sent_at, m.created_at), null, m.content ->> 'body', m.content::text, m.status
 from messages m
 where m.tenant_id = (select app.tenant()) and m.contact_id = $2 and m.sender_id = $3 and m.id < $4
 order by m.id desc limit $5)
order by id desc limit $5
"""


async def index(ctx: Context[None, Paging]) -> Page[ConversationShown]:
    """Conversations, newest first."""
    async with ctx.transaction() as con:
        rows = await con.fetch(LIST, before(ctx.query), ctx.query.limit + 1)
    return page([msgspec.convert(dict(row), ConversationShown) for row in rows], ctx.query)


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
    return page([_said(row) for row in rows], ctx.query)


def _said(row: Any) -> Said:
    content: dict[str, Any] = msgspec.json.decode(row["content"])
    return Said(
        id=row["id"],
        direction=row["direction"],
        at=row["at"],
        type=row["type"] or _kind(content),
        text=row["text"],
        content=content,
        status=row["status"],
    )


def _kind(content: dict[str, Any]) -> str:
    """What one of our messages is: the kind of its content; `body` is a text."""
    kind = next(iter(content), "body")
    return "text" if kind == "body" else kind


async def replies(ctx: Context[None, ReplyQuery]) -> Page[ReplyShown]:
    """What contacts wrote, newest first."""
    async with ctx.transaction():
        rows = newest(Reply.all(), ctx.tenant, ctx.query)
        if ctx.query.contact_id is not None:
            rows = rows.filter(contact_id=ctx.query.contact_id)
        found = await rows
    return page([shown(row, ReplyShown) for row in found], ctx.query)
