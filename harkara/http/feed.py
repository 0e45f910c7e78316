"""The live feed: a tenant's events over a WebSocket, in order and without a gap across every kind of restart."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, Literal
from uuid import UUID

import msgspec
from aiohttp import WSMsgType, web
from loguru import logger
from msgspec import Meta
from redis.exceptions import RedisError

from harkara.bus.connection import Bus
from harkara.bus.tail import History
from harkara.bus.tasks import end
from harkara.http.access import Role, reads, scopes_suffice
from harkara.http.authenticate import identify
from harkara.http.catchup import CatchUp
from harkara.http.context import Context, database_errors
from harkara.http.decoding import decode_body
from harkara.http.feed_protocol import TYPES
from harkara.http.hub import EVENTS, Event, Hub, Patterns
from harkara.http.identity import Identity, utc_now
from harkara.http.listener import CLOSING, GOING_AWAY, NOT_ALLOWED, WRONG_KIND, Socket
from harkara.http.problems import Problem, forbidden, invalid, unauthenticated, unavailable
from harkara.schemas.base import Body
from harkara.storage import redis_keys
from harkara.storage.storage import Storage, is_away

if TYPE_CHECKING:
    from redis.asyncio import Redis

#: Who may listen.
ACCESS = reads("feed")

TICKET_LIFETIME = timedelta(seconds=30)
HEARTBEAT = timedelta(seconds=30)

#: How long a listener whose access was withdrawn may still hear something.
RECHECK_EVERY = timedelta(seconds=15)

#: Pages of history read at the same time: many listeners that come back at once must not crowd out the rest.
PAGES_AT_ONCE = 8

RESTARTING = "the server restarts: come back with your last seq"

_WISH_BYTES = 8 * 1024

Pattern = Annotated[
    str,
    Meta(
        max_length=100,
        pattern=r"^([a-z_]+|\*)(\.([a-z_]+|\*))*(\.>)?$|^>$",
        extra={"words": "a type of event, or a pattern of some: message.sent, message.*, >"},
    ),
]

STILL_KEYS = """
select k.id from api_keys k join tenants t on t.id = k.tenant_id
where k.id = any($1) and k.revoked_at is null and (k.expires_at is null or k.expires_at > now()) and t.is_active
"""

STILL_MEMBERS = """
select t.id as tenant_id, u.id as user_id, u.session
from unnest($1::uuid[], $2::uuid[]) as u (id, session), app.access(u.id, u.session) as a, unnest(a.tenants) as t (id)
where a.alive
"""


class Wish(Body):
    """What a client sends: the types of events it wants, and the last sequence it has seen."""

    subscribe: Annotated[list[Pattern], Meta(min_length=1, max_length=50)]
    since: Annotated[int, Meta(ge=0)] | Literal["now"] = "now"


class Opening(Body):
    """A browser, which can't set headers, brings a ticket."""

    ticket: Annotated[str, Meta(max_length=200)] | None = None


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """Opens the feed once within `expires_in` seconds; who then asks for `since` = `seq` misses nothing from now on."""

    ticket: str
    expires_in: int
    seq: int


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a ticket was issued to, as Redis keeps it."""

    tenant: str
    role: Role
    scopes: tuple[str, ...]
    user_id: UUID | None = None
    key_id: UUID | None = None
    session: UUID | None = None
    until: float | None = None


class Feed:
    """All open feeds of this process. Whoever builds it starts and stops it."""

    def __init__(self, bus: Bus, redis: Redis, storage: Storage) -> None:
        self._hub = Hub(bus.link)
        self._history = History(bus.link, EVENTS)
        self._turns = asyncio.Semaphore(PAGES_AT_ONCE)
        self._storage = storage
        self._redis: Any = redis  # redis-py types its commands only in part
        self._open: set[Socket] = set()
        self._stopping = False
        self._rechecks: asyncio.Task[None] | None = None
        self._look = asyncio.Event()

    async def start(self) -> None:
        """Begin to read events. If the broker is away it goes on trying; sockets wait meanwhile."""
        await self._hub.start()
        self._rechecks = asyncio.create_task(self._recheck_for_ever())

    async def stop(self) -> None:
        """Ask every listener to come back, take no new ones, and read no more."""
        self._stopping = True
        if self._rechecks is not None:
            await end(self._rechecks)
        for socket in tuple(self._open):
            socket.end(GOING_AWAY, RESTARTING)
        closings = [socket.ended for socket in self._open if socket.ended is not None]
        if closings:
            await asyncio.wait(closings, timeout=CLOSING.total_seconds())
        await self._hub.stop()
        await self._history.close()

    @property
    def position(self) -> int:
        """The last sequence that was read, of whichever tenant."""
        return self._hub.position

    @property
    def listeners(self) -> int:
        """How many sockets are open."""
        return len(self._open)

    def serves(self, tenant: str) -> bool:
        """Whether somebody of this tenant listens; with an empty name, whether anybody does."""
        return any(not tenant or socket.who.tenant == tenant for socket in self._open)

    def expect(self, tenant: str, types: Collection[str], about: str) -> asyncio.Future[Event]:
        """The first event from now on of one of these types whose `id` is `about`.

        Call it before publishing what will cause it, await it with a time limit, cancel it to wait no longer.
        """
        return self._hub.expect(tenant, types, about)

    async def issue(self, who: Identity) -> Ticket:
        """A ticket for whoever can't send headers. Raises Problem 503 if Redis is away."""
        holder = Holder(
            tenant=who.tenant,
            role=who.role,
            scopes=tuple(who.scopes),
            user_id=who.user_id,
            key_id=who.key_id,
            session=who.session,
            until=who.until,
        )
        ticket, position = secrets.token_urlsafe(32), self.position
        try:
            await self._redis.set(_key_of(ticket), msgspec.json.encode(holder), ex=TICKET_LIFETIME)
        except (RedisError, OSError) as error:
            raise unavailable("Redis") from error
        return Ticket(ticket=ticket, expires_in=int(TICKET_LIFETIME.total_seconds()), seq=position)

    async def redeem(self, ticket: str) -> Identity:
        """Whose ticket it is; it is used up by this. Raises Problem 401, or 503 if Redis or the database is away."""
        try:
            found: bytes | None = await self._redis.getdel(_key_of(ticket))
        except (RedisError, OSError) as error:
            raise unavailable("Redis") from error
        if found is None:
            raise unauthenticated("this ticket was used or has expired: get another from POST /api/v1/feed/ticket")
        holder = msgspec.json.decode(found, type=Holder)
        who = Identity(
            holder.tenant,
            holder.user_id,
            holder.key_id,
            role=holder.role,
            scopes=frozenset(holder.scopes),
            session=holder.session,
            until=holder.until,
        )
        with database_errors():
            if _holder(who) not in await self._allowed([who]):
                raise unauthenticated("the access that this ticket was issued for was withdrawn: log in again")
        return who

    async def serve(self, ws: web.WebSocketResponse, socket: Socket) -> None:
        """Do what the client wishes until it goes, or has to go."""
        self._open.add(socket)
        if self._stopping:
            socket.end(GOING_AWAY, RESTARTING)
        try:
            await self._listen(ws, socket)
        finally:
            self._open.discard(socket)
            if socket.ended is not None:
                await asyncio.wait([socket.ended])

    async def _listen(self, ws: web.WebSocketResponse, socket: Socket) -> None:
        catching_up: asyncio.Task[None] | None = None
        patterns: Patterns | None = None
        try:
            async for message in ws:
                wish = _wish(message.type, message.data, socket)
                if wish is None:
                    return
                await self._leave(socket, patterns, catching_up)
                patterns = Patterns(wish.subscribe)
                catching_up = self._begin(socket, patterns, wish.since)
        finally:
            await self._leave(socket, patterns, catching_up)

    def _begin(self, socket: Socket, patterns: Patterns, since: int | Literal["now"]) -> asyncio.Task[None] | None:
        socket.begins_after(self.position if since == "now" else since)
        if since == "now" or since == self.position:
            self._hub.join(socket, socket.who.tenant, patterns)
            return None
        return asyncio.create_task(CatchUp(self._hub, self._history, self._turns, socket, patterns, since).run())

    async def _leave(self, socket: Socket, patterns: Patterns | None, catching_up: asyncio.Task[None] | None) -> None:
        if catching_up is not None:
            await end(catching_up)
        if patterns is not None:
            self._hub.leave(socket, socket.who.tenant, patterns)

    async def _recheck_for_ever(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RECHECK_EVERY.total_seconds()):
                    await self._look.wait()
            self._look.clear()
            try:
                await self.recheck()
            except Exception as error:  # a defect here must not let withdrawn access live on unchecked
                if is_away(error):
                    logger.warning("Who may listen could not be checked again: {}", type(error).__name__)
                else:
                    logger.opt(exception=error).error("Checking again who may listen failed")

    def recheck_soon(self) -> None:
        """Check at once, because somebody's access was withdrawn. Waits for nothing."""
        self._look.set()

    async def recheck(self) -> None:
        """Close the feeds of those whose token or key has expired or was revoked, or who are no active members."""
        self._end_expired()
        sockets = tuple(socket for socket in self._open if socket.ended is None)
        if not sockets:
            return
        allowed = await self._allowed([socket.who for socket in sockets])
        for socket in sockets:
            if _holder(socket.who) not in allowed:
                socket.end(NOT_ALLOWED, "your access was withdrawn: log in again or use another key")

    async def _allowed(self, whos: Sequence[Identity]) -> set[object]:
        """Those of them whose key or login is still good."""
        people = {(who.user_id, who.session) for who in whos if who.user_id}
        async with self._storage.batch({who.tenant for who in whos}) as con:
            keys = await con.fetch(STILL_KEYS, list({who.key_id for who in whos if who.key_id}))
            members = await con.fetch(STILL_MEMBERS, [user for user, _ in people], [session for _, session in people])
        return {row["id"] for row in keys} | {(row["tenant_id"], row["user_id"], row["session"]) for row in members}

    def _end_expired(self) -> None:
        now = utc_now().timestamp()
        for socket in tuple(self._open):
            if socket.who.until is not None and socket.who.until <= now:
                socket.end(NOT_ALLOWED, "your access token has expired: come back with a new one and your last seq")


