"""From a request to a handler and back: the layers every route goes through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import msgspec
from aiohttp import web
from loguru import logger

from harkara.http.context import Answer, Context
from harkara.http.decoding import decode_body, decode_query
from harkara.http.problems import Problem, malformed, not_found, too_large
from harkara.http.route import Route
from harkara.ids import uuid7

if TYPE_CHECKING:
    from harkara.http.door import Door

Handler = Callable[[Context[Any, Any]], Awaitable[object]]

#: Does something with a request and passes it on to the next.
Layer = Callable[[Context[Any, Any], Handler], Awaitable[object]]

#: Under this name an aiohttp request carries its id.
CAUSE = web.RequestKey("cause", str)

_encoder = msgspec.json.Encoder()


def serve(door: Door, route: Route, layers: Sequence[Layer]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The aiohttp handler of one route."""
    handler = _wrapped(route.handler, layers)

    async def handle(request: web.Request) -> web.StreamResponse:
        ctx: Context[Any, Any] = Context(door, request, route, request[CAUSE], None, None)
        ctx.ids = _ids(request)
        return _response(await handler(ctx), route)

    return handle


def _wrapped(handler: Handler, layers: Sequence[Layer]) -> Handler:
    for layer in reversed(layers):
        handler = _around(layer, handler)
    return handler


def _around(layer: Layer, inner: Handler) -> Handler:
    return lambda ctx: layer(ctx, inner)


def _ids(request: web.Request) -> dict[str, UUID]:
    found: dict[str, UUID] = {}
    for name, text in request.match_info.items():
        if name.endswith("_id"):
            try:
                found[name] = UUID(text)
            except ValueError:
                raise not_found(name.removesuffix("_id")) from None
    return found


async def take_in(ctx: Context[Any, Any], inner: Handler) -> object:
    """Read and decode the body and the query as the route says; 400, 413 and 422 name the fault."""
    route = ctx.route
    if route.query is not None:
        ctx.query = decode_query(ctx.request.query, route.query)
    if route.body is not None:
        raw = await read(ctx.request, route.body_limit)
        if raw or not route.body_optional:
            ctx.body = decode_body(raw, route.body)
    return await inner(ctx)


async def read(request: web.Request, limit: int) -> bytes:
    """The whole body, at most `limit` bytes: 413 as soon as it is known to be more."""
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    if request.content.is_eof() and request.content.exception() is None:  # it is all there, as small ones nearly always
        whole = request.content.read_nowait()
        if len(whole) > limit:
            raise too_large(limit)
        return whole
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.content.iter_any():
            size += len(chunk)
            if size > limit:
                raise too_large(limit)
            chunks.append(chunk)
    except (web.RequestPayloadError, ConnectionError):
        raise malformed("the body ended early or is badly encoded: send it again") from None
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _response(result: object, route: Route) -> web.StreamResponse:
    if isinstance(result, web.StreamResponse):
        return result
    if isinstance(result, Answer):
        answer = cast("Answer[object]", result)
        return _encoded(answer.body, answer.status or route.status, answer.headers)
    return _encoded(result, route.status, {})


def _encoded(body: object, status: int, headers: Mapping[str, str]) -> web.Response:
    if body is None:
        return web.Response(status=status, headers=headers)
    return web.Response(body=_encoder.encode(body), status=status, content_type="application/json", headers=headers)


@web.middleware
async def answer_problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Give every request an id, and every failure a problem document."""
    request[CAUSE] = str(uuid7())
    try:
        response = await handler(request)
    except Problem as problem:
        response = _told(request, problem)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        response = _told(request, _from_aiohttp(request, error))
    except Exception:
        logger.bind(request=request[CAUSE]).exception("a request failed: {} {}", request.method, request.path)
        detail = f"this is our fault: tell us about request {request[CAUSE]}"
        response = _told(request, Problem(500, detail))
    if not response.prepared:
        response.headers["X-Request-Id"] = request[CAUSE]
    return response


def _told(request: web.Request, problem: Problem) -> web.Response:
    level = "WARNING" if problem.status >= 500 else "DEBUG"
    logger.bind(request=request[CAUSE]).log(
        level, "{} {} answered {}: {}", request.method, request.path, problem.status, problem.detail
    )
    response = problem.response()
    if problem.status == 413:
        response.force_close()  # the rest of the body is not wanted
    return response


def _from_aiohttp(request: web.Request, error: web.HTTPException) -> Problem:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        detail = f"{request.method} is not possible here: use {allowed}"
        return Problem(405, detail, headers={"Allow": allowed})
    if error.status == 404:
        return Problem(404, f"there is nothing at {request.path}: the API is under /api/v1")
    return Problem(error.status, error.text or error.reason)
