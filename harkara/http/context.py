"""What a handler is given: one request, decoded, and who makes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from uuid import UUID

from aiohttp import web
from tortoise.exceptions import DBConnectionError

from harkara.bus.errors import Full, Refused, Unavailable
from harkara.bus.messages import Outgoing
from harkara.http.identity import NOBODY, Identity
from harkara.http.problems import Problem, unavailable
from harkara.http.route import Route
from harkara.http.trail import who_acts
from harkara.ids import text_of, time_of, uuid7, uuid7_for
from harkara.schemas.base import Message
from harkara.storage import outbox
from harkara.storage.storage import is_away

if TYPE_CHECKING:
    from harkara.http.door import Door
    from harkara.http.limiting import Origin
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
    telling: bool = False
    #: The body, if it was read before it is decoded.
    raw: bytes | None = None
    #: Where ids come from when the same request may come again.
    seed: UUID | None = None
    pending: tuple[Callable[[], object], ...] = ()
    _made: int = 0
    _acting: str = ""
    _origin: Origin | None = None

    @property
    def acting(self) -> str:
        """Who makes this request, as the audit log notes it with all that it changes."""
        if not self._acting:
            self._acting = who_acts(self)
        return self._acting

    @property
    def customer(self) -> str:
        """What limits count as one client's address."""
        return self.origin.address

    @property
    def origin(self) -> Origin:
        """Where this request comes from."""
        if self._origin is None:
            self._origin = self.door.counting.origin(self.request, self.door.settings)
        return self._origin

    @property
    def tenant(self) -> str:
        """The tenant this request is about."""
        return self.who.tenant

    def id(self, name: str) -> UUID:
        """A path parameter that is an id."""
        return self.ids[name]

    @property
    def came_at(self) -> datetime:
        """When this request came; of one that comes again under the same key, when it came first."""
        return self.door.clock() if self.seed is None else time_of(self.seed)

    def new_id(self, at: datetime | None = None) -> UUID:
        """A new id whose time is `at`, or now. One that comes again under the same key gets the same ids."""
        if self.seed is None:
            return uuid7(at)
        self._made += 1
        return uuid7_for(at or time_of(self.seed), str(self.seed), str(self._made))

    def when_committed(self, do: Callable[[], object]) -> None:
        """Do this now; or, where an `Idempotency-Key` keeps the transaction open, once that is committed."""
        if self.seed is None:
            do()
        else:
            self.pending += (do,)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Connection]:
        """The tenant's transaction: models work inside, the connection takes plain SQL. 503 if it can't be had.

        What it changes is audited: see `audited` in `harkara/storage/tenancy.py` for new tables.
        """
        async with answering(self.door.storage.tenant(self.tenant, self.acting)) as con:
            yield con
        if self.telling:
            self.when_committed(lambda: self.door.publisher.wake(outbox.WAKE))

    def before_tenants(self) -> AbstractAsyncContextManager[Connection]:
        """A transaction of no tenant, for the functions made for that. 503 if it can't be had."""
        return answering(self.door.storage.anonymous(self.acting))

    async def tell(self, con: Connection, event: Message, name: str) -> None:
        """Tell an event of what this transaction does, if it commits; `name` is its id, the same when told again.

        An actor publishes it a moment later: see docs/decisions/0022-the-door-tells-later.md.
        """
        await outbox.put(con, self.tenant, event, name, self.cause)
        self.telling = True

    async def publish(self, message: Message, id_: UUID, *, of_rows: bool = False) -> None:
        """Hand a command to the bus and return when it is stored. 503, 429 or 422 if it isn't.

        One that is about rows of this request (`of_rows`) must not overtake their commit: where an `Idempotency-Key`
        keeps the transaction open, it is stored with them.
        """
        if of_rows and self.seed is not None:
            async with self.transaction() as con:
                await self.tell(con, message, str(id_))
            return
        named = text_of(id_)
        by = self.door.callers.sign(self.tenant, named, self.acting)
        try:
            await self.door.publish(Outgoing(message, self.tenant, named, self.cause, by))
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


@dataclass(slots=True)
class Answer(Generic[T]):
    """An answer with headers of its own, or another status than its route's usual one.

    `afterwards` runs once all that the request wrote is committed, and gives the answer in the place of this one. It is
    for what others must see committed, or what takes long: with an `Idempotency-Key` handlers run in a transaction.
    """

    body: T
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    status: int | None = None
    afterwards: Callable[[], Awaitable[object]] | None = None
