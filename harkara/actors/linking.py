"""What only gateways tell that lend a phone's account: part of the receipts.

Our id does not travel with a message there. A status finds its message by the key that sending answered, which may not
be written yet; and a message whose answer was lost is recognised by its echo: who got it, from which number, and what
it says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from loguru import logger

from harkara.bus.messages import Delivery, Outgoing
from harkara.gateway.reports import parse
from harkara.gateway.told import Echo, SessionChange, StatusUpdate, Webhook
from harkara.gateway.unread import UNREADABLE
from harkara.schemas import events
from harkara.schemas.work import Inbound, Send
from harkara.storage import linking
from harkara.storage.receiving import Moved

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

Webhooks = Sequence[tuple[Delivery[Inbound], Webhook]]

#: The source whose statuses carry our own id.
CARRIES_OUR_ID = "whatsapp"

#: For so long after it came a status waits for its message: longer than a request to the gateway may take.
TOO_EARLY = timedelta(seconds=20)
TOO_EARLY_AGAIN = timedelta(seconds=1)

#: A message is recognised by an echo that came at most so long after the attempt; clocks differ by a little.
ECHOES_WITHIN = timedelta(minutes=15)
CLOCKS_DIFFER = timedelta(seconds=5)

_SENT_STATUSES = frozenset({"sent", "delivered", "read", "failed"})


async def recognised(con: Connection, webhooks: Webhooks) -> list[tuple[Delivery[Inbound], Webhook]]:
    """The webhooks, with a status added for each echo of a message of ours that had no answer."""
    if not any(webhook.echoes for _, webhook in webhooks):
        return list(webhooks)
    return [(d, await _recognised(con, d, webhook) if webhook.echoes else webhook) for d, webhook in webhooks]


async def _recognised(con: Connection, d: Delivery[Inbound], webhook: Webhook) -> Webhook:
    found: list[StatusUpdate] = []
    for echo in webhook.echoes:
        id_ = await _ours(con, d, echo)
        if id_ is not None:
            found.append(StatusUpdate(echo.wamid, "sent", echo.at, str(id_), None, None, None))
    return replace(webhook, statuses=[*found, *webhook.statuses])


async def _ours(con: Connection, d: Delivery[Inbound], echo: Echo) -> UUID | None:
    """The one message that it can be; None if there is none, or more than one."""
    phone = f"+{echo.phone}" if echo.phone else None
    sender = UUID(d.message.sender_id)
    window = d.at - ECHOES_WITHIN, d.at + CLOCKS_DIFFER
    candidates = await linking.unanswered(con, d.tenant, sender, phone, echo.user_id, echo.wamid, window)
    fitting = [id_ for id_, text in candidates if text is not None and text.strip() == echo.text.strip()]
    if len(fitting) > 1:
        logger.info("an echo to {} could be of {} messages, and settles none ({})", d.tenant, len(fitting), echo.wamid)
    return fitting[0] if len(fitting) == 1 else None


def too_early(d: Delivery[Inbound], webhook: Webhook, moved: Mapping[tuple[str, str], Moved]) -> bool:
    """Whether a status came before the answer that names its message was written, as far as can be known."""
    if d.message.source == CARRIES_OUR_ID or datetime.now(UTC) - d.at > TOO_EARLY:
        return False
    return any((d.tenant, one.wamid) not in moved for one in webhook.statuses if one.status in _SENT_STATUSES)


def may_settle(work: Send) -> Callable[[bytes], bool]:
    """Whether a webhook, as it is stored, may settle this message: it says our id, or echoes what its number sent."""
    id_ = work.message_id.encode()

    def may(stored: bytes) -> bool:
        if id_ in stored:
            return True
        try:
            webhook = msgspec.json.decode(stored, type=Inbound)
            if webhook.source == CARRIES_OUR_ID or webhook.sender_id != work.sender_id:
                return False
            return any(one.echoes for one in parse(webhook.source, webhook.body, datetime.now(UTC)).values())
        except UNREADABLE:  # for whoever is to read it, too
            return False

    return may


async def sessions(con: Connection, webhooks: Webhooks) -> list[list[Outgoing]]:
    """Note which phones were linked and lost; what is to be told of each webhook."""
    return [[told for change in webhook.sessions for told in await _session(con, d, change)] for d, webhook in webhooks]


async def _session(con: Connection, d: Delivery[Inbound], change: SessionChange) -> list[Outgoing]:
    sender = UUID(d.message.sender_id)
    before = await linking.session_changed(con, d.tenant, sender, change.state, change.detail, change.clock)
    if before is None:
        return []
    connected = change.state == "working"
    if connected == (before == "working"):
        return []
    kind = events.SenderConnected if connected else events.SenderDisconnected
    event = kind(id=d.message.sender_id, state=change.state, reason=change.detail)
    return [Outgoing(event, d.tenant, f"{d.message.sender_id}.{change.state}.{d.id}", d.cause or d.id)]
