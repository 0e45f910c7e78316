"""The WhatsApp Cloud API client: keep-alive, many requests in flight, and honest about what it does not know."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any, NamedTuple, TypeVar

import msgspec
from pyreqwest.http import HeaderMap, Url
from pyreqwest.multipart import FormBuilder, PartBuilder
from yarl import URL

from harkara.gateway.encode import encode_message
from harkara.gateway.errors import Rule, rule_for, rule_for_status
from harkara.gateway.exchange import Exchange, Reply, prepared
from harkara.gateway.protocol import (
    DOWNLOAD_LIMIT,
    Accepted,
    Answer,
    Credentials,
    Done,
    Downloaded,
    Fetched,
    Listed,
    MediaInfo,
    Problem,
    Refused,
    Unknown,
    Uploaded,
    Write,
)
from harkara.schemas.content import Content

GRAPH = "https://graph.facebook.com"
VERSION = "v26.0"

#: What is asked of templates, so many at once. An account has at most 6,000 of them.
TEMPLATE_FIELDS = "name,language,category,status,rejected_reason,quality_score,components"
TEMPLATE_PAGE = 200
MOST_TEMPLATES = 10_000

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


class _Quality(msgspec.Struct):
    score: str | None = None


class _Template(msgspec.Struct):
    name: str
    language: str
    status: str
    category: str = ""
    rejected_reason: str | None = None
    quality_score: _Quality | None = None
    components: msgspec.Raw = msgspec.Raw(b"[]")


class _Cursors(msgspec.Struct, frozen=True):
    after: str = ""


class _Paging(msgspec.Struct, frozen=True):
    cursors: _Cursors = _Cursors()
    next: str | None = None


class _Templates(msgspec.Struct):
    data: list[_Template]
    paging: _Paging = _Paging()


class _Usage(msgspec.Struct):
    estimated_time_to_regain_access: float = 0
    call_count: float = 0
    total_cputime: float = 0
    total_time: float = 0


_sent = msgspec.json.Decoder(_Sent)
_failure = msgspec.json.Decoder(_Failure, strict=False)
_success = msgspec.json.Decoder(_Success)
_stored = msgspec.json.Decoder(_Stored, strict=False)
_file = msgspec.json.Decoder(_File, strict=False)
_templates = msgspec.json.Decoder(_Templates)
_usage = msgspec.json.Decoder(dict[str, list[_Usage]])


class _Route(NamedTuple):
    messages: Url
    headers: HeaderMap


class CloudGateway:
    """Sends through the Cloud API at `base_url`, or through anything that speaks it.

    The other arguments are those of `Exchange`.
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
    ) -> None:
        self._base = URL(base_url.rstrip("/")) / version
        self._exchange = Exchange(
            connect_timeout=connect_timeout,
            answer_timeout=answer_timeout,
            connections=connections,
            keep_alive=keep_alive,
        )
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
        """Send rendered content to a phone (E.164). Raises ValueError if the content says nothing."""
        route = self._route(credentials)
        if isinstance(route, Refused):
            return route
        payload = encode_message(to, content, opaque, reply_to)
        reply = await self._exchange.call("POST", route.messages, route.headers, payload)
        if not isinstance(reply, Reply):
            return reply
        if reply.status != 200:
            return _refusal(reply)
        try:
            message = _sent.decode(reply.body).messages[0]
        except (msgspec.DecodeError, IndexError):
            return Unknown("the gateway answered 200 without a message id")
        return Accepted(message.id, message.message_status, _usage_of(reply))

    async def mark_read(self, credentials: Credentials, message_id: str, *, typing: bool = False) -> Done | Problem:
        """Mark an inbound message as read, optionally showing that we are typing."""
        body: dict[str, Any] = {"messaging_product": "whatsapp", "status": "read", "message_id": message_id}
        if typing:
            body["typing_indicator"] = {"type": "text"}
        route = self._route(credentials)
        if isinstance(route, Refused):
            return route
        reply = await self._exchange.call("POST", route.messages, route.headers, msgspec.json.encode(body))
        decoded = _decoded(reply, _success)
        return Done() if isinstance(decoded, _Success) else decoded

    async def upload_media(
        self, credentials: Credentials, data: bytes, mime_type: str, filename: str
    ) -> Uploaded | Problem:
        """Store a file for sending; its size and type are judged by the gateway."""
        part = PartBuilder.from_bytes(data).mime(mime_type).file_name(filename)
        form = FormBuilder().text("messaging_product", "whatsapp").text("type", mime_type).part("file", part)
        url = self._base / credentials.phone_number_id / "media"
        reply = await self._exchange.call("POST", url, _bearer(credentials), form)
        decoded = _decoded(reply, _stored)
        return Uploaded(decoded.id) if isinstance(decoded, _Stored) else decoded

    async def media_info(self, credentials: Credentials, media_id: str) -> MediaInfo | Problem:
        """Look up a stored or received file."""
        url = (self._base / media_id).with_query(phone_number_id=credentials.phone_number_id)
        decoded = _decoded(await self._exchange.call("GET", url, _bearer(credentials), None), _file)
        if not isinstance(decoded, _File):
            return decoded
        return MediaInfo(decoded.url, decoded.mime_type, decoded.sha256, decoded.file_size)

    async def download(self, credentials: Credentials, url: str) -> Downloaded | Problem:
        """Fetch a file of at most `DOWNLOAD_LIMIT` bytes from the address that `media_info` gave."""
        reply = await self._exchange.call("GET", URL(url), _bearer(credentials), None, limit=DOWNLOAD_LIMIT)
        if not isinstance(reply, Reply):
            return reply
        if reply.status != 200:
            return _refusal(reply)
        return Downloaded(reply.body, reply.headers.get("Content-Type", "application/octet-stream"))

    async def templates(self, credentials: Credentials, waba_id: str) -> list[Listed] | Problem:
        """All message templates of an account."""
        found: list[Listed] = []
        query = {"fields": TEMPLATE_FIELDS, "limit": str(TEMPLATE_PAGE)}
        while True:
            url = (self._base / waba_id / "message_templates").with_query(query)
            page = _decoded(await self._exchange.call("GET", url, _bearer(credentials), None), _templates)
            if not isinstance(page, _Templates):
                return page
            found += map(_listed, page.data)
            after = page.paging.cursors.after
            if page.paging.next is None or not after or len(found) >= MOST_TEMPLATES:
                return found
            query["after"] = after

    async def fetch(self, credentials: Credentials, url: str, write: Write) -> Fetched | Problem:
        """Hand on a file of at most `DOWNLOAD_LIMIT` bytes from the address that `media_info` gave, in pieces."""
        reply = await self._exchange.pour(URL(url), _bearer(credentials), write, DOWNLOAD_LIMIT)
        if not isinstance(reply, Reply):
            return reply
        if reply.status != 200:
            return _refusal(reply)
        return Fetched(reply.headers.get("Content-Type", "application/octet-stream"))

    async def close(self) -> None:
        """Give up all connections; a later call opens new ones."""
        await self._exchange.close()

    def _route(self, credentials: Credentials) -> _Route | Refused:
        """The prepared address and headers of one number and token; a refusal if there can't be a request with them."""
        key = (credentials.phone_number_id, credentials.access_token)
        route = self._routes.get(key)
        if route is None:
            made = prepared(lambda: self._new_route(credentials))
            if isinstance(made, Refused):
                return made
            if len(self._routes) >= _REMEMBERED_ROUTES:
                self._routes.clear()
            route = self._routes[key] = made
        return route

    def _new_route(self, credentials: Credentials) -> _Route:
        headers = HeaderMap(
            {
                **_bearer(credentials),
                "Content-Type": "application/json",
                # Answers are a few hundred bytes: compressing them costs more than it saves.
                "Accept-Encoding": "identity",
                "Accept": "application/json",
                "User-Agent": "harkara",
            }
        )
        return _Route(Url(str(self._base / credentials.phone_number_id / "messages")), headers)


