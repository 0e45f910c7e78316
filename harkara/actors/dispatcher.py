"""Turns commands to send something into messages in the right lane of their number.

takes: `cmd.message.send`, `cmd.message.cancel`
says: message.queued, .suppressed, .failed; publishes `work.send.<sender>.<lane>`
retries: while the database is away
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, cast
from uuid import UUID

import msgspec

from harkara.actors.enrollment import entity_id
from harkara.actors.noting import Noting
from harkara.actors.ticker import WAKE_SEND
from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Outcome
from harkara.bus.publisher import Publisher
from harkara.bus.schedule import PATIENT, Schedule
from harkara.callers import Callers
from harkara.rendering import Unsayable, said
from harkara.schemas.base import Message
from harkara.schemas.commands import DELIVERY, CancelMessage, SendMessage
from harkara.schemas.content import Content
from harkara.schemas.events import MessageEvent, MessageFailed, MessageQueued, MessageSuppressed
from harkara.schemas.work import Send
from harkara.storage import dispatching, invoices
from harkara.storage.auditing import Note, note
from harkara.storage.dispatching import NewMessage, Recipient
from harkara.storage.storage import Storage
from harkara.templating import variables

_encode = msgspec.json.Encoder().encode

#: What is told of a message that ends here.
_ENDS: dict[str, type[MessageEvent]] = {"suppressed": MessageSuppressed, "failed": MessageFailed}


@dataclass(frozen=True, slots=True)
class Decision:
    """What a message says, finished, and what becomes of it: `queued`; or `suppressed` or `failed`, for a reason.

    What was accepted always becomes a message, so that whoever asked for it can read why it did not leave.
    """

    content: Content
    status: str = "queued"
    reason: str | None = None


def decide(command: SendMessage, recipient: Recipient, invoice: Mapping[str, str] | None = None) -> Decision:
    """Whether a message may be queued, and what it says with the contact's and the invoice's variables filled in.

    The front door has asked the same; here is judged what has changed since.
    """
    if recipient.phone is None:  # a contact always has one; of whoever was erased nothing may be written
        return Decision(Content(), "suppressed", "contact_deleted")
    if not recipient.sender_found:
        return Decision(command.content, "suppressed", "sender_deleted")
    if command.invoice_id is not None and invoice is None:
        return Decision(command.content, "suppressed", "invoice_void")
    try:
        content = _content(command, recipient, recipient.phone, invoice)
    except Unsayable as fault:
        return Decision(command.content, "failed", f"content: {fault}")
    if recipient.opted_out:
        return Decision(content, "suppressed", "opted_out")
    if command.lane == "marketing" and not recipient.consents_to_marketing:
        return Decision(content, "suppressed", "no_consent")
    return Decision(content)


def _content(command: SendMessage, recipient: Recipient, phone: str, invoice: Mapping[str, str] | None) -> Content:
    """What is said in the end. Raises Unsayable."""
    if command.filled_in:
        if faults := command.content.faults(rendered=True):
            raise Unsayable(faults)
        return command.content
    known = variables(
        name=recipient.name,
        phone=phone,
        locale=recipient.locale,
        attributes=recipient.attributes,
        invoice=invoice,
    )
    return said(command.content, known)


class Dispatcher:
    """Writes the message row, then the work: a crash between them is mended by the command's redelivery."""

    name: ClassVar[str] = "dispatcher"
    takes: ClassVar[tuple[type[Message], ...]] = (SendMessage, CancelMessage)
    retries: ClassVar[Schedule] = PATIENT
    batch: ClassVar[int] = 200
    in_flight: ClassVar[int] = 2

    def __init__(self, storage: Storage, publisher: Publisher, callers: Callers | None = None) -> None:
        self._storage, self._publisher = storage, publisher
        self._noting = Noting(callers)

    async def handle(self, batch: Sequence[Delivery[SendMessage | CancelMessage]]) -> Sequence[Outcome]:
        """Queue each message, or say why it can't be; then cancel those that shall not leave after all."""
        sends = [cast("Delivery[SendMessage]", d) for d in batch if isinstance(d.message, SendMessage)]
        cancels = [cast("Delivery[CancelMessage]", d) for d in batch if isinstance(d.message, CancelMessage)]
        outcomes = dict(zip(map(id, sends), await self._queue(sends) if sends else (), strict=True))
        outcomes |= zip(map(id, cancels), await self._cancel(cancels) if cancels else (), strict=True)
        return [outcomes[id(d)] for d in batch]

    async def _cancel(self, batch: Sequence[Delivery[CancelMessage]]) -> Sequence[Outcome]:
        async with self._storage.batch({d.tenant for d in batch}) as con:
            done = await dispatching.cancel(con, [(d.tenant, UUID(d.message.message_id)) for d in batch])
            await note(con, [self._cancellation(d) for d in batch if UUID(d.message.message_id) in done])
        return [_cancelled(d, done.get(UUID(d.message.message_id))) for d in batch]

    async def _queue(self, batch: Sequence[Delivery[SendMessage]]) -> Sequence[Outcome]:
        async with self._storage.batch({d.tenant for d in batch}) as con:
            wanted = [_wanted(d) for d in batch]
            recipients = await dispatching.recipients(con, wanted)
            terms = await invoices.terms(con, {about for d in batch if (about := _about(d))})
            decisions = [
                decide(d.message, recipient, terms.get(about) if (about := _about(d)) else None)
                for d, recipient in zip(batch, recipients, strict=True)
            ]
            new = list(map(_row, batch, recipients, decisions))
            written = await dispatching.queue(con, new)
            before = await dispatching.kept(con, [row for row in new if row.id not in written])
            await note(con, [self._making(d, row) for d, row in zip(batch, new, strict=True) if row.id in written])
        for tenant, sender_id, lane in {(d.tenant, d.message.sender_id, d.message.lane) for d in batch}:
            self._publisher.wake(WAKE_SEND, f"{tenant} {sender_id} {lane}".encode())
        decisions = [
            _kept(*before[row.id]) if row.id in before else one for row, one in zip(new, decisions, strict=True)
        ]
        return list(map(_told, batch, new, decisions))

    def _making(self, d: Delivery[SendMessage], row: NewMessage) -> Note:
        """Not what it says, which may be a code and is in the message; nor the number of a contact, who says it."""
        after = {"sender_id": str(row.sender_id), "lane": row.lane, "status": row.status}
        if row.contact_id is not None:
            after["contact_id"] = str(row.contact_id)
        elif row.to:
            after["to"] = row.to
        if row.invoice_id is not None:
            after["invoice_id"] = str(row.invoice_id)
        if row.reason is not None:
            after["reason"] = row.reason
        return self._noting.note(d, "create", "message", row.id, after=after)

    def _cancellation(self, d: Delivery[CancelMessage]) -> Note:
        after = {"status": "suppressed", "reason": "cancelled"}
        return self._noting.note(d, "update", "message", d.message.message_id, before={"status": "queued"}, after=after)


