"""Messages as they are told: page by page, or one with all that happened to it."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import Any, cast
from uuid import UUID

import msgspec

from harkara.http.context import Context
from harkara.http.held_back import by_campaign, by_number, by_operator, passing
from harkara.http.lists import cursor
from harkara.http.problems import not_found
from harkara.http.rows import shown
from harkara.http.search import Search, Searched
from harkara.policy.gate import Suppress, judge
from harkara.schemas.api import (
    AcceptedStory,
    MessageQuery,
    MessageShown,
    MessageStatus,
    MessageStory,
    Moment,
    Page,
    PricingShown,
    Why,
)
from harkara.schemas.content import Content
from harkara.schemas.reasons import ENDED, Words, addressed, stopped, words
from harkara.storage import sending
from harkara.storage.models import Campaign, ContactCampaignProgress, Message, Sender
from harkara.storage.sending import Attempt

#: What is true of every message of a status, and of few others: small indexes hold those.
IMPLIED = {
    "queued": "sent_at is null",
    "sending": "sent_at is null",
    "unknown": "sent_at is null",
    "suppressed": "sent_at is null",
    "failed": "failed_at is not null",
}

#: Messages, by filters that an index serves and by others.
MESSAGES = Searched(
    table="messages",
    columns=MessageShown.__struct_fields__,
    found_by=("contact_id", "campaign_id", "invoice_id"),
    picked_by=("status", "sender_id", "lane", "reason", "error_code", "to"),
    implied=IMPLIED,
    phones=("to",),
)

#: A message younger than this may still be on its way into the table, from any process.
YOUNG = timedelta(seconds=10)

#: How long to wait for such a one before saying that there is none.
PATIENCE = timedelta(seconds=1)

LOOK_EVERY = timedelta(milliseconds=20)

#: What has been due for less than that is on its way: nobody asks for more.
MOMENT = timedelta(seconds=2)

#: As exactly as WhatsApp tells when something happened.
A_SECOND = timedelta(seconds=1)

#: When what happened: the column and the status it means, in order.
MOMENTS: tuple[tuple[str, MessageStatus], ...] = (
    ("created_at", "queued"),
    ("attempted_at", "sending"),
    ("sent_at", "sent"),
    ("delivered_at", "delivered"),
    ("read_at", "read"),
    ("failed_at", "failed"),
)


async def index(ctx: Context[None, MessageQuery]) -> Page[MessageShown]:
    """Messages, newest first: by when they were due.

    A filter that few messages pass gives short pages: read on as long as there is a `next`.
    """
    async with ctx.transaction() as con:
        rows, last = await Search(MESSAGES, ctx.tenant, ctx.query).run(con)
    return Page(items=[_shown(row) for row in rows], next=None if last is None else cursor(last))


def _shown(row: Any) -> MessageShown:
    return _settled(msgspec.convert({**row, "content": msgspec.json.decode(row["content"])}, MessageShown))


def _settled(told: MessageShown) -> MessageShown:
    """What is in doubt no more, or was sent once more, has no time at which it will be."""
    waits = told.status == "unknown" and not told.resent
    return told if waits or told.resend_at is None else msgspec.structs.replace(told, resend_at=None)


async def show(ctx: Context[None, None]) -> MessageStory | AcceptedStory:
    """One message with its timeline and, if it went no further, why.

    One that was accepted a moment ago is waited for, never denied.
    """
    id_ = ctx.id("message_id")
    message = await find(ctx, id_)
    if message is None:
        accepted_at = ctx.door.accepted.at(ctx.tenant, id_)
        if accepted_at is None:
            raise not_found("message")
        return AcceptedStory(id=id_, status="accepted", timeline=[Moment(at=accepted_at, status="accepted")])
    return MessageStory(
        timeline=_timeline(message),
        why=await _to_come(ctx, message) or await _waits_for(ctx, message) or await _ended(ctx, message),
        pricing=_pricing(message),
        **msgspec.structs.asdict(_settled(shown(message, MessageShown))),
    )


async def find(ctx: Context[None, None], id_: UUID) -> Message | None:
    """The message; a young one may still be on its way, and is waited for. None if there is none."""
    now = ctx.door.clock()
    accepted_at = ctx.door.accepted.at(ctx.tenant, id_)
    young = _young(id_, now) if accepted_at is None else now - accepted_at < YOUNG
    patience = PATIENCE if young else timedelta()
    while True:
        async with ctx.transaction():
            message = await Message.get_or_none(id=id_)
        if message is not None or patience <= timedelta():
            return message
        await asyncio.sleep(LOOK_EVERY.total_seconds())
        patience -= LOOK_EVERY


def _young(id_: UUID, now: datetime) -> bool:
    milliseconds = id_.int >> 80  # what is no UUIDv7 has no time there, and may be far from any
    return id_.version == 7 and abs(now.timestamp() * 1000 - milliseconds) < YOUNG.total_seconds() * 1000


def _timeline(message: Message) -> list[Moment]:
    """In the order in which they must have been: WhatsApp tells whole seconds, and in its second nothing goes back."""
    moments = list[Moment]()
    for name, status in MOMENTS:
        at: datetime | None = getattr(message, name)
        if at is not None:
            before = moments[-1].at if moments else at
            moments.append(Moment(at=before if timedelta() < before - at < A_SECOND else at, status=status))
    if all(moment.status != message.status for moment in moments):
        moments.append(Moment(at=message.updated_at, status=cast("MessageStatus", message.status)))
    return moments


def _pricing(message: Message) -> PricingShown | None:
    row: Any = message
    told: dict[str, Any] | None = row.pricing
    if told is None:
        return None
    words = {name: str(told[name]) for name in ("type", "category", "origin") if told.get(name) is not None}
    model, billable = told.get("pricing_model"), told.get("billable")
    return PricingShown(
        billable=billable if isinstance(billable, bool) else None,
        model=None if model is None else str(model),
        type=words.get("type"),
        category=words.get("category"),
        origin=words.get("origin"),
    )


async def _ended(ctx: Context[None, None], message: Message) -> Why | None:
    """Why a message went no further, by its row and, if its enrolment was stopped, by that one's."""
    found = words(message.status, message.reason, message.error_code)
    if found is None:
        return None
    code, said = found
    if code == "enrollment_stopped":
        async with ctx.transaction():
            enrollment = await ContactCampaignProgress.get_or_none(id=message.enrollment_id)
        if enrollment is not None and enrollment.stopped_reason:
            said = stopped(said, enrollment.stopped_reason)
    return _told(message.id, message.sender_id, code, said)


