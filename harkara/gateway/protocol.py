"""What the house knows of a WhatsApp gateway: one Protocol and a closed set of answers, returned, never raised."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeAlias

import msgspec

from harkara.gateway.errors import Rule
from harkara.schemas.content import Content


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What it takes to send through one business number. Its text form never shows the token."""

    sender_id: str
    phone_number_id: str
    access_token: str
    provider: str = "cloud"

    def __repr__(self) -> str:
        return (
            f"Credentials(sender_id={self.sender_id!r}, phone_number_id={self.phone_number_id!r}, "
            f"provider={self.provider!r})"
        )


@dataclass(frozen=True, slots=True)
class Accepted:
    """The gateway took the message.

    `status` is set for templates only: `accepted`, `held_for_quality_assessment` or `paused`.
    """

    wamid: str
    status: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """The gateway said no in so many words: provably not accepted. `rule` says what to do next."""

    code: int
    title: str
    details: str
    rule: Rule
    retry_after: timedelta | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """The request never left, perhaps because nobody listens: provably not accepted, safe to send again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The request left and no usable answer came: it may have been accepted. Never resend blindly."""

    reason: str


#: Why a call did not succeed.
Problem: TypeAlias = Refused | NotSent | Unknown

#: The outcome of a send.
Answer: TypeAlias = Accepted | Refused | NotSent | Unknown


@dataclass(frozen=True, slots=True)
class Done:
    """The gateway did what was asked."""


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file was stored under `media_id` (the Cloud API keeps it for 30 days)."""

    media_id: str


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """Where a file can be fetched (for five minutes, with the same token) and what it is; `size` in bytes."""

    url: str
    mime_type: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file's bytes."""

    data: bytes
    mime_type: str


class Gateway(Protocol):
    """A WhatsApp gateway. Calls return an outcome and raise only when cancelled."""

    async def send(
        self,
        credentials: Credentials,
        to: str,
        content: Content,
        *,
        opaque: str,
        reply_to: str | None = None,
    ) -> Answer:
        """Send rendered content to a phone (E.164); `opaque` (≤ 512 characters) comes back in every status."""
        ...

    async def send_encoded(self, credentials: Credentials, payload: bytes) -> Answer:
        """Send what `encode` made: the hot path."""
        ...

    def encode(self, to: str, content: Content, opaque: str, reply_to: str | None = None) -> bytes:
        """The request's body in the gateway's own language."""
        ...

    async def mark_read(self, credentials: Credentials, message_id: str, *, typing: bool = False) -> Done | Problem:
        """Mark an inbound message as read, optionally showing that we are typing."""
        ...

    async def upload_media(
        self, credentials: Credentials, data: bytes, mime_type: str, filename: str
    ) -> Uploaded | Problem:
        """Store a file with the gateway."""
        ...

    async def media_info(self, credentials: Credentials, media_id: str) -> MediaInfo | Problem:
        """Look up a stored or received file."""
        ...

    async def download(self, credentials: Credentials, url: str) -> Downloaded | Problem:
        """Fetch a file from the address that `media_info` gave."""
        ...

    async def close(self) -> None:
        """Give up all connections."""
        ...
