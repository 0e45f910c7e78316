"""Cloud API webhooks as the house understands them: statuses of our messages, messages to us, and what people set.

Only what is used is decoded; unknown fields and kinds of change are skipped. Field names and the cases in which they
are absent are those of Meta's webhook reference (a username contact has no `wa_id` and no `from`, a failed status no
`contacts`).
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

import msgspec


class StatusUpdate(msgspec.Struct, frozen=True, gc=False):
    """WhatsApp's news of a message we sent; `opaque` is our own id, if it came back.

    `phone` (E.164 without `+`) and `user_id` are the recipient's, as far as it says them.
    """

    wamid: str
    status: str
    at: datetime
    opaque: str | None
    error_code: int | None
    error: str | None
    pricing: dict[str, Any] | None
    phone: str | None = None
    user_id: str | None = None


class InboundMessage(msgspec.Struct, frozen=True, gc=False):
    """A message a contact sent us. `phone` is E.164 without `+`; a username contact has only `user_id`.

    `text` is what it says in words, `said` what may be one of the words that stop: a text, a caption, or of a button
    what is written on it and what it brings. `context_wamid` is the message that it quotes or reacts to. `changed` is
    their new number or id.
    """

    wamid: str
    phone: str | None
    user_id: str | None
    name: str | None
    at: datetime
    type: str
    text: str | None
    context_wamid: str | None
    payload: dict[str, Any]
    said: tuple[str, ...] = ()
    changed: Changed | None = None
    file: File | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A file that came with a message: `id` is what the gateway calls it, for as long as it keeps it."""

    id: str
    mime_type: str | None
    filename: str | None


@dataclass(frozen=True, slots=True)
class Changed:
    """The number (E.164 without `+`) or business-scoped user id that somebody has from now on."""

    phone: str | None
    user_id: str | None


@dataclass(frozen=True, slots=True)
class Preference:
    """What somebody set in WhatsApp itself: to hear no more marketing from us, or to hear it again."""

    phone: str | None
    user_id: str | None
    name: str | None
    at: datetime
    out: bool


@dataclass(frozen=True, slots=True)
class SessionChange:
    """A phone that lends its account was linked or lost (`harkara/gateway/protocol.py:Session`).

    `clock` is the gateway's own time of it, by which its reports are ordered.
    """

    state: str
    detail: str | None
    clock: datetime


@dataclass(frozen=True, slots=True)
class Echo:
    """A message that was sent through a gateway, as the phone's account shows it: to whom, and what it says.

    It may be one of ours whose answer was lost.
    """

    wamid: str
    phone: str | None
    user_id: str | None
    text: str
    at: datetime


@dataclass(frozen=True, slots=True)
class TemplateUpdate:
    """WhatsApp's news of a message template: of its status, its quality or its category, in lower case."""

    name: str
    language: str
    status: str | None = None
    reason: str | None = None
    quality: str | None = None
    category: str | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    """All that one webhook tells, each kind in its order; `unread` is what of it can't be read, and why."""

    statuses: list[StatusUpdate] = field(default_factory=list[StatusUpdate])
    messages: list[InboundMessage] = field(default_factory=list[InboundMessage])
    preferences: list[Preference] = field(default_factory=list[Preference])
    sessions: list[SessionChange] = field(default_factory=list[SessionChange])
    echoes: list[Echo] = field(default_factory=list[Echo])
    templates: list[TemplateUpdate] = field(default_factory=list[TemplateUpdate])
    unread: list[str] = field(default_factory=list[str])


class _Profile(msgspec.Struct):
    name: str | None = None


class _Contact(msgspec.Struct):
    profile: _Profile | None = None
    wa_id: str | None = None
    user_id: str | None = None


class _ErrorData(msgspec.Struct):
    details: str | None = None


class _Error(msgspec.Struct):
    code: int = 0
    title: str | None = None
    message: str | None = None
    error_data: _ErrorData | str | None = None


class _Origin(msgspec.Struct):
    type: str | None = None


class _Conversation(msgspec.Struct):
    origin: _Origin | None = None


class _Status(msgspec.Struct):
    id: str
    status: str
    timestamp: str
    biz_opaque_callback_data: str | None = None
    errors: list[_Error] | None = None
    pricing: dict[str, Any] | None = None
    conversation: _Conversation | None = None
    recipient_id: str | None = None
    recipient_user_id: str | None = None


class _Preference(msgspec.Struct):
    category: str
    value: str
    wa_id: str | None = None
    user_id: str | None = None
    timestamp: str | int = "0"


class _TemplateValue(msgspec.Struct):
    message_template_name: str
    message_template_language: str
    event: str | None = None
    reason: str | None = None
    new_quality_score: str | None = None
    new_category: str | None = None


