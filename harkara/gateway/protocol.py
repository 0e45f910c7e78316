"""What the house knows of a WhatsApp gateway: one Protocol and a closed set of answers, returned, never raised."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeAlias

import msgspec

from harkara.gateway.errors import Rule
from harkara.schemas.content import Content

#: The largest file that WhatsApp takes from anybody, in bytes: a document. Larger ones are not fetched.
DOWNLOAD_LIMIT = 100 * 1024 * 1024


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


class Accepted(msgspec.Struct, frozen=True, gc=False):
    """The gateway took the message.

    `status` is set for templates only: `accepted`, `held_for_quality_assessment` or `paused`. `usage` is how much of
    the account's allowance is used up, in percent, if the gateway says.
    """

    wamid: str
    status: str | None = None
    usage: float = 0


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
class Fetched:
    """A file was handed on as a whole."""

    mime_type: str


#: Takes a file in pieces.
Write: TypeAlias = Callable[[bytes], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A file's bytes."""

    data: bytes
    mime_type: str


@dataclass(frozen=True, slots=True)
class Session:
    """How a gateway that lends a phone's own account stands with it.

    `state` is `starting`, `scan_qr` (a person has to link the phone), `working`, `stopped` or `failed`.
    """

    state: str
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Qr:
    """What a phone scans to be linked: a PNG, or the text that such an image holds."""

    image: bytes | None = None
    code: str | None = None


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a gateway shall report to, and the secret by which we know that it does. Its text form never shows it."""

    url: str
    secret: str

    def __repr__(self) -> str:
        return f"Hook(url={self.url!r})"


@dataclass(frozen=True, slots=True)
class Listed:
    """A message template as the gateway has it: category, status and quality in its own words; components as JSON."""

    name: str
    language: str
    category: str
    status: str
    reason: str | None
    quality: str | None
    components: bytes


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
        """Send rendered content to a phone (E.164); `opaque` (≤ 512 characters) comes back in every status.

        `reply_to` is what it quotes, as the gateway named it when it was accepted or came in.
        """
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

    async def fetch(self, credentials: Credentials, url: str, write: Write) -> Fetched | Problem:
        """Hand on a file from the address that `media_info` gave, in pieces where the gateway can do that."""
        ...

    async def close(self) -> None:
        """Give up all connections."""
        ...


class Sessions(Protocol):
    """The side of a gateway on which a phone is linked. Calls return an outcome and raise only when cancelled."""

    async def state(self, credentials: Credentials) -> Session | Problem:
        """How the session stands."""
        ...

    async def start(self, credentials: Credentials, hook: Hook) -> Session | Problem:
        """Make the session if there is none, have it report to `hook`, and start it."""
        ...

    async def restart(self, credentials: Credentials) -> Session | Problem:
        """Connect anew, without linking the phone again."""
        ...

    async def logout(self, credentials: Credentials) -> Session | Problem:
        """Unlink the phone."""
        ...

    async def qr(self, credentials: Credentials, *, image: bool) -> Qr | Session | Problem:
        """What the phone has to scan, as an image or as text; the session's state if there is nothing to scan."""
        ...

    async def close(self) -> None:
        """Give up all connections."""
        ...
