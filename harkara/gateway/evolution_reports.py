"""What Evolution API reports, as the Cloud API would say it. Events and fields are those of v2.3.6.

`messages.update` names a message by `keyId`, which is the `key.id` that sending answered; groups, broadcasts, channels
and what the phone's owner writes by hand are passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar, cast

import msgspec

from harkara.gateway import jids
from harkara.gateway.evolution import STATES
from harkara.gateway.report import Report, Said
from harkara.gateway.told import Echo, SessionChange

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

#: The reasons of a closed connection for which a person has to link the phone again.
UNLINKED = {401: "the phone was unlinked", 403: "WhatsApp has blocked the account"}

_FILES = {"image": "image", "video": "video", "ptv": "video", "audio": "audio", "document": "document"}
_WRAPPERS = ("ephemeralMessage", "viewOnceMessage", "viewOnceMessageV2", "documentWithCaptionMessage")


class _Key(msgspec.Struct):
    id: str
    remoteJid: str = ""
    fromMe: bool = False
    remoteJidAlt: str | None = None


class _Message(msgspec.Struct):
    key: _Key
    message: dict[str, Any] | None = None
    pushName: str | None = None
    contextInfo: dict[str, Any] | None = None
    messageTimestamp: int | str = 0


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
    data: msgspec.Raw
    date_time: str = ""


T = TypeVar("T")

_envelope = msgspec.json.Decoder(_Envelope).decode
_messages = msgspec.json.Decoder(list[_Message] | _Message).decode
_updates = msgspec.json.Decoder(list[_Update] | _Update).decode
_connection = msgspec.json.Decoder(_Connection).decode
_qr = msgspec.json.Decoder(_Qr).decode


def read(body: bytes | msgspec.Raw, at: datetime) -> Report:
    """What one webhook tells that came at this time; events that we don't know tell nothing."""
    envelope, report = _envelope(body), Report()
    understand = _EVENTS.get(envelope.event.lower().replace("_", "."))
    if understand is not None:
        understand(report, envelope.data, _moment(envelope.date_time), at)
    return report


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _upsert(report: Report, data: msgspec.Raw, _: datetime | None, at: datetime) -> None:
    for one in _many(_messages(data)):
        person = jids.who(one.key.remoteJid, one.key.remoteJidAlt)
        said = None if one.key.fromMe or person is None else _said(one)
        if person is not None and said is not None:
            id_ = jids.full_id(one.key.remoteJid, one.key.id)
            second = int(one.messageTimestamp) or int(at.timestamp())
            report.message(id_, person, one.pushName, second, said)


def _echo(report: Report, data: msgspec.Raw, _: datetime | None, at: datetime) -> None:
    for one in _many(_messages(data)):
        person = jids.who(one.key.remoteJid, one.key.remoteJidAlt)
        text = _text(one.message or {})
        if one.key.fromMe and person is not None and text:
            report.echoes.append(Echo(one.key.id, person.phone, person.user_id, text, at))


def _update(report: Report, data: msgspec.Raw, told: datetime | None, at: datetime) -> None:
    when = told if told is not None and abs(at - told) < PLAUSIBLE else at
    for one in _many(_updates(data)):
        status = ACKS.get(one.status)
        if one.fromMe and status is not None:
            report.status(one.keyId, status, when, "WhatsApp did not take it" if status == "failed" else None)


def _connected(report: Report, data: msgspec.Raw, told: datetime | None, at: datetime) -> None:
    found = _connection(data)
    detail = UNLINKED.get(found.statusReason or 0) if found.state == "close" else None
    if found.state == "refused":
        detail = "nobody scanned the code in time"
    report.sessions.append(SessionChange(STATES.get(found.state, "failed"), detail, told or at))


def _code(report: Report, data: msgspec.Raw, told: datetime | None, at: datetime) -> None:
    found = _qr(data)
    state, detail = ("scan_qr", None) if found.qrcode else ("failed", found.message)
    report.sessions.append(SessionChange(state, detail, told or at))


_EVENTS: dict[str, Callable[[Report, msgspec.Raw, datetime | None, datetime], None]] = {
    "messages.upsert": _upsert,
    "send.message": _echo,
    "messages.update": _update,
    "connection.update": _connected,
    "qrcode.updated": _code,
}


def _many(found: list[T] | T) -> Iterator[T]:
    """Earlier versions report several at once."""
    return iter(cast("list[T]", found) if isinstance(found, list) else (found,))


