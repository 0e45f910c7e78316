"""Requests with traces: goes around the handlers while tracing is on, and is not loaded otherwise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from opentelemetry.trace import Status, StatusCode

from harkara.http.limiting import EXEMPT
from harkara.http.route import Route
from harkara.observing.tracing import Tracer, current

#: Takes the request, and the id that it is given.
Handle = Callable[[web.Request, str | None], Awaitable[web.StreamResponse]]

#: Routes that are open for hours.
UNTRACED = EXEMPT | {"/api/v1/feed"}


def traced(tracer: Tracer, route: Route, handle: Handle) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The handler with a span around it, except for what asks how we are."""
    name, method = f"{route.method} {route.path}", route.method

    async def in_a_span(request: web.Request) -> web.StreamResponse:
        about = {"http.request.method": method, "http.route": route.path}
        cause, span = tracer.request(name, request.headers.get("traceparent"), about)
        if span is None:
            return await handle(request, cause)
        with current(span):
            try:
                response = await handle(request, cause)
                span.set_attribute("http.response.status_code", response.status)
                if response.status >= 500:
                    span.set_status(Status(StatusCode.ERROR))
                return response
            finally:
                span.end()

    async def plain(request: web.Request) -> web.StreamResponse:
        return await handle(request, None)

    return plain if route.path in UNTRACED else in_a_span
