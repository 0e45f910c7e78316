"""What people do in a conversation: read, answer, give it to somebody, close it and open it again."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from harkara.http.accepting import accept
from harkara.http.access import role_suffices
from harkara.http.context import Answer, Context
from harkara.http.conversations import told
from harkara.http.messages import Quoted, accept_message
from harkara.http.problems import Problem, conflict
from harkara.http.route import PREFIX
from harkara.ids import uuid7
from harkara.policy.window import is_open
from harkara.schemas.api import Accepted, Assign, ConversationShown, MarkRead, NewMessage, Outcome, ReplyTo
from harkara.schemas.commands import MarkConversationRead
from harkara.schemas.events import ConversationUpdated

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

MEMBER = "select role from tenant_users where user_id = $1 and is_active"

SAID = "update conversations set last_activity = greatest(last_activity, $2), updated_at = now() where id = $1"

ASSIGN = "update conversations set assigned_to = $2, updated_at = now() where id = $1"

CLOSE = "update conversations set status = 'closed', closed_at = $2, updated_at = now() where id = $1"

REOPEN = "update conversations set status = 'open', closed_at = null, updated_at = now() where id = $1"

READ = "update conversations set read_at = $2 where id = $1"

#: Replies that are no messages which anybody sees: they can't be marked as read, nor quoted.
NO_MESSAGES = "'system', 'reaction', 'call'"

LAST_REPLY = f"""
select wamid from replies where tenant_id = $1 and conversation_id = $2 and type not in ({NO_MESSAGES})
order by id desc limit 1
"""  # noqa: S608 - our own words

#: What may be quoted in a conversation.
QUOTED = f"""
select r.wamid from replies r
where r.id = $2 and r.tenant_id = $1 and r.conversation_id = $3 and r.type not in ({NO_MESSAGES})
union all
select m.wamid from messages m where m.id = $2 and m.tenant_id = $1 and m.contact_id = $4 and m.sender_id = $5
"""  # noqa: S608 - our own words

#: The further number that the contact wrote from last, if it is still one of its: what is answered goes there.
FURTHER = """
select n.phone from (
  select '+' || split_part(payload ->> 'from', '@', 1) as phone from replies
  where tenant_id = $1 and conversation_id = $2 and payload ? 'from' order by id desc limit 1) r
