"""Commands from partners: each goes the way of the request it stands for, and is answered as that is.

The broker says whose connection a command comes from (`Nats-Request-Info`, which a client can't write itself); what the
key may do is asked for each command, so that a revocation counts at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import msgspec
from aiohttp import web
from aiohttp.web_urldispatcher import UrlMappingMatchInfo
from loguru import logger
from nats.aio.msg import Msg

from harkara.bus.link import Link
from harkara.http.authenticate import allow, in_force
from harkara.http.context import Context
from harkara.http.door import DOOR, Door
from harkara.http.idempotency import HEADER as IDEMPOTENCY_KEY
from harkara.http.idempotency import idempotent
from harkara.http.limiting import limit
from harkara.http.pipeline import Handler, Layer, serve, take_in
from harkara.http.problems import Problem, forbidden
from harkara.http.route import JSON, Route
from harkara.log import Seldom
from harkara.partners.commands import routes
from harkara.partners.requests import request
from harkara.partners.unpacking import unpack

#: Where commands arrive in the platform's account: `t.<tenant>.cmd.…` of partners is mapped to this.
TAKEN = "partners.*.cmd.>"

#: Who sends a command, as the broker says.
INFO = "Nats-Request-Info"

#: What of a message's headers counts, and the header of the request that it becomes.
HEADERS: Mapping[str, str] = {"Nats-Msg-Id": IDEMPOTENCY_KEY, "Prefer": "Prefer", "Content-Type": "Content-Type"}

#: What of the request's answer is told in headers; its status is told in the body, if it is a problem.
TOLD = ("Location", "Retry-After", "Idempotent-Replayed", "Preference-Applied", "RateLimit-Remaining")

#: Commands of one tenant that are being worked on at the same time in one process.
MOST_IN_HAND = 200

#: So many commands over that, between two looks at the connections, and the connection that sends them is ended.
FLOOD = 2_000

_seldom = Seldom()


@dataclass(frozen=True, slots=True)
class Sender:
    """Whose connection a command came from."""

    tenant: str
    digest: str
    address: str

    @property
    def name(self) -> str:
        """As connections are named."""
        return f"{self.tenant}/{self.digest}"


#: Under this name a request carries whose command it is.
SENDER = web.RequestKey("sender", Sender)


class _Info(msgspec.Struct):
    """What the broker says of a connection."""

    acc: str = ""
    user: str = ""
    host: str = ""


def identify(route: Route, inner: Handler) -> Handler:
    """Set `ctx.who` to the key of the connection, or refuse as over HTTP."""

    async def identified(ctx: Context[Any, Any]) -> object:
        sender = ctx.request[SENDER]
        key = in_force(await ctx.door.keyring.key_by_hash(sender.tenant, sender.digest), ctx.door.clock())
        ctx.who = key.who
        allow(ctx)
        return await inner(ctx)

    return identified


LAYERS: tuple[Layer, ...] = (identify, limit, unpack, idempotent, take_in)


@dataclass(frozen=True, slots=True)
class _Way:
    route: Route
    query: str
    found: UrlMappingMatchInfo


class Intake:
    """Takes commands, and answers them."""

    def __init__(self, door: Door, link: Link) -> None:
        self._link = link
        self._tasks: set[asyncio.Task[None]] = set()
        self._in_hand: Counter[str] = Counter()
        #: Commands that were refused unseen since somebody last looked, by the sender's name.
        self.flooding: Counter[str] = Counter()
        app = web.Application()
        app[DOOR] = door
        self._ways = {name: _way(app, door, route, query) for name, (route, query) in routes().items()}

    def take(self, message: Msg) -> None:
        """Work on one command, in a task of its own."""
        sender = sender_of(message)
        if sender is None:
            self._answer(message, forbidden("this is no command of yours: publish t.<your tenant>.cmd.…"))
            return
        if self._in_hand[sender.tenant] >= MOST_IN_HAND:
            self.flooding[sender.name] += 1
            detail = f"more than {MOST_IN_HAND} commands are being worked on: await the answers of some first"
            self._answer(message, Problem(429, detail, headers={"Retry-After": "1"}))
            return
        self._in_hand[sender.tenant] += 1
        task = asyncio.create_task(self._work(message, sender))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(done, sender.tenant))

    def _done(self, task: asyncio.Task[None], tenant: str) -> None:
        self._tasks.discard(task)
        self._in_hand[tenant] -= 1
        if not self._in_hand[tenant]:
            del self._in_hand[tenant]

    async def stop(self) -> None:
        """Finish what was begun."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _work(self, message: Msg, sender: Sender) -> None:
        way = self._ways.get(message.subject.split(".", 3)[3])
        if way is None:
            self._answer(message, Problem(404, f"there is no such command: possible are {', '.join(self._ways)}"))
            return
        try:
            response = await _asked(way, message, sender)
        except Exception as error:
            if _seldom.first(type(error).__name__, "ERROR", "commands of partners failed"):
                logger.opt(exception=error).error("a partner's command failed: {}", message.subject)
            response = Problem(500, "this is our fault: try again").response()
        self._respond(message, response)

    def _answer(self, message: Msg, problem: Problem) -> None:
        if message.reply:
            self._respond(message, problem.response())

    def _respond(self, message: Msg, response: web.StreamResponse) -> None:
        """Write the answer, if one is wanted."""
        if not message.reply:
            return
        body = cast("web.Response", response).body or b"{}"
        self._link.write(_published(message.reply, _told(response), cast("bytes", body)))


def sender_of(message: Msg) -> Sender | None:
    """Whose command it is; None if it does not come straight from a connection of the tenant it is about."""
    try:
        info = msgspec.json.decode((message.headers or {}).get(INFO, ""), type=_Info)
    except msgspec.DecodeError:
        return None
    tenant, _, digest = info.user.partition("/")
    if info.acc != "PARTNERS" or not digest or message.subject.split(".")[1] != tenant:
        return None
    return Sender(tenant, digest, info.host)


def _way(app: web.Application, door: Door, route: Route, query: str) -> _Way:
    handler: Callable[[web.Request], Any] = serve(door, route, LAYERS)
    found = UrlMappingMatchInfo({}, web.Application().router.add_route(route.method, route.path, handler))
    found.add_app(app)
    found.freeze()
    return _Way(route, query, found)


async def _asked(way: _Way, message: Msg, sender: Sender) -> web.StreamResponse:
    given = message.headers or {}
    headers = {name: given[mine] for mine, name in HEADERS.items() if mine in given}
    target = f"{way.route.path}?{way.query}" if way.query else way.route.path
    asked = request(way.route.method, target, {"Content-Type": JSON, **headers}, message.data, sender.address)
    asked[SENDER] = sender
    asked._match_info = way.found  # pyright: ignore[reportPrivateUsage]
    response: web.StreamResponse = await way.found.handler(asked)
    return response


def _told(response: web.StreamResponse) -> dict[str, str]:
    told = {name: response.headers[name] for name in TOLD if name in response.headers}
    if response.status >= 400:
        told["Nats-Service-Error-Code"] = str(response.status)
    return told


def _published(subject: str, headers: Mapping[str, str], body: bytes) -> bytes:
    head = "".join(["NATS/1.0\r\n", *(f"{name}: {value}\r\n" for name, value in headers.items()), "\r\n"]).encode()
    return b"HPUB %s %d %d\r\n%s%s\r\n" % (subject.encode(), len(head), len(head) + len(body), head, body)
