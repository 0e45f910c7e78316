"""The Tortoise engine of tenants: every transaction begins with its tenants set, and no query runs outside one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import asyncpg
from asyncpg.protocol import protocol
from tortoise.backends.asyncpg.client import AsyncpgDBClient, TransactionWrapper
from tortoise.backends.base.client import (
    NestedTransactionContext,
    TransactionContext,
    TransactionContextPooled,
)
from tortoise.connection import get_connections

from harkara.schemas.base import TENANT

#: What the driver takes for an array: a list, or a tuple. It asks that of every element of every array too, of abstract
#: classes, which took longer than all else that it does to send one (docs/decisions/0076-arrays-are-lists.md).
for _name in ("IterableABC", "SizedABC"):
    setattr(protocol, _name, (list, tuple))

#: The tenants whose rows the transaction that is opened next may touch.
tenants: ContextVar[tuple[str, ...] | None] = ContextVar("tenants", default=None)

#: Who acts in the transaction that is opened next, as JSON: the audit log notes it with every change. Empty for actors.
acting: ContextVar[str] = ContextVar("acting", default="")


class NoTenant(RuntimeError):
    """A query was made outside a tenant's transaction: open one with `async with storage.tenant(…)`."""


class OtherTenant(RuntimeError):
    """A tenant's transaction was opened inside another tenant's, whose rows it would see."""


def current_tenant() -> str:
    """The one tenant of this transaction. Raises NoTenant if there is none, or more than one."""
    of = tenants.get() or ()
    if len(of) != 1:
        raise NoTenant("a row was written without a tenant: open a transaction with `async with storage.tenant(…)`")
    return of[0]


def begin_statement(of: Sequence[str], who: str = "") -> str:
    """The statement that begins a transaction for these tenants, in one round trip; `who` acts in it, if anybody.

    Raises NoTenant unless every one is a tenant's slug, which is also what makes the text safe.
    """
    if not all(TENANT.fullmatch(tenant) for tenant in of):
        raise NoTenant(f"not the id of a tenant: {of!r}")
    begin = f"BEGIN; SET LOCAL app.tenant_ids = '{','.join(of)}'"
    return f"{begin}; SET LOCAL app.actor = {_literal(who)}" if who else begin


def _literal(text: str) -> str:
    """A string as SQL, whatever is in it: this one can't be a parameter."""
    if "\x00" in text:
        raise ValueError("a zero byte can't be part of a setting")
    doubled = text.replace("\\", "\\\\").replace("'", "''")
    return f"E'{doubled}'"


#: How long a server may take to undo a transaction before its connection counts as lost.
ROLLED_BACK_WITHIN = timedelta(seconds=2)

#: For statements that find every row by its id, a batch at a time. The planner would read all of a table, or all of a
#: tenant, that was small when it looked, and a prepared statement would go on doing so while it grows. So one plan is
#: made for all batches, as a role whose policies offer no index by tenant (for the same reason statements compare
#: tenants as `tenant_id || ''`), and every way to reach a row but by probing an index is off, or dear.
BY_ID = (
    "SET LOCAL ROLE harkara_worker; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off;"
    " SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL random_page_cost = 0.1;"
    " SET LOCAL cpu_index_tuple_cost = 1"
)


async def _keep_as_is(_: asyncpg.Connection[asyncpg.Record]) -> None:
    """All state is local to a transaction: no reset is needed. asyncpg still rolls back what is open."""


async def roll_back(connection: Any, statement: str = "ROLLBACK") -> None:
    """Undo. A connection on which not even that is answered is closed, so that the pool can replace it.

    One that is lost has nothing to undo: to say so would hide what happened.
    """
    if _is_lost(connection):
        return
    try:
        async with asyncio.timeout(ROLLED_BACK_WITHIN.total_seconds()):
            await connection.execute(statement)
    except TimeoutError:
        connection.terminate()


def _is_lost(connection: Any) -> bool:
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # the pool has noticed, and taken it away
        return True


class _Statements:
    """A transaction as three statements, in the shape in which Tortoise ends it."""

    __slots__ = ("_begin", "_commit", "_connection", "_rollback")

    def __init__(self, connection: Any, begin: str, commit: str = "COMMIT", rollback: str = "ROLLBACK") -> None:
        self._connection, self._begin, self._commit, self._rollback = connection, begin, commit, rollback

    async def start(self) -> None:
        await self._connection.execute(self._begin)

    async def commit(self) -> None:
        await self._connection.execute(self._commit)

    async def rollback(self) -> None:
        await roll_back(self._connection, self._rollback)


class TenantTransaction(TransactionWrapper):
    """A transaction that sets its tenants as it begins; nested ones are savepoints."""

    depth = 0
    transaction: Any

    async def begin(self) -> None:
        self.transaction = _Statements(self._connection, begin_statement(tenants.get() or (), acting.get()))
        await self.transaction.start()

    async def savepoint(self) -> None:
        name = f"sp{self.depth}"
        self.transaction = _Statements(
            self._connection, f"SAVEPOINT {name}", f"RELEASE {name}", f"ROLLBACK TO {name}; RELEASE {name}"
        )
        await self.transaction.start()

    def _in_transaction(self) -> TransactionContext:
        inner = TenantTransaction(self)
        inner.depth = self.depth + 1
        return NestedTransactionContext(inner)


class TenantScope(TransactionContextPooled):
    """Stock Tortoise keeps the pooled connection for ever when BEGIN fails or is cancelled; this gives it back."""

    client: Any

    async def __aenter__(self) -> Any:
        if tenants.get() is None:
            raise NoTenant("a query outside a tenant's transaction: open one with `async with storage.tenant(…)`")
        await self.ensure_connection()
        pool = self.client._parent._pool
        self.client._connection = await pool.acquire()
        try:
            await self.client.begin()
        except BaseException:
            # It may wait for an answer that never comes: closed at once, releasing it can't wait for that too.
            self.client._connection.terminate()
            await pool.release(self.client._connection)
            raise
        self.token = get_connections().set(self.connection_name, self.client)
        return self.client


class TenantClient(AsyncpgDBClient):
    """The pool; it refuses any query that isn't inside a tenant's transaction."""

    def __init__(self, **options: Any) -> None:
        settings: dict[str, Any] = {"reset": _keep_as_is, "statement_cache_size": 0, **options}
        super().__init__(**settings)

    def _in_transaction(self) -> TransactionContext:
        return TenantScope(TenantTransaction(self), self._pool_init_lock)

    def acquire_connection(self) -> Any:
        raise NoTenant("a query outside a tenant's transaction: open one with `async with storage.tenant(…)`")


client_class = TenantClient
