"""Taking a tenant's rows out for good, as the owner of the tables: in short transactions, whatever tables there are.

The database lets the owner see rows of a tenant only while it erases it (`app.erasing`), and that only of one that was
marked before. The tenant's own row goes last. It can't go while any other refers to it, and once it is gone nobody can
write another: that is what makes sure of the rows, whatever somebody still has in hand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from harkara.storage.storage import StorageError, credentials, reason_of

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

    Owner = asyncpg.Connection[asyncpg.Record]

#: Rows that are deleted in one transaction: with all that the database looks up for each, some tenths of a second.
CHUNK = 1000

#: After a chunk others have the database for as long as it took, but for no longer than this.
LONGEST_REST_S = 0.5

#: A chunk that waits longer for a row gives way, and comes again; so does one that is in the way of somebody else.
LOCK_TIMEOUT = "2s"
_AGAIN_S = 0.2

#: So often what was written meanwhile is taken out too.
PASSES = 20

_GIVES_WAY = (asyncpg.LockNotAvailableError, asyncpg.TransactionRollbackError)

_READY = """
select to_regprocedure('app.erasing(text)') is not null as ready,
       exists (select from pg_class where relname = 'messages' and relnamespace = 'public'::regnamespace
               and pg_has_role(relowner, 'member')) as owner
"""

_TABLES = """
select c.relname::text as name,
       exists (select from pg_attribute i where i.attrelid = c.oid and i.attname = 'id' and not i.attisdropped) as named
from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition order by 1
"""

#: Which tables' rows keep whose from being deleted, go with them, or would be written once more for it.
_REFER = """
select child.relname::text, parent.relname::text
from pg_constraint f join pg_class child on child.oid = f.conrelid join pg_class parent on parent.oid = f.confrelid
where f.contype = 'f' and f.conparentid = 0 and child.oid <> parent.oid
"""

_MARK = """
with closed as (update tenants set is_active = false, updated_at = now() where id = $1 and is_active),
held as (update campaigns set status = 'paused', updated_at = now() where tenant_id = $1 and status = 'active')
insert into tombstones (id) select id from tenants where id = $1 on conflict do nothing
"""

_KNOWN = """
select exists (select from tenants where id = $1) as there, (select erased_at from tombstones where id = $1) as erased,
       exists (select from tombstones where id = $1) as marked
"""

#: Whoever is no member of anybody else's. Held until their end, so that nobody makes them one meanwhile.
_ONLY_HERE = """
select u.id from users u where u.id in (select user_id from tenant_users where tenant_id = $1)
and not exists (select from tenant_users o where o.user_id = u.id and o.tenant_id <> $1)
"""
_USERS_GONE = """
with gone as (
  delete from users u where u.id = any ($1::uuid[])
  and not exists (select from tenant_users o where o.user_id = u.id) returning id),
sessions as (delete from refresh_tokens where user_id in (select id from gone))
select count(*) from gone
"""

_ADDRESSES = f"select email::text from users where id in ({_ONLY_HERE})"  # noqa: S608 - no part comes from outside

_PORTFOLIOS = """
select distinct coalesce(s.portfolio_id, s.waba_id, s.id::text) from senders s where s.tenant_id = $1
and not exists (select from senders o where o.tenant_id <> $1
                and coalesce(o.portfolio_id, o.waba_id, o.id::text) = coalesce(s.portfolio_id, s.waba_id, s.id::text))
"""


@dataclass(frozen=True, slots=True)
class Known:
    """What there is of a tenant: its row, and whether it is ending; when it was erased, if it was."""

    there: bool
    marked: bool
    erased_at: datetime | None


@dataclass(frozen=True, slots=True)
class Names:
    """What else than a tenant's own id things of it are kept under, elsewhere than in its rows."""

    senders: frozenset[UUID] = frozenset()
    keys: frozenset[UUID] = frozenset()
    users: frozenset[UUID] = frozenset()
    emails: frozenset[str] = frozenset()
    portfolios: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Table:
    """A table of tenants' rows; `named` if they have ids of their own."""

    name: str
    named: bool


