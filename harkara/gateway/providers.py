"""One gateway for all senders: each is served by the client of its provider."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import timedelta

from harkara.gateway.cloud import CloudGateway
from harkara.gateway.errors import RULES
from harkara.gateway.evolution import EvolutionGateway
from harkara.gateway.protocol import (
    Accepted,
    Answer,
    Credentials,
    Done,
    Downloaded,
    Fetched,
    Gateway,
    Listed,
    MediaInfo,
    NotSent,
    Problem,
    Refused,
    Sessions,
    Unknown,
    Uploaded,
    Write,
)
from harkara.gateway.waha import WahaGateway
from harkara.measures import OTHER, Measures
from harkara.schemas.content import Content
from harkara.settings import Settings

#: The kinds of answers to a request to send, as metrics name them.
ANSWERS: Mapping[type[Answer], str] = {
    Accepted: "accepted",
    Refused: "refused",
    NotSent: "not_sent",
    Unknown: "unknown",
}


def clients(
    settings: Settings,
    *,
    connect_timeout: timedelta = timedelta(seconds=5),
    answer_timeout: timedelta = timedelta(seconds=30),
) -> dict[str, Gateway]:
    """A client for each provider, at the addresses that are set. The sandbox speaks as the Cloud API does."""
    default = settings.whatsapp_gateway_url
    cloud = CloudGateway(default, connect_timeout=connect_timeout, answer_timeout=answer_timeout)
    evolution = EvolutionGateway(
        settings.evolution_url or default, connect_timeout=connect_timeout, answer_timeout=answer_timeout
    )
    waha = WahaGateway(settings.waha_url or default, connect_timeout=connect_timeout, answer_timeout=answer_timeout)
    return {"cloud": cloud, "sandbox": cloud, "evolution": evolution, "waha": waha}


def phones(settings: Settings) -> dict[str, Sessions]:
    """A client for the sessions of each provider that lends a phone's account. Making one takes them some seconds."""
    default, patience = settings.whatsapp_gateway_url, timedelta(seconds=20)
    return {
        "evolution": EvolutionGateway(settings.evolution_url or default, answer_timeout=patience),
        "waha": WahaGateway(settings.waha_url or default, answer_timeout=patience),
    }


class Providers:
    """Passes every call on to the client of the credentials' provider, and counts what became of sending."""

    def __init__(self, by_provider: Mapping[str, Gateway], measures: Measures | None = None) -> None:
        self._clients = by_provider
        self._measures = measures or Measures()

    async def send(
        self, credentials: Credentials, to: str, content: Content, *, opaque: str, reply_to: str | None = None
    ) -> Answer:
        """Send rendered content."""
        provider, begun = credentials.provider, time.perf_counter()
        answer = await self._clients[provider].send(credentials, to, content, opaque=opaque, reply_to=reply_to)
        self._measures.gateway[provider, ANSWERS[type(answer)]].add(time.perf_counter() - begun)
        if isinstance(answer, Refused):
            self._measures.refusals.add(provider, str(answer.code) if answer.code in RULES else OTHER)
        return answer

    async def mark_read(self, credentials: Credentials, message_id: str, *, typing: bool = False) -> Done | Problem:
        """Mark an inbound message as read."""
        return await self._clients[credentials.provider].mark_read(credentials, message_id, typing=typing)

    async def upload_media(
        self, credentials: Credentials, data: bytes, mime_type: str, filename: str
    ) -> Uploaded | Problem:
        """Store a file for sending."""
        return await self._clients[credentials.provider].upload_media(credentials, data, mime_type, filename)

    async def media_info(self, credentials: Credentials, media_id: str) -> MediaInfo | Problem:
        """Look up a stored or received file."""
        return await self._clients[credentials.provider].media_info(credentials, media_id)

    async def download(self, credentials: Credentials, url: str) -> Downloaded | Problem:
        """Fetch a file."""
        return await self._clients[credentials.provider].download(credentials, url)

    async def templates(self, credentials: Credentials, waba_id: str) -> list[Listed] | Problem:
        """All message templates of an account; none of a gateway that knows no templates."""
        client = self._clients[credentials.provider]
        return await client.templates(credentials, waba_id) if isinstance(client, CloudGateway) else []

    async def fetch(self, credentials: Credentials, url: str, write: Write) -> Fetched | Problem:
        """Hand on a file."""
        return await self._clients[credentials.provider].fetch(credentials, url, write)

    async def close(self) -> None:
        """Give up all connections."""
        for client in set(self._clients.values()):
            await client.close()
