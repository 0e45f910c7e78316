"""From a request to a handler and back: the layers every route goes through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, cast
from uuid import UUID

import msgspec
from aiohttp import web
from aiohttp.typedefs import Middleware
from loguru import logger
from multidict import MultiDict, MultiMapping

from harkara.http.answering import CAUSE, Answering
from harkara.http.checking import all_faults
from harkara.http.context import Answer, Context
from harkara.http.decoding import Misshapen, decode_body, decode_query, refuse_query
from harkara.http.problems import Problem, malformed, not_found, too_large, unsupported
from harkara.http.route import JSON, Route
from harkara.ids import uuid7_text
from harkara.log import Seldom
from harkara.schemas.base import Body

if TYPE_CHECKING:
    from harkara.http.door import Door

Handler = Callable[[Context[Any, Any]], Awaitable[object]]

#: Puts something before or around the handler of a route, if that route needs it: decided once, when the front door is
#: built. What nearly always can be done at once is done before the handler is awaited, because each coroutine between
#: costs a request twice: when it is made, and each time the request goes on.
Layer = Callable[[Route, Handler], Handler]

#: After these the rest of a body is not wanted.
UNREAD = frozenset({408, 413, 415})

#: The status of a request that became a WebSocket.
SWITCHED = 101

#: A body has to come within so much time, and more the larger it is: at least this many bytes a second.
BODY_PATIENCE_S = 10.0
SLOWEST_BYTES_PER_S = 10_000

_encoder = msgspec.json.Encoder()


class Nothing(Body):
    """What there is to say where no body is needed: none, or an empty object."""


_seldom = Seldom()


def serve(door: Door, route: Route, layers: Sequence[Layer]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """The aiohttp handler of one route."""
    handler = route.handler
    for layer in reversed(layers):
        handler = layer(route, handler)
    seen = door.metrics.seen(route.method, route.path)
    answering = door.answering
    ids = "_id}" in route.path

    async def handle(request: web.Request, cause: str | None = None) -> web.StreamResponse:
        begun = time.perf_counter()
        if cause is None:
            cause = uuid7_text()
        request[CAUSE] = cause
        seen.in_flight += 1
        try:
            ctx: Context[Any, Any] = Context(door, request, route, cause, None, None)
            if ids:
                ctx.ids = _ids(request)
            result = await handler(ctx)
            kind: type[object] = type(result)
            if kind is Answer and cast("Answer[object]", result).afterwards is not None:
                result = await finished(result)
            response = _response(answering, request, result, route)
        except Exception as error:
            response = failed(request, error)
        finally:
            seen.in_flight -= 1
        status = response.status
        if status != SWITCHED:  # a feed is open for hours
            seen.add(status, time.perf_counter() - begun)
        return response

    if door.tracer is None:
        return handle
    from harkara.http.traced import traced

    return traced(door.tracer, route, handle)


def _ids(request: web.Request) -> dict[str, UUID]:
    found: dict[str, UUID] = {}
    for name, text in request.match_info.items():
        if name.endswith("_id"):
            try:
                found[name] = UUID(text)
            except ValueError:
                raise not_found(name.removesuffix("_id")) from None
    return found


def take_in(route: Route, inner: Handler) -> Handler:
    """Read and decode the body and the query as the route says; 400, 413, 415 and 422 name the fault.

    A body where none is needed is looked at too: who sends one believes that what it says is done.
    """
    expected = Nothing if route.takes_nothing else route.body
    optional = route.body_optional or route.takes_nothing

    def taken_in(ctx: Context[Any, Any]) -> Awaitable[object]:
        request = ctx.request
        if route.query is not None:
            query = request.query
            ctx.query = decode_query(_known(query, route.query) if route.open_query else query, route.query)
        elif not route.open_query and request.query_string:
            refuse_query(request.query)
        if expected is None:
            return inner(ctx)
        if ctx.raw is None:
            ctx.raw = whole(request, route.body_limit)
            if ctx.raw is None:
                return read_on(ctx)
        if ctx.raw or not optional:
            _need_json(request)
            try:
                ctx.body = decode_body(ctx.raw, expected)
            except Misshapen as misshapen:
                return _refuse(ctx, misshapen)
        return inner(ctx)

    async def read_on(ctx: Context[Any, Any]) -> object:
        ctx.raw = await read(ctx.request, route.body_limit)
        return await taken_in(ctx)

    return taken_in


async def _refuse(ctx: Context[Any, Any], misshapen: Misshapen) -> NoReturn:
    raise await all_faults(ctx, misshapen) from None


def _known(query: MultiMapping[str], type_: type[msgspec.Struct]) -> MultiMapping[str]:
    known = type_.__struct_encode_fields__
    return MultiDict([(name, value) for name, value in query.items() if name in known])


def _need_json(request: web.Request) -> None:
    """Raise Problem 415 for a body that says it is something else. One that says nothing is taken for JSON."""
    kind = request.headers.get("Content-Type")
    if kind is not None and kind != JSON and request.content_type != JSON:
        raise unsupported(f"the body is {request.content_type}: send JSON, with `Content-Type: {JSON}`")


def whole(request: web.Request, limit: int) -> bytes | None:
    """The whole body, at most `limit` bytes, if it is all there, as small ones nearly always are; else None."""
    content = request.content
    if not content.is_eof() or content.exception() is not None:
        return None
    _refuse_encoded(request)
    raw = content.read_nowait()
    if len(raw) > limit:
        raise too_large(limit)
    return raw


async def read(request: web.Request, limit: int) -> bytes:
    """The whole body, at most `limit` bytes. Raises what `pieces` raises."""
    there = whole(request, limit)
    if there is not None:
        return there
    chunks = [chunk async for chunk in pieces(request, limit)]
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def pieces(request: web.Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it comes, at most `limit` bytes.

    Raises Problem: 413 as soon as it is known to be more, 415 if it is compressed, 408 if it comes too slowly, 400 if
    it ends early.
    """
    if (request.content_length or 0) > limit:
        raise too_large(limit)
    _refuse_encoded(request)
    loop, size = asyncio.get_running_loop(), 0
    begun = loop.time()
    while True:
        try:
            async with asyncio.timeout_at(begun + BODY_PATIENCE_S + size / SLOWEST_BYTES_PER_S):
                chunk = await request.content.readany()
        except TimeoutError:
            raise Problem(408, "the body came too slowly: send it again, over a faster line or in parts") from None
        except (web.RequestPayloadError, ConnectionError):
            raise malformed("the body ended early or is badly encoded: send it again") from None
        if not chunk:
            return
        size += len(chunk)
        if size > limit:
            raise too_large(limit)
        yield chunk