@asynccontextmanager
async def owner(url: str) -> AsyncGenerator[Owner]:
    """A connection of the owner's; `url` is DATABASE_DIRECT_URL. Raises StorageError if that is not what it is."""
    settings = credentials(url, setting="DATABASE_DIRECT_URL")
    settings = {name: value for name, value in settings.items() if name not in ("minsize", "maxsize")}
    try:
        con: Any = await asyncpg.connect(**settings)
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StorageError(f"{reason_of(error)}: check DATABASE_DIRECT_URL, and that the database runs") from error
    try:
        is_ = await con.fetchrow(_READY)
        if not is_["ready"]:
            raise StorageError("the database can't forget a tenant yet: run `harkara migrate` first")
        if not is_["owner"]:
            raise StorageError("DATABASE_DIRECT_URL connects as a role that doesn't own the tables: name their owner")
        yield con
    except (OSError, asyncpg.PostgresConnectionError, asyncpg.InterfaceError) as error:
        raise StorageError(
            f"the database went away: {reason_of(error)}: run it again, it goes on from there"
        ) from error
    finally:
        await con.close()


@asynccontextmanager
async def alone(con: Owner, tenant: str) -> AsyncGenerator[None]:
    """Nobody else erases this tenant meanwhile. Raises StorageError if somebody does."""
    lock = f"erasing {tenant}"
    if not await con.fetchval("select pg_try_advisory_lock(hashtextextended($1, 0))", lock):
        raise StorageError(f"the tenant {tenant} is being erased by somebody else at this moment")
    try:
        yield
    finally:
        if not con.is_closed():
            await con.execute("select pg_advisory_unlock(hashtextextended($1, 0))", lock)


async def known(con: Owner, tenant: str) -> Known:
    """What there is of a tenant."""
    row: Any = await con.fetchrow(_KNOWN, tenant)
    return Known(row["there"], row["marked"], row["erased"])


async def mark(con: Owner, tenant: str) -> None:
    """Nobody gets in for it from now on, nothing leaves, and its id becomes no other's. Doing it again is harmless."""
    await _patiently(lambda: con.execute(_MARK, tenant))


async def erased(con: Owner, tenant: str) -> None:
    """Note on its stone that nothing is left."""
    await con.execute("update tombstones set erased_at = coalesce(erased_at, now()) where id = $1", tenant)


async def names(con: Owner, tenant: str) -> Names:
    """Under which names there may be something of a tenant. What was deleted before is not among them."""

    async def of(sql: str) -> frozenset[Any]:
        return frozenset([row[0] for row in await con.fetch(sql, tenant)])

    async with _erasing(con, tenant):
        return Names(
            senders=await of("select id from senders where tenant_id = $1"),
            keys=await of("select id from api_keys where tenant_id = $1"),
            users=await of(_ONLY_HERE),
            emails=await of(_ADDRESSES),
            portfolios=await of(_PORTFOLIOS),
        )


async def tables(con: Owner | Connection) -> list[Table]:
    """Every table of tenants' rows, those first whose rows refer to others': today's and tomorrow's."""
    found = [Table(*row) for row in await con.fetch(_TABLES)]
    ours = {one.name for one in found}
    parents: dict[str, list[str]] = {name: [] for name in ours}
    for child, parent in await con.fetch(_REFER):
        if child in ours and parent in ours:
            parents[child].append(parent)
    return sorted(found, key=lambda one: (-_depth(one.name, parents, ()), one.name))


def _depth(name: str, parents: Mapping[str, list[str]], below: tuple[str, ...]) -> int:
    """How long the longest chain of parents is; a circle ends where it closes."""
    return max((1 + _depth(one, parents, (*below, name)) for one in parents[name] if one not in below), default=0)


async def count(con: Connection, tenant: str) -> dict[str, int]:
    """How many rows a tenant has in each table; in a transaction of its own, as the application sees them."""
    found: dict[str, int] = {}
    for table in await tables(con):
        sql = f"select count(*) from {table.name} where tenant_id = $1"  # noqa: S608 - from the catalogue
        found[table.name] = int(await con.fetchval(sql, tenant))
    found["tenants"] = int(await con.fetchval("select count(*) from tenants where id = $1", tenant))
    return found


