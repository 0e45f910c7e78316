"""Takes in what WhatsApp tells: statuses of our messages and messages to us.

takes: `in.whatsapp`
says: message.sent, .delivered, .read, .failed; reply.received; contact.opted_out; enrollment.stopped
retries: while the database is away
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar
from uuid import UUID

import msgspec
from loguru import logger

from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Drop, Outcome
from harkara.bus.schedule import Schedule
from harkara.gateway.inbound import InboundMessage, StatusUpdate, parse
from harkara.ids import uuid7, uuid7_for
from harkara.schemas import events
from harkara.schemas.base import Message
from harkara.schemas.work import Inbound
from harkara.storage import enrolling, receiving
from harkara.storage.receiving import FORWARD, Moved, NewReply, Receipt
from harkara.storage.storage import Storage

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Words that mean "write to me no more", as people type them; compared in lower case without punctuation.
STOP_WORDS = frozenset(
    word
    for line in (
        "stop, stopall, unsubscribe, opt out, optout, end, quit, cancel",
        "arrêt, arret, désabonner, parar, pare, baja, cancelar, sair, abmelden, stopp, berhenti",
        "стоп, отписаться, توقف, إلغاء, रोकें, रोको, बंद करो, बंद, நிறுத்து",
    )
    for word in line.split(", ")
)

_EVENTS: dict[str, type[events.MessageEvent]] = {
    "sent": events.MessageSent,
    "delivered": events.MessageDelivered,
    "read": events.MessageRead,
    "failed": events.MessageFailed,
}

#: The statuses of a message that WhatsApp took.
_ARRIVED = ("sent", "delivered", "read")

Key = tuple[str, UUID]


class Receipts:
    """Writes a batch of webhooks in one transaction: statuses all at once, replies one by one in their order."""

    name: ClassVar[str] = "receipts"
    takes: ClassVar[tuple[type[Message], ...]] = (Inbound,)
    retries: ClassVar[Schedule] = Schedule.seconds(1, 5, 30, 120, 600, 3600, 21600)
    batch: ClassVar[int] = 100
    in_flight: ClassVar[int] = 1

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def handle(self, batch: Sequence[Delivery[Inbound]]) -> Sequence[Outcome]:
        """Take in each webhook; one that isn't Meta's goes to the dead letters."""
        parsed: list[tuple[list[StatusUpdate], list[InboundMessage]] | str] = []
        for delivery in batch:
            try:
                parsed.append(parse(delivery.message.body))
            except (msgspec.MsgspecError, KeyError, ValueError) as error:
                parsed.append(f"not a webhook of the Cloud API: {error}")
        told: list[list[Outgoing]] = [[] for _ in batch]
        async with self._storage.batch({d.tenant for d in batch}) as con:
            good = [(i, batch[i], found) for i, found in enumerate(parsed) if not isinstance(found, str)]
            moved = await _statuses(con, [(d, found[0]) for _, d, found in good])
            for index, delivery, (statuses, messages) in good:
                for status in statuses:
                    told[index] += _status_events(delivery, status, moved)
                for message in messages:
                    told[index] += await _reply(con, delivery, message)
        return [
            Drop(found) if isinstance(found, str) else Done(tuple(events_))
            for found, events_ in zip(parsed, told, strict=True)
        ]


async def _statuses(
    con: Connection, found: Iterable[tuple[Delivery[Inbound], list[StatusUpdate]]]
) -> dict[tuple[str, str], Moved]:
    """Write all statuses. Returns what is known now of each message, by (tenant, wamid)."""
    updates = [(d, status) for d, statuses in found for status in statuses]
    strangers = [(d.tenant, s.wamid) for d, s in updates if _ours(s) is None]
    known = await receiving.by_wamid(con, strangers)
    receipts: dict[Key, Receipt] = {}
    for d, status in updates:
        id_ = _ours(status) or known.get((d.tenant, status.wamid))
        if id_ is None:
            logger.info("a status of {} is for no message of ours (wamid {})", d.tenant, status.wamid)
        elif status.status in _EVENTS:
            key = (d.tenant, id_)
            receipts[key] = merge(receipts.get(key), id_, d.tenant, status)
    moved = await receiving.receive(con, [receipts[key] for key in sorted(receipts, key=lambda key: key[1])])
    return {(m.tenant, receipts[m.tenant, m.id].wamid): m for m in moved}


def merge(before: Receipt | None, id_: UUID, tenant: str, status: StatusUpdate) -> Receipt:
    """What is known of a message once one more status is taken in: webhooks come in any order, and more than once."""
    at = {name: status.at for name in ("sent", "delivered", "read", "failed") if status.status == name}
    return Receipt(
        id_,
        tenant,
        further(before.status, status.status) if before else status.status,
        status.wamid,
        (before and before.sent_at) or at.get("sent"),
        (before and before.delivered_at) or at.get("delivered"),
        (before and before.read_at) or at.get("read"),
        (before and before.failed_at) or at.get("failed"),
        status.error_code or (before and before.error_code) or None,
        status.error or (before and before.error) or None,
        msgspec.json.encode(status.pricing).decode() if status.pricing else (before.pricing if before else None),
    )


def further(one: str, other: str) -> str:
    """The later of two statuses. A failure is final unless the message was seen to arrive."""
    if "failed" in (one, other):
        arrived = {one, other} & {"delivered", "read"}
        return arrived.pop() if arrived else "failed"
    return max(one, other, key=FORWARD.index)


def _ours(status: StatusUpdate) -> UUID | None:
    try:
        return UUID(status.opaque) if status.opaque else None
    except ValueError:
        return None


def _status_events(d: Delivery[Inbound], status: StatusUpdate, moved: dict[tuple[str, str], Moved]) -> list[Outgoing]:
    """The events of one status. Stable ids make a repeated webhook the same events.

    A status that a later one has overtaken is told too, so that whoever counts deliveries counts right.
    """
    message = moved.get((d.tenant, status.wamid))
    if message is None:
        return []
    names = _news(status.status, message, again=d.deliveries > 1)
    return [_status_event(d.tenant, _EVENTS[name], name, message) for name in names]


def _news(status: str, message: Moved, *, again: bool) -> list[str]:
    """What a status tells. `again`: it may have been written before, and not told."""
    if status == "failed":
        return ["failed"] if message.after == "failed" else []
    # Of a message that was in doubt nobody else tells that it was sent, and perhaps no webhook of its own does.
    told = ["sent"] if status in _ARRIVED and (again or message.before in ("sending", "unknown")) else []
    return [*told, status] if status in ("delivered", "read") and message.after in _ARRIVED else told


def _status_event(tenant: str, kind: type[events.MessageEvent], name: str, message: Moved) -> Outgoing:
    event = kind(
        id=str(message.id),
        contact_id=str(message.contact_id) if message.contact_id else None,
        sender_id=str(message.sender_id),
        campaign_id=str(message.campaign_id) if message.campaign_id else None,
        enrollment_id=str(message.enrollment_id) if message.enrollment_id else None,
        step=message.step,
        wamid=message.wamid,
        reason=message.reason if name == "failed" else None,
        error_code=message.error_code if name == "failed" else None,
    )
    return Outgoing(event, tenant, f"{message.id}.{name}", message.cause)


async def _reply(con: Connection, d: Delivery[Inbound], message: InboundMessage) -> list[Outgoing]:
    """Write a message to us, and do what it asks for."""
    sender_id = UUID(d.message.sender_id)
    phone = f"+{message.phone.removeprefix('+')}" if message.phone else None
    if phone is None and message.user_id is None:
        logger.warning("a message to {} names no sender at all (wamid {})", d.tenant, message.wamid)
        return []
    contact_id = await receiving.contact_for(con, d.tenant, phone, message.user_id, message.name, uuid7())
    conversation_id = await receiving.conversation_for(con, d.tenant, contact_id, sender_id, message.at, uuid7())
    id_ = uuid7_for(message.at, d.tenant, message.wamid)
    payload = msgspec.json.encode(message.payload).decode()
    new = NewReply(
        id_,
        d.tenant,
        sender_id,
        contact_id,
        conversation_id,
        message.wamid,
        message.type,
        message.text,
        payload,
        message.context_wamid,
        message.at,
    )
    await receiving.reply(con, new)
    event = events.ReplyReceived(
        id=str(id_),
        contact_id=str(contact_id),
        sender_id=str(sender_id),
        conversation_id=str(conversation_id),
        type=message.type,
        text=message.text,
    )
    return [
        Outgoing(event, d.tenant, f"{id_}.received", d.cause or d.id),
        *await _consequences(con, d, contact_id, message),
    ]


async def _consequences(
    con: Connection, d: Delivery[Inbound], contact_id: UUID, message: InboundMessage
) -> list[Outgoing]:
    """A reply stops the campaigns that say so; a request to stop stops all of them, for good."""
    told: list[Outgoing] = []
    reason = "opt_out" if asks_to_stop(message.text) else "reply"
    if message.type == "reaction":
        return told
    if reason == "opt_out" and await receiving.opt_out(con, d.tenant, contact_id, message.at, "asked"):
        gone = events.ContactOptedOut(id=str(contact_id), reason="asked")
        told.append(Outgoing(gone, d.tenant, f"{contact_id}.opted_out.{message.wamid}", d.cause or d.id))
    for row in await enrolling.stop_contacts(con, [(d.tenant, contact_id, reason)]):
        stopped = events.EnrollmentStopped(
            id=str(row[0]), campaign_id=str(row[2]), contact_id=str(row[3]), reason=row[4]
        )
        told.append(Outgoing(stopped, d.tenant, f"{row[0]}.stopped", d.cause or d.id))
    return told


def asks_to_stop(text: str | None) -> bool:
    """Whether somebody asks to hear nothing more: the whole message is one of the usual words."""
    return text is not None and text.strip().strip(".!?,;:\"'«»").casefold().strip() in STOP_WORDS