def _refuse_encoded(request: web.Request) -> None:
    """Raise Problem 415 for a body that is anything but itself."""
    headers = request.headers
    if "Content-Encoding" in headers:
        _refuse_packed(headers["Content-Encoding"], "identity")
    if "Transfer-Encoding" in headers:
        _refuse_packed(headers["Transfer-Encoding"], "chunked")


def _refuse_packed(encoding: str, plain: str) -> None:
    """What is small only while it is packed is not unpacked here."""
    if encoding.strip().lower() != plain:
        detail = f"a body that is encoded as {encoding[:20]!r} is not taken: send it as it is"
        raise Problem(415, detail, headers={"Accept-Encoding": "identity"})


async def finished(result: object) -> object:
    """The answer, after what has to follow the commit."""
    if type(result) is not Answer:
        return result
    answer = cast("Answer[object]", result)
    if answer.afterwards is None:
        return answer
    later = await answer.afterwards()
    if type(later) is Answer:
        told = cast("Answer[object]", later)
        return told if told.status else replace(told, status=answer.status)
    return later


def _response(answering: Answering, request: web.Request, result: object, route: Route) -> web.StreamResponse:
    # Whether something is of an abstract class, as responses are, costs more to ask than all the rest here to do.
    kind: type[object] = type(result)
    if kind is not Answer and not issubclass(kind, msgspec.Struct) and issubclass(kind, web.StreamResponse):
        return cast("web.StreamResponse", result)
    return answering.usual(request, *encoded(result, route))