class _Metadata(msgspec.Struct):
    phone_number_id: str | None = None


class _Value(msgspec.Struct):
    metadata: _Metadata | None = None
    contacts: list[_Contact] = []
    messages: list[dict[str, Any]] = []
    statuses: list[_Status] = []
    user_preferences: list[_Preference] = []


class _Change(msgspec.Struct):
    field: str
    value: msgspec.Raw


class _Entry(msgspec.Struct):
    changes: list[_Change] = []


class _Envelope(msgspec.Struct):
    entry: list[_Entry] = []


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_value = msgspec.json.Decoder(_Value).decode
_decode_template = msgspec.json.Decoder(_TemplateValue).decode


#: The kinds of message that bring a file.
FILES = frozenset({"image", "video", "audio", "document", "sticker"})

#: The kinds of change that are read, as Meta names them.
_READ = frozenset({"messages", "user_preferences"})
_OF_TEMPLATES = frozenset(
    {"message_template_status_update", "message_template_quality_update", "template_category_update"}
)

#: What can be set, and the words by which it is told.
_MARKETING = "marketing_messages"
_SET = {"stop": True, "resume": False}


#: How `parse` says that a body is no webhook of Meta's.
UNREADABLE = (msgspec.MsgspecError, KeyError, ValueError, OverflowError, OSError, RecursionError)

#: A webhook of Meta's has at most 1,000 items; one of which so many can't be read is none.
MOST_UNREAD = 1_000

#: A phone number without its plus, and the longest ids, as the database can hold them.
_PHONE = re.compile("[1-9][0-9]{5,14}")
_LONGEST_ID = 128
_LONGEST_USER_ID = 64
_LONGEST_TYPE = 32
_LARGEST_CODE = 2**31 - 1


def parse(body: bytes | msgspec.Raw) -> dict[str | None, Webhook]:
    """All that one webhook tells, by the `phone_number_id` that it is for; None where it names none.

    An app has one address for all its numbers. What can't be read keeps nothing else from being read. Raises one of
    UNREADABLE if it is not Meta's.
    """
    try:
        return _all_at_once(body)
    except UNREADABLE:
        return _item_by_item(body)


def _all_at_once(body: bytes | msgspec.Raw) -> dict[str | None, Webhook]:
    found: dict[str | None, Webhook] = {}
    for entry in _decode(body).entry:
        for change in entry.changes:
            if change.field in _READ:
                value = _decode_value(change.value)
                webhook = found.setdefault(value.metadata.phone_number_id if value.metadata else None, Webhook())
                webhook.statuses.extend(_status(status, value.contacts) for status in value.statuses)
                names = _names(value.contacts)
                webhook.messages.extend(_message(message, names) for message in value.messages)
                webhook.preferences.extend(_preferences(value.user_preferences, names))
            elif change.field in _OF_TEMPLATES:
                found.setdefault(None, Webhook()).templates.append(_template(_decode_template(change.value)))
    return found


def _item_by_item(body: bytes | msgspec.Raw) -> dict[str | None, Webhook]:
    """The same, at many times the cost: what can be read, numbers for texts too, and in `unread` what can't.

    That is with what names no number.
    """
    found: dict[str | None, Webhook] = {None: (rest := Webhook())}
    whole = msgspec.json.decode(body, type=dict[str, Any])
    if not isinstance(whole.get("entry"), list):
        raise ValueError("it has no list of entries")
    for entry_at, entry in _items(whole, "entry", "", rest.unread):
        for at, change in _items(entry, "changes", f"{entry_at}.", rest.unread):
            with _noting(at, rest.unread):
                name = str(change["field"])
                if name in _READ:
                    _read_change(_value(change), f"{at}.", found, rest.unread)
                elif name in _OF_TEMPLATES:
                    rest.templates.append(_template(_lenient(_value(change), _TemplateValue)))
    return found


def _value(change: dict[str, Any]) -> dict[str, Any]:
    value = change["value"]
    if not isinstance(value, dict):
        raise ValueError("its value is no object")
    return cast("dict[str, Any]", value)


def _read_change(value: dict[str, Any], at: str, found: dict[str | None, Webhook], unread: list[str]) -> None:
    metadata = _lenient(value.get("metadata") or {}, _Metadata)
    webhook = found.setdefault(metadata.phone_number_id, Webhook())
    contacts: list[_Contact] = []
    for place, one in _items(value, "contacts", at, unread):
        with _noting(place, unread):
            contacts.append(_lenient(one, _Contact))
    names = _names(contacts)
    for place, one in _items(value, "statuses", at, unread):
        with _noting(place, unread):
            webhook.statuses.append(_status(_lenient(one, _Status), contacts))
    for place, one in _items(value, "messages", at, unread):
        with _noting(place, unread):
            webhook.messages.append(_message(one, names))
    for place, one in _items(value, "user_preferences", at, unread):
        with _noting(place, unread):
            webhook.preferences.extend(_preferences([_lenient(one, _Preference)], names))


