"""An OpenTelemetry collector that keeps what it is sent."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Got:
    """One span; ids are in hex, those of no parent are empty."""

    name: str
    trace: str
    id: str
    parent: str
    attributes: dict[str, Any]
    links: list[str]


class Collector:
    """Takes spans over OTLP/HTTP."""

    def __init__(self) -> None:
        self.spans: list[Got] = []
        self.raw = b""
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.raw += body
        message: Any = ExportTraceServiceRequest()
        message.ParseFromString(body)
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                self.spans += map(_got, scope.spans)
        return web.Response(content_type="application/x-protobuf")

    def of(self, trace: str) -> dict[str, Got]:
        """The last span of each name in one trace."""
        return {span.name: span for span in self.spans if span.trace == trace}

    def ancestors(self, span: Got) -> list[str]:
        """The names of the spans that it comes from, the nearest first; at the end the id of one that is not here."""
        known = {one.id: one for one in self.spans if one.trace == span.trace}
        names: list[str] = []
        while span.parent in known:
            span = known[span.parent]
            names.append(span.name)
        return [*names, span.parent] if span.parent else names


def _got(span: Any) -> Got:
    values = {one.key: one.value.string_value or one.value.int_value for one in span.attributes}
    links = [link.trace_id.hex() for link in span.links]
    return Got(span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), values, links)


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    """A collector, listening."""
    made = Collector()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_post("/v1/traces", made.take)
    async with TestServer(app) as server:
        made.url = f"http://{server.host}:{server.port}"
        yield made
