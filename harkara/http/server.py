"""Listening: aiohttp's server with the limits that keep one client's misbehaviour from the others.

aiohttp bounds lines, fields, their number and how far a client may pipeline. Added here: a deadline for a request's
head, a bound on open connections below the limit of file descriptors, bodies that are never unpacked, and problem
documents for what is no HTTP, without its text in the log.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.web_protocol import RequestHandler, _ErrInfo  # pyright: ignore[reportPrivateUsage]
from aiohttp.web_urldispatcher import UrlMappingMatchInfo
from loguru import logger

from harkara.http.answering import STRICT
from harkara.http.door import FIXED, Door, build
from harkara.http.problems import Problem
from harkara.log import Seldom

#: A connection that says nothing is kept this long: longer than proxies keep theirs, so that it is they who close.
IDLE_S = 75

#: From its first byte a request's head has to be complete within this time.
HEAD_PATIENCE_S = 10.0

#: After an answer this much time is left for a body that nobody reads, so that the client gets to see the answer.
LINGER_S = 1.0

#: As much of a body that nobody reads is taken in anyway, so that the connection can be kept.
UNREAD_BYTES = 64 * 1024

#: Connections that wait to be taken.
BACKLOG = 4096

#: File descriptors kept free for the database, the broker, Redis and files.
RESERVED = 256

#: Most connections, however many descriptors there may be: an idle one takes about 6 kB here, and the kernel's part.
MOST_CONNECTIONS = 50_000

_seldom = Seldom()

_TOO_SLOW = Problem(408, "the request's head came too slowly: send it again")
_TOO_LONG = Problem(431, "the headers are too many or too long: send fewer and shorter ones")
_NO_HTTP = Problem(400, "this is not a well-formed HTTP/1.1 request: check its first line, headers and chunks")


class Connection(RequestHandler):
    """One client's connection."""

    __slots__ = ("_broken", "_deadline", "_door", "_unwanted")

    def __init__(self, door: Door, manager: web.Server, **options: Any) -> None:
        super().__init__(manager, **options)
        self._door = door
        self._deadline: asyncio.TimerHandle | None = None
        self._unwanted = self._broken = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or end it at once if there are too many."""
        super().connection_made(transport)
        metrics = self._door.metrics
        metrics.connections += 1
        if metrics.connections > self._door.most_connections:
            self._turn_away("too many")
            self.force_close()

    def _turn_away(self, why: str) -> None:
        self._door.metrics.turn_away(why)
        if _seldom.first(why, "INFO", f"connections ended by us ({why})"):
            logger.info("a connection was ended by us: {}", why)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Forget the connection."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if self._manager is not None:
            self._door.metrics.connections -= 1
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take bytes; the first ones of a head start its deadline. After something that is no HTTP, none."""
        if self._broken:
            return
        super().data_received(data)
        if self._messages and isinstance(fault := self._messages[-1][0], _ErrInfo):
            self._broken = True
            # Its frames hold these bytes and the connection, which holds the fault: a flood of such circles fills the
            # memory until the garbage collector comes, and that takes it a tenth of a second.
            fault.exc.__traceback__ = None
        waits = self._waiter is not None and not self._waiter.done()  # for a head that is not complete
        if self._deadline is None:
            if waits and not self._force_close:
                self._deadline = self._loop.call_later(HEAD_PATIENCE_S, self._too_slow)
        elif not waits:
            self._deadline.cancel()
            self._deadline = None

    def _too_slow(self) -> None:
        self._deadline = None
        self._turn_away("slow head")
        if self.transport is not None:
            self.transport.write(_whole(_TOO_SLOW))
        self.force_close()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Write the answer; of a body that nobody wants no more is read than what a client sends before it listens."""
        done = await super().finish_response(request, resp, start_time)
        if not request.content.is_eof() and (request.content_length or UNREAD_BYTES + 1) > UNREAD_BYTES:
            self._unwanted = True
            if self.transport is not None:
                self.transport.pause_reading()
        return done

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Read on, unless nobody wants what comes. aiohttp asks for it with every body, and nearly always in vain."""
        if self._reading_paused and not self._unwanted:
            super().resume_reading(resume_parser)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The problem document for what is no HTTP. What was sent is not logged: it may hold anything."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun already")
        if not isinstance(exc, BadHttpMessage) and _seldom.first(type(exc).__name__, "ERROR", "connections failed"):
            logger.opt(exception=exc).error("a connection failed")
        problem = Problem(status, "this is our fault") if status >= 500 else _told(exc)
        self._turn_away("no HTTP" if problem is _NO_HTTP else "long head" if status < 500 else "failed")
        response = problem.response()
        response.headers.update(STRICT)
        response.force_close()
        return response