def _items(part: dict[str, Any], name: str, at: str, unread: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The objects of a list, each with its place. Whatever else is there is noted."""
    listed = part.get(name)
    for place, one in enumerate(cast("list[object]", listed) if isinstance(listed, list) else []):
        if isinstance(one, dict):
            yield f"{at}{name}[{place}]", cast("dict[str, Any]", one)
        else:
            _note(unread, f"{at}{name}[{place}]: it is no object")
    if listed is not None and not isinstance(listed, list):
        _note(unread, f"{at}{name}: it is no list")


@contextmanager
def _noting(at: str, unread: list[str]) -> Generator[None]:
    """Note what can't be read in this place, and go on."""
    try:
        yield
    except KeyError as error:
        _note(unread, f"{at}: {error} is missing")
    except UNREADABLE as error:
        _note(unread, f"{at}: {error}")


def _note(unread: list[str], what: str) -> None:
    """Raises ValueError if it is too much, so that nobody can keep us busy."""
    unread.append(what)
    if len(unread) > MOST_UNREAD:
        raise ValueError(f"more than {MOST_UNREAD} of its items can't be read: {unread[0]}")


_S = TypeVar("_S")


def _lenient(part: dict[str, Any], type_: type[_S]) -> _S:
    """An object in which numbers may stand for texts, and texts for numbers."""
    return msgspec.convert(_as_texts(part), type_, strict=False)


def _as_texts(part: Any) -> Any:
    if isinstance(part, dict):
        return {key: _as_texts(one) for key, one in cast("dict[str, Any]", part).items()}
    if isinstance(part, list):
        return [_as_texts(one) for one in part]  # pyright: ignore[reportUnknownVariableType]
    return str(part) if isinstance(part, int) and not isinstance(part, bool) else part


def _template(value: _TemplateValue) -> TemplateUpdate:
    reason = value.reason if value.reason not in (None, "", "NONE") else None
    status, quality, category = (
        text.lower() if text else None for text in (value.event, value.new_quality_score, value.new_category)
    )
    return TemplateUpdate(
        value.message_template_name, value.message_template_language, status, reason, quality, category
    )


def _status(status: _Status, contacts: Sequence[_Contact]) -> StatusUpdate:
    phone, user_id = status.recipient_id, status.recipient_user_id
    if phone and not _PHONE.fullmatch(phone):
        phone = _number(phone)
    if not (phone and user_id):  # one may be among the contacts alone
        for one in contacts:
            if (phone and one.wa_id == phone) or (user_id and one.user_id == user_id):
                phone, user_id = phone or _number(one.wa_id), user_id or one.user_id
    error = status.errors[0] if status.errors else None
    data = error.error_data if error else None
    details = data.details if isinstance(data, _ErrorData) else data
    if error and abs(error.code) > _LARGEST_CODE:
        raise ValueError(f"{error.code} is no error code")
    return StatusUpdate(
        _id(status.id),
        # A voice message that was listened to was read.
        "read" if status.status == "played" else status.status,
        _at(status.timestamp),
        status.biz_opaque_callback_data,
        error.code if error else None,
        _text(details or error.message or error.title) if error else None,
        _priced(status),
        phone,
        user_id,
    )


def _priced(status: _Status) -> dict[str, Any] | None:
    """What billing needs: the pricing, which only one status of a message has, with where its conversation began."""
    origin = status.conversation.origin.type if status.conversation and status.conversation.origin else None
    if status.pricing is None or origin is None:
        return status.pricing
    return {**status.pricing, "origin": origin}


def _names(contacts: Sequence[_Contact]) -> dict[str, str | None]:
    return {key: _text(c.profile.name) for c in contacts if c.profile for key in (c.wa_id, c.user_id) if key}


def _preferences(set_: Iterable[_Preference], names: Mapping[str, str | None]) -> Iterator[Preference]:
    for one in set_:
        out = _SET.get(one.value.lower())
        if one.category == _MARKETING and out is not None:
            phone, user_id = _who(one.wa_id, one.user_id)
            yield Preference(phone, user_id, _name(names, phone, user_id), _at(str(one.timestamp)), out)


def _message(message: dict[str, Any], names: Mapping[str, str | None]) -> InboundMessage:
    kind = str(message.get("type", "unknown"))
    part = _object(message.get(kind))
    phone, user_id = _who(message.get("from"), message.get("from_user_id"))
    text, said = _words(kind, part, message.get(kind))
    quoted = part.get("message_id") if kind == "reaction" else _object(message.get("context")).get("id")
    return InboundMessage(
        _id(message["id"]),
        phone,
        user_id,
        _name(names, phone, user_id),
        _at(str(message.get("timestamp", "0"))),
        kind[:_LONGEST_TYPE],
        text,
        _id(quoted) if quoted else None,
        message,
        said,
        _changed(part) if kind == "system" else None,
        _file(part) if kind in FILES else None,
    )


def _name(names: Mapping[str, str | None], phone: str | None, user_id: str | None) -> str | None:
    return names.get(phone or "") or names.get(user_id or "")


def _who(phone: object, user_id: object) -> tuple[str | None, str | None]:
    """The number (E.164 without `+`) and the user id of somebody.

    What is no phone number is left out if there is an id. Raises ValueError if nobody can be told by them.
    """
    known, id_ = _number(phone), _id(user_id, _LONGEST_USER_ID) if user_id else None
    if known is None and id_ is None:
        raise ValueError(f"{str(phone)[:_LONGEST_USER_ID]!r} is no phone number, and there is no user id")
    return known, id_


def _number(phone: object) -> str | None:
    """Its digits, if it is a phone number."""
    digits = str(phone).removeprefix("+") if isinstance(phone, str | int) else ""
    return digits if _PHONE.fullmatch(digits) else None


def _id(value: object, longest: int = _LONGEST_ID) -> str:
    """An id as the database can hold it. Raises ValueError if it can't."""
    text = str(value) if isinstance(value, str | int) else ""
    if not text or len(text) > longest or "\0" in text:
        raise ValueError(f"{str(value)[:_LONGEST_USER_ID]!r} is no id")
    return text


def _words(kind: str, part: dict[str, Any], whole: object) -> tuple[str | None, tuple[str, ...]]:
    """What a message says in words, and which of it may be a word that stops."""
    match kind:
        case "text":
            return _text(part.get("body")), _texts(part.get("body"))
        case "button":
            return _text(part.get("text")), _texts(part.get("text"), part.get("payload"))
        case "interactive":
            chosen = _object(part.get(str(part.get("type", ""))))
            return _text(chosen.get("title", chosen.get("body"))), _texts(chosen.get("title"), chosen.get("id"))
        case "reaction":  # taken back, it has none
            return _text(part.get("emoji")) or None, ()
        case "location":
            return _text(part.get("name") or part.get("address")) or _place(part), ()
        case "contacts":
            cards = cast("list[object]", whole) if isinstance(whole, list) else []
            names = [_text(_object(_object(card).get("name")).get("formatted_name")) for card in cards]
            return ", ".join(name for name in names if name) or None, ()
        case "order":
            return _text(part.get("text")), ()
        case "system":
            return _text(part.get("body")), ()
        case _:  # what is written under a picture is said; how a file is called is not
            return _text(part.get("caption", part.get("filename"))), _texts(part.get("caption"))


def _file(part: dict[str, Any]) -> File | None:
    id_ = _text(part.get("id"))
    return File(id_, _text(part.get("mime_type")), _text(part.get("filename"))) if id_ else None


def _changed(system: dict[str, Any]) -> Changed | None:
    """A new number or id. Meta has named the fields of this news differently over the years."""
    phone = _text(system.get("wa_id", system.get("new_wa_id")))
    user_id = _text(system.get("user_id", system.get("new_user_id")))
    changes = str(system.get("type", "")).endswith(("changed_number", "changed_user_id", "user_id_changed"))
    return Changed(*_who(phone, user_id)) if changes and (phone or user_id) else None


def _place(part: dict[str, Any]) -> str | None:
    latitude, longitude = part.get("latitude"), part.get("longitude")
    return None if latitude is None or longitude is None else f"{latitude}, {longitude}"


def _text(part: object) -> str | None:
    """A text as the database can hold it."""
    return None if part is None else str(part).replace("\0", "")


def _texts(*parts: object) -> tuple[str, ...]:
    return tuple(text for part in parts if (text := _text(part)))


def quoting(messages: Iterable[InboundMessage]) -> Iterator[tuple[str, str]]:
    """Of those who say no number: their user id, and the message that they quote. Who quotes it is who got it."""
    for one in messages:
        if one.phone is None and one.user_id and one.context_wamid:
            yield one.user_id, one.context_wamid


def _object(part: object) -> dict[str, Any]:
    """A JSON object as it is; anything else as an empty one."""
    return cast("dict[str, Any]", part) if isinstance(part, dict) else {}


def _at(timestamp: str) -> datetime:
    return datetime.fromtimestamp(int(timestamp), UTC)
