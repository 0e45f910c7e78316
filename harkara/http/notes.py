"""Remarks in conversations, for colleagues."""

from __future__ import annotations

from harkara.http.context import Context
from harkara.http.lists import newest, page
from harkara.http.problems import not_found
from harkara.schemas.api import NewNote, NoteShown, Page, Paging
from harkara.schemas.events import ConversationNoted
from harkara.storage.models import Conversation, ConversationNote


async def index(ctx: Context[None, Paging]) -> Page[NoteShown]:
    """Remarks in a conversation, newest first."""
    async with ctx.transaction():
        conversation = await _get(ctx)
        rows = await newest(ConversationNote.filter(conversation_id=conversation.id), ctx.tenant, ctx.query)
    return page([_shown(row) for row in rows], ctx.query)


async def create(ctx: Context[NewNote, None]) -> NoteShown:
    """Leave a remark for colleagues; the contact never sees it."""
    async with ctx.transaction() as con:
        conversation = await _get(ctx)
        row = await ConversationNote.create(
            conversation_id=conversation.id,
            contact_id=conversation.contact_id,
            text=ctx.body.text,
            by_user=ctx.who.user_id,
            by_key=ctx.who.key_id,
        )
        event = ConversationNoted(
            id=str(conversation.id),
            contact_id=str(conversation.contact_id),
            sender_id=str(conversation.sender_id),
            note_id=str(row.id),
        )
        await ctx.tell(con, event, f"{row.id}.noted")
    return _shown(row)


async def _get(ctx: Context[NewNote, None] | Context[None, Paging]) -> Conversation:
    row = await Conversation.get_or_none(id=ctx.id("conversation_id"))
    if row is None:
        raise not_found("conversation")
    return row


def _shown(row: ConversationNote) -> NoteShown:
    return NoteShown(
        id=row.id,
        conversation_id=row.conversation_id,
        text=row.text,
        user_id=row.by_user,
        api_key_id=row.by_key,
        created_at=row.created_at,
    )