def _holder(who: Identity) -> object:
    """Whom access can be withdrawn from: a key, or a login in one tenant."""
    return who.key_id or (who.tenant, who.user_id, who.session)


def _key_of(ticket: str) -> str:
    """Where Redis keeps a ticket: whoever can list its keys still can't open a feed."""
    return redis_keys.TICKET + hashlib.sha256(ticket.encode()).hexdigest()


def _wish(kind: WSMsgType, data: Any, socket: Socket) -> Wish | None:
    """What the client wants; None, and the socket closed with the reason, if that can't be understood."""
    if kind is not WSMsgType.TEXT:
        socket.end(WRONG_KIND, 'send text, such as {"subscribe":["message.*"],"since":"now"}')
        return None
    try:
        wish = decode_body(str(data).encode(), Wish)
        _refuse_unknown(wish.subscribe)
    except Problem as problem:
        socket.end(NOT_ALLOWED, f'send {{"subscribe":["message.*"],"since":"now"}}: {_faults(problem)}')
        return None
    return wish


def _refuse_unknown(patterns: Sequence[str]) -> None:
    """Raise Problem 422 if no type of event fits some of these: whoever waits for it would never hear anything."""
    unknown = [pattern for pattern in patterns if not any(map(Patterns([pattern]).want, TYPES))]
    if unknown:
        raise invalid(("subscribe", f"no type of event fits {', '.join(unknown)}: there are {', '.join(TYPES)}"))


