"""What keeps back all that a number or a campaign would send, whatever policy says: in words, for whose it is."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

from redis.exceptions import RedisError

from harkara.bus.api import Api
from harkara.bus.errors import BusError
from harkara.bus.pausing import is_paused
from harkara.http.route import PREFIX
from harkara.schemas.api import Why
from harkara.schemas.reasons import ENROLLING_PAUSED, GATEWAY, HELD_BACK, SEEN_TO, addressed
from harkara.storage import idling, pausing
from harkara.storage.idling import Passing, Standstill
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


def by_number(sender: Sender, passes: Passing, now: datetime) -> Why | None:
    """That this number sends nothing now, and why; None if it does."""
    return _of(sender.id, idling.standstill({name: getattr(sender, name) for name in idling.TOLD}, passes, now))


def by_what_passes(sender_id: UUID, passes: Passing, now: datetime) -> Why | None:
    """The same of a number whose row says that it sends."""
    return _of(sender_id, passes.standstill(now))


def _of(sender_id: UUID, found: Standstill | None) -> Why | None:
    if found is None:
        return None
    told = GATEWAY.get(found.error_code or 0)
    return _why(found.code, found.reason, told and told.todo, sender_id=sender_id)


async def passing(redis: Redis, ids: Collection[UUID]) -> defaultdict[UUID, Passing]:
    """What of these numbers passes in seconds, which Redis alone knows. Without Redis nothing is known."""
    found = defaultdict[UUID, Passing](Passing)
    with suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(REDIS_PATIENCE_S):
            found.update(await idling.passing(redis, ids))
    return found


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
