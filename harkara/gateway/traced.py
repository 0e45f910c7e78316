"""Sending with traces: stands where the plain one does while tracing is on, and is not loaded otherwise."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from harkara.gateway.protocol import Accepted, Answer, Credentials, Gateway, Refused, Unknown
from harkara.gateway.providers import ANSWERS, Providers
from harkara.measures import Measures
from harkara.observing.tracing import Tracer
from harkara.schemas.content import Content


class TracedProviders(Providers):
    """Makes a span of each request to send: what came of it, never what was said and to whom."""

    def __init__(
        self,
        tracer: Tracer,
        by_provider: Mapping[str, Gateway],
        place_of: Callable[[str], str],
        measures: Measures | None = None,
    ) -> None:
        super().__init__(by_provider, place_of, measures)
        self._tracer = tracer

    async def send(
        self, credentials: Credentials, to: str, content: Content, *, opaque: str, reply_to: str | None = None
    ) -> Answer:
        """Send rendered content."""
        begun = time.time_ns()
        answer = await super().send(credentials, to, content, opaque=opaque, reply_to=reply_to)
        about: dict[str, str | int] = {
            "harkara.provider": credentials.provider,
            "harkara.sender_id": credentials.sender_id,
            "harkara.message_id": opaque,
            "harkara.answer": ANSWERS[type(answer)],
        }
        if isinstance(answer, Refused):
            about["harkara.code"] = answer.code
        left = isinstance(answer, Accepted | Unknown)
        self._tracer.sent("POST WhatsApp", opaque, begun, about, left=left, ok=isinstance(answer, Accepted))
        return answer
