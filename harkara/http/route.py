"""One route as data: all that a machine needs to know about it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from inspect import cleandoc
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

from msgspec import Struct

from harkara.http.access import Rule
from harkara.schemas.base import Body

if TYPE_CHECKING:
    from harkara.http.checks import Faults
    from harkara.http.context import Context

    Handler = Callable[[Context[Any, Any]], Awaitable[object]]
    Check = Callable[[Context[Any, Any], Faults, str | None], object]

#: Bytes of a body, unless a route says otherwise.
BODY_LIMIT = 1_000_000

PREFIX = "/api/v1"

JSON = "application/json"

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Route:
    """One method on one path.

    Path parameters that end in `_id` are ids and checked as such. `body` is decoded into `ctx.body`; a route without
    one takes none, unless `accepts` says that the handler reads the raw bytes itself. `check` is what the handler looks
    for in it beyond its shape: of a body that hasn't the right shape it is asked here, about all that has, so that it
    must only look (the tenant's region of phone numbers is given). `query` is decoded into `ctx.query`. What the
    handler returns is encoded as JSON under `status`, unless it is a response already.

    The rest is for the description of the API (`harkara/http/openapi.py`). `raises` are error statuses that don't
    follow from all the rest, `also` good answers besides `status`, with what they bring (None for no body). `accepts`
    are the content types of a body that the handler reads itself, `produces` those of the answer. `open_query` lets
    every query parameter in: of callers whose addresses are not ours to choose.

    A POST is `repeatable` if an `Idempotency-Key` counts: not where those who call are not ours to tell.
    """

    method: Method
    path: str
    handler: Handler
    access: Rule
    summary: str
    body: type[Body] | None = None
    body_optional: bool = False
    check: Check | None = None
    query: type[Struct] | None = None
    returns: Any = None
    status: int = 200
    body_limit: int = BODY_LIMIT
    description: str = ""
    raises: tuple[int, ...] = ()
    also: Mapping[int, Any] = field(default_factory=dict[int, Any])
    accepts: tuple[str, ...] = ()
    produces: tuple[str, ...] = (JSON,)
    open_query: bool = False
    repeatable: bool = True

    @property
    def takes_nothing(self) -> bool:
        """Whether a body here could say nothing: none is read."""
        return self.method != "GET" and self.body is None and not self.accepts


def route(
    method: Method,
    path: str,
    handler: Handler,
    access: Rule,
    *,
    check: Check | None = None,
    status: int = 200,
    body_limit: int = BODY_LIMIT,
    raises: tuple[int, ...] = (),
    also: Mapping[int, Any] | None = None,
    accepts: tuple[str, ...] = (),
    produces: tuple[str, ...] = (JSON,),
    returns: Any = None,
) -> Route:
    """A route under PREFIX; its body, query, answer and summary are what its handler's signature and docstring say.

    `returns` is what a handler brings that makes its own response.
    """
    hints = get_type_hints(handler)
    body, query = get_args(hints["ctx"])
    bodies = [type_ for type_ in get_args(body) or (body,) if type_ is not NoneType]
    returns = hints["return"] if returns is None else returns
    summary, _, description = cleandoc(handler.__doc__ or "").partition("\n\n")
    return Route(
        method=method,
        path=PREFIX + path,
        handler=handler,
        access=access,
        summary=summary,
        description=description,
        body=bodies[0] if bodies else None,
        body_optional=NoneType in get_args(body),
        check=check,
        query=None if query is NoneType else query,
        returns=get_args(returns)[0] if getattr(get_origin(returns), "__name__", "") == "Answer" else returns,
        status=status,
        body_limit=body_limit,
        raises=raises,
        also=also or {},
        accepts=accepts,
        produces=produces,
    )
