"""The database as the rest of the program sees it: a pool, and transactions that belong to tenants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import asyncpg
from tortoise.context import TortoiseContext

# Set by hand, because entering a context keeps state on it that tasks would share.
from tortoise.context import _current_context as current_context  # pyright: ignore[reportPrivateUsage]
from tortoise.exceptions import BaseORMException
from tortoise.transactions import in_transaction

from harkara.storage.engine import BY_ID, OtherTenant, begin_statement, roll_back, tenants

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


class StorageError(Exception):
    """The database can't be used as it is; the text says what to do."""


#: How a database says that it can't be reached, or doesn't let us in.
_NOT_OPENED = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, BaseORMException)

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


class Storage:
    """A pool of connections as a role that owns nothing, and the transactions on it."""

    def __init__(self, url: str, *, pool: int = 20) -> None:
        self._config = tortoise_config(url, pool=pool)
        self._context = TortoiseContext()
        self._client: Any = None

    async def open(self) -> None:
        """Connect. Raises StorageError if that fails, if the role is too powerful, or if there is no schema."""
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
        except _NOT_OPENED as error:
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

    @asynccontextmanager
    async def tenant(self, tenant: str) -> AsyncGenerator[Connection]:
        """One transaction for one tenant. Models work inside; yields its asyncpg connection for hand-written SQL.

        Inside another one of the same tenant it is a savepoint. Raises OtherTenant inside one of another tenant, and
        NoTenant for what is no tenant's id.
        """
        around = tenants.get()
        if around not in (None, (tenant,)):
            raise OtherTenant(f"a transaction of {around} is open here: leave it before opening one of {tenant!r}")
        token, context = tenants.set((tenant,)), current_context.set(self._context)
        try:
            async with in_transaction("default") as transaction:
                yield transaction._connection  # pyright: ignore[reportPrivateUsage]
        finally:
            current_context.reset(context)
            tenants.reset(token)

    @asynccontextmanager
    async def batch(self, of: Iterable[str]) -> AsyncGenerator[Connection]:
        """One transaction over the rows of several tenants, for actors that write in batches. Plain SQL only."""
        async with self._client._pool.acquire() as con:
            try:
                await con.execute(f"{begin_statement(sorted(set(of)))}; {BY_ID}")
                yield con
            except BaseException:
                if not con.is_closed():  # or else its complaint would hide what happened
                    await roll_back(con)
                raise
            await con.execute("COMMIT")

    async def committed(self, transaction: str) -> bool:
        """Whether a transaction stands whose end was not heard, because the connection broke just then.

        `transaction` is what `pg_current_xact_id()` said inside it. Waits until the database answers.
        """
        while True:
            try:
                async with self.anonymous() as con:
                    status = await con.fetchval("select pg_xact_status($1::text::xid8)", transaction)
            except asyncpg.InvalidParameterValueError:  # its number was forgotten in a crash, so nothing of it stands
                return False
            except Exception as error:
                if not is_away(error):
                    raise
            else:
                if status != "in progress":
                    return bool(status == "committed")
            await asyncio.sleep(_ASK_AGAIN_S)

    def anonymous(self) -> Any:
        """One transaction of no tenant: sees no tenant's rows, may call the functions for before one is known."""
        return self.batch(())
