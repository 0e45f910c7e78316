"""Helpers for tests; `from support import until`."""

from __future__ import annotations

import asyncio
import inspect
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from msgspec import Struct

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


async def until(
    predicate: Callable[[], object | Awaitable[object]],
    description: str,
    timeout: float = 10,  # noqa: ASYNC109 - the failure has to carry the description
    every: float = 0.02,
) -> object:
    """Waits until `predicate` (plain or async) gives something true, and returns that.

    Fails the test with `description` after `timeout` seconds. The predicate is asked every `every` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        answer = predicate()
        value = await answer if inspect.isawaitable(answer) else answer
        if value:
            return value
        if loop.time() >= deadline:
            raise AssertionError(f"not within {timeout} s: {description}")
        await asyncio.sleep(every)


@contextmanager
def quick_directory() -> Iterator[Path]:
    """A directory for a stack's data, gone afterwards; in memory if there is much: a cluster is a thousand files."""
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 4 << 30
    with tempfile.TemporaryDirectory(prefix="harkara-", dir=memory if roomy else None) as directory:
        yield Path(directory)
