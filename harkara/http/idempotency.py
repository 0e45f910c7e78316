"""`Idempotency-Key`: a POST that comes again gets the first answer again, and does its work once.

First a row is committed that reserves the key; ids of commands come from that row's own, so that a command which was
stored just before everything died is stored again as the same. Then one transaction locks the row, holds all that the
handler writes, and the answer: they are committed together or not at all. Whoever comes meanwhile waits. Who prefers to
wait for an outcome does so after that: what is kept, and told again, is the answer from before it.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any
from weakref import WeakValueDictionary

import asyncpg
import msgspec
from aiohttp import web

from harkara.http.context import Context, database_errors
from harkara.http.pipeline import Handler, encoded, finished, read
from harkara.http.problems import Problem, conflict, invalid
from harkara.http.route import JSON, Route
from harkara.http.spool import read_again, receive
from harkara.ids import uuid7
from harkara.storage.storage import Storage
from harkara.vault import Vault

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

HEADER = "Idempotency-Key"
REPLAYED = "Idempotent-Replayed"

LONGEST_KEY = 255

#: How long a request waits for an equal one that is being worked on.
PATIENCE = timedelta(seconds=10)

#: How often a key is reserved anew because the request before gave it up.
TRIES = 3

#: Bytes of a body kept in memory; what is more goes to disk.
IN_MEMORY = 1_000_000


@dataclass(frozen=True, slots=True)
class Statements:
    """The four steps of a key's life, in the same parameters for both kinds."""

    reserve: str
    lock: str
    answer: str
    release: str


#: Of a tenant: `$1` is who, `$2` the key.
OF_TENANTS = Statements(
    reserve="insert into idempotency_keys (who, key, id, fingerprint) values ($1, $2, $3, $4) on conflict do nothing",
    lock="select id, fingerprint, answer, created_at < now() - interval '24 hours' as old"
    " from idempotency_keys where who = $1 and key = $2 for update",
    answer="update idempotency_keys set answer = $2, updated_at = now() where id = $1",
    release="delete from idempotency_keys where id = $1",
)

#: Of nobody yet, or of a person who has not said which tenant: `$1` stands for both.
OF_NOBODY = Statements(
    reserve="select app.key_reserve($1, $2, $3)",
    lock="select id, fingerprint, answer, old from app.key_lock($1)",
    answer="select app.key_answer($1, $2)",
    release="select app.key_release($1)",
)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key is kept: two callers' equal keys are two keys."""

    scope: tuple[Any, ...]
    statements: Statements
    open: Callable[[], AbstractAsyncContextManager[Connection]]


class Stored(msgspec.Struct):
    """An answer, as it is kept."""

    status: int
    headers: dict[str, str]
    body: str