def _told(error: BaseException | None) -> Problem:
    too_long = isinstance(error, LineTooLong) or "Too many" in str(error)
    return _TOO_LONG if too_long else _NO_HTTP


def _whole(problem: Problem) -> bytes:
    """A problem as a whole answer, for where there is no request to answer."""
    body = msgspec.json.encode(problem.document())
    head = "".join(f"{name}: {value}\r\n" for name, value in STRICT.items())
    told = f"HTTP/1.1 {problem.status} {problem.document()['title']}\r\n{head}Connection: close\r\n"
    kind = f"Content-Type: application/problem+json\r\nContent-Length: {len(body)}\r\n\r\n"
    return (told + kind).encode() + body


class _Server(web.Server):
    """Makes a Connection of each client."""

    def __init__(self, door: Door, app: web.Application, like: web.Server, **options: Any) -> None:
        super().__init__(straight(app, like.request_handler), request_factory=like.request_factory, **options)
        self._door, self._options = door, options

    def __call__(self) -> RequestHandler:
        return Connection(self._door, self, loop=asyncio.get_running_loop(), **self._options)


class _Runner(web.AppRunner):
    """Runs the application on our own connections."""

    __slots__ = ("_door", "_options")

    def __init__(self, door: Door, application: web.Application, **options: Any) -> None:
        super().__init__(application, handle_signals=False, shutdown_timeout=5)
        self._door, self._options = door, options

    async def _make_server(self) -> web.Server:
        return _Server(self._door, self.app, await super()._make_server(), **self._options)


Handler = Callable[[Any], Awaitable[web.StreamResponse]]


def straight(app: web.Application, search: Handler) -> Handler:
    """What handles a request: that of its very path if there is one, and else what `search` finds.

    aiohttp's way through an application costs as much as all that is checked of a request here. What a handler may ask
    of its request, such as its application and its route, is the same on both ways.
    """
    fixed: dict[tuple[str, str], tuple[UrlMappingMatchInfo, Handler]] = {}
    for route in app[FIXED]:
        found = UrlMappingMatchInfo({}, route)
        found.add_app(app)
        found.freeze()
        if route.resource is not None:
            fixed[route.method, route.resource.canonical] = found, route.handler

    def handle(request: Any) -> Awaitable[web.StreamResponse]:
        way = fixed.get((request.method, request.rel_url.raw_path))
        if way is None or "Expect" in request.headers:
            return search(request)
        request._match_info, handler = way
        return handler(request)

    return handle


@asynccontextmanager
async def listening(door: Door, host: str, port: int) -> AsyncGenerator[int]:
    """The front door, open to the world. Yields its port; `port` 0 takes any.

    Stop the feed before leaving: closing waits for every open one.
    """
    runner = _Runner(
        door,
        build(door),
        access_log=None,
        auto_decompress=False,
        keepalive_timeout=IDLE_S,
        lingering_time=LINGER_S,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=BACKLOG, reuse_address=True).start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def most_connections() -> int:
    """Raise this process's limit of file descriptors as far as it goes; how many connections that is good for."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_CONNECTIONS + RESERVED
    soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, resource.getrlimit(resource.RLIMIT_NOFILE)[0]), hard))
    return max(64, soft - RESERVED)
