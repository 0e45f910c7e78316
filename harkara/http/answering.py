"""What every answer has: its id, headers that keep browsers strict, what is left of a limit, and who may read it.

Answers of the usual kind are written as one piece of bytes; all others get the same headers from the same place.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus

from aiohttp import hdrs, web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11

from harkara.http.limits import QUOTA
from harkara.settings import Settings

#: Under this name an aiohttp request carries its id.
CAUSE = web.RequestKey("cause", str)

JSON = "application/json"

#: An answer of this API is data: nothing in it is ever run, framed, guessed at or kept.
STRICT: Mapping[str, str] = {
    "Server": "harkara",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}

NO_CONTENT = 204

#: So many bytes of answers may lie here that a client has not read; aiohttp counts only those of one answer.
UNREAD_BYTES = 64 * 1024

HSTS = "max-age=31536000"

#: What a page from elsewhere may read of an answer, and may send.
EXPOSED = (
    "Location, Retry-After, X-Request-Id, RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset, RateLimit-Policy, "
    "Preference-Applied, Content-Disposition, Idempotent-Replayed"
)
SENDABLE = "Authorization, Content-Type, Idempotency-Key, Prefer, X-API-Key, X-Tenant-ID"
PREFLIGHT_AGE_S = 600


class Ready(web.StreamResponse):
    """An answer that is bytes already, head and body: aiohttp only has to write them."""

    def __init__(self, status: int, whole: bytes) -> None:  # without what a response makes of headers: they are written
        self._status, self._whole = status, whole
        self._keep_alive = True

    @property
    def prepared(self) -> bool:
        """Whether it was written."""
        return not self._whole

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """Write all of it; wait for a client that leaves too much of its answers unread."""
        whole, self._whole = self._whole, b""
        writer, transport = request.writer, request.transport
        if not whole:
            return writer
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        writer.output_size += len(whole)
        transport.write(whole)
        if transport.get_write_buffer_size() > UNREAD_BYTES:
            await writer.drain()
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


class Answering:
    """The headers of one front door's answers."""

    def __init__(self, settings: Settings) -> None:
        self._strict = dict(STRICT)
        if settings.public_url.startswith("https://"):
            self._strict["Strict-Transport-Security"] = HSTS
        self._block = "".join(f"{name}: {value}\r\n" for name, value in self._strict.items())
        self._origins = frozenset(origins(settings.cors_origins))
        #: The beginnings of heads, by status and whether there is a body; good for this second, because of the date.
        self._heads: dict[tuple[int, bool], str] = {}
        self._second = 0

    def usual(self, request: web.Request, status: int, body: bytes, headers: Mapping[str, str]) -> web.StreamResponse:
        """An answer in JSON, or with no body at all if that is empty."""
        if not request.keep_alive or request.version != HttpVersion11 or request.method == "HEAD":
            kind = JSON if body else None
            return web.Response(body=body or None, status=status, content_type=kind, headers=headers)
        now = int(time.time())
        if now != self._second:
            self._second = now
            self._heads.clear()
        begin = self._heads.get((status, bool(body))) or self._begin(status, bool(body))
        quota = request.get(QUOTA)
        said = "" if quota is None else quota.block()
        if self._origins:
            headers = {**headers, **self._readable(request)}
        if headers:
            said += _lines(headers)
        if status != NO_CONTENT:
            said += f"Content-Length: {len(body)}\r\n"
        return Ready(status, f"{begin}X-Request-Id: {request[CAUSE]}\r\n{said}\r\n".encode() + body)

    def _begin(self, status: int, has_body: bool) -> str:
        """What heads of this kind have in common in this second."""
        kind = "Content-Type: application/json\r\n" if has_body and status != NO_CONTENT else ""
        date = f"Date: {formatdate(self._second, usegmt=True)}\r\n"
        begin = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n{date}{self._block}{kind}"
        self._heads[status, has_body] = begin
        return begin

    async def complete(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add what any other answer lacks; what it says itself stays. aiohttp calls this before the head is written."""
        headers = response.headers
        for name, value in self._strict.items():
            headers.setdefault(name, value)
        headers["Server"] = STRICT["Server"]
        headers["X-Request-Id"] = request.get(CAUSE, "")
        quota = request.get(QUOTA)
        if quota is not None:
            for name, value in quota.headers().items():
                headers.setdefault(name, value)
        headers.update(self._readable(request))

    def _readable(self, request: web.Request) -> dict[str, str]:
        """Headers that let the page which asks read the answer. Never with credentials: we look at no cookies."""
        if not self._origins:
            return {}
        origin = request.headers.get(hdrs.ORIGIN)
        vary = {} if "*" in self._origins else {"Vary": "Origin"}
        if origin is None or not self._allows(origin):
            return vary
        told = "*" if "*" in self._origins else origin
        return {"Access-Control-Allow-Origin": told, "Access-Control-Expose-Headers": EXPOSED, **vary}

    def _allows(self, origin: str) -> bool:
        return "*" in self._origins or origin.rstrip("/").lower() in self._origins

    def preflight(self, request: web.Request, methods: set[str]) -> web.Response | None:
        """What a browser asks before it lets a page from elsewhere call us; None if this is no such question."""
        origin = request.headers.get(hdrs.ORIGIN)
        asked = request.headers.get("Access-Control-Request-Method")
        if origin is None or asked is None or not self._allows(origin):
            return None
        headers = {
            "Access-Control-Allow-Methods": ", ".join(sorted(methods)),
            "Access-Control-Allow-Headers": SENDABLE,
            "Access-Control-Max-Age": str(PREFLIGHT_AGE_S),
        }
        return web.Response(status=NO_CONTENT, headers=headers)


def _lines(headers: Mapping[str, str]) -> str:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if lines.count("\n") != len(headers) or lines.count("\r") != len(headers):
        raise ValueError(f"one of the headers {', '.join(headers)} would be more than one line")
    return lines


def origins(setting: str) -> list[str]:
    """What CORS_ORIGINS lists, as browsers spell it."""
    return [one.strip().rstrip("/").lower() for one in setting.split(",") if one.strip()]