join phone_numbers n on n.tenant_id = $1 and n.contact_id = $3 and n.phone = any (app.spellings(r.phone))
"""

LOCK = "select id from conversations where id = $1 for update"


async def reply(ctx: Context[ReplyTo, None]) -> Answer[Accepted | Outcome]:
    """Answer the contact from the conversation's own number, as a message of the `utility` lane, where it wrote from.

    409 if that number keeps to WhatsApp's 24-hour window, the contact last wrote longer ago, and this is no template.
    It is judged again when the message leaves. 404 if what it quotes is not of this conversation, 409 if that has not
    reached WhatsApp yet.
    """
    id_, said = ctx.id("conversation_id"), ctx.body
    async with ctx.transaction() as con:
        conversation = await told(con, id_)
        enforces = await con.fetchval(
            "select \"window\" = 'enforce' from senders where id = $1", conversation.sender_id
        )
        quoted = None if said.reply_to is None else await _quoted(ctx.tenant, con, conversation, said.reply_to)
        further = await con.fetchval(FURTHER, ctx.tenant, id_, conversation.contact_id)
    if enforces and said.template is None:
        _need_window(conversation.last_inbound_at, ctx.door.clock())
    wanted = NewMessage(
        sender_id=conversation.sender_id,
        contact_id=conversation.contact_id,
        body=said.body,
        template=said.template,
        media=said.media,
        interactive=said.interactive,
    )
    answer = await accept_message(ctx, wanted, quoted, further=further)
    with suppress(Problem):  # it is accepted: that the list is out of order for a while must not have it sent twice
        async with ctx.transaction() as con:
            await con.execute(SAID, id_, uuid7(ctx.door.clock()))
    return answer


async def _quoted(tenant: str, con: Connection, conversation: ConversationShown, id_: UUID) -> Quoted:
    """What is quoted, as its gateway knows it. Raises Problem 404 or 409."""
    found = await con.fetchrow(QUOTED, tenant, id_, conversation.id, conversation.contact_id, conversation.sender_id)
    if found is None:
        raise Problem(
            404,
            "there is no such message or reply in this conversation that can be quoted: check reply_to",
            errors=[("reply_to", "is nothing that was said in this conversation")],
        )
    if found["wamid"] is None:
        raise Problem(
            409,
            "what reply_to names has not reached WhatsApp, where nobody can see yet what is quoted: leave it out",
            errors=[("reply_to", "has not reached WhatsApp")],
        )
    return Quoted(id_, found["wamid"])


async def read(ctx: Context[MarkRead | None, None]) -> Answer[Accepted]:
    """Show the contact that its messages were read, and with `typing` that somebody is writing an answer.

    409 if there is none to read. Gateways that can't show it leave it be.
    """
    id_ = ctx.id("conversation_id")
    async with ctx.transaction() as con:
        conversation = await told(con, id_)
        wamid = await con.fetchval(LAST_REPLY, ctx.tenant, id_)
        if wamid is None:
            raise conflict("this contact has not written to this number yet: there is nothing to read")
        await con.execute(READ, id_, ctx.door.clock())
    typing = ctx.body is not None and ctx.body.typing
    command = MarkConversationRead(sender_id=str(conversation.sender_id), wamid=wamid, typing=typing)
    return await accept(ctx, command, Accepted(id=ctx.new_id()), f"{PREFIX}/conversations/{id_}", None)


def _need_window(last_inbound_at: datetime | None, now: datetime) -> None:
    if last_inbound_at is None:
        raise conflict("this contact has not written to this number yet: send an approved template first")
    if not is_open(last_inbound_at, now):
        raise conflict(
            "this contact last wrote more than 24 hours ago: send an approved template instead",
            last_inbound_at=last_inbound_at,
        )


async def assign(ctx: Context[Assign, None]) -> ConversationShown:
    """Give a conversation to a member of the tenant, or with null to nobody in particular."""
    user = ctx.body.user_id
    async with ctx.transaction() as con:
        if user is not None:
            await _need_member(con, user)
        return await _changed(ctx, con, ASSIGN, user)


async def _need_member(con: Connection, user: UUID) -> None:
    role = await con.fetchval(MEMBER, user)
    if role is None:
        raise Problem(
            404,
            "there is no such active member: GET /api/v1/users tells who there is",
            errors=[("user_id", "is no active member")],
        )
    if not role_suffices(role, "agent"):
        raise conflict(f"this member is {role} and can't answer: give it to an agent, an admin or an owner")


async def close(ctx: Context[None, None]) -> ConversationShown:
    """Close a conversation. The contact's next message opens it again."""
    async with ctx.transaction() as con:
        return await _changed(ctx, con, CLOSE, ctx.door.clock(), unless="closed")


async def reopen(ctx: Context[None, None]) -> ConversationShown:
    """Open a closed conversation again."""
    async with ctx.transaction() as con:
        return await _changed(ctx, con, REOPEN, unless="open")


async def _changed(
    ctx: Context[Any, Any], con: Connection, statement: str, *values: object, unless: str | None = None
) -> ConversationShown:
    """Run a statement on the conversation and tell it, unless it is as it shall be. Raises Problem 404."""
    id_ = ctx.id("conversation_id")
    await con.execute(LOCK, id_)
    before = await told(con, id_)
    if before.status == unless:
        return before
    await con.execute(statement, id_, *values)
    after = await told(con, id_)
    event = ConversationUpdated(
        id=str(id_),
        contact_id=str(after.contact_id),
        sender_id=str(after.sender_id),
        status=after.status,
        assigned_to=None if after.assigned_to is None else str(after.assigned_to),
    )
    await ctx.tell(con, event, f"{id_}.updated.{ctx.cause}")
    return after
