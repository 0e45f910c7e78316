"""One gateway for all senders: each is served by the client of its provider."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from loguru import logger

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
from harkara.schemas.reasons import NO_GATEWAY
from harkara.settings import OWN_GATEWAYS, Settings

#: The kinds of answers to a request to send, as metrics name them.
ANSWERS: Mapping[type[Answer], str] = {
    Accepted: "accepted",
    Refused: "refused",
    NotSent: "not_sent",
    Unknown: "unknown",
}

#: What gateways that lend a phone's account answer to a name that they don't know, and others to what they don't speak.
NOT_FOUND = 404

#: A gateway that was found away is another time away if nobody found it so for as long: what waits asks more often.
ANEW_S = 60.0


def clients(
    settings: Settings,
    *,
    connect_timeout: timedelta = timedelta(seconds=5),
    answer_timeout: timedelta = timedelta(seconds=30),
) -> dict[str, Gateway]:
    """A client for each provider, at the addresses that are set. The sandbox speaks as the Cloud API does."""
    where = settings.gateway_url
    cloud = CloudGateway(where("cloud"), connect_timeout=connect_timeout, answer_timeout=answer_timeout)
    evolution = EvolutionGateway(where("evolution"), connect_timeout=connect_timeout, answer_timeout=answer_timeout)
    waha = WahaGateway(where("waha"), connect_timeout=connect_timeout, answer_timeout=answer_timeout)
    return {"cloud": cloud, "sandbox": cloud, "evolution": evolution, "waha": waha}


def phones(settings: Settings) -> dict[str, Sessions]:
    """A client for the sessions of each provider that lends a phone's account. Making one takes them some seconds."""
    patience = timedelta(seconds=20)
    return {
        "evolution": EvolutionGateway(settings.gateway_url("evolution"), answer_timeout=patience),
        "waha": WahaGateway(settings.gateway_url("waha"), answer_timeout=patience),
    }


class Providers:
    """Passes every call on to the client of the credentials' provider, and counts what became of sending.

    What could not be sent at all says where it was to be sent to: as `place_of` names that.
    """

    def __init__(
        self,
        by_provider: Mapping[str, Gateway],
        place_of: Callable[[str], str],
        measures: Measures | None = None,
    ) -> None:
        self._clients, self._place_of = by_provider, place_of
        self._measures = measures or Measures()
        #: When each provider's gateway was last found away.
        self._away: dict[str, float] = {}

    async def send(
        self, credentials: Credentials, to: str, content: Content, *, opaque: str, reply_to: str | None = None
    ) -> Answer:
        """Send rendered content."""
        provider, begun = credentials.provider, time.perf_counter()
        answer = await self._clients[provider].send(credentials, to, content, opaque=opaque, reply_to=reply_to)
        self._measures.gateway[provider, ANSWERS[type(answer)]].add(time.perf_counter() - begun)
        if isinstance(answer, Refused):
            self._measures.refusals.add(provider, str(answer.code) if answer.code in RULES else OTHER)
            if answer.code == NOT_FOUND and provider in OWN_GATEWAYS:  # perhaps it is another who was asked
                return replace(answer, details=f"{answer.details}; asked at {self._place_of(provider)}")
        return self._nobody_there(provider, answer) if isinstance(answer, NotSent) else answer

    def _nobody_there(self, provider: str, answer: NotSent) -> NotSent:
        """Name where nobody answers; in the log once for each time that it is away."""
        away, now = f"{self._place_of(provider)}: {answer.reason}", time.monotonic()
        if now - self._away.get(provider, -math.inf) > ANEW_S:
            logger.warning(
                "the gateway of {} senders does not answer, and their messages wait: {}; check that it runs, and its"
                " address",
                provider,
                away,
            )
        self._away[provider] = now
        return NotSent(f"{NO_GATEWAY}{away}")

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