async def rows(con: Owner, tenant: str, on_gone: Callable[[str, int], None]) -> None:
    """Delete all rows of a tenant that is ending, its own last; `on_gone` is told of each table how many went.

    Raises StorageError if somebody keeps writing, or if the tenant was not marked.
    """
    for _ in range(PASSES):
        for table in await tables(con):
            if table.name == "tenant_users":
                members, people = await _patiently(lambda: _users(con, tenant))
                on_gone("tenant_users", members)
                on_gone("users", people)
            await _clear(con, tenant, table, on_gone)
        with suppress(asyncpg.ForeignKeyViolationError):  # somebody has written meanwhile
            on_gone("tenants", await _patiently(lambda: _itself(con, tenant)))
            return
    raise StorageError(f"somebody keeps writing rows of {tenant}: run it again when its work is done")


async def vacuumed(con: Owner) -> None:
    """Have the database clear away what was deleted, which others may keep it from doing; gently, as by itself."""
    names_ = [*(one.name for one in await tables(con)), "tenants", "users", "refresh_tokens"]
    await con.execute("set vacuum_cost_delay = '2ms'")
    await con.execute(f"vacuum {', '.join(names_)}")


async def _clear(con: Owner, tenant: str, table: Table, on_gone: Callable[[str, int], None]) -> None:
    """A cursor that outlives its transaction reads the rows once: looked for anew, each chunk would read the dead."""
    key = "id" if table.named else "ctid"
    rows_ = f"select {key} from {table.name} where tenant_id = $1"  # noqa: S608 - from the catalogue
    async with _erasing(con, tenant):
        await con.execute(f"declare doomed cursor with hold for {rows_}", tenant)
    try:
        while keys := [row[0] for row in await con.fetch(f"fetch {CHUNK} from doomed")]:
            begun = time.monotonic()
            sql = f"delete from {table.name} where {key} = any ($2) and tenant_id = $1"  # noqa: S608 - from the catalogue
            on_gone(table.name, await _patiently(lambda: _delete(con, tenant, sql, keys)))  # noqa: B023 - awaited here
            await asyncio.sleep(min(time.monotonic() - begun, LONGEST_REST_S))
    finally:
        if not con.is_closed():
            await con.execute("close doomed")


async def _delete(con: Owner, tenant: str, sql: str, keys: list[Any]) -> int:
    async with _erasing(con, tenant):
        return _affected(await con.execute(sql, tenant, keys))


async def _users(con: Owner, tenant: str) -> tuple[int, int]:
    """Its memberships, and the people who were members of nobody else's; how many of each."""
    async with _erasing(con, tenant):
        ids = [row[0] for row in await con.fetch(f"{_ONLY_HERE} order by u.id for update of u", tenant)]
        members = _affected(await con.execute("delete from tenant_users where tenant_id = $1", tenant))
        return members, int(await con.fetchval(_USERS_GONE, ids))


async def _itself(con: Owner, tenant: str) -> int:
    async with _erasing(con, tenant):
        return _affected(await con.execute("delete from tenants where id = $1", tenant))


@asynccontextmanager
async def _erasing(con: Owner, tenant: str) -> AsyncGenerator[None]:
    """A transaction that sees the rows of this tenant. Raises StorageError unless it was marked before."""
    async with con.transaction():
        await con.execute(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
        try:
            await con.execute("select app.erasing($1)", tenant)
        except asyncpg.RaiseError as error:
            raise StorageError(reason_of(error)) from None
        yield


async def _patiently(work: Callable[[], Any]) -> Any:
    """Do it, and again for as long as it has to give way to others."""
    while True:
        try:
            return await work()
        except _GIVES_WAY:
            await asyncio.sleep(_AGAIN_S)


def _affected(tag: str) -> int:
    return int(tag.rpartition(" ")[2])
