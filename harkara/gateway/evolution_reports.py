"""What Evolution API reports, as the Cloud API would say it. Events and fields are those of v2.3.6.

`messages.update` names a message by `keyId`, which is the `key.id` that sending answered; groups, broadcasts, channels
and what the phone's owner writes by hand are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import msgspec

from harkara.gateway import jids, report, vcards
from harkara.gateway.evolution import STATES
from harkara.gateway.plain import a_text, an_id, an_object
from harkara.gateway.report import Said
from harkara.gateway.told import Echo, SessionChange, Webhook
from harkara.gateway.unread import lenient, noting

#: Its acknowledgements in our words; PENDING tells nothing, because we have its answer.
ACKS = {
    "SERVER_ACK": "sent",
    "DELIVERY_ACK": "delivered",
    "READ": "read",
    "PLAYED": "read",
    "ERROR": "failed",
}

#: Its times are local ones that say they are UTC: one that is further from ours than this is in another zone.
PLAUSIBLE = timedelta(minutes=14)

#: What is above the lower half of a 64-bit number.
_UPPER = 2**32

#: The reasons of a closed connection for which a person has to link the phone again.
UNLINKED = {401: "the phone was unlinked", 403: "WhatsApp has blocked the account"}

_FILES = {"image": "image", "video": "video", "ptv": "video", "audio": "audio", "document": "document"}
_WRAPPERS = ("ephemeralMessage", "viewOnceMessage", "viewOnceMessageV2", "documentWithCaptionMessage")


class _Key(msgspec.Struct):
    id: str
    remoteJid: str = ""
    fromMe: bool = False
    remoteJidAlt: str | None = None


class _Long(msgspec.Struct):
    """A 64-bit number in two halves, where nobody has made one of it."""

    low: int
    high: int = 0


class _Message(msgspec.Struct):
    key: _Key
    message: dict[str, Any] | None = None
    pushName: str | None = None
    contextInfo: dict[str, Any] | None = None
    messageTimestamp: int | float | str | _Long = 0


class _Update(msgspec.Struct):
    keyId: str
    status: str
    fromMe: bool = True


class _Connection(msgspec.Struct):
    state: str
    statusReason: int | None = None


class _Qr(msgspec.Struct):
    qrcode: dict[str, Any] | None = None
    message: str | None = None


class _Envelope(msgspec.Struct):
    event: str
    data: Any
    date_time: str = ""


_envelope = msgspec.json.Decoder(_Envelope).decode


def read(body: bytes | msgspec.Raw, at: datetime) -> Webhook:
    """What one webhook tells that came at this time; events that we don't know tell nothing."""
    envelope, webhook = _envelope(body), Webhook()
    understand = _EVENTS.get(envelope.event.lower().replace("_", "."))
    if understand is not None:
        for place, one in _each(envelope.data):
            with noting(place, webhook.unread):
                understand(webhook, one, _moment(envelope.date_time), at)
    return webhook


def _each(data: Any) -> Iterator[tuple[str, Any]]:
    """All that is reported, each with its place. Earlier versions report several at once."""
    if isinstance(data, list):
        yield from ((f"data[{place}]", one) for place, one in enumerate(cast("list[object]", data)))
    else:
        yield "data", data


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _upsert(webhook: Webhook, data: Any, _: datetime | None, at: datetime) -> None:
    one = lenient(data, _Message)
    person = jids.who(one.key.remoteJid, one.key.remoteJidAlt)
    said = None if one.key.fromMe or person is None else _said(one)
    if person is not None and said is not None:
        id_ = jids.full_id(one.key.remoteJid, one.key.id)
        second = _second(one.messageTimestamp) or int(at.timestamp())
        webhook.messages.append(report.message(id_, person, one.pushName, second, said))


def _second(told: int | float | str | _Long) -> int:
    return told.low % _UPPER + told.high * _UPPER if isinstance(told, _Long) else int(told)


def _echo(webhook: Webhook, data: Any, _: datetime | None, at: datetime) -> None:
    one = lenient(data, _Message)
    person = jids.who(one.key.remoteJid, one.key.remoteJidAlt)
    text = a_text(_text(one.message or {}))
    if one.key.fromMe and person is not None and text:
        webhook.echoes.append(Echo(an_id(one.key.id), person.phone, person.user_id, text, at))


def _update(webhook: Webhook, data: Any, told: datetime | None, at: datetime) -> None:
    one = lenient(data, _Update)
    when = told if told is not None and abs(at - told) < PLAUSIBLE else at
    status = ACKS.get(one.status)
    if one.fromMe and status is not None:
        error = "WhatsApp did not take it" if status == "failed" else None
        webhook.statuses.append(report.status(one.keyId, status, when, error))


def _connected(webhook: Webhook, data: Any, told: datetime | None, at: datetime) -> None:
    found = lenient(data, _Connection)
    detail = UNLINKED.get(found.statusReason or 0) if found.state == "close" else None
    if found.state == "refused":
        detail = "nobody scanned the code in time"
    webhook.sessions.append(SessionChange(STATES.get(found.state, "failed"), detail, told or at))


def _code(webhook: Webhook, data: Any, told: datetime | None, at: datetime) -> None:
    found = lenient(data, _Qr)
    state, detail = ("scan_qr", None) if found.qrcode else ("failed", a_text(found.message))
    webhook.sessions.append(SessionChange(state, detail, told or at))


_EVENTS: dict[str, Callable[[Webhook, Any, datetime | None, datetime], None]] = {
    "messages.upsert": _upsert,
    "send.message": _echo,
    "messages.update": _update,
    "connection.update": _connected,
    "qrcode.updated": _code,
}


