"""The sandbox's own routes under /sandbox: what was accepted, what a phone writes, and how the world behaves."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
import secrets
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

import aiohttp
import msgspec
from aiohttp import web

from harkara.gateway.sandbox.faults import decode_faults
from harkara.gateway.sandbox.graph_error import GraphError
from harkara.gateway.sandbox.numbers import Number
from harkara.gateway.sandbox.policy import Policy, find_template
from harkara.gateway.sandbox.state import SANDBOX, Pace, Sandbox, said
from harkara.gateway.sandbox.store import Row, Store
from harkara.gateway.sandbox.webhooks import Arrival
from harkara.gateway.sandbox.wire import digits

#: Messages in one answer, unless asked otherwise, and at most.
PAGE = 1000
LARGEST_PAGE = 100_000

_CHUNK = 500
_HANDSHAKE_S = 10.0

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_S = TypeVar("_S", Policy, Pace)

#: Pictures of one pixel, for inbound ones that bring none.
_STAND_INS = {
    "image": base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    ),
    "sticker": base64.b64decode("UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA"),
}

_MEDIA_TYPES = {
    "image": "image/png",
    "video": "video/mp4",
    "audio": "audio/ogg",
    "document": "application/pdf",
    "sticker": "image/webp",
}


class Problem(Exception):
    """Something in a request to /sandbox is wrong: what, and at which path."""

    def __init__(self, detail: str, *, path: str = "", status: int = 422) -> None:
        super().__init__(detail)
        self.detail = detail
        self.path = path
        self.status = status

    def response(self) -> web.Response:
        """A problem document (RFC 9457)."""
        body: dict[str, Any] = {
            "type": "about:blank",
            "title": {403: "Forbidden", 404: "Not Found"}.get(self.status, "Unprocessable Content"),
            "status": self.status,
            "detail": self.detail,
        }
        if self.path:
            body["errors"] = [{"path": self.path, "message": self.detail}]
        encoded = msgspec.json.encode(body)
        return web.Response(status=self.status, body=encoded, content_type="application/problem+json")


def guarded(handler: _Handler) -> _Handler:
    """Answer a Problem as a document, and refuse what a web page of another origin makes a browser send."""

    async def answer(request: web.Request) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        try:
            if origin is not None and urlsplit(origin).netloc != request.host:
                raise Problem("Requests from web pages of another origin are refused.", status=403)
            return await handler(request)
        except Problem as problem:
            return problem.response()
        except GraphError as error:
            return Problem(error.details).response()

    return answer


def add_routes(app: web.Application) -> None:
    """Add the sandbox's own routes."""
    for method, path, handler in (
        ("GET", "/sandbox/messages", list_messages),
        ("POST", "/sandbox/inbound", write),
        ("GET", "/sandbox/webhook", list_numbers),
        ("PUT", "/sandbox/webhook", register),
        ("DELETE", "/sandbox/webhook", forget),
        ("PUT", "/sandbox/template", change_template),
        ("GET", "/sandbox/pace", get_pace),
        ("PUT", "/sandbox/pace", set_pace),
        ("DELETE", "/sandbox/pace", reset_pace),
        ("GET", "/sandbox/policy", get_policy),
        ("PUT", "/sandbox/policy", set_policy),
        ("DELETE", "/sandbox/policy", reset_policy),
        ("GET", "/sandbox/faults", get_faults),
        ("PUT", "/sandbox/faults", set_faults),
        ("DELETE", "/sandbox/faults", reset_faults),
        ("GET", "/healthz", health),
    ):
        app.router.add_route(method, path, guarded(handler))


def json(value: Any) -> web.Response:
    """An answer of 200."""
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


async def _body(request: web.Request) -> Any:
    try:
        return msgspec.json.decode(await request.read())
    except msgspec.DecodeError as error:
        raise Problem(f"The body is not JSON: {error}") from None


_T = TypeVar("_T")


def _convert(body: Any, kind: type[_T]) -> _T:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise _invalid(error) from None


def _invalid(error: msgspec.ValidationError) -> Problem:
    text, _, path = str(error).partition(" - at `")
    return Problem(text, path=path.rstrip("`") or "$")


async def health(request: web.Request) -> web.Response:
    """Whether the sandbox is up."""
    return json({"status": "ok"})


# What was accepted.