class Repeats:
    """Keys and their answers. Answers are encrypted: some hold a secret that is shown once."""

    def __init__(self, storage: Storage, vault: Vault) -> None:
        self._storage, self._vault = storage, vault
        self._locks: WeakValueDictionary[tuple[Any, ...], asyncio.Lock] = WeakValueDictionary()
        # Each holds a connection for as long as its handler takes, and others need some too.
        self._room = asyncio.Semaphore(max(1, storage.pool // 2))

    async def once(self, ctx: Context[Any, Any], key: str, fingerprint: bytes, inner: Handler) -> object:
        """The answer of `inner`, now or from the first time. Problem 422 for another body, 409 while one is at work."""
        place = self._place(ctx, key)
        async with self._turn(place.scope):
            for _ in range(TRIES):
                with database_errors():
                    outcome = await self._try(ctx, place, fingerprint, inner)
                if outcome is not None:
                    break
            else:
                raise at_work()
        for do in ctx.pending:
            do()
        return await self._told(place, outcome)

    def _place(self, ctx: Context[Any, Any], key: str) -> Place:
        who, storage, acting = ctx.who, self._storage, ctx.acting
        if who.tenant:
            by = who.user_id or who.key_id
            return Place((who.tenant, by, key), OF_TENANTS, lambda: storage.tenant(who.tenant, acting))
        digest = hashlib.sha256(f"{who.user_id or ''}:{key}".encode()).digest()
        return Place((digest,), OF_NOBODY, lambda: storage.anonymous(acting))

    @asynccontextmanager
    async def _turn(self, scope: tuple[Any, ...]) -> AsyncGenerator[None]:
        """One after the other in this process, so that those who wait hold no connection."""
        lock = self._locks.setdefault(scope, asyncio.Lock())
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                await lock.acquire()
        except TimeoutError:
            raise at_work() from None
        try:
            yield
        finally:
            lock.release()

    async def _try(self, ctx: Context[Any, Any], place: Place, fingerprint: bytes, inner: Handler) -> _Outcome | None:
        """What became of it; None if the request that had the key gave it up just now."""
        sql, names = place.statements, _names(place)
        async with self._room:
            async with opened(place) as con:
                await con.execute(sql.reserve, *names, uuid7(), fingerprint)
            async with opened(place) as con:
                row: Any = await _locked(con, sql.lock, names)
                if row is None or row["old"]:
                    if row is not None:
                        await con.execute(sql.release, row["id"])
                    return None
                if row["fingerprint"] != fingerprint:
                    raise another_request()
                if row["answer"] is not None:
                    return _Outcome(row["id"], self._replayed(row["answer"]))
                return await self._first(ctx, place, con, row["id"], inner)

    async def _first(
        self, ctx: Context[Any, Any], place: Place, con: Connection, seed: Any, inner: Handler
    ) -> _Outcome:
        """Do the work. What is refused leaves the key free; after a fault of ours it stays reserved for the same.

        The handler's own transactions are savepoints here, kept or undone each as it would be without a key.
        """
        ctx.seed = seed
        try:
            result = await inner(ctx)
        except Problem as problem:
            if problem.status >= 500:
                raise
            await con.execute(place.statements.release, seed)
            return _Outcome(seed, problem)
        if isinstance(result, web.StreamResponse):  # of its own making: what it says is not known here
            await con.execute(place.statements.release, seed)
        else:
            await con.execute(place.statements.answer, seed, self._sealed(*encoded(result, ctx.route)))
        return _Outcome(seed, result)

    async def _told(self, place: Place, outcome: _Outcome) -> object:
        """The outcome, once it is committed. What has to follow the commit and fails undoes itself: the key is free."""
        if isinstance(outcome.result, Problem):
            raise outcome.result
        try:
            return await finished(outcome.result)
        except Problem:
            with database_errors():
                async with opened(place) as con:
                    await con.execute(place.statements.release, outcome.seed)
            raise

    def _sealed(self, status: int, body: bytes, headers: Mapping[str, str]) -> bytes | None:
        return self._vault.seal(msgspec.json.encode(Stored(status, dict(headers), body.decode())).decode())

    def _replayed(self, sealed: bytes) -> web.Response:
        try:
            stored = msgspec.json.decode(self._vault.open(sealed) or "", type=Stored)
        except ValueError:
            raise conflict(
                "this request was done, but its answer can't be read any more: look at what it made, and use a new key"
            ) from None
        headers, body = stored.headers | {REPLAYED: "true"}, stored.body.encode() or None
        return web.Response(body=body, status=stored.status, content_type=JSON if body else None, headers=headers)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one try came to: an answer, or the problem that the handler raised; `seed` names the key's row."""

    seed: Any
    result: object


@asynccontextmanager
async def opened(place: Place) -> AsyncGenerator[Connection]:
    """A transaction where this key is kept. Only to get it has a limit: what is done in it has limits of its own."""
    async with AsyncExitStack() as stack:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            con = await stack.enter_async_context(place.open())
        yield con


def _names(place: Place) -> tuple[Any, ...]:
    return place.scope[-2:]


async def _locked(con: Connection, statement: str, names: tuple[Any, ...]) -> Any:
    """The key's row, once nobody else works on it. Raises Problem 409 if that takes too long."""
    await con.execute(f"set local lock_timeout = '{PATIENCE.total_seconds():g}s'")
    try:
        row = await con.fetchrow(statement, *names)
    except asyncpg.LockNotAvailableError:
        raise at_work() from None
    await con.execute("set local lock_timeout to default")
    return row


def idempotent(route: Route, inner: Handler) -> Handler:
    """A POST with an `Idempotency-Key` does its work once; all else does it as often as it comes."""
    if route.method != "POST" or not route.repeatable:
        return inner
    return lambda ctx: _once(ctx, inner) if HEADER in ctx.request.headers else inner(ctx)


async def _once(ctx: Context[Any, Any], inner: Handler) -> object:
    key = _key(ctx.request.headers.getall(HEADER))
    if not ctx.route.accepts:
        ctx.raw = await read(ctx.request, ctx.route.body_limit)
        return await ctx.door.repeats.once(ctx, key, _digest(ctx.request, ctx.raw).digest(), inner)
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as file:
        await receive(ctx.request, file, ctx.route.body_limit)
        fingerprint = await asyncio.to_thread(_fingerprint, ctx.request, file)
        with read_again(ctx.request, file):
            return await ctx.door.repeats.once(ctx, key, fingerprint, inner)


def _key(given: list[str]) -> str:
    """The key. Raises Problem 400 naming the header if it is none."""
    key = given[0]
    if len(given) > 1 or not 1 <= len(key) <= LONGEST_KEY or not (key.isascii() and key.isprintable()):
        detail = f"give one key of 1 to {LONGEST_KEY} printable ASCII characters, such as a random UUID"
        raise Problem(400, f"{HEADER}: {detail}", errors=[(HEADER, detail)])
    return key


def _digest(request: web.Request, body: bytes = b"") -> Any:
    """What makes two requests equal: method, path, query and body."""
    line = f"{request.method} {request.rel_url.raw_path_qs}\n"
    return hashlib.sha256(line.encode() + body)


def _fingerprint(request: web.Request, file: IO[bytes]) -> bytes:
    """Of a body in a file. The boundary of a form's parts is new each time it is sent, and no part of what is sent."""
    boundary = request.headers.get("Content-Type", "").partition("boundary=")[2].partition(";")[0].strip('" ')
    mark = f"--{boundary}".encode() if boundary else None
    digest = _digest(request)
    while line := file.readline(65_536):
        if mark is None or not line.startswith(mark):
            digest.update(line)
    file.seek(0)
    return bytes(digest.digest())


def at_work() -> Problem:
    """409: an equal request is not done yet."""
    detail = f"a request with this {HEADER} is being worked on: try again in a moment"
    return Problem(409, detail, errors=[(HEADER, detail)], headers={"Retry-After": "1"})


def another_request() -> Problem:
    """422: the key belongs to a request that was not this one."""
    return invalid((HEADER, "was used with another request in the last 24 hours: give each request a key of its own"))
