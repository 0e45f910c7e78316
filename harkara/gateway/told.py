"""What a gateway tells, as the house understands it: what became of our messages, and what others say to us."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

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


class Preference(msgspec.Struct, frozen=True, gc=False):
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
    #: When it happened, if that is told.
    at: datetime | None = None


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


def quoting(messages: Iterable[InboundMessage]) -> Iterator[tuple[str, str]]:
    """Of those who say no number: their user id, and the message that they quote. Who quotes it is who got it."""
    for one in messages:
        if one.phone is None and one.user_id and one.context_wamid:
            yield one.user_id, one.context_wamid