async def list_messages(request: web.Request) -> web.StreamResponse:
    """Accepted messages, oldest first, in pages; written out bit by bit, so that a big page holds up nobody."""
    store = request.app[SANDBOX].store
    limit = _limit(request.query.get("limit"))
    condition, values = _filters(request)
    after = max(_cursor(request.query.get("cursor")), _before(store, request.query.get("since")))
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b'{"items":[')
    written = 0
    while True:
        wanted = min(_CHUNK, limit - written + 1)
        rows = store.rows(f"id > ? AND {condition} ORDER BY id LIMIT ?", after, *values, wanted)
        page = rows[: limit - written]
        if page:
            encoded = b",".join(msgspec.json.encode(item(row, store.now())) for row in page)
            await response.write(b"," + encoded if written else encoded)
            written += len(page)
            after = page[-1].id
        more = len(rows) > len(page)
        if more or len(rows) < wanted:
            break
        # Also when the transport takes everything at once: sends go first.
        await asyncio.sleep(0)
    await response.write(b'],"next":' + (f'"{after}"'.encode() if more else b"null") + b"}")
    await response.write_eof()
    return response


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= LARGEST_PAGE:
        raise Problem(f"limit must be a whole number from 1 to {LARGEST_PAGE}", path="limit")
    return int(text)


def _cursor(text: str | None) -> int:
    if text is None or text == "":
        return 0
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Problem("cursor must be what an earlier answer gave as next", path="cursor")
    return int(text)


def _filters(request: web.Request) -> tuple[str, list[Any]]:
    """The query's filters as an SQL condition with its values."""
    sandbox = request.app[SANDBOX]
    query = request.query
    conditions = [{"in": "inbound", "all": "1"}.get(query.get("direction", "out"), "NOT inbound")]
    values: list[Any] = []
    if "to" in query:
        conditions.append("chat = ?")
        values.append(_chat(query["to"]))
    if "from" in query:
        conditions.append("number = ?")
        values.append(sandbox.numbers.find(query["from"]) or query["from"])
    if "type" in query:
        conditions.append("type = ?")
        values.append(query["type"])
    return " AND ".join(conditions), values


def _before(store: Store, since: str | None) -> int:
    """The id of the last message before an instant: ids and times grow together."""
    if since is None:
        return 0
    found = store.select("SELECT id FROM messages WHERE at >= ? ORDER BY at, id LIMIT 1", _instant(since))
    return int(found[0][0]) - 1 if found else 2**62


def _chat(text: str) -> str:
    """A phone number in any spelling, or a user id as it is."""
    plain = digits(text)
    return plain if plain.isdecimal() else text


def _instant(text: str) -> int:
    """An RFC 3339 instant, or seconds or milliseconds since the epoch, as milliseconds."""
    if re.fullmatch(r"[0-9]{1,15}(\.[0-9]+)?", text):
        number = float(text)
        return int(number if number > 1e11 else number * 1000)
    # In a query an unescaped + arrives as a space.
    restored = re.sub(r" (?=\d\d:\d\d$)", "+", text) if "T" in text else text
    try:
        instant = datetime.fromisoformat(restored)
    except ValueError:
        raise Problem("since must be an RFC 3339 instant such as 2026-01-31T12:00:00Z", path="since") from None
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return round(instant.timestamp() * 1000)


def item(row: Row, now: int) -> dict[str, Any]:
    """A message as the list shows it; `body` is the text of a text message, else the object that its type names."""
    content = said(row)
    outbound = {
        "id": row.wamid,
        "to": row.address,
        "from": row.number,
        "type": row.type,
        "body": content["body"] if row.type == "text" else content,
        "biz_opaque_callback_data": row.opaque,
        "accepted_at": rfc3339(row.at),
        "status": row.status(now),
    }
    if row.context is not None:
        outbound["context"] = row.context
    if row.failed_at is not None and row.failed_at <= now:
        outbound["error"] = row.error
    return outbound | {"to": row.number, "from": row.address} if row.inbound else outbound


def rfc3339(milliseconds: int) -> str:
    """An instant as text."""
    instant = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return instant.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# What a phone writes.


class InboundBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """A message from a phone. The field named by `type` brings the content; a text may be a plain string.

    `context` is the id of the message replied to; `user_id_only` hides the phone number, as for users with a username.
    """

    from_: str | int = msgspec.field(name="from")
    to: str | int | None = None
    type: str | None = None
    name: str | None = None
    username: str | None = None
    user_id_only: bool = False
    context: str | None = None
    text: str | dict[str, Any] | None = None
    image: dict[str, Any] | None = None
    video: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    document: dict[str, Any] | None = None
    sticker: dict[str, Any] | None = None
    button: dict[str, Any] | None = None
    interactive: dict[str, Any] | None = None
    reaction: dict[str, Any] | None = None
    location: dict[str, Any] | None = None
    contacts: list[dict[str, Any]] | None = None
    order: dict[str, Any] | None = None
    system: dict[str, Any] | None = None
    unsupported: dict[str, Any] | None = None
    user_preferences: dict[str, Any] | None = None
    call: dict[str, Any] | None = None


_CONTENT_FIELDS = tuple(
    name
    for name in InboundBody.__struct_fields__
    if name not in ("from_", "to", "type", "name", "username", "user_id_only", "context")
)


async def write(request: web.Request) -> web.Response:
    """Make a phone write to a business number."""
    sandbox = request.app[SANDBOX]
    body = _convert(await _body(request), InboundBody)
    chat = _chat(str(body.from_))
    if not re.fullmatch(r"[0-9]{5,20}|[A-Z]{2}\.\w{1,128}", chat):
        raise Problem("from must be a phone number such as +919876543210", path="from")
    number = _addressee(sandbox, body, chat)
    kind, content = _content(body)
    if kind in _MEDIA_TYPES:
        content = await _with_media(sandbox, number, kind, cast("dict[str, Any]", content))
    fields: dict[str, Any] = {kind: content}
    context = body.context or (_answered(sandbox, number, chat) if kind in ("button", "interactive") else None)
    if context is not None:
        fields["context"] = {"from": _display(sandbox, number), "id": context}
    contact = {"name": body.name} if body.name else {}
    if body.username:
        contact["username"] = body.username
    arrival = Arrival(fields=fields, contact=contact, user_id_only=body.user_id_only)
    row = await sandbox.receive(number, chat, kind, arrival, context)
    return json({"id": row.wamid, "status": "accepted"})


def _answered(sandbox: Sandbox, number: str, chat: str) -> str | None:
    """What a tapped button belongs to when nothing is said: the last message to this phone."""
    found = sandbox.store.rows(
        "chat = ? AND number = ? AND NOT inbound AND type != 'reaction' ORDER BY id DESC LIMIT 1", chat, number
    )
    return found[0].wamid if found else None


def _display(sandbox: Sandbox, number: str) -> str:
    known = sandbox.numbers.get(number)
    return digits(known.display) if known is not None else number


def _addressee(sandbox: Sandbox, body: InboundBody, chat: str) -> str:
    """The number that is written to: the one named, the only one, or the one that wrote last."""
    if body.to is not None:
        number = sandbox.numbers.find(str(body.to))
        if number is None or not _is_known(sandbox, number, chat):
            raise Problem(
                f"to is no number that is registered here, or has written to this phone ({body.to}): a sender with the"
                " provider sandbox registers itself, PUT /sandbox/webhook any other",
                path="to",
                status=404,
            )
        return number
    only = sandbox.numbers.only()
    if only is not None:
        return only
    last = sandbox.store.rows("chat = ? ORDER BY id DESC LIMIT 1", chat)
    if not last:
        raise Problem("to is needed: the id of the business number that is written to", path="to")
    return last[0].number


def _is_known(sandbox: Sandbox, number: str, chat: str) -> bool:
    """Whether anybody can hear of what a phone writes to this number: most others are misspelt."""
    if sandbox.numbers.get(number) is not None:
        return True
    return bool(sandbox.store.rows("chat = ? AND number = ? LIMIT 1", chat, number))


def _content(body: InboundBody) -> tuple[str, Any]:
    """The message's type and content, checked for what the type needs."""
    given = [name for name in _CONTENT_FIELDS if getattr(body, name) is not None]
    kind = body.type or (given[0] if given else "text")
    if kind not in _CONTENT_FIELDS:
        raise Problem(f"type must be one of {', '.join(_CONTENT_FIELDS)}", path="type")
    if [name for name in given if name != kind]:
        raise Problem(f"a message of type {kind} has no {' and no '.join(given)}", path=given[0])
    content: Any = getattr(body, kind)
    if content is None and kind not in (*_MEDIA_TYPES, "unsupported", "system", "call"):
        raise Problem(f"{kind} is needed for a message of type {kind}", path=kind)
    if content is None or kind == "contacts":
        return kind, content or {}
    fields: dict[str, Any] = {"body": content} if isinstance(content, str) else dict(content)
    if kind == "interactive":
        fields = {"type": next(iter(fields), "button_reply"), **fields}
    _need(kind, fields)
    return kind, fields


