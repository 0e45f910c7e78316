"""The Cloud API's own routes, under any version."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import Any
from uuid import uuid4

import msgspec
from aiohttp import BodyPartReader, hdrs, web

from harkara.gateway.sandbox.faults import Fault, Subject
from harkara.gateway.sandbox.graph_error import GraphError
from harkara.gateway.sandbox.media import LARGEST
from harkara.gateway.sandbox.numbers import Number
from harkara.gateway.sandbox.state import SANDBOX, Sandbox, accepted_answer
from harkara.gateway.sandbox.wire import Request, outgoing, parse_request

_VERSION = r"/{version:v\d+(?:\.\d+)?}"
_LARGEST_MESSAGE = 1024 * 1024

_JSON = "application/json"


def add_routes(app: web.Application) -> None:
    """Add the Cloud API's routes."""
    router = app.router
    router.add_post(_VERSION + "/{id}/messages", send)
    router.add_post(_VERSION + "/{id}/marketing_messages", send)
    router.add_post(_VERSION + "/{id}/media", _graph(upload))
    router.add_get(_VERSION + "/{id}/message_templates", _graph(list_templates))
    router.add_post(_VERSION + "/{id}/message_templates", _graph(create_template))
    router.add_delete(_VERSION + "/{id}/message_templates", _graph(delete_template))
    router.add_post(_VERSION + "/{id}/register", _graph(succeed))
    router.add_post(_VERSION + "/{id}/subscribed_apps", _graph(succeed))
    router.add_get(_VERSION + "/{id}/phone_numbers", _graph(list_numbers))
    router.add_get(_VERSION + "/{id}", _graph(look_up))
    router.add_delete(_VERSION + "/{id}", _graph(delete_media))
    router.add_route("*", _VERSION + "/{rest:.*}", _graph(unknown))
    router.add_get("/sandbox/media/{id}", _graph(download))


def _graph(handler: Any) -> Any:
    """Answer a GraphError as the Cloud API does."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            response: web.StreamResponse = await handler(request)
        except GraphError as error:
            return error.response(_trace())
        return response

    return guarded


def _trace() -> str:
    return "A" + uuid4().hex[:22]


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type=_JSON)


def _authorize(request: web.Request, number: Number | None) -> None:
    """Any token will do, unless the number was registered with one. Raises GraphError."""
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    if scheme.lower() not in ("bearer", "oauth"):
        token = request.query.get("access_token", "")
    token = token.strip()
    if not token:
        raise GraphError(190, "An access token is required to request this resource.")
    if number is not None and number.access_token and number.access_token != token:
        raise GraphError(190, "Error validating access token: it is not the one this number was registered with.")


def _phone_number(request: web.Request, sandbox: Sandbox) -> str:
    """The addressed number's id, if the request may use it. Raises GraphError."""
    number_id = request.match_info["id"]
    number = sandbox.numbers.get(number_id)
    _authorize(request, number)
    if number is None and sandbox.numbers.strict:
        raise _missing(number_id)
    return number_id


def _missing(object_id: str) -> GraphError:
    return GraphError(
        100,
        f"Unsupported request. Object with ID '{object_id}' does not exist, cannot be loaded due to missing "
        "permissions, or does not support this operation.",
        subcode=33,
    )


async def send(request: web.Request) -> web.StreamResponse:
    """Accept a message, or mark one as read."""
    sandbox = request.app[SANDBOX]
    try:
        number = _phone_number(request, sandbox)
        if (request.content_length or 0) > _LARGEST_MESSAGE:
            raise GraphError(100, f"The body must have at most {_LARGEST_MESSAGE} bytes.")
        wanted = parse_request(await request.read(), request.content_type)
        if wanted.status is not None:
            return await _mark_read(sandbox, number, wanted)
        return await _send(request, sandbox, number, wanted)
    except GraphError as error:
        return error.response(_trace())
    except sqlite3.Error as error:
        # Rolled back, so provably not accepted.
        return GraphError(131000, f"The sandbox cannot write its data: {error}").response(_trace())


async def _send(request: web.Request, sandbox: Sandbox, number: str, wanted: Request) -> web.StreamResponse:
    message = outgoing(wanted)
    sandbox.check(number, message)
    fault: Fault | None = None
    delay_ms = 0
    if sandbox.faults.on_sends:
        subject = Subject(number, message.chat, message.type, message.content)
        fault, delay_ms = sandbox.faults.on_send(subject)
    if fault is not None and not fault.accepts:
        await _pause(sandbox, delay_ms)
        return await _suffer(request, sandbox, fault)
    row = await sandbox.accept(number, message, fault.code if fault and fault.kind == "failed" else None)
    await _pause(sandbox, delay_ms)
    if fault is not None and fault.kind != "failed":
        return await _suffer(request, sandbox, fault)
    return web.Response(body=accepted_answer(row, is_user_id=message.is_user_id), content_type=_JSON)


