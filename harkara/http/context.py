"""What a handler is given: one request, decoded, and who makes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import UUID

from aiohttp import web
from tortoise.exceptions import DBConnectionError

from harkara.bus.errors import Full, Refused, Unavailable
from harkara.bus.messages import Outgoing
from harkara.http.identity import NOBODY, Identity
from harkara.http.problems import Problem, unavailable
from harkara.http.route import Route
from harkara.schemas.base import Message
from harkara.storage.storage import is_away

if TYPE_CHECKING:
    from harkara.http.door import Door
    from harkara.storage.storage import Connection

B = TypeVar("B")
Q = TypeVar("Q")
T = TypeVar("T")

#: How long a request waits for the database.
PATIENCE = timedelta(seconds=10)


@dataclass(slots=True, repr=False)
class Context(Generic[B, Q]):
    """One request: `cause` is its id, carried by all that it sets off; `body` and `query` are as the route says."""

    door: Door
    request: web.Request
    route: Route
    cause: str
    body: B
    query: Q
    who: Identity = NOBODY
    ids: Mapping[str, UUID] = field(default_factory=dict[str, UUID])

    @property
    def tenant(self) -> str:
        """The tenant this request is about."""
        return self.who.tenant

    def id(self, name: str) -> UUID:
        """A path parameter that is an id."""
        return self.ids[name]

    def transaction(self) -> AbstractAsyncContextManager[Connection]:
        """The tenant's transaction: models work inside, the connection takes plain SQL. 503 if it can't be had."""
        return answering(self.door.storage.tenant(self.tenant))

    def before_tenants(self) -> AbstractAsyncContextManager[Connection]:
        """A transaction of no tenant, for the functions made for that. 503 if it can't be had."""
        return answering(self.door.storage.anonymous())

    async def publish(self, message: Message, id_: UUID) -> None:
        """Hand a command to the bus and return when it is stored. 503, 429 or 422 if it isn't."""
        try:
            await self.door.publisher.publish(Outgoing(message, self.tenant, str(id_), self.cause))
        except Unavailable:
            raise unavailable("the broker") from None
        except Full:
            raise Problem(
                429, "too much of this tenant's work is waiting: slow down and try again", headers={"Retry-After": "5"}
            ) from None
        except Refused as error:
            raise Problem(422, f"the broker refuses this command: {error}") from None


class database_errors:
    """Turns what says that the database is away into a 503."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is not None and (is_away(error) or isinstance(error, DBConnectionError)):
            raise unavailable("the database") from error


@asynccontextmanager
async def answering(transaction: AbstractAsyncContextManager[Connection]) -> AsyncGenerator[Connection]:
    """A transaction of a request: 503 if the database is away, or takes longer than a request may wait."""
    with database_errors():
        async with asyncio.timeout(PATIENCE.total_seconds()), transaction as con:
            yield con


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """An answer with headers of its own, or another status than its route's usual one."""

    body: T
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    status: int | None = None
