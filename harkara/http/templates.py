"""A sender's message templates: as WhatsApp has them, read again when somebody asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

from harkara.http.accepting import Expected, accept
from harkara.http.context import Answer, Context
from harkara.http.lists import listed, picked
from harkara.http.problems import conflict, not_found
from harkara.http.route import PREFIX
from harkara.http.rows import shown
from harkara.policy.templates import STOPPED
from harkara.schemas.api import Accepted, Outcome, Page, TemplateQuery, TemplateShown
from harkara.schemas.commands import SyncTemplates
from harkara.storage.models import Sender, Template

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: The providers whose gateways know templates.
WITH_TEMPLATES = ("cloud", "sandbox")

OUTCOMES = frozenset({"template.synced", "template.sync_failed"})


async def index(ctx: Context[None, TemplateQuery]) -> Page[TemplateShown]:
    """The templates of a sender's account, those that became known last first."""
    query = ctx.query
    exact = {name: word and word.lower() for name, word in (("status", query.status), ("category", query.category))}
    wanted = exact | {"language": query.language, "name__icontains": query.q}
    async with ctx.transaction():
        sender = await _sender(ctx)
        rows, last = await picked(Template.filter(sender_id=sender.id), ctx.tenant, query, wanted)
    return listed([shown(row, TemplateShown) for row in rows], last)


async def sync(ctx: Context[None, None]) -> Answer[Accepted | Outcome]:
    """Read the templates from WhatsApp now. They are read every hour anyway, and its webhooks tell of changes.

    Of a sender that names no account (`waba_id`) nobody can be asked: what WhatsApp has refused is tried again.
    """
    async with ctx.transaction():
        sender = await _sender(ctx)
        refused = Template.filter(sender_id=sender.id, status__in=[*STOPPED])
        has_templates = sender.provider in WITH_TEMPLATES
        may = may_sync(sender) or (has_templates and await refused.exists())
    if not may:
        raise conflict(
            "this sender names no account: PATCH it with its waba_id"
            if has_templates
            else f"the gateway of a sender of the provider {sender.provider} knows no templates"
        )
    return await accept(
        ctx,
        SyncTemplates(sender_id=str(sender.id)),
        Accepted(id=ctx.new_id()),
        f"{PREFIX}/senders/{sender.id}/templates",
        Expected(OUTCOMES, sender.id),
    )


async def _sender(ctx: Context[Any, Any]) -> Sender:
    sender = await Sender.get_or_none(id=ctx.id("sender_id"))
    if sender is None:
        raise not_found("sender")
    return sender


def may_sync(sender: Sender) -> bool:
    """Whether its gateway can be asked for templates."""
    return sender.waba_id is not None and sender.provider in WITH_TEMPLATES


async def soon(ctx: Context[Any, Any], con: Connection, sender_id: UUID) -> None:
    """Have the templates of a sender that this transaction makes or changes be read once it is committed."""
    await ctx.tell(con, SyncTemplates(sender_id=str(sender_id)), str(ctx.new_id()))
