"""Cloud API webhooks as the house understands them: what became of our messages, what people say to us and set.

Only what is used is decoded; unknown fields and kinds of change are skipped. Field names and the cases in which they
are absent are those of Meta's webhook reference (a username contact has no `wa_id` and no `from`, a failed status no
`contacts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import msgspec

from harkara.gateway.plain import a_number, a_text, a_time, an_id, who
from harkara.gateway.saying import call, message, named
from harkara.gateway.told import Preference, StatusUpdate, TemplateUpdate, Webhook
from harkara.gateway.unread import UNREADABLE, items, lenient, noting


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
    calls: list[dict[str, Any]] = []


class _Change(msgspec.Struct):
    field: str
    value: msgspec.Raw


class _Entry(msgspec.Struct):
    changes: list[_Change] = []
    time: int | None = None


class _Envelope(msgspec.Struct):
    entry: list[_Entry] = []


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_value = msgspec.json.Decoder(_Value).decode
_decode_template = msgspec.json.Decoder(_TemplateValue).decode

#: The kinds of change that are read, as Meta names them.
CHANGES_WITH_ITEMS = frozenset({"messages", "user_preferences", "calls"})
_OF_TEMPLATES = frozenset(
    {"message_template_status_update", "message_template_quality_update", "template_category_update"}
)

#: What can be set, and the words by which it is told.
_MARKETING = "marketing_messages"
_SET = {"stop": True, "resume": False}

#: What the database can hold.
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
            if change.field in CHANGES_WITH_ITEMS:
                value = _decode_value(change.value)
                webhook = found.setdefault(value.metadata.phone_number_id if value.metadata else None, Webhook())
                webhook.statuses.extend(_status(status, value.contacts) for status in value.statuses)
                names = _names(value.contacts)
                webhook.messages.extend(message(one, names) for one in value.messages)
                webhook.preferences.extend(_preferences(value.user_preferences, names))
                webhook.messages.extend(filter(None, (call(one, names) for one in value.calls)))
            elif change.field in _OF_TEMPLATES:
                found.setdefault(None, Webhook()).templates.append(
                    _template(_decode_template(change.value), entry.time)
                )
    return found


def _item_by_item(body: bytes | msgspec.Raw) -> dict[str | None, Webhook]:
    """The same, at many times the cost: what can be read, numbers for texts too, and in `unread` what can't.

    That is with what names no number.
    """
    found: dict[str | None, Webhook] = {None: (rest := Webhook())}
    whole = msgspec.json.decode(body, type=dict[str, Any])
    if not isinstance(whole.get("entry"), list):
        raise ValueError("it has no list of entries")
    for entry_at, entry in items(whole, "entry", "", rest.unread):
        for at, change in items(entry, "changes", f"{entry_at}.", rest.unread):
            with noting(at, rest.unread):
                name = str(change["field"])
                if name in CHANGES_WITH_ITEMS:
                    _read_change(_value(change), f"{at}.", found, rest.unread)
                elif name in _OF_TEMPLATES:
                    rest.templates.append(_template(lenient(_value(change), _TemplateValue), entry.get("time")))
    return found


def _value(change: dict[str, Any]) -> dict[str, Any]:
    value = change["value"]
    if not isinstance(value, dict):
        raise ValueError("its value is no object")
    return cast("dict[str, Any]", value)


def _read_change(value: dict[str, Any], at: str, found: dict[str | None, Webhook], unread: list[str]) -> None:
    metadata = lenient(value.get("metadata") or {}, _Metadata)
    webhook = found.setdefault(metadata.phone_number_id, Webhook())
    contacts: list[_Contact] = []
    for place, one in items(value, "contacts", at, unread):
        with noting(place, unread):
            contacts.append(lenient(one, _Contact))
    names = _names(contacts)
    for place, one in items(value, "statuses", at, unread):
        with noting(place, unread):
            webhook.statuses.append(_status(lenient(one, _Status), contacts))
    for place, one in items(value, "messages", at, unread):
        with noting(place, unread):
            webhook.messages.append(message(one, names))
    for place, one in items(value, "user_preferences", at, unread):
        with noting(place, unread):
            webhook.preferences.extend(_preferences([lenient(one, _Preference)], names))
    for place, one in items(value, "calls", at, unread):
        with noting(place, unread):
            webhook.messages.extend(filter(None, (call(one, names),)))


def _template(value: _TemplateValue, time: object) -> TemplateUpdate:
    reason = value.reason if value.reason not in (None, "", "NONE") else None
    status, quality, category = (
        text.lower() if text else None for text in (value.event, value.new_quality_score, value.new_category)
    )
    at = None
    with suppress(ValueError, OverflowError, OSError):
        at = a_time(str(time))
    return TemplateUpdate(
        value.message_template_name, value.message_template_language, status, reason, quality, category, at
    )


def _status(status: _Status, contacts: Sequence[_Contact]) -> StatusUpdate:
    phone, user_id = a_number(status.recipient_id), status.recipient_user_id
    if not (phone and user_id):  # one may be among the contacts alone
        for one in contacts:
            if (phone and one.wa_id == phone) or (user_id and one.user_id == user_id):
                phone, user_id = phone or a_number(one.wa_id), user_id or one.user_id
    error = status.errors[0] if status.errors else None
    data = error.error_data if error else None
    details = data.details if isinstance(data, _ErrorData) else data
    if error and abs(error.code) > _LARGEST_CODE:
        raise ValueError(f"{error.code} is no error code")
    return StatusUpdate(
        an_id(status.id),
        # A voice message that was listened to was read.
        "read" if status.status == "played" else status.status,
        a_time(status.timestamp),
        status.biz_opaque_callback_data,
        error.code if error else None,
        a_text(details or error.message or error.title) if error else None,
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
    return {key: a_text(c.profile.name) for c in contacts if c.profile for key in (c.wa_id, c.user_id) if key}


def _preferences(set_: Iterable[_Preference], names: Mapping[str, str | None]) -> Iterator[Preference]:
    for one in set_:
        out = _SET.get(one.value.lower())
        if one.category == _MARKETING and out is not None:
            phone, user_id = who(one.wa_id, one.user_id)
            yield Preference(phone, user_id, named(names, phone, user_id), a_time(str(one.timestamp)), out)