def _listed(template: _Template) -> Listed:
    reason = template.rejected_reason if template.rejected_reason not in (None, "", "NONE") else None
    quality = template.quality_score.score if template.quality_score else None
    return Listed(
        template.name,
        template.language,
        template.category.lower(),
        template.status.lower(),
        reason,
        quality.lower() if quality else None,
        bytes(template.components),
    )


def _bearer(credentials: Credentials) -> dict[str, str]:
    return {"Authorization": f"Bearer {credentials.access_token}"}


def _decoded(reply: Reply | Problem, decoder: msgspec.json.Decoder[_T]) -> _T | Problem:
    """The answer's body, or why there is none."""
    if not isinstance(reply, Reply):
        return reply
    if reply.status != 200:
        return _refusal(reply)
    try:
        return decoder.decode(reply.body)
    except msgspec.DecodeError as error:
        return Unknown(f"the gateway answered 200 with something else than expected: {error}")


def _refusal(reply: Reply) -> Refused | Unknown:
    """What an answer other than 200 proves: an error object says no, a bare 5xx says nothing."""
    try:
        error = _failure.decode(reply.body).error
    except msgspec.DecodeError:
        return _bare_refusal(reply)
    data = error.error_data
    details = data.details if isinstance(data, _ErrorData) else data or error.error_user_msg or ""
    return Refused(error.code, error.message, details, rule_for(error.code), _retry_after(reply))


def _bare_refusal(reply: Reply) -> Refused | Unknown:
    rule: Rule | None = rule_for_status(reply.status)
    if rule is None:
        return Unknown(f"the gateway answered {reply.status} without saying why")
    return Refused(reply.status, rule.title, f"HTTP {reply.status} without an error object", rule)


def _retry_after(reply: Reply) -> timedelta | None:
    """How long the gateway asks us to wait, if it says: a usage header in minutes, or Retry-After in seconds."""
    minutes = _minutes_to_regain(reply)
    if minutes > 0:
        return min(timedelta(minutes=minutes), _LONGEST_WAIT)
    seconds = reply.headers.get("Retry-After", "")
    if not re.fullmatch(r"[0-9]{1,9}", seconds):
        return None
    return min(timedelta(seconds=int(seconds)), _LONGEST_WAIT)


def _usages(reply: Reply) -> list[_Usage]:
    usage = reply.headers.get("x-business-use-case-usage")
    if usage is None:
        return []
    try:
        return [entry for row in _usage.decode(usage).values() for entry in row]
    except msgspec.DecodeError:
        return []


def _usage_of(reply: Reply) -> float:
    """The most that is used up of any allowance, in percent."""
    return max((max(one.call_count, one.total_cputime, one.total_time) for one in _usages(reply)), default=0)


def _minutes_to_regain(reply: Reply) -> float:
    return min(max((one.estimated_time_to_regain_access for one in _usages(reply)), default=0), 1e6)
