"""One route as data: all that a machine needs to know about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from harkara.http.access import Rule
from harkara.schemas.base import Body

if TYPE_CHECKING:
    from harkara.http.context import Context

    Handler = Callable[[Context[Any, Any]], Awaitable[object]]

#: Bytes of a body, unless a route says otherwise.
BODY_LIMIT = 1_000_000

PREFIX = "/api/v1"

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One method on one path.

    Path parameters that end in `_id` are ids and checked as such. `body` is decoded into `ctx.body`; without one the
    handler may read the raw bytes itself. `query` is decoded into `ctx.query`. What the handler returns is encoded
    as JSON under `status`, unless it is a response already.
    """

    method: Method
    path: str
    handler: Handler
    access: Rule
    summary: str
    body: type[Body] | None = None
    body_optional: bool = False
    query: type[Body] | None = None
    returns: Any = None
    status: int = 200
    body_limit: int = BODY_LIMIT


def route(
    method: Method,
    path: str,
    handler: Handler,
    access: Rule,
    *,
    status: int = 200,
    body_limit: int = BODY_LIMIT,
) -> Route:
    """A route under PREFIX; its body, query, answer and summary are what its handler's signature and docstring say."""
    hints = get_type_hints(handler)
    body, query = get_args(hints["ctx"])
    bodies = [type_ for type_ in get_args(body) or (body,) if type_ is not NoneType]
    returns = hints["return"]
    return Route(
        method=method,
        path=PREFIX + path,
        handler=handler,
        access=access,
        summary=(handler.__doc__ or "").split("\n", 1)[0],
        body=bodies[0] if bodies else None,
        body_optional=NoneType in get_args(body),
        query=None if query is NoneType else query,
        returns=get_args(returns)[0] if getattr(get_origin(returns), "__name__", "") == "Answer" else returns,
        status=status,
        body_limit=body_limit,
    )