_NEEDED = {"text": ("body",), "button": ("text",), "reaction": ("message_id",), "location": ("latitude", "longitude")}


def _need(kind: str, content: dict[str, Any]) -> None:
    for name in _NEEDED.get(kind, ()):
        if name not in content:
            raise Problem(f"{kind}.{name} is needed", path=f"{kind}.{name}")
    if kind == "interactive" and not isinstance(content.get(content["type"]), dict):
        raise Problem(f"interactive.{content['type']} is needed", path="interactive")


async def _with_media(sandbox: Sandbox, number: str, kind: str, content: dict[str, Any]) -> dict[str, Any]:
    """The content with the id of a stored file: of base64 `data` if given, else of a stand-in."""
    content = dict(content)
    if "id" in content:
        return content
    mime_type = str(content.pop("mime_type", _MEDIA_TYPES[kind]))
    try:
        data = base64.b64decode(content.pop("data", ""), validate=True)
    except (binascii.Error, TypeError):
        raise Problem(f"{kind}.data must be base64", path=f"{kind}.data") from None
    file = sandbox.media.add(number, mime_type, data or _STAND_INS.get(kind, b"sandbox"))
    await sandbox.store.committed()
    return {"id": file.id, "mime_type": mime_type, "sha256": file.sha256, **content}


# Where webhooks go.


async def list_numbers(request: web.Request) -> web.Response:
    """The registered numbers, without their secrets."""
    numbers = request.app[SANDBOX].numbers.all()
    return json({"items": [_without_secrets(number) for number in numbers]})


def _without_secrets(number: Number) -> dict[str, Any]:
    shown = msgspec.to_builtins(number)
    for secret in ("app_secret", "verify_token", "access_token"):
        shown[secret] = "•••" if shown[secret] else ""
    return cast("dict[str, Any]", shown)


async def register(request: web.Request) -> web.Response:
    """Register a number and where its webhooks go; with a verify_token, the address is asked first."""
    sandbox = request.app[SANDBOX]
    number = _convert(await _body(request), Number)
    if not number.phone_number_id:
        raise Problem("phone_number_id must not be empty", path="phone_number_id")
    if number.url and not number.url.startswith(("http://", "https://")):
        raise Problem("url must be an http or https address", path="url")
    if number.url and number.verify_token:
        await _shake_hands(number)
    sandbox.numbers.register(number)
    await sandbox.store.committed()
    return json(_without_secrets(number))


async def _shake_hands(number: Number) -> None:
    """Ask the address to echo a challenge, as the Cloud API does when it is subscribed."""
    challenge = secrets.token_hex(8)
    query = {"hub.mode": "subscribe", "hub.challenge": challenge, "hub.verify_token": number.verify_token}
    timeout = aiohttp.ClientTimeout(total=_HANDSHAKE_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(number.url, params=query, allow_redirects=False) as response,
        ):
            answer = (await response.content.read(1000)).decode(errors="replace").strip()
            status = response.status
    except (aiohttp.ClientError, OSError, ValueError) as error:
        text = f"{type(error).__name__} {error}".strip()
        raise Problem(f"The address could not be verified: it is not reached ({text})", path="url") from None
    if status != 200:
        raise Problem(
            f"The address could not be verified: it answered {status}; check the verify_token and the path",
            path="url",
        )
    if answer != challenge:
        raise Problem("The address could not be verified: it did not echo hub.challenge", path="url")


async def forget(request: web.Request) -> web.Response:
    """Remove a number's registration."""
    sandbox = request.app[SANDBOX]
    if not sandbox.numbers.forget(request.query.get("phone_number_id", "")):
        raise Problem("No such number: name one with ?phone_number_id=", path="phone_number_id", status=404)
    await sandbox.store.committed()
    return web.Response(status=204)


class TemplateBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """What WhatsApp decides about a template: its status, its quality or its category, with the reason."""

    waba_id: str
    name: str
    language: str
    status: str | None = None
    reason: str | None = None
    quality: str | None = None
    category: str | None = None