def encoded(result: object, route: Route) -> tuple[int, bytes, Mapping[str, str]]:
    """Status, body and headers of what a handler returned, if that is no response already."""
    if type(result) is not Answer:
        return route.status, b"" if result is None else _encoder.encode(result), {}
    answer = cast("Answer[object]", result)
    return answer.status or route.status, b"" if answer.body is None else _encoder.encode(answer.body), answer.headers


def answering_problems(door: Door) -> Middleware:
    """What goes around everything, unknown paths too: each request gets an id, each failure a problem document."""
    answering, unmatched = door.answering, door.metrics.unmatched

    @web.middleware
    async def answer_problems(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:  # what fits no route: handlers' failures are answered before they come here
            if error.status < 400:
                raise
            request[CAUSE] = uuid7_text()
            response = _preflight(answering, request, error) or _typed(request) or failed(request, error)
        except Exception as error:
            request[CAUSE] = uuid7_text()
            response = failed(request, error)
        unmatched.add(response.status, 0.0)
        return response

    return answer_problems


def failed(request: web.Request, error: Exception) -> web.StreamResponse:
    """The problem document of a failure; one of ours is logged, without the values of variables."""
    if isinstance(error, Problem):
        error.__traceback__ = None  # its frames may hold the error: such circles keep bodies until they are found
        return _told(request, error)
    if isinstance(error, web.HTTPException):
        return error if error.status < 400 else _told(request, _from_aiohttp(request, error))
    cause, route, kind = request[CAUSE], _route(request), type(error).__name__
    if _seldom.first((route, kind), "ERROR", f"{route} failed with {kind}"):
        logger.bind(cause=cause).opt(exception=error).error("{} failed", route or "a request")
    return _told(request, Problem(500, f"this is our fault: tell us about request {cause}"))


def _route(request: web.Request) -> str:
    """Method and pattern of the route, for the log: a path itself may hold anything. Empty if it fits none."""
    resource = request.match_info.route.resource
    return f"{request.method} {resource.canonical}" if resource is not None else ""


def _preflight(answering: Answering, request: web.Request, error: web.HTTPException) -> web.StreamResponse | None:
    if request.method != "OPTIONS" or not isinstance(error, web.HTTPMethodNotAllowed):
        return None
    return answering.preflight(request, set(error.allowed_methods))


def _typed(request: web.Request) -> web.StreamResponse | None:
    """Where the page is that somebody has typed a slash behind; relative, for proxies that add a prefix."""
    leads = request.method in ("GET", "HEAD") and request.path == "/docs/"
    return web.Response(status=308, headers={"Location": "../docs"}) if leads else None


def _told(request: web.Request, problem: Problem) -> web.Response:
    status, route = problem.status, _route(request)
    level, what = "WARNING" if status >= 500 else "DEBUG", route or "a request"
    if _seldom.first((what, status), level, f"{what} answered {status}"):
        detail = problem.detail if route else "no such path or method"
        logger.bind(cause=request[CAUSE]).log(level, "{} answered {}: {}", what, status, detail)
    response = problem.response()
    if status in UNREAD or not request.content.is_eof():
        response.force_close()  # the rest of the body is not wanted, and whoever sends it shall not ask again behind it
    return response


def _from_aiohttp(request: web.Request, error: web.HTTPException) -> Problem:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        detail = f"{request.method} is not possible here: use {allowed}"
        return Problem(405, detail, headers={"Allow": allowed})
    if error.status == 404:
        known = "open /docs, which describes every path of the API, such as /api/v1/contacts"
        return Problem(404, f"there is nothing at {request.path}: {known}")
    return Problem(error.status, error.text or error.reason)