def _wanted(d: Delivery[SendMessage]) -> tuple[str, UUID, UUID | None, str | None, str]:
    command = d.message
    contact_id = UUID(command.contact_id) if command.contact_id else None
    return d.tenant, UUID(command.sender_id), contact_id, command.to, command.lane


def _about(d: Delivery[SendMessage]) -> tuple[str, UUID] | None:
    """The tenant's invoice that a message is about."""
    return (d.tenant, UUID(d.message.invoice_id)) if d.message.invoice_id else None


def _row(d: Delivery[SendMessage], recipient: Recipient, decision: Decision) -> NewMessage:
    return NewMessage(
        entity_id(d),
        d.tenant,
        recipient.contact_id,
        UUID(d.message.sender_id),
        d.message.lane,
        recipient.phone or "",
        _encode(decision.content).decode(),
        decision.status,
        decision.reason,
        d.cause or d.id,
        d.message.send_at or d.at,
        d.message.is_test,
        d.message.delivery or DELIVERY[d.message.lane],
        UUID(d.message.invoice_id) if d.message.invoice_id else None,
        UUID(d.message.reply_to) if d.message.reply_to else None,
    )


def _kept(content: str, status: str | None, reason: str | None) -> Decision:
    """What was decided when the command came before: whatever has changed since is the gate's to judge."""
    said = msgspec.json.decode(content, type=Content)
    return Decision(said) if status is None else Decision(said, status, reason)


def _cancelled(d: Delivery[CancelMessage], row: tuple[UUID | None, UUID] | None) -> Outcome:
    """Told under the id under which the sender would tell it, so that it is told once."""
    if row is None:
        return Done()
    contact, sender, id_ = row[0], row[1], d.message.message_id
    event = MessageSuppressed(
        id=id_, contact_id=str(contact) if contact else None, sender_id=str(sender), reason="cancelled"
    )
    return Done((Outgoing(event, d.tenant, f"{id_}.suppressed", d.cause),))


def _told(d: Delivery[SendMessage], row: NewMessage, decision: Decision) -> Outcome:
    """What is told of a message, and its work if it is to leave."""
    id_, cause = str(row.id), row.cause
    contact_id = str(row.contact_id) if row.contact_id else None
    fields: dict[str, Any] = {"id": id_, "contact_id": contact_id, "sender_id": d.message.sender_id}
    if decision.reason is not None:
        event = _ENDS[decision.status](**fields, reason=decision.reason)
        return Done((Outgoing(event, d.tenant, f"{id_}.{decision.status}", cause),))
    work = Send(
        message_id=id_,
        sender_id=d.message.sender_id,
        lane=d.message.lane,
        contact_id=contact_id,
        to=row.to,
        follows=d.message.to is None,
        due_at=row.due_at,
        content=decision.content,
        expires_at=d.message.expires_at,
        invoice_id=d.message.invoice_id,
        quoted=d.message.quoted,
    )
    queued = Outgoing(MessageQueued(**fields), d.tenant, f"{id_}.queued", cause)
    return Done((Outgoing(work, d.tenant, id_, cause), queued))
