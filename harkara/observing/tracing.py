"""Traces, if OTEL_EXPORTER_OTLP_ENDPOINT says where to: from a request through the bus to the gateway and back.

A trace's id is the cause: the id that every message, row and event carries anyway. So nothing is stored for tracing,
and what comes back after hours by way of the database is still part of its trace. Two kinds of spans have ids that
follow from what they are about, so that what comes later finds them: a request's from its cause, a sending's from its
message. See docs/decisions/0050-a-trace-is-its-cause.md. This module is imported only when tracing is on.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from typing import TypeAlias
from uuid import UUID

from opentelemetry.context import attach, detach
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Decision
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from harkara.ids import uuid7_text
from harkara.settings import Settings

Attributes: TypeAlias = Mapping[str, str | int]

#: How long a process that ends waits for the collector.
LAST_S = 3.0

_LAST_64 = (1 << 64) - 1
_VERSION = "00"
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


def exporting(settings: Settings) -> SpanProcessor:
    """Sends spans, in a thread of its own, to the collector that the settings name."""
    named = settings.otel_exporter_otlp_traces_endpoint
    return BatchSpanProcessor(
        OTLPSpanExporter(endpoint=named or f"{settings.otel_exporter_otlp_endpoint.rstrip('/')}/v1/traces")
    )


class Tracer:
    """Makes spans. Which traces are kept is OTEL_TRACES_SAMPLER's to say, by a trace's id, and the same everywhere."""

    def __init__(self, processor: SpanProcessor) -> None:
        self._ids = _Ids()
        # What the environment names decides, but on ids as `_for_samplers` shows them.
        self._sampler = TracerProvider(shutdown_on_exit=False).sampler
        self._provider = TracerProvider(ALWAYS_ON, _resource(), id_generator=self._ids, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("harkara", version("harkara"))

    async def close(self) -> None:
        """Send what is left, if the collector takes it soon; no process stays for one that is away."""
        loop, sent = asyncio.get_running_loop(), asyncio.Event()

        def send() -> None:
            self._provider.shutdown()
            with contextlib.suppress(RuntimeError):  # the loop has not waited
                loop.call_soon_threadsafe(sent.set)

        threading.Thread(target=send, daemon=True).start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_S):
                await sent.wait()

    def request(self, name: str, header: str | None, attributes: Attributes) -> tuple[str, Span | None]:
        """A request's cause, and its span if its trace is kept.

        Of a caller that has begun a trace and keeps it (`header` is its traceparent), that trace is the cause.
        """
        caller = parsed(header)
        if caller is None:
            cause = uuid7_text()
            trace = trace_of(cause)
            if not self._kept(trace):
                return cause, None
            return cause, self._start(name, SpanKind.SERVER, trace, None, attributes, span_id=trace & _LAST_64)
        cause = str(UUID(int=caller.trace_id))
        return cause, self._start(name, SpanKind.SERVER, caller.trace_id, caller, attributes)

    def step(
        self, name: str, kind: SpanKind, cause: str, attributes: Attributes, header: str | None = None
    ) -> Span | None:
        """A span on the way of what has this cause, if its trace is kept.

        Its parent is the one that a traceparent in `header` names, the current span, or the request that was the cause.
        """
        trace = trace_of(cause)
        parent = parsed(header) if header is not None else get_current_span().get_span_context()
        if parent is None or parent.trace_id != trace:
            if not self._kept(trace):
                return None
            parent = _of_request(trace)
        return self._start(name, kind, trace, parent, attributes)

    def sent(self, name: str, message: str, begun_ns: int, attributes: Attributes, *, left: bool, ok: bool) -> None:
        """A request to a gateway that is over. If the message may have `left`, its receipts find this span."""
        parent = get_current_span().get_span_context()
        if not parent.is_valid:
            return
        span_id = span_of(message) if left else 0
        span = self._start(
            name, SpanKind.CLIENT, parent.trace_id, parent, attributes, span_id=span_id, begun_ns=begun_ns
        )
        if not ok:
            span.set_status(Status(StatusCode.ERROR))
        span.end()

    def receipt(self, name: str, cause: str, message: str, attributes: Attributes, by: Span) -> str | None:
        """What came back about a sent message, in that message's trace, with a link to what brought it (`by`).

        Gives the traceparent for what is told of it.
        """
        trace = trace_of(cause)
        if not self._kept(trace):
            return None
        parent = SpanContext(trace, span_of(message), is_remote=True, trace_flags=_SAMPLED)
        links = [Link(by.get_span_context())]
        span = self._start(name, SpanKind.INTERNAL, trace, parent, attributes, links=links)
        span.end()
        return header_of(span)

    def _start(
        self,
        name: str,
        kind: SpanKind,
        trace: int,
        parent: SpanContext | None,
        attributes: Attributes,
        *,
        span_id: int = 0,
        begun_ns: int | None = None,
        links: Sequence[Link] = (),
    ) -> Span:
        self._ids.trace, self._ids.span = trace, span_id
        around = set_span_in_context(NonRecordingSpan(parent)) if parent is not None else None
        return self._tracer.start_span(
            name, around, kind, attributes=attributes, links=links, start_time=begun_ns, record_exception=False
        )

    def _kept(self, trace: int) -> bool:
        decision = self._sampler.should_sample(None, _for_samplers(trace), "").decision
        return decision is Decision.RECORD_AND_SAMPLE


class _Ids(RandomIdGenerator):
    """Ids as they are wanted for the next span; random ones where nothing is. Spans begin in one thread."""

    trace = 0
    span = 0

    def generate_trace_id(self) -> int:
        wanted, self.trace = self.trace, 0
        return wanted or super().generate_trace_id()

    def generate_span_id(self) -> int:
        wanted, self.span = self.span, 0
        return wanted or super().generate_span_id()


class current:
    """Inside the block this is the current span."""

    def __init__(self, span: Span | None) -> None:
        self._span = span

    def __enter__(self) -> None:
        self._token = attach(set_span_in_context(self._span)) if self._span is not None else None

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            detach(self._token)


@lru_cache(maxsize=10_000)
def trace_of(cause: str) -> int:
    """The trace of what has this cause: the same 128 bits, if it is a UUID."""
    try:
        return UUID(cause).int or 1
    except ValueError:
        return int.from_bytes(hashlib.blake2b(cause.encode(), digest_size=16).digest(), "big")


def span_of(message: str) -> int:
    """The id of the span in which this message was sent."""
    return trace_of(message) & _LAST_64 or 1


def _of_request(trace: int) -> SpanContext | None:
    """The request that was the cause; None if a caller began the trace: then nobody knows that request's span."""
    return SpanContext(trace, trace & _LAST_64, is_remote=True, trace_flags=_SAMPLED) if _is_ours(trace) else None