async def change_template(request: web.Request) -> web.Response:
    """Change a registered template as WhatsApp would, and post the webhook that tells of it, once."""
    sandbox = request.app[SANDBOX]
    body = _convert(await _body(request), TemplateBody)
    stored = find_template(sandbox.store, body.waba_id, body.name, body.language)
    if stored is None:
        raise Problem("no such template is registered with this account", path="name", status=404)
    changes = {"status": body.status, "category": body.category, "rejected_reason": body.reason}
    stored |= {name: text.upper() for name, text in changes.items() if text is not None}
    if body.quality is not None:
        stored["quality_score"] = {"score": body.quality.upper()}
    sandbox.store.write(
        "REPLACE INTO templates VALUES (?, ?, ?, ?)",
        body.waba_id,
        body.name,
        body.language,
        msgspec.json.encode(stored),
    )
    await sandbox.store.committed()
    numbers = [number for number in sandbox.numbers.all() if number.waba == body.waba_id and number.url]
    posted = [await sandbox.webhooks.tell(number, _template_change(body, stored)) for number in numbers]
    return json({"template": stored, "webhooks": posted})


def _template_change(body: TemplateBody, stored: dict[str, Any]) -> dict[str, Any]:
    """The change that a webhook tells, as the Cloud API names it."""
    of = {
        "message_template_id": stored["id"],
        "message_template_name": body.name,
        "message_template_language": body.language,
    }
    if body.status is not None:
        told = of | {"event": stored["status"], "reason": stored.get("rejected_reason", "NONE")}
        return {"field": "message_template_status_update", "value": told}
    if body.quality is not None:
        told = of | {"previous_quality_score": "UNKNOWN", "new_quality_score": body.quality.upper()}
        return {"field": "message_template_quality_update", "value": told}
    return {"field": "template_category_update", "value": of | {"new_category": stored["category"]}}


# How the world behaves.


def _merged(body: Any, current: _S) -> _S:
    """The current settings with those changed that the body names."""
    if not isinstance(body, dict):
        raise Problem("the body must be an object", path="$")
    settings = _convert({**msgspec.to_builtins(current), **body}, type(current))
    problem = settings.problem()
    if problem is not None:
        raise Problem(problem, path="$")
    return settings


async def get_pace(request: web.Request) -> web.Response:
    """When statuses come."""
    return json(request.app[SANDBOX].pace)


async def set_pace(request: web.Request) -> web.Response:
    """Change when statuses come; what is left out stays as it is."""
    sandbox = request.app[SANDBOX]
    return await _put_pace(sandbox, _merged(await _body(request), sandbox.pace))


async def reset_pace(request: web.Request) -> web.Response:
    """Back to the default pace."""
    return await _put_pace(request.app[SANDBOX], Pace())


async def _put_pace(sandbox: Sandbox, pace: Pace) -> web.Response:
    sandbox.set_pace(pace)
    await sandbox.store.committed()
    return json(pace)


async def get_policy(request: web.Request) -> web.Response:
    """Which rules are enforced."""
    return json(request.app[SANDBOX].enforcer.policy)


async def set_policy(request: web.Request) -> web.Response:
    """Change which rules are enforced; what is left out stays as it is."""
    sandbox = request.app[SANDBOX]
    return await _put_policy(sandbox, _merged(await _body(request), sandbox.enforcer.policy))


async def reset_policy(request: web.Request) -> web.Response:
    """Back to the default policy: throughput only."""
    return await _put_policy(request.app[SANDBOX], Policy())


async def _put_policy(sandbox: Sandbox, policy: Policy) -> web.Response:
    sandbox.enforcer.set(policy)
    await sandbox.store.committed()
    return json(policy)


async def get_faults(request: web.Request) -> web.Response:
    """The faults in force, with how often each has happened."""
    return json({"faults": request.app[SANDBOX].faults.state()})


async def set_faults(request: web.Request) -> web.Response:
    """Replace all faults."""
    sandbox = request.app[SANDBOX]
    try:
        faults = decode_faults(await _body(request))
    except msgspec.ValidationError as error:
        raise _invalid(error) from None
    for place, fault in enumerate(faults):
        problem = fault.problem()
        if problem is not None:
            raise Problem(problem, path=f"$[{place}]")
    sandbox.faults.set(faults)
    await sandbox.store.committed()
    return json({"faults": sandbox.faults.state()})


async def reset_faults(request: web.Request) -> web.Response:
    """No more faults."""
    sandbox = request.app[SANDBOX]
    sandbox.faults.set([])
    await sandbox.store.committed()
    return json({"faults": []})