async def _pause(sandbox: Sandbox, delay_ms: int) -> None:
    """Be slow, but not slower than the sandbox's own end."""
    if delay_ms:
        try:
            await asyncio.wait_for(sandbox.closing.wait(), delay_ms / 1000)
        except TimeoutError:
            return


async def _suffer(request: web.Request, sandbox: Sandbox, fault: Fault) -> web.StreamResponse:
    """The answer that a fault makes of it."""
    if fault.kind == "error":
        raise GraphError(fault.code or 0, f"Injected by a fault: {fault.code}")
    if fault.kind == "http_5xx":
        return web.Response(status=fault.code or 503, text="<html><body>Sorry, something went wrong.</body></html>")
    if fault.kind == "hang":
        await _hang(request, sandbox)
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=500)


async def _hang(request: web.Request, sandbox: Sandbox) -> None:
    """Wait until the client has given up."""
    while request.transport is not None and not request.transport.is_closing() and not sandbox.closing.is_set():
        await _pause(sandbox, 200)


async def _mark_read(sandbox: Sandbox, number: str, wanted: Request) -> web.Response:
    if wanted.status != "read":
        raise GraphError(100, "Param status must be read.")
    if not wanted.message_id:
        raise GraphError(131008, "The parameter message_id is required.")
    await sandbox.mark_read(number, wanted.message_id, typing=wanted.typing_indicator is not None)
    return _json({"success": True})


async def upload(request: web.Request) -> web.Response:
    """Store a file from a multipart form."""
    sandbox = request.app[SANDBOX]
    number = _phone_number(request, sandbox)
    if not request.content_type.startswith("multipart/"):
        raise GraphError(100, "Param file is required, in a multipart/form-data body.")
    fields, data, mime_type = await _parts(request)
    if fields.get("messaging_product", "").lower() != "whatsapp":
        raise GraphError(100, "The parameter messaging_product is required and must be whatsapp.")
    if data is None:
        raise GraphError(100, "The parameter file is required.")
    # Clients that don't name the file's own type name it in the field `type`.
    if mime_type in ("", "application/octet-stream"):
        mime_type = fields.get("type", mime_type)
    file = sandbox.media.add(number, mime_type, data)
    await sandbox.store.committed()
    return _json({"id": file.id})


async def _parts(request: web.Request) -> tuple[dict[str, str], bytes | None, str]:
    """The form's text fields, the file and its type."""
    fields: dict[str, str] = {}
    data: bytes | None = None
    mime_type = ""
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                raise GraphError(100, "A nested multipart body is not accepted.")
            content = bytes(await _limited(part))
            if part.name == "file":
                data, mime_type = content, part.headers.get(hdrs.CONTENT_TYPE, "")
            elif part.name is not None:
                fields[part.name] = content.decode(errors="replace")
    except (ValueError, AssertionError) as error:
        raise GraphError(100, f"The multipart body is malformed: {error}") from None
    return fields, data, mime_type


async def _limited(part: BodyPartReader) -> bytearray:
    content = bytearray()
    while chunk := await part.read_chunk(1 << 16):
        content += chunk
        if len(content) > LARGEST:
            raise GraphError(100, f"Param file must have at most {LARGEST} bytes.")
    return content


async def look_up(request: web.Request) -> web.Response:
    """Describe a file or a number."""
    sandbox = request.app[SANDBOX]
    object_id = request.match_info["id"]
    file = sandbox.media.get(object_id)
    wanted = request.query.get("phone_number_id")  # only who asks for a file names its number
    if file is None and wanted is not None:
        raise _missing(object_id)
    if file is None:
        return _json(_number_info(sandbox, _phone_number(request, sandbox)))
    _authorize(request, sandbox.numbers.get(file.number))
    if wanted is not None and wanted != file.number:
        raise _missing(object_id)
    return _json(
        {
            "url": sandbox.media.address(f"{request.scheme}://{request.host}", file.id),
            "mime_type": file.mime_type,
            "sha256": file.sha256,
            "file_size": file.size,
            "id": file.id,
            "messaging_product": "whatsapp",
        }
    )


def _number_info(sandbox: Sandbox, number_id: str) -> dict[str, Any]:
    number = sandbox.numbers.get(number_id) or Number(phone_number_id=number_id)
    return {
        "verified_name": "Harkara sandbox",
        "display_phone_number": number.display,
        "code_verification_status": "VERIFIED",
        "quality_rating": "GREEN",
        "platform_type": "CLOUD_API",
        "throughput": {"level": "STANDARD"},
        "id": number_id,
    }


