"""Helpers for tests; `from support import until`."""

from __future__ import annotations

import asyncio
import inspect
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar, overload
from uuid import uuid4
from zoneinfo import ZoneInfo

import asyncpg
from msgspec import Struct

T = TypeVar("T")

#: Notes a line that is shown at the end, whether or not the test fails.
Tell = Callable[[str], None]

#: Makes a tenant that no other test knows, and gives its id.
NewTenant = Callable[[], Awaitable[str]]


class Database(Struct, frozen=True, kw_only=True):
    """A database with the newest schema, as its two roles see it."""

    #: As `harkara_app`, which row-level security binds: what DATABASE_URL is.
    app_url: str
    #: As the owner of everything: what DATABASE_DIRECT_URL is.
    owner_url: str


#: Makes an empty database for one test.
NewDatabase = Callable[[], Awaitable[Database]]


class Asked(Protocol):
    """What is asked for rows: a connection, or a pool of them."""

    def fetchrow(self, query: str, *args: object) -> Awaitable[asyncpg.Record | None]:
        """The first row, or none."""


async def one_row(con: Asked, query: str, *values: object) -> asyncpg.Record:
    """The first row of a query that must give one."""
    row = await con.fetchrow(query, *values)
    assert row is not None, f"no row: {query}"
    return row


@overload
def until(
    predicate: Callable[[], Awaitable[T | None]], description: str, timeout: float = ..., every: float = ...
) -> Coroutine[Any, Any, T]: ...


@overload
def until(
    predicate: Callable[[], T | None], description: str, timeout: float = ..., every: float = ...
) -> Coroutine[Any, Any, T]: ...


async def until(
    predicate: Callable[[], Any],
    description: str,
    timeout: float = 30,  # noqa: ASYNC109 - the failure has to carry the description
    every: float = 0.02,
) -> Any:
    """Waits until `predicate` (plain or async) gives something true, and returns that.

    Fails the test with `description` after `timeout` seconds. The predicate is asked every `every` seconds; one that
    runs into a time limit of its own, as on a busy machine, is asked again.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        try:
            answer = predicate()
            value = await answer if inspect.isawaitable(answer) else answer
        except TimeoutError:
            value = None
        if value:
            return value
        if loop.time() >= deadline:
            raise AssertionError(f"not within {timeout} s: {description}")
        await asyncio.sleep(every)


#: How many wait for whoever asks, or for one who does.
_WAITING = """
with recursive waiting (pid) as (
  select pg_backend_pid()
  union select l.pid from pg_locks l join waiting w on w.pid = any (pg_blocking_pids(l.pid)) where not l.granted)
select count(*) - 1 from waiting
"""


async def waited_for(con: Any, *tasks: asyncio.Task[Any]) -> None:
    """Waits until these tasks wait for this connection's transaction; fails the test if one ends before.

    Without tasks until somebody does.
    """

    async def waits() -> bool:
        return await con.fetchval(_WAITING) >= max(1, len(tasks)) or any(task.done() for task in tasks)

    await until(waits, "others wait for this transaction")
    assert not any(task.done() for task in tasks), "it has waited for nothing"


@contextmanager
def turning() -> Iterator[Callable[[], float]]:
    """Gives how often a second the running loop has turned since the block began: what spins turns it by the thousand.

    Processor time would say how busy the machine is, and count what the whole process does besides.
    """
    loop: Any = asyncio.get_running_loop()
    began, turns, selector = loop.time(), 0, loop._selector

    def select(timeout: float | None = None) -> Any:
        nonlocal turns
        turns += 1
        return type(selector).select(selector, timeout)

    selector.select = select
    try:
        yield lambda: turns / (loop.time() - began)
    finally:
        del selector.select


@contextmanager
def quick_directory() -> Iterator[Path]:
    """A directory for a stack's data, gone afterwards; in memory if there is much: a cluster is a thousand files."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30
    with tempfile.TemporaryDirectory(prefix="harkara-", dir=memory if roomy else None) as directory:
        yield Path(directory)


def an_invoice(contact_id: str, **more: Any) -> dict[str, Any]:
    """The body of a new invoice of this contact; nobody has its number."""
    body = {"number": f"INV-{uuid4().hex[:12]}", "amount": 123450, "currency": "INR", "due_at": "2026-12-01T00:00:00Z"}
    return {"contact_id": contact_id, **body, **more}


def quiet_now(zone: str = "Asia/Kolkata") -> dict[str, str]:
    """Quiet hours around this moment, for whoever lives there."""
    now = datetime.now(ZoneInfo(zone))
    return {"start": f"{now - timedelta(hours=1):%H:%M}", "end": f"{now + timedelta(hours=2):%H:%M}"}