def _faults(problem: Problem) -> str:
    said = (f"{path}: {message}" if path else f"the message {message}" for path, message in problem.errors)
    return "; ".join(said) or problem.detail


def _feed_of(ctx: Context[Any, Any]) -> Feed:
    if ctx.door.feed is None:
        raise unavailable("the live feed")
    return ctx.door.feed


async def issue_ticket(ctx: Context[None, None]) -> Ticket:
    """A single-use ticket for opening the feed from a browser."""
    return await _feed_of(ctx).issue(ctx.who)


async def open_feed(ctx: Context[None, Opening]) -> web.WebSocketResponse:
    """The feed itself: by ticket, or by the headers that every route takes."""
    feed, request = _feed_of(ctx), ctx.request
    ws = web.WebSocketResponse(
        heartbeat=HEARTBEAT.total_seconds(), timeout=CLOSING.total_seconds(), max_msg_size=_WISH_BYTES, compress=False
    )
    if not ws.can_prepare(request):
        raise Problem(426, "this is a WebSocket: open it with a WebSocket client", headers={"Upgrade": "websocket"})
    who = await _admitted(ctx, feed)
    await ws.prepare(request)
    if request.transport is not None:
        await feed.serve(ws, Socket(ws, request.transport, who))
    return ws


async def _admitted(ctx: Context[None, Opening], feed: Feed) -> Identity:
    if ctx.query.ticket is not None:
        return await feed.redeem(ctx.query.ticket)
    who = await identify(ctx)
    if who.key_id is not None and not scopes_suffice(who.scopes, ACCESS.scope):
        raise forbidden(f"this API key lacks the scope {ACCESS.scope}: make one that has it")
    return who
