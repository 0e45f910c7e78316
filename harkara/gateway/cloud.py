"""The WhatsApp Cloud API client: keep-alive, many requests in flight, and honest about what it does not know."""

from __future__ import annotations

import io
import re
import ssl
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import aiohttp
import msgspec
from multidict import CIMultiDict
from yarl import URL

from harkara.gateway.encode import encode_message
from harkara.gateway.errors import Rule, rule_for, rule_for_status
from harkara.gateway.protocol import (
    Accepted,
    Answer,
    Credentials,
    Done,
    Downloaded,
    MediaInfo,
    NotSent,
    Problem,
    Refused,
    Unknown,
    Uploaded,
)
from harkara.schemas.content import Content

GRAPH = "https://graph.facebook.com"
VERSION = "v26.0"

#: The largest file the Cloud API knows: a document.
DOWNLOAD_LIMIT = 100 * 1024 * 1024

_REMEMBERED_ROUTES = 10_000
_LONGEST_WAIT = timedelta(days=1)

_T = TypeVar("_T")


class _MessageId(msgspec.Struct):
    id: str
    message_status: str | None = None


class _Sent(msgspec.Struct):
    messages: list[_MessageId]


class _ErrorData(msgspec.Struct):
    details: str = ""


class _Error(msgspec.Struct):
    code: int
    message: str = ""
    error_data: _ErrorData | str | None = None
    error_user_msg: str | None = None


class _Failure(msgspec.Struct):
    error: _Error


class _Success(msgspec.Struct):
    success: bool


class _Stored(msgspec.Struct):
    id: str


class _File(msgspec.Struct):
    url: str
    mime_type: str = "application/octet-stream"
    sha256: str = ""
    file_size: int = 0


class _Usage(msgspec.Struct):
    estimated_time_to_regain_access: float = 0


_sent = msgspec.json.Decoder(_Sent)
_failure = msgspec.json.Decoder(_Failure, strict=False)
_success = msgspec.json.Decoder(_Success)
_stored = msgspec.json.Decoder(_Stored, strict=False)
_file = msgspec.json.Decoder(_File, strict=False)
_usage = msgspec.json.Decoder(dict[str, list[_Usage]])


class _Reply(NamedTuple):
    status: int
    headers: Any
    body: bytes


class _Route(NamedTuple):
    messages: URL
    headers: CIMultiDict[str]