async def list_numbers(request: web.Request) -> web.Response:
    """The registered numbers of an account."""
    sandbox = request.app[SANDBOX]
    _authorize(request, None)
    waba = request.match_info["id"]
    numbers = [number.phone_number_id for number in sandbox.numbers.all() if number.waba == waba]
    return _json({"data": [_number_info(sandbox, number) for number in numbers]})


async def delete_media(request: web.Request) -> web.Response:
    """Forget a file."""
    sandbox = request.app[SANDBOX]
    file = sandbox.media.get(request.match_info["id"])
    _authorize(request, sandbox.numbers.get(file.number) if file is not None else None)
    if file is None:
        raise _missing(request.match_info["id"])
    sandbox.media.remove(file.id)
    await sandbox.store.committed()
    return _json({"success": True})


async def download(request: web.Request) -> web.StreamResponse:
    """A file's bytes, at the address that was given out, with a token."""
    sandbox = request.app[SANDBOX]
    media_id = request.match_info["id"]
    file = sandbox.media.get(media_id)
    _authorize(request, sandbox.numbers.get(file.number) if file is not None else None)
    allowed = sandbox.media.allowed(media_id, request.query.get("ext", ""), request.query.get("hash", ""))
    if file is None or not allowed:
        return web.Response(status=404, text="This address does not work any more: ask for the media's url again.")
    headers = {
        "Content-Type": file.mime_type,
        "Content-Disposition": "attachment",
        "X-Content-Type-Options": "nosniff",
    }
    return web.FileResponse(sandbox.media.path(file.id), headers=headers)


class _TemplateBody(msgspec.Struct):
    name: str
    language: str
    category: str = "UTILITY"
    components: list[dict[str, Any]] = []
    parameter_format: str = "POSITIONAL"


async def create_template(request: web.Request) -> web.Response:
    """Register a template; it is approved at once."""
    sandbox = request.app[SANDBOX]
    _authorize(request, None)
    try:
        body = msgspec.json.decode(await request.read(), type=_TemplateBody)
    except msgspec.DecodeError as error:
        raise GraphError(100, f"The template is not valid: {error}") from None
    stored = msgspec.to_builtins(body) | {"id": str(uuid4().int)[:16], "status": "APPROVED"}
    sandbox.store.write(
        "REPLACE INTO templates VALUES (?, ?, ?, ?)",
        request.match_info["id"],
        body.name,
        body.language,
        msgspec.json.encode(stored),
    )
    await sandbox.store.committed()
    return _json({"id": stored["id"], "status": "APPROVED", "category": body.category})


async def list_templates(request: web.Request) -> web.Response:
    """The templates of an account, all or by name; `limit` at a time, after the one that `after` names."""
    sandbox = request.app[SANDBOX]
    _authorize(request, None)
    name = request.query.get("name")
    limit, after = (_count(request.query.get(key)) for key in ("limit", "after"))
    rows = sandbox.store.select(
        "SELECT body FROM templates WHERE waba = ? AND (? IS NULL OR name = ?) ORDER BY name, language",
        request.match_info["id"],
        name,
        name,
    )
    summary = {
        "total_count": len(rows),
        "message_template_count": len(rows),
        "message_template_limit": 6000,
        "are_translations_complete": True,
    }
    last = after + (limit or len(rows))
    page = [msgspec.json.decode(body) for (body,) in rows[after:last]]
    paging: dict[str, Any] = {"cursors": {"before": str(after), "after": str(last)}}
    if last < len(rows):
        paging["next"] = str(request.url.update_query(after=str(last)))
    return _json({"data": page, "paging": paging, "summary": summary})


def _count(text: str | None) -> int:
    if text is None:
        return 0
    if not text.isdecimal() or len(text) > 9:
        raise GraphError(100, "Param limit and param after must be whole numbers.")
    return int(text)


async def delete_template(request: web.Request) -> web.Response:
    """Forget a template in all its languages."""
    sandbox = request.app[SANDBOX]
    _authorize(request, None)
    name = request.query.get("name")
    if not name:
        raise GraphError(100, "The parameter name is required.")
    sandbox.store.write("DELETE FROM templates WHERE waba = ? AND name = ?", request.match_info["id"], name)
    await sandbox.store.committed()
    return _json({"success": True})


async def succeed(request: web.Request) -> web.Response:
    """Calls that change nothing here: registering a number, subscribing an app."""
    _phone_number(request, request.app[SANDBOX])
    return _json({"success": True})


async def unknown(request: web.Request) -> web.Response:
    """Anything else under a version."""
    raise GraphError(100, f"Unknown path components: /{request.match_info['rest']}", subcode=2500)
