"""The database as the rest of the program sees it: a pool, and transactions that belong to tenants."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
from tortoise.context import TortoiseContext

# Set by hand, because entering a context keeps state on it that tasks would share.
from tortoise.context import _current_context as current_context  # pyright: ignore[reportPrivateUsage]
from tortoise.exceptions import BaseORMException
from tortoise.transactions import in_transaction

from harkara.storage.engine import BY_ID, OtherTenant, acting, begin_statement, roll_back, tenants

if TYPE_CHECKING:
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

MODELS = "harkara.storage.models"

_ASK_AGAIN_S = 0.1

#: How the driver says that the database is away, or could not do something just now that it can do later.
_AWAY = (
    OSError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
)


def is_away(error: BaseException) -> bool:
    """Whether the same may succeed later. A value that the driver can't encode is an InterfaceError too, and can't."""
    return isinstance(error, _AWAY) and not isinstance(error, ValueError)


class _InOneLine(logging.Filter):
    """What the driver's pool logs while the database is away, in one line; anything else it says as it is."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is not None and is_away(error):
            record.msg = f"the database is away ({reason_of(error)}): connections are opened as soon as it is there"
            record.args, record.exc_info = (), None
        return True


_in_one_line = _InOneLine()


class StorageError(Exception):
    """The database can't be used as it is; the text says what to do."""


#: How a database says that it can't be reached, doesn't let us in or ends.
DATABASE_ERRORS = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, BaseORMException)

#: Whether this role could see past row-level security, itself or as one it may become; whether there is a schema.
_WHO_ARE_WE = """
select (rolsuper or rolbypassrls or exists (
         select from pg_class where relname = 'messages' and relnamespace = 'public'::regnamespace
         and pg_has_role(relowner, 'member'))) as risky,
       to_regprocedure('app.tenants()') is not null as ready,
       exists (select from pg_roles where rolname = 'harkara_worker' and pg_has_role(oid, 'member')) as worker
from pg_roles where rolname = current_user
"""


def reason_of(error: BaseException) -> str:
    """What the database said, in one line."""
    return str(error).partition("\n")[0].rstrip(".: ") or type(error).__name__


def credentials(url: str, *, pool: int = 1, setting: str = "DATABASE_URL") -> dict[str, Any]:
    """A PostgreSQL URL as Tortoise takes it; `?host=` names a socket's directory.

    No prepared statement outlives its use, so the URL may lead through a transaction pooler: give a server that is
    reached directly `?statement_cache_size=`.
    Raises StorageError, naming the setting, if it is no such URL.
    """
    try:
        return _credentials(url, pool)
    except ValueError:
        raise StorageError(f"{setting} must look like postgres://user:password@host:5432/database") from None


def _credentials(url: str, pool: int) -> dict[str, Any]:
    parts = urlsplit(url)
    if parts.scheme not in {"postgres", "postgresql"} or not parts.path.strip("/"):
        raise ValueError(url)
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    settings: dict[str, Any] = {
        "host": query.get("host") or parts.hostname or "127.0.0.1",
        "port": int(query.get("port") or parts.port or 5432),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password) if parts.password else None,
        "database": unquote(parts.path.strip("/")),
        "minsize": min(2, pool),
        "maxsize": pool,
        "statement_cache_size": int(query.get("statement_cache_size", 0)),
    }
    if query.get("sslmode", "disable") not in {"disable", "allow", "prefer"}:
        settings["ssl"] = query["sslmode"]
    return settings


def tortoise_config(
    url: str, *, pool: int, engine: str = "harkara.storage.engine", setting: str = "DATABASE_URL"
) -> dict[str, Any]:
    """The configuration Tortoise is started with. Raises StorageError, naming the setting, for a URL that is none."""
    return {
        "connections": {"default": {"engine": engine, "credentials": credentials(url, pool=pool, setting=setting)}},
        "apps": {
            "harkara": {
                "models": [MODELS],
                "default_connection": "default",
                "migrations": "harkara.storage.migrations",
            }
        },
        "use_tz": True,
        "timezone": "UTC",
    }


#: The transaction that is open, and the task that opened it.
_here: ContextVar[tuple[asyncio.Task[Any] | None, Connection] | None] = ContextVar("here", default=None)


@contextmanager
def _open_in_this_task(con: Connection) -> Generator[None]:
    token = _here.set((asyncio.current_task(), con))
    try:
        yield
    finally:
        _here.reset(token)