def _said(one: _Message) -> Said | None:
    """What a message says; None for what people don't see, such as the exchange of keys."""
    message = _unwrapped(one.message or {})
    contexts = (one.contextInfo, *(_object(part).get("contextInfo") for part in message.values()))
    quoted = next((found["stanzaId"] for found in map(_object, contexts) if found.get("stanzaId")), None)
    for kind, read_part in _PARTS.items():
        if kind in message:
            type_, part = read_part(message[kind], jids.full_id(one.key.remoteJid, one.key.id))
            return Said(type_, part, str(quoted) if quoted and type_ != "reaction" else None)
    seen = [kind for kind in message if kind not in _UNSEEN]
    return Said("unsupported", {"title": seen[0]}) if seen else None


def _unwrapped(message: dict[str, Any]) -> dict[str, Any]:
    for wrapper in _WRAPPERS:
        inner = _object(_object(message.get(wrapper)).get("message"))
        if inner:
            return _unwrapped(inner)
    return message


def _text(message: dict[str, Any]) -> str | None:
    """What a message of ours says, to know it by: its text, or its file's caption."""
    message = _unwrapped(message)
    for kind, part in message.items():
        if kind == "conversation":
            return str(part)
        found = _object(part)
        text = found.get("text") or found.get("caption")
        if text:
            return str(text)
    return None


def _object(part: object) -> dict[str, Any]:
    return cast("dict[str, Any]", part) if isinstance(part, dict) else {}


def _given(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _file(type_: str) -> Callable[[Any, str], tuple[str, dict[str, Any]]]:
    def read_file(part: Any, id_: str) -> tuple[str, dict[str, Any]]:
        found = _object(part)
        return type_, _given(
            id=id_, mime_type=found.get("mimetype"), caption=found.get("caption"), filename=found.get("fileName")
        )

    return read_file


def _button(id_name: str, title_name: str) -> Callable[[Any, str], tuple[str, dict[str, Any]]]:
    def read_button(part: Any, _: str) -> tuple[str, dict[str, Any]]:
        found = _object(part)
        chosen = {"id": str(found.get(id_name, "")), "title": str(found.get(title_name, ""))}
        return "interactive", {"type": "button_reply", "button_reply": chosen}

    return read_button


def _flow(part: Any, _: str) -> tuple[str, dict[str, Any]]:
    """A tap on one of the buttons that it sends itself: its id is in JSON within the JSON."""
    found = _object(part)
    parameters = str(_object(found.get("nativeFlowResponseMessage")).get("paramsJson", "{}"))
    try:
        id_ = str(_object(msgspec.json.decode(parameters)).get("id", ""))
    except msgspec.DecodeError:
        id_ = ""
    chosen = {"id": id_, "title": str(_object(found.get("body")).get("text", "")) or id_}
    return "interactive", {"type": "button_reply", "button_reply": chosen}


def _row(part: Any, _: str) -> tuple[str, dict[str, Any]]:
    found = _object(part)
    id_ = str(_object(found.get("singleSelectReply")).get("selectedRowId", ""))
    chosen = _given(id=id_, title=str(found.get("title", "")), description=found.get("description"))
    return "interactive", {"type": "list_reply", "list_reply": chosen}


def _reaction(part: Any, _: str) -> tuple[str, dict[str, Any]]:
    found = _object(part)
    about = _object(found.get("key")).get("id")
    return "reaction", _given(message_id=about, emoji=found.get("text") or None)


def _place(part: Any, _: str) -> tuple[str, dict[str, Any]]:
    found = _object(part)
    return "location", _given(
        latitude=found.get("degreesLatitude"),
        longitude=found.get("degreesLongitude"),
        name=found.get("name"),
        address=found.get("address"),
    )


#: By WhatsApp's own name of a message's content: how it is read.
_PARTS: dict[str, Callable[[Any, str], tuple[str, dict[str, Any]]]] = {
    "conversation": lambda part, _: ("text", {"body": str(part)}),
    "extendedTextMessage": lambda part, _: ("text", {"body": str(_object(part).get("text", ""))}),
    **{f"{kind}Message": _file(type_) for kind, type_ in _FILES.items()},
    "stickerMessage": _file("sticker"),
    "buttonsResponseMessage": _button("selectedButtonId", "selectedDisplayText"),
    "templateButtonReplyMessage": _button("selectedId", "selectedDisplayText"),
    "interactiveResponseMessage": _flow,
    "listResponseMessage": _row,
    "reactionMessage": _reaction,
    "locationMessage": _place,
    "liveLocationMessage": _place,
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
