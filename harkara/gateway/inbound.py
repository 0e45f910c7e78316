"""Cloud API webhooks as the house understands them: statuses of our messages, and messages to us.

Only what is used is decoded; unknown fields and kinds of change are skipped. Field names and the cases in which they
are absent are those of Meta's webhook reference (a username contact has no `wa_id` and no `from`, a failed status no
`contacts`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import msgspec


@dataclass(frozen=True, slots=True)
class StatusUpdate:
    """WhatsApp's news of a message we sent; `opaque` is our own id, if it came back."""

    wamid: str
    status: str
    at: datetime
    opaque: str | None
    error_code: int | None
    error: str | None
    pricing: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class InboundMessage:
    """A message a contact sent us. `phone` is E.164 without `+`; a username contact has only `user_id`."""

    wamid: str
    phone: str | None
    user_id: str | None
    name: str | None
    at: datetime
    type: str
    text: str | None
    context_wamid: str | None
    payload: dict[str, Any]


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
    error_data: _ErrorData | None = None


class _Status(msgspec.Struct):
    id: str
    status: str
    timestamp: str
    biz_opaque_callback_data: str | None = None
    errors: list[_Error] | None = None
    pricing: dict[str, Any] | None = None


class _Value(msgspec.Struct):
    contacts: list[_Contact] = []
    messages: list[dict[str, Any]] = []
    statuses: list[_Status] = []


class _Change(msgspec.Struct):
    field: str
    value: msgspec.Raw


class _Entry(msgspec.Struct):
    changes: list[_Change] = []


class _Envelope(msgspec.Struct):
    entry: list[_Entry] = []


_decode = msgspec.json.Decoder(_Envelope).decode
_decode_value = msgspec.json.Decoder(_Value).decode


def parse(body: bytes | msgspec.Raw) -> tuple[list[StatusUpdate], list[InboundMessage]]:
    """All statuses and messages of one webhook, in its order. Raises msgspec.ValidationError if it is not Meta's."""
    statuses: list[StatusUpdate] = []
    messages: list[InboundMessage] = []
    for entry in _decode(body).entry:
        for change in entry.changes:
            if change.field == "messages":
                value = _decode_value(change.value)
                statuses += map(_status, value.statuses)
                messages += _messages(value)
    return statuses, messages


def _status(status: _Status) -> StatusUpdate:
    error = status.errors[0] if status.errors else None
    details = error.error_data.details if error and error.error_data else None
    return StatusUpdate(
        status.id,
        # A voice message that was listened to was read.
        "read" if status.status == "played" else status.status,
        _at(status.timestamp),
        status.biz_opaque_callback_data,
        error.code if error else None,
        (details or error.message or error.title) if error else None,
        status.pricing,
    )


def _messages(value: _Value) -> Iterator[InboundMessage]:
    names = {key: c.profile.name for c in value.contacts if c.profile for key in (c.wa_id, c.user_id) if key}
    for message in value.messages:
        kind = str(message.get("type", "unknown"))
        phone, user_id = message.get("from"), message.get("from_user_id")
        yield InboundMessage(
            str(message["id"]),
            phone,
            user_id,
            names.get(phone or "") or names.get(user_id or ""),
            _at(str(message.get("timestamp", "0"))),
            kind,
            _text(kind, message.get(kind)),
            _object(message.get("context")).get("id"),
            message,
        )


def _text(kind: str, part: Any) -> str | None:
    """What a message says in words, whatever its kind."""
    found = _object(part)
    match kind:
        case "text":
            text = found.get("body")
        case "button":
            text = found.get("text")
        case "interactive":
            text = _object(found.get(str(found.get("type", "")))).get("title")
        case "reaction":
            text = found.get("emoji")
        case _:
            text = found.get("caption")
    return str(text) if text is not None else None


def _object(part: object) -> dict[str, Any]:
    """A JSON object as it is; anything else as an empty one."""
    return cast("dict[str, Any]", part) if isinstance(part, dict) else {}


def _at(timestamp: str) -> datetime:
    return datetime.fromtimestamp(int(timestamp), UTC)
