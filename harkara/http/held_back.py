"""What keeps back all that a number or a campaign would send, whatever policy says: in words, for whose it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from redis.exceptions import RedisError

from harkara.bus.api import Api
from harkara.bus.errors import BusError
from harkara.bus.pausing import is_paused
from harkara.http.route import PREFIX
from harkara.schemas.api import Why
from harkara.schemas.reasons import ENROLLING_PAUSED, GATEWAY, HELD_BACK, SEEN_TO, addressed
from harkara.storage import pausing, redis_keys
from harkara.storage.linking import UNLINKED
from harkara.storage.models import Campaign, Sender

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from harkara.bus.connection import Bus

#: The broker answers in some milliseconds, or it is away.
PATIENCE_S = 1.0

#: Redis answers in well under a millisecond, or it is away.
REDIS_PATIENCE_S = 0.25

#: As what it is told that an operator has paused an actor.
_PAUSED = {"sender": HELD_BACK["actor_paused"], "enrollment": ENROLLING_PAUSED}

_ASK = "ask the operator, who alone can have it go on"


def by_number(sender: Sender, now: datetime) -> Why | None:
    """That this number sends nothing now, and why; None if it does."""
    told = GATEWAY.get(sender.error_code or 0)
    reason = sender.status_reason or (told and told.text)
    first = told and told.todo
    if sender.status != "active":
        return _why("number_stopped", reason, first, sender_id=sender.id)
    if sender.session_state in UNLINKED:
        return _why("number_disconnected", sender.session_detail, sender_id=sender.id)
    if sender.held_until is not None and sender.held_until > now:
        return _why("number_rests", reason, first, sender_id=sender.id)
    return None


async def note_rests(redis: Redis, senders: Sequence[Sender]) -> None:
    """A short rest is in Redis alone: have `held_until` of these rows, which are only shown, say it too.

    What a row says of a rest that is over is not why it rests now. Without Redis it is not known.
    """
    now = datetime.now(UTC)
    with suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(REDIS_PATIENCE_S):
            told: Any = await redis.mget([redis_keys.hold(sender.id) for sender in senders]) if senders else []
        for sender, until in zip(senders, told, strict=True):
            if until:
                rests = datetime.fromtimestamp(int(until) / 1e6, UTC)
                if sender.status == "active" and (sender.held_until or now) <= now < rests:
                    for name in ("status_reason", "error_code"):
                        setattr(sender, name, None)
                sender.held_until = max(rests, sender.held_until or rests)


def stopped(sender_id: UUID, status: str, reason: str | None) -> str:
    """How a number is that was to send and is not active, and what to do."""
    how = f"{status} ({reason})" if reason else status
    return f"{how}: {_ASK if pausing.by_operator(reason) else f'POST {PREFIX}/senders/{sender_id}/resume has it go on'}"


def by_campaign(campaign: Campaign) -> Why | None:
    """That this campaign is paused, and why; None if it is not."""
    if campaign.status != "paused":
        return None
    return _why("campaign_paused", campaign.status_reason, campaign_id=campaign.id)


async def by_operator(bus: Bus | None, *actors: str) -> Why | None:
    """That an operator has paused one of these actors; None if not, or if the broker doesn't say so at once."""
    if bus is None or not bus.connected:
        return None
    api = Api(lambda subject, data: bus.link.request(subject, data, PATIENCE_S))
    for actor in actors:
        with suppress(BusError):
            if await is_paused(api, actor):
                text, todo = _PAUSED[actor]
                return Why(code="actor_paused", text=text, todo=todo)
    return None


def _why(code: str, reason: str | None, first: str | None = None, **ids: UUID) -> Why:
    """The words of the table; with what to do `first`, as far as WhatsApp's error code tells."""
    text, todo = HELD_BACK[code]
    said = f"{text}: {reason}" if reason else text
    if first:
        todo = addressed(SEEN_TO[code], first=first)
    return Why(code=code, text=said, todo=_ASK if pausing.by_operator(reason) else addressed(todo, **ids))