def _is_ours(trace: int) -> bool:
    """Whether it is a UUIDv7, as we make them."""
    return trace >> 76 & 0xF == 7 and trace >> 62 & 0b11 == 0b10


def _for_samplers(trace: int) -> int:
    """Samplers take the last 64 bits for random: of our ids the first two of these are not, and make room."""
    return (trace >> 64 << 64) | (trace << 2 & _LAST_64) if _is_ours(trace) else trace


def parsed(header: str | None) -> SpanContext | None:
    """A W3C traceparent; None if it is none, or says that its trace is not kept."""
    if header is None:
        return None
    parts = header.strip().split("-")
    if len(parts) < 4 or [len(part) for part in parts[:4]] != [2, 32, 16, 2] or parts[0] == "ff":
        return None
    try:
        trace, span, flags = (int(part, 16) for part in parts[1:4])
    except ValueError:
        return None
    if not trace or not span or not flags & TraceFlags.SAMPLED:
        return None
    return SpanContext(trace, span, is_remote=True, trace_flags=_SAMPLED)


def header_of(span: Span) -> str:
    """A span as a W3C traceparent."""
    context = span.get_span_context()
    return f"{_VERSION}-{context.trace_id:032x}-{context.span_id:016x}-01"


def _resource() -> Resource:
    named = {SERVICE_VERSION: version("harkara")}
    if "OTEL_SERVICE_NAME" not in os.environ and "service.name" not in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        named[SERVICE_NAME] = "harkara"
    return Resource.create(named)
