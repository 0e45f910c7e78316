"""The phone: a page that shows every chat live, and what it asks the sandbox."""

from __future__ import annotations

import asyncio
import re
from importlib.resources import files
from typing import Any

import msgspec
from aiohttp import web

from harkara.gateway.sandbox.control import Problem, guarded, json
from harkara.gateway.sandbox.state import SANDBOX

_CHATS = 60
_MESSAGES = 60
_KEEP_ALIVE_S = 15.0

#: What the page may do: nothing but talk to us, whatever a message contains.
_CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "media-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_SHOWN_INLINE = re.compile(r"^(image/(png|jpeg|webp)|video/(mp4|3gpp)|audio/[\w.+-]+)$")

_FILES = {
    "/": ("phone.html", "text/html"),
    "/sandbox/phone/phone.css": ("phone.css", "text/css"),
    "/sandbox/phone/phone.js": ("phone.js", "text/javascript"),
}


def add_routes(app: web.Application) -> None:
    """Add the page and what it needs."""
    for path in _FILES:
        app.router.add_get(path, page)
    app.router.add_get("/sandbox/phone/chats", guarded(chats))
    app.router.add_get("/sandbox/phone/messages", guarded(messages))
    app.router.add_get("/sandbox/phone/media/{id}", guarded(media))
    app.router.add_get("/sandbox/phone/events", guarded(events))


async def page(request: web.Request) -> web.Response:
    """One of the page's own files."""
    name, kind = _FILES[request.path]
    headers = {
        "Content-Security-Policy": _CSP,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    body = files("harkara.gateway.sandbox").joinpath("page", name).read_bytes()
    return web.Response(body=body, content_type=kind, charset="utf-8", headers=headers)


async def chats(request: web.Request) -> web.Response:
    """Chats, the one with the newest message first, in pages; `q` looks for part of a phone or name."""
    sandbox = request.app[SANDBOX]
    before = _id(request.query.get("before"))
    found = request.query.get("q", "").strip()
    pattern = "%" + re.sub(r"([%_\\])", r"\\\1", found.lstrip("+")) + "%" if found else "%"
    # A chat's newest message is the one without a newer one: the index on (chat, number) answers that.
    rows = sandbox.store.rows(
        "id < ? AND NOT EXISTS (SELECT 1 FROM messages AS newer WHERE newer.chat = messages.chat"
        " AND newer.number = messages.number AND newer.id > messages.id)"
        " AND (? = '%' OR chat LIKE ? ESCAPE '\\' OR chat IN"
        " (SELECT chat FROM contacts WHERE json_extract(body, '$.name') LIKE ? ESCAPE '\\'))"
        " ORDER BY id DESC LIMIT ?",
        before,
        pattern,
        pattern,
        pattern,
        _CHATS,
    )
    items = [sandbox.chat(row.number, row.chat) | {"last": sandbox.shown(row)} for row in rows]
    return json({"items": items, "next": rows[-1].id if len(rows) == _CHATS else None, "now": sandbox.store.now()})


async def messages(request: web.Request) -> web.Response:
    """One chat's messages, the newest last, in pages going back."""
    sandbox = request.app[SANDBOX]
    number, chat = request.query.get("number", ""), request.query.get("chat", "")
    rows = sandbox.store.rows(
        "chat = ? AND number = ? AND id < ? ORDER BY id DESC LIMIT ?",
        chat,
        number,
        _id(request.query.get("before")),
        _MESSAGES,
    )
    return json(
        {
            "chat": sandbox.chat(number, chat),
            "items": [sandbox.shown(row) for row in reversed(rows)],
            "next": rows[-1].id if len(rows) == _MESSAGES else None,
            "now": sandbox.store.now(),
        }
    )


def _id(text: str | None) -> int:
    if text is None:
        return 2**62
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Problem("before must be an id that an earlier answer gave", path="before")
    return int(text)


async def media(request: web.Request) -> web.StreamResponse:
    """A file for the page; what a browser might run is offered for download only."""
    sandbox = request.app[SANDBOX]
    file = sandbox.media.get(request.match_info["id"])
    if file is None:
        raise Problem("There is no such file.", status=404)
    kind = file.mime_type.partition(";")[0].strip().lower()
    inline = _SHOWN_INLINE.match(kind) is not None
    headers = {
        "Content-Type": kind if inline else "application/octet-stream",
        "Content-Disposition": "inline" if inline else "attachment",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "X-Content-Type-Options": "nosniff",
    }
    return web.FileResponse(sandbox.media.path(file.id), headers=headers)


async def events(request: web.Request) -> web.StreamResponse:
    """What happens, live, as server-sent events."""
    sandbox = request.app[SANDBOX]
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
    await response.prepare(request)
    queue = sandbox.hub.listen()
    try:
        await response.write(_event([{"kind": "hello"}], sandbox.store.now()))
        while (news := await _next(queue)) is not None:
            await response.write(_event(news, sandbox.store.now()))
    except (ConnectionError, TimeoutError):
        # The page was closed.
        return response
    finally:
        sandbox.hub.leave(queue)
    return response


async def _next(queue: asyncio.Queue[list[dict[str, Any]] | None]) -> list[dict[str, Any]] | None:
    """The next news; nothing new now and then, so that a closed page is noticed."""
    try:
        return await asyncio.wait_for(queue.get(), _KEEP_ALIVE_S)
    except TimeoutError:
        return []


def _event(news: list[dict[str, Any]], now: int) -> bytes:
    return b"data: " + msgspec.json.encode({"now": now, "news": news}) + b"\n\n"
