"""One HTTP exchange with a gateway: keep-alive, many requests in flight, and honest about what it does not know."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import NamedTuple, TypeAlias, TypeVar

from pyreqwest.client import Client, ClientBuilder
from pyreqwest.exceptions import BuilderError, DetailedPyreqwestError, PoolTimeoutError, PyreqwestError
from pyreqwest.http import HeaderMap, Url
from pyreqwest.multipart import FormBuilder
from pyreqwest.request import RequestBuilder
from pyreqwest.response import Response
from yarl import URL

from harkara.gateway.errors import UNFIT
from harkara.gateway.protocol import NotSent, Problem, Refused, Unknown, Write

#: Bytes read at once.
PIECE = 1 << 16

_T = TypeVar("_T")

#: What may be sent, and where to; addresses and headers that are used often are prepared once.
Data: TypeAlias = bytes | FormBuilder | None
Address: TypeAlias = Url | URL
Headers: TypeAlias = HeaderMap | Mapping[str, str]

#: What the client below (hyper-util) says of an error if there was no connection, and so no request. Its own classes
#: don't tell: its ConnectError and ConnectTimeoutError are also raised for a request that left and was not answered.
_NO_CONNECTION = "client error (Connect)"


class Reply(NamedTuple):
    """What a gateway answered. Names of headers are taken in any case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def prepared(make: Callable[[], _T]) -> _T | Refused:
    """What a request is made of, such as its headers; or a refusal, as of wrong credentials, if they can't be in it."""
    try:
        return make()
    except ValueError:
        return Refused(UNFIT.status, UNFIT.title, "", UNFIT)


class Exchange:
    """Calls one gateway and never repeats a call.

    `connect_timeout` bounds the wait for a free connection, and again that for the connection itself: running into it
    is NotSent. `answer_timeout` bounds the rest: running into that is Unknown. At most `connections` requests are in
    flight. Create it anywhere; it opens its connections with the first call, and may be called from any event loop.

    A request that finds its kept connection closed by the gateway, before a byte of it was written, goes out on
    another: the client below (hyper) repeats no other.
    """

    def __init__(
        self,
        *,
        connect_timeout: timedelta = timedelta(seconds=5),
        answer_timeout: timedelta = timedelta(seconds=30),
        connections: int = 1000,
        keep_alive: timedelta = timedelta(seconds=15),
    ) -> None:
        self._connect, self._total = connect_timeout, connect_timeout + answer_timeout
        self._connections, self._keep_alive = connections, keep_alive
        self._calls: Client | None = None
        self._pours: Client | None = None

    async def call(
        self, method: str, url: Address, headers: Headers, data: Data = None, *, limit: int | None = None
    ) -> Reply | Problem:
        """One HTTP exchange, its answer at most `limit` bytes."""
        ready = prepared(lambda: headers if isinstance(headers, HeaderMap) else HeaderMap(headers))
        if isinstance(ready, Refused):
            return ready
        if self._calls is None:
            self._calls = self._client().timeout(self._total).build()
        try:
            request = self._calls.request(method, url if isinstance(url, Url) else str(url)).headers(ready)
            if isinstance(data, bytes):
                request = request.body_bytes(data)
            elif data is not None:
                request = request.multipart(data)
        except (PyreqwestError, ValueError) as error:
            return NotSent(_text(error))
        try:
            if limit is not None:
                return await _limited(request, limit)
            response = await request.build().send()
            return Reply(response.status, response.headers, bytes(await response.bytes()))
        except (PyreqwestError, ValueError) as error:
            if _never_left(error):
                return NotSent(_text(error))
            late = isinstance(error, TimeoutError)
            return Unknown(f"no answer within {self._total.total_seconds():g} s" if late else _text(error))

    async def pour(self, url: Address, headers: Headers, write: Write, limit: int) -> Reply | Problem:
        """A GET whose answer of 200, at most `limit` bytes, is handed on in pieces; any other is the reply's body."""
        ready = prepared(lambda: headers if isinstance(headers, HeaderMap) else HeaderMap(headers))
        if isinstance(ready, Refused):
            return ready
        if self._pours is None:
            # However large the file is, it may only not stand still.
            self._pours = self._client().read_timeout(self._total).build()
        request = self._pours.get(str(url)).headers(ready)
        try:
            async with request.build_streamed() as response:
                if response.status != 200:
                    return Reply(response.status, response.headers, await _read(response, PIECE))
                poured = 0
                while piece := await response.body_reader.read(PIECE):
                    poured += len(piece)
                    if poured > limit:
                        return Unknown(f"the file is larger than {limit} bytes")
                    await write(bytes(piece))
                return Reply(response.status, response.headers, b"")
        except TimeoutError:
            return Unknown(f"nothing came for {self._total.total_seconds():g} s")
        except (PyreqwestError, ValueError) as error:
            return Unknown(_text(error))

    async def close(self) -> None:
        """Give up all connections; a later call opens new ones."""
        for client in (self._calls, self._pours):
            if client is not None:
                await client.close()
        self._calls = self._pours = None

    def _client(self) -> ClientBuilder:
        return (
            ClientBuilder()
            # One request a connection at a time: what a broken connection leaves in doubt is one message.
            .http1_only()
            .follow_redirects(False)
            .referer(False)
            # A proxy named by the environment would turn 'never connected' into somebody else's answer.
            .no_proxy()
            .max_connections(self._connections)
            .pool_timeout(self._connect)
            .connect_timeout(self._connect)
            .pool_idle_timeout(self._keep_alive)
        )


async def _limited(request: RequestBuilder, limit: int) -> Reply:
    async with request.build_streamed() as response:
        return Reply(response.status, response.headers, await _read(response, limit))


async def _read(response: Response, limit: int) -> bytes:
    body = bytearray()
    while piece := await response.body_reader.read(PIECE):
        body += piece
        if len(body) > limit:
            raise ValueError(f"the file is larger than {limit} bytes")
    return bytes(body)


def _causes(error: BaseException) -> list[str]:
    """All that went wrong, from the outside in."""
    causes = error.details["causes"] if isinstance(error, DetailedPyreqwestError) else None
    return [cause["message"] for cause in causes or ()]


def _never_left(error: BaseException) -> bool:
    """Whether it is certain that not a byte of the request was written; what is not known for sure is not."""
    return isinstance(error, BuilderError | PoolTimeoutError) or _NO_CONNECTION in _causes(error)


def _text(error: BaseException) -> str:
    """What went wrong at the bottom of it."""
    return f"{type(error).__name__}: {(_causes(error) or [str(error)])[-1]}"
