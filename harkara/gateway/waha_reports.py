"""What WAHA reports, as the Cloud API would say it. Events and fields are those of its documentation of July 2026.

Acknowledgements name a message by its full id, of which only the key is compared: the chat in it may be written as a
number or as an id that hides it. Groups, broadcasts, channels and what the phone's owner writes are passed over.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec

from harkara.gateway import jids, report, vcards
from harkara.gateway.plain import a_text, an_id, an_object
from harkara.gateway.report import Said
from harkara.gateway.told import Echo, SessionChange, Webhook
from harkara.gateway.unread import lenient, noting
from harkara.gateway.waha import STATES

#: Its acknowledgements in our words; 0 (PENDING) tells nothing, because we have its answer.
ACKS = {-1: "failed", 1: "sent", 2: "delivered", 3: "read", 4: "read"}

_FILES = ("image", "video", "audio", "sticker")


class _Media(msgspec.Struct):
    url: str | None = None
    mimetype: str | None = None
    filename: str | None = None


class _Quoted(msgspec.Struct):
    id: str | None = None


class _Reaction(msgspec.Struct):
    messageId: str
    text: str | None = None


class _Message(msgspec.Struct):
    id: str
    from_: str = msgspec.field(name="from", default="")
    to: str | None = None
    fromMe: bool = False
    source: str | None = None
    timestamp: float = 0
    body: str | None = None
    hasMedia: bool = False
    media: _Media | None = None
    replyTo: _Quoted | None = None
    location: dict[str, Any] | None = None
    vCards: list[str] | None = None
    reaction: _Reaction | None = None
    data: dict[str, Any] | None = msgspec.field(name="_data", default=None)


class _Ack(msgspec.Struct):
    id: str
    ack: int
    fromMe: bool = True


class _Status(msgspec.Struct):
    status: str


class _Envelope(msgspec.Struct):
    event: str
    payload: Any
    timestamp: float | None = None


_envelope = msgspec.json.Decoder(_Envelope).decode


def read(body: bytes | msgspec.Raw, at: datetime) -> Webhook:
    """What one webhook tells that came at this time; events that we don't know tell nothing. Each tells one thing."""
    envelope, webhook = _envelope(body), Webhook()
    understand = _EVENTS.get(envelope.event)
    if understand is not None:
        with noting("payload", webhook.unread):
            told = datetime.fromtimestamp(envelope.timestamp / 1000, UTC) if envelope.timestamp else at
            understand(webhook, envelope.payload, told)
    return webhook


def _said_to_us(webhook: Webhook, payload: Any, told: datetime) -> None:
    one = lenient(payload, _Message)
    person = None if one.fromMe else jids.who(one.from_, _other_jid(one))
    if person is not None:
        second = int(one.timestamp) or int(told.timestamp())
        webhook.messages.append(report.message(one.id, person, _name(one), second, _said(one)))


def _said_by_us(webhook: Webhook, payload: Any, told: datetime) -> None:
    """A message that was sent through the API; WAHA tells of them with all others, which are passed over here."""
    one = lenient(payload, _Message)
    person = jids.who(one.to or jids.chat_of(one.id) or "", _other_jid(one))
    text = a_text(one.body)
    if one.fromMe and one.source == "api" and person is not None and text:
        webhook.echoes.append(Echo(an_id(jids.key_of(one.id)), person.phone, person.user_id, text, told))


def _acknowledged(webhook: Webhook, payload: Any, told: datetime) -> None:
    one = lenient(payload, _Ack)
    status = ACKS.get(one.ack)
    if one.fromMe and status is not None:
        error = "WhatsApp did not take it" if status == "failed" else None
        webhook.statuses.append(report.status(jids.key_of(one.id), status, told, error))


def _session(webhook: Webhook, payload: Any, told: datetime) -> None:
    status = lenient(payload, _Status).status
    detail = None if status in STATES else a_text(status)
    webhook.sessions.append(SessionChange(STATES.get(status, "failed"), detail, told))


_EVENTS: dict[str, Callable[[Webhook, Any, datetime], None]] = {
    "message": _said_to_us,
    "message.reaction": _said_to_us,
    "message.any": _said_by_us,
    "message.ack": _acknowledged,
    "session.status": _session,
}


def _said(one: _Message) -> Said:
    quoted = jids.key_of(one.replyTo.id) if one.replyTo and one.replyTo.id else None
    if one.reaction is not None:
        about = jids.key_of(one.reaction.messageId)
        return Said("reaction", {"message_id": about, **({"emoji": one.reaction.text} if one.reaction.text else {})})
    if one.location is not None:
        return Said("location", {name: value for name, value in one.location.items() if value is not None}, quoted)
    if one.vCards:  # the body is one of them, too, or nothing
        return Said("contacts", [vcards.contact(card) for card in one.vCards], quoted)
    if one.hasMedia:
        return Said(*_file(one), quoted)
    return Said("text", {"body": one.body or ""}, quoted)


def _file(one: _Message) -> tuple[str, dict[str, Any]]:
    media = one.media or _Media()
    mime_type = media.mimetype or ""
    family = mime_type.partition("/")[0]
    type_ = "sticker" if mime_type == "image/webp" else family if family in _FILES else "document"
    part = {"id": media.url, "mime_type": media.mimetype, "caption": one.body or None, "filename": media.filename}
    return type_, {name: value for name, value in part.items() if value is not None}


def _other_jid(one: _Message) -> str | None:
    """The same person's other JID, where the engine tells it."""
    key, info = an_object((one.data or {}).get("key")), an_object((one.data or {}).get("Info"))
    found = key.get("remoteJidAlt") or key.get("senderPn") or info.get("SenderAlt")
    return str(found) if found else None


def _name(one: _Message) -> str | None:
    """What the person calls themselves, where the engine tells it."""
    data = one.data or {}
    found = data.get("pushName") or data.get("notifyName") or an_object(data.get("Info")).get("PushName")
    return str(found) if found else None