async def _to_come(ctx: Context[None, None], message: Message) -> Why | None:
    """Why a message that still waits will not leave, as far as is known now: the gate is asked, as it will be then."""
    if message.status != "queued":
        return None
    attempt = _attempt(message)
    async with ctx.transaction() as con:
        [facts] = await sending.facts(con, [attempt])
    leaves_at = max(filter(None, (facts.now, message.due_at, message.deferred_until)))
    # What confirms an opt-out follows it at once, and can't be told from other messages here: it is never scheduled.
    attempt = msgspec.structs.replace(attempt, confirms=leaves_at == facts.now)
    verdict = judge(msgspec.structs.replace(facts, now=leaves_at), attempt)
    if not isinstance(verdict, Suppress):
        return None
    said = ENDED[verdict.reason]
    if verdict.reason == "enrollment_stopped" and (reason := facts.stopped_reason):
        said = stopped(said, reason)
    return _told(message.id, message.sender_id, verdict.reason, said)


async def _waits_for(ctx: Context[None, None], message: Message) -> Why | None:
    """What holds back a message that policy lets leave by now; a campaign that is paused also what is not due."""
    if message.status != "queued":
        return None
    async with ctx.transaction():
        campaign = None if message.campaign_id is None else await Campaign.get_or_none(id=message.campaign_id)
        sender = await Sender.get_or_none(id=message.sender_id)
    if campaign is not None and (paused := by_campaign(campaign)) is not None:
        return paused
    now = ctx.door.clock()
    due_at = max(filter(None, (message.due_at, message.deferred_until)))
    if sender is None or due_at > now:
        return None
    passes = await passing(ctx.door.redis, [sender.id])
    if (stopped := by_number(sender, passes[sender.id], now)) is not None:
        return stopped
    return await by_operator(ctx.door.bus, "sender") if now - due_at > MOMENT else None


def _attempt(message: Message) -> Attempt:
    """A message as the gate will judge it, as far as its row says."""
    row: Any = message
    template = msgspec.convert(row.content, Content).template
    return Attempt(
        message.id,
        row.tenant_id,
        message.contact_id,
        message.sender_id,
        message.campaign_id,
        message.enrollment_id,
        message.step,
        message.lane,
        message.to,
        "{}",
        message.cause,
        message.due_at,
        message.step_id,
        template=template.name if template else None,
        language=template.language if template else None,
        invoice_id=message.invoice_id,
        follows=True,  # whether its number was asked for is not in the row
    )


def why(id_: UUID, sender_id: UUID, status: str, reason: str | None, error_code: int | None) -> Why | None:
    """Why a message went no further, by its row alone; None if nothing stands in its way."""
    found = words(status, reason, error_code)
    return None if found is None else _told(id_, sender_id, *found)


def _told(id_: UUID, sender_id: UUID, code: str, words: Words) -> Why:
    return Why(code=code, text=words.text, todo=addressed(words.todo, id=id_, sender_id=sender_id))