def _said(one: _Message) -> Said | None:
    """What a message says; None for what people don't see, such as the exchange of keys."""
    message = _unwrapped(one.message or {})
    contexts = (one.contextInfo, *(an_object(part).get("contextInfo") for part in message.values()))
    quoted = next((found["stanzaId"] for found in map(an_object, contexts) if found.get("stanzaId")), None)
    for kind, read_part in _PARTS.items():
        if kind in message:
            type_, part = read_part(message[kind], jids.full_id(one.key.remoteJid, one.key.id))
            return Said(type_, part, str(quoted) if quoted and type_ != "reaction" else None)
    seen = [kind for kind in message if kind not in _UNSEEN]
    return Said("unsupported", {"title": seen[0]}) if seen else None


def _unwrapped(message: dict[str, Any]) -> dict[str, Any]:
    for wrapper in _WRAPPERS:
        inner = an_object(an_object(message.get(wrapper)).get("message"))
        if inner:
            return _unwrapped(inner)
    return message


def _text(message: dict[str, Any]) -> str | None:
    """What a message of ours says, to know it by: its text, or its file's caption."""
    message = _unwrapped(message)
    for kind, part in message.items():
        if kind == "conversation":
            return str(part)
        found = an_object(part)
        text = found.get("text") or found.get("caption")
        if text:
            return str(text)
    return None


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


#: Reads what is in a message of a certain kind, whose id is this: its type and part as the Cloud API writes them.
_ReadPart = Callable[[Any, str], tuple[str, Any]]


def _file(type_: str) -> _ReadPart:
    def read_file(part: Any, id_: str) -> tuple[str, dict[str, Any]]:
        found = an_object(part)
        return type_, _given(
            id=id_, mime_type=found.get("mimetype"), caption=found.get("caption"), filename=found.get("fileName")
        )

    return read_file


def _button(id_name: str, title_name: str) -> _ReadPart:
    def read_button(part: Any, _: str) -> tuple[str, dict[str, Any]]:
        found = an_object(part)
        chosen = {"id": str(found.get(id_name, "")), "title": str(found.get(title_name, ""))}
        return "interactive", {"type": "button_reply", "button_reply": chosen}

    return read_button


def _flow(part: Any, _: str) -> tuple[str, dict[str, Any]]:
    """A tap on one of the buttons that it sends itself: its id is in JSON within the JSON."""
    found = an_object(part)
    parameters = str(an_object(found.get("nativeFlowResponseMessage")).get("paramsJson", "{}"))
    try:
        id_ = str(an_object(msgspec.json.decode(parameters)).get("id", ""))
    except msgspec.DecodeError:
        id_ = ""
    chosen = {"id": id_, "title": str(an_object(found.get("body")).get("text", "")) or id_}
    return "interactive", {"type": "button_reply", "button_reply": chosen}


def _row(part: Any, _: str) -> tuple[str, dict[str, Any]]:
    found = an_object(part)
    id_ = str(an_object(found.get("singleSelectReply")).get("selectedRowId", ""))
    chosen = _given(id=id_, title=str(found.get("title", "")), description=found.get("description"))
    return "interactive", {"type": "list_reply", "list_reply": chosen}


def _reaction(part: Any, _: str) -> tuple[str, dict[str, Any]]:
    found = an_object(part)
    about = an_object(found.get("key")).get("id")
    return "reaction", _given(message_id=about, emoji=found.get("text") or None)


def _place(part: Any, _: str) -> tuple[str, dict[str, Any]]:
    found = an_object(part)
    return "location", _given(
        latitude=found.get("degreesLatitude"),
        longitude=found.get("degreesLongitude"),
        name=found.get("name"),
        address=found.get("address"),
    )


def _card(part: Any, _: str) -> tuple[str, list[dict[str, Any]]]:
    return "contacts", [_contact(part)]


def _cards(part: Any, _: str) -> tuple[str, list[dict[str, Any]]]:
    several = an_object(part).get("contacts")
    return "contacts", [_contact(one) for one in cast("list[object]", several)] if isinstance(several, list) else []


def _contact(part: Any) -> dict[str, Any]:
    found = an_object(part)
    return vcards.contact(str(found.get("vcard", "")), str(found.get("displayName") or "") or None)


#: By WhatsApp's own name of a message's content: how it is read.
_PARTS: dict[str, _ReadPart] = {
    "conversation": lambda part, _: ("text", {"body": str(part)}),
    "extendedTextMessage": lambda part, _: ("text", {"body": str(an_object(part).get("text", ""))}),
    **{f"{kind}Message": _file(type_) for kind, type_ in _FILES.items()},
    "stickerMessage": _file("sticker"),
    "buttonsResponseMessage": _button("selectedButtonId", "selectedDisplayText"),
    "templateButtonReplyMessage": _button("selectedId", "selectedDisplayText"),
    "interactiveResponseMessage": _flow,
    "listResponseMessage": _row,
    "reactionMessage": _reaction,
    "locationMessage": _place,
    "liveLocationMessage": _place,
    "contactMessage": _card,
    "contactsArrayMessage": _cards,
}

#: What comes along with messages, or instead of one, and is nothing that anybody says.
_UNSEEN = frozenset(
    {
        "messageContextInfo",
        "senderKeyDistributionMessage",
        "protocolMessage",
        "editedMessage",
        "pollUpdateMessage",
        "keepInChatMessage",
        "pinInChatMessage",
        "encReactionMessage",
        "base64",
        "mediaUrl",
    }
)