class CloudGateway:
    """Sends through the Cloud API at `base_url`, or through anything that speaks it.

    `connect_timeout` bounds the wait for a free connection and for the connection itself: running into it is NotSent.
    `answer_timeout` bounds the rest: running into that is Unknown. At most `connections` requests are in flight.
    Create it anywhere; it opens its connections in the event loop of the first call.
    """

    def __init__(
        self,
        base_url: str = GRAPH,
        *,
        version: str = VERSION,
        connect_timeout: timedelta = timedelta(seconds=5),
        answer_timeout: timedelta = timedelta(seconds=30),
        connections: int = 1000,
        keep_alive: timedelta = timedelta(seconds=15),
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._base = URL(base_url.rstrip("/")) / version
        self._connect_s = connect_timeout.total_seconds()
        self._total_s = self._connect_s + answer_timeout.total_seconds()
        self._connections = connections
        self._keep_alive_s = keep_alive.total_seconds()
        self._ssl = ssl_context
        self._open: aiohttp.ClientSession | None = None
        self._routes: dict[tuple[str, str], _Route] = {}

    async def send(
        self,
        credentials: Credentials,
        to: str,
        content: Content,
        *,
        opaque: str,
        reply_to: str | None = None,
    ) -> Answer:
        """Send rendered content to a phone (E.164)."""
        return await self.send_encoded(credentials, self.encode(to, content, opaque, reply_to))

    async def send_encoded(self, credentials: Credentials, payload: bytes) -> Answer:
        """Send what `encode` made."""
        route = self._route(credentials)
        reply = await self._call("POST", route.messages, route.headers, payload)
        if not isinstance(reply, _Reply):
            return reply
        if reply.status != 200:
            return _refusal(reply)
        try:
            message = _sent.decode(reply.body).messages[0]
        except (msgspec.DecodeError, IndexError):
            return Unknown("the gateway answered 200 without a message id")
        return Accepted(message.id, message.message_status)

    def encode(self, to: str, content: Content, opaque: str, reply_to: str | None = None) -> bytes:
        """The request's body; ValueError if the content says nothing."""
        return encode_message(to, content, opaque, reply_to)

    async def mark_read(self, credentials: Credentials, message_id: str, *, typing: bool = False) -> Done | Problem:
        """Mark an inbound message as read, optionally showing that we are typing."""
        body: dict[str, Any] = {"messaging_product": "whatsapp", "status": "read", "message_id": message_id}
        if typing:
            body["typing_indicator"] = {"type": "text"}
        route = self._route(credentials)
        reply = await self._call("POST", route.messages, route.headers, msgspec.json.encode(body))
        decoded = _decoded(reply, _success)
        return Done() if isinstance(decoded, _Success) else decoded

    async def upload_media(
        self, credentials: Credentials, data: bytes, mime_type: str, filename: str
    ) -> Uploaded | Problem:
        """Store a file for sending; its size and type are judged by the gateway."""
        form = aiohttp.FormData()
        form.add_field("messaging_product", "whatsapp")
        form.add_field("type", mime_type)
        # As a stream, because aiohttp writes big bytes in one go and holds up everybody else.
        form.add_field("file", io.BytesIO(data), content_type=mime_type, filename=filename)
        url = self._base / credentials.phone_number_id / "media"
        reply = await self._call("POST", url, _bearer(credentials), form)
        decoded = _decoded(reply, _stored)
        return Uploaded(decoded.id) if isinstance(decoded, _Stored) else decoded

    async def media_info(self, credentials: Credentials, media_id: str) -> MediaInfo | Problem:
        """Look up a stored or received file."""
        url = (self._base / media_id).with_query(phone_number_id=credentials.phone_number_id)
        decoded = _decoded(await self._call("GET", url, _bearer(credentials), None), _file)
        if not isinstance(decoded, _File):
            return decoded
        return MediaInfo(decoded.url, decoded.mime_type, decoded.sha256, decoded.file_size)

    async def download(self, credentials: Credentials, url: str) -> Downloaded | Problem:
        """Fetch a file of at most `DOWNLOAD_LIMIT` bytes from the address that `media_info` gave."""
        reply = await self._call("GET", URL(url), _bearer(credentials), None, limit=DOWNLOAD_LIMIT)
        if not isinstance(reply, _Reply):
            return reply
        if reply.status != 200:
            return _refusal(reply)
        return Downloaded(reply.body, reply.headers.get("Content-Type", "application/octet-stream"))

    async def close(self) -> None:
        """Give up all connections; a later call opens new ones."""
        session, self._open = self._open, None
        if session is not None:
            await session.close()

    async def _call(
        self,
        method: str,
        url: URL,
        headers: CIMultiDict[str],
        data: bytes | aiohttp.FormData | None,
        *,
        limit: int | None = None,
    ) -> _Reply | NotSent | Unknown:
        """One HTTP exchange. A POST is never repeated, not even by the HTTP client on a stale connection."""
        session = self._open or self._session()
        try:
            async with session.request(method, url, data=data, headers=headers, allow_redirects=False) as response:
                body = await (response.read() if limit is None else _read(response, limit))
                return _Reply(response.status, response.headers, body)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            return NotSent(_text(error))
        except TimeoutError:
            return Unknown(f"no answer within {self._total_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return NotSent(_text(error)) if _never_written(error) else Unknown(_text(error))

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=self._connections,
            keepalive_timeout=self._keep_alive_s,
            ttl_dns_cache=60,
            ssl=self._ssl or True,
        )
        timeout = aiohttp.ClientTimeout(
            total=self._total_s,
            connect=self._connect_s,
            sock_connect=self._connect_s,
            # Without this, aiohttp rounds a time-out of more than five seconds up to whole seconds.
            ceil_threshold=float("inf"),
        )
        self._open = aiohttp.ClientSession(
            connector=connector,
            timeout=timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            # A proxy named by the environment would turn 'never connected' into somebody else's answer.
            trust_env=False,
        )
        return self._open

    def _route(self, credentials: Credentials) -> _Route:
        """The prepared address and headers of one number and token."""
        key = (credentials.phone_number_id, credentials.access_token)
        route = self._routes.get(key)
        if route is None:
            if len(self._routes) >= _REMEMBERED_ROUTES:
                self._routes.clear()
            headers = _bearer(credentials)
            headers["Content-Type"] = "application/json"
            # Answers are a few hundred bytes: compressing them costs more than it saves.
            headers["Accept-Encoding"] = "identity"
            headers["Accept"] = "application/json"
            headers["User-Agent"] = "harkara"
            route = _Route(self._base / credentials.phone_number_id / "messages", headers)
            self._routes[key] = route
        return route


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(1 << 16):
        body += chunk
        if len(body) > limit:
            raise ValueError(f"the file is larger than {limit} bytes")
    return bytes(body)


def _bearer(credentials: Credentials) -> CIMultiDict[str]:
    return CIMultiDict({"Authorization": f"Bearer {credentials.access_token}"})


def _text(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _never_written(error: BaseException | None) -> bool:
    """Whether the connection had closed before the request's only write, which therefore never happened."""
    while error is not None:
        if isinstance(error, aiohttp.ClientConnectionResetError):
            return str(error) == "Cannot write to closing transport"
        error = error.__cause__
    return False


def _decoded(reply: _Reply | NotSent | Unknown, decoder: msgspec.json.Decoder[_T]) -> _T | Problem:
    """The answer's body, or why there is none."""
    if not isinstance(reply, _Reply):
        return reply
    if reply.status != 200:
        return _refusal(reply)
    try:
        return decoder.decode(reply.body)
    except msgspec.DecodeError as error:
        return Unknown(f"the gateway answered 200 with something else than expected: {error}")


def _refusal(reply: _Reply) -> Refused | Unknown:
    """What an answer other than 200 proves: an error object says no, a bare 5xx says nothing."""
    try:
        error = _failure.decode(reply.body).error
    except msgspec.DecodeError:
        return _bare_refusal(reply)
    data = error.error_data
    details = data.details if isinstance(data, _ErrorData) else data or error.error_user_msg or ""
    return Refused(error.code, error.message, details, rule_for(error.code), _retry_after(reply))


def _bare_refusal(reply: _Reply) -> Refused | Unknown:
    rule: Rule | None = rule_for_status(reply.status)
    if rule is None:
        return Unknown(f"the gateway answered {reply.status} without saying why")
    return Refused(reply.status, rule.title, f"HTTP {reply.status} without an error object", rule)


def _retry_after(reply: _Reply) -> timedelta | None:
    """How long the gateway asks us to wait, if it says: a usage header in minutes, or Retry-After in seconds."""
    minutes = _minutes_to_regain(reply.headers.get("x-business-use-case-usage"))
    if minutes > 0:
        return min(timedelta(minutes=minutes), _LONGEST_WAIT)
    seconds = reply.headers.get("Retry-After", "")
    if not re.fullmatch(r"[0-9]{1,9}", seconds):
        return None
    return min(timedelta(seconds=int(seconds)), _LONGEST_WAIT)


def _minutes_to_regain(usage: str | None) -> float:
    try:
        rows = _usage.decode(usage or "{}").values()
    except msgspec.DecodeError:
        return 0
    return min(max((entry.estimated_time_to_regain_access for row in rows for entry in row), default=0), 1e6)