class Storage:
    """A pool of connections as a role that owns nothing, and the transactions on it."""

    def __init__(self, url: str, *, pool: int = 20) -> None:
        self.pool = pool
        self._config = tortoise_config(url, pool=pool)
        self._context = TortoiseContext()
        self._client: Any = None

    async def open(self) -> None:
        """Connect. Raises StorageError if that fails, if the role is too powerful, or if there is no schema."""
        logging.getLogger("asyncpg.pool").addFilter(_in_one_line)
        token = current_context.set(self._context)
        try:
            await self._context.init(config=self._config)
        finally:
            current_context.reset(token)
        self._client = self._context.connections.get("default")
        try:
            await self._client.create_connection(with_db=True)
            async with self._client._pool.acquire() as con:  # as the role that logged in, before it becomes any other
                risky, ready, worker = await con.fetchrow(_WHO_ARE_WE)
            if risky:
                raise StorageError(
                    "DATABASE_URL connects as a role that row-level security does not bind; "
                    "use the role harkara_app there and keep the owner for DATABASE_DIRECT_URL"
                )
            if not ready:
                raise StorageError("the database has no schema yet: run `harkara migrate` first")
            if not worker:
                raise StorageError(
                    "DATABASE_URL connects as a role that can't become harkara_worker: "
                    "as the owner, GRANT harkara_worker TO it"
                )
        except DATABASE_ERRORS as error:
            await self.close()
            raise StorageError(f"{reason_of(error)}: check DATABASE_URL, and that the database runs") from error
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """Give all connections back."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    @property
    def connections(self) -> tuple[int, int]:
        """Connections that are in use right now, and those that are open and free."""
        pool = getattr(self._client, "_pool", None)
        return (pool.get_size() - pool.get_idle_size(), pool.get_idle_size()) if pool is not None else (0, 0)

    @asynccontextmanager
    async def tenant(self, tenant: str, who: str = "") -> AsyncGenerator[Connection]:
        """One transaction for one tenant. Models work inside; yields its asyncpg connection for hand-written SQL.

        `who` says, as JSON, who acts: the audit log notes it with all that changes (`harkara/http/trail.py:who`).
        Inside another one of the same tenant it is a savepoint. Raises OtherTenant inside one of another tenant, and
        NoTenant for what is no tenant's id.
        """
        around = tenants.get() if self.here is not None else None
        if around not in (None, (tenant,)):
            raise OtherTenant(f"a transaction of {around} is open here: leave it before opening one of {tenant!r}")
        token, context, actor = tenants.set((tenant,)), current_context.set(self._context), acting.set(who)
        # A task that was started inside a transaction would find that one's connection.
        outside = self._context.connections.set("default", self._client) if around is None and self._client else None
        try:
            async with in_transaction("default") as transaction:
                con: Connection = transaction._connection  # pyright: ignore[reportPrivateUsage]
                with _open_in_this_task(con):
                    yield con
        finally:
            self._context.connections.reset(outside)
            acting.reset(actor)
            current_context.reset(context)
            tenants.reset(token)

    @property
    def here(self) -> Connection | None:
        """The connection of the transaction that this very task has opened with `tenant` or `anonymous`, if any.

        A task that was started inside somebody's transaction is not inside it: it may go on when that has ended.
        """
        found = _here.get()
        return found[1] if found is not None and found[0] is asyncio.current_task() else None

    @asynccontextmanager
    async def batch(self, of: Iterable[str], who: str = "") -> AsyncGenerator[Connection]:
        """One transaction over the rows of several tenants, for actors that write in batches. Plain SQL only."""
        async with self._client._pool.acquire() as con:
            try:
                await con.execute(f"{begin_statement(sorted(set(of)), who)}; {BY_ID}")
                yield con
            except BaseException:
                await roll_back(con)
                raise
            await con.execute("COMMIT")

    async def committed(self, transaction: str, tenant: str, seen: Callable[[Connection], Awaitable[bool]]) -> bool:
        """Whether a transaction stands whose end was not heard, because the connection broke just then.

        `transaction` is what `pg_current_xact_id()` said inside it, `seen` whether a row of this tenant's is as it was
        written there. The number alone proves nothing: one that is lost in a crash before anything under it has
        reached the log is given to another transaction afterwards. Waits until the database answers.
        """
        while True:
            try:
                async with self.batch((tenant,)) as con:
                    status = await con.fetchval("select pg_xact_status($1::text::xid8)", transaction)
                    if status != "in progress":
                        return status == "committed" and await seen(con)
            except asyncpg.InvalidParameterValueError:  # its number was forgotten in a crash, so nothing of it stands
                return False
            except Exception as error:
                if not is_away(error):
                    raise
            await asyncio.sleep(_ASK_AGAIN_S)

    @asynccontextmanager
    async def anonymous(self, who: str = "") -> AsyncGenerator[Connection]:
        """One transaction of no tenant: sees no tenant's rows, may call the functions for before one is known.

        Inside another transaction of this task, also a tenant's, it is a savepoint.
        """
        around = self.here
        if around is None:
            async with self.batch((), who) as con:
                with _open_in_this_task(con):
                    yield con
            return
        await around.execute("SAVEPOINT anonymous")
        try:
            yield around
        except BaseException:
            await roll_back(around, "ROLLBACK TO anonymous; RELEASE anonymous")
            raise
        await around.execute("RELEASE anonymous")
