"""What stands in a request's path stands in a command's payload: here it is put where the handler looks for it."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

from harkara.http.context import Context
from harkara.http.pipeline import Handler, read
from harkara.http.problems import Fault, invalid, malformed, not_found
from harkara.http.route import Route
from harkara.partners.commands import ids_of
from harkara.partners.requests import request


def unpack(route: Route, inner: Handler) -> Handler:
    """Give the handler the ids of the payload, and the rest as its body. Raises Problem 400, 404 or 422."""
    names = ids_of(route)
    if not names:
        return inner

    async def unpacked(ctx: Context[Any, Any]) -> object:
        fields = _fields(await read(ctx.request, route.body_limit))
        given = {name: fields.pop(name, None) for name in names}
        _refuse(route, given, fields)
        ctx.ids = {name: _id(name, value) for name, value in given.items()}
        target = route.path.format(**ctx.ids)
        if ctx.request.query_string:
            target += f"?{ctx.request.query_string}"
        body = b"" if route.body is None else msgspec.json.encode(fields)
        ctx.request = request(route.method, target, ctx.request.headers, body, ctx.request.remote or "")
        return await inner(ctx)

    return unpacked


def _fields(raw: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise malformed("the payload is no JSON object: send one, with the ids that the command needs") from None


def _refuse(route: Route, ids: dict[str, Any], rest: dict[str, Any]) -> None:
    faults: list[Fault] = [(name, "is missing: the command needs it") for name, value in ids.items() if value is None]
    if route.body is None:
        faults += [(name, "is no field of this command") for name in rest]
    if faults:
        raise invalid(*faults)


def _id(name: str, value: Any) -> UUID:
    """Raises Problem 404 for what is no id, as over HTTP."""
    try:
        return UUID(value)
    except (ValueError, AttributeError, TypeError):
        raise not_found(name.removesuffix("_id")) from None
