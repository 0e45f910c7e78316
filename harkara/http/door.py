"""The front door: what its handlers need, and the web application made of the one route table."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from harkara.bus.errors import BusError, Unavailable
from harkara.bus.messages import Ack, Outgoing
from harkara.bus.publisher import Publisher
from harkara.callers import Callers
from harkara.gateway.protocol import Sessions
from harkara.gateway.providers import phones
from harkara.http.answering import Answering
from harkara.http.asking import Questions
from harkara.http.authenticate import authenticate
from harkara.http.crowds import Crowds
from harkara.http.docs import DESCRIBED
from harkara.http.idempotency import Repeats, idempotent
from harkara.http.identity import Tokens, utc_now
from harkara.http.keyring import WAKE_ACCESS, Change, Keyring, access_changed, heard
from harkara.http.limiting import Counting, limit, limit_strangers
from harkara.http.limits import Limits
from harkara.http.messages import JustAccepted
from harkara.http.metrics import Metrics
from harkara.http.passwords import Passwords
from harkara.http.paths import for_router
from harkara.http.pipeline import Layer, answering_problems, serve, take_in
from harkara.http.plans import PLANS, Plan
from harkara.http.route import Route
from harkara.http.routes import ROUTES
from harkara.http.supabase import Supabase
from harkara.http.throttle import ALLOWANCES, Throttle
from harkara.http.webhooks import Sources
from harkara.measures import Measures
from harkara.observing.page import Page
from harkara.settings import Settings
from harkara.storage.blobs import Blobs
from harkara.storage.halting import WAKE_SENDER
from harkara.storage.storage import Storage
from harkara.vault import Vault

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from harkara.bus.connection import Bus
    from harkara.http.feed import Feed
    from harkara.observing.tracing import Tracer

#: What every request of the table goes through on its way to the handler, from the outside in.
LAYERS: tuple[Layer, ...] = (limit_strangers, authenticate, limit, idempotent, take_in)


@dataclass(kw_only=True, repr=False)
class Door:
    """What handlers need. Whoever builds it also opens and closes what it holds."""

    settings: Settings
    storage: Storage
    publisher: Publisher
    redis: Redis
    bus: Bus | None = None
    blobs: Blobs | None = None
    feed: Feed | None = None
    clock: Callable[[], datetime] = utc_now
    vault: Vault = field(init=False)
    tokens: Tokens = field(init=False)
    supabase: Supabase | None = field(init=False)
    keyring: Keyring = field(init=False)
    sources: Sources = field(init=False)
    questions: Questions = field(init=False)
    answering: Answering = field(init=False)
    counting: Counting = field(init=False)
    metrics: Metrics = field(init=False)
    page: Page = field(init=False)
    throttle: Throttle = field(init=False)
    repeats: Repeats = field(init=False)
    callers: Callers = field(init=False)
    sessions: Mapping[str, Sessions] = field(init=False)
    most_connections: int = 10_000
    plans: Mapping[str, Plan] = field(default_factory=lambda: PLANS)
    passwords: Passwords = field(default_factory=Passwords)
    accepted: JustAccepted = field(default_factory=JustAccepted)
    #: Called with each change of somebody's access (None: of anybody's), here or elsewhere; must not raise or wait.
    access_changes: list[Callable[[Change | None], None]] = field(default_factory=list[Callable[[Change | None], None]])

    _broker_away: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.vault = Vault(*self.settings.secret_keys)
        self.tokens = Tokens(*self.settings.secret_keys)
        self.supabase = Supabase.of(self.settings)
        self.questions = Questions(self.storage)
        self.keyring = Keyring(self.storage, self.questions)
        self.answering = Answering(self.settings)
        self.counting = Counting(Limits(self.redis), self.questions, self.plans)
        self.metrics = Metrics()
        measures = Measures() if self.bus is None else self.bus.measures
        self.page = Page(self.storage, measures, bus=self.bus, door=self)
        self.throttle = Throttle(self.redis, ALLOWANCES[self.settings.environment])
        self.repeats = Repeats(self.storage, self.vault)
        self.callers = Callers(*self.settings.secret_keys)
        self.sessions = phones(self.settings)
        self.sources = Sources(self.storage, self.vault, self.clock)
        self.crowds = Crowds()

    @property
    def tracer(self) -> Tracer | None:
        """Makes spans of requests, if tracing is on."""
        return None if self.bus is None else self.bus.tracer

    async def publish(self, out: Outgoing) -> Ack:
        """Store a message. Raises Unavailable, Full or Refused; at once while the broker is known to be away.

        The first ones to find it away wait for it as long as a restart takes; not everybody after them.
        """
        with self._asking_the_broker():
            return await self.publisher.publish(out)

    async def publish_all(self, outs: Sequence[Outgoing]) -> list[Ack]:
        """Store messages in this order. Raises the same if one of them is not stored, whatever became of the others."""
        if len(outs) == 1:
            return [await self.publish(outs[0])]
        with self._asking_the_broker():
            return [_stored(answer) for answer in await self.publisher.publish_many(outs)]

    @contextmanager
    def _asking_the_broker(self) -> Generator[None]:
        if self._broker_away and self.bus is not None and not self.bus.link.connected:
            raise Unavailable("the broker is still away: try again")
        self._broker_away = False
        try:
            yield
        except Unavailable:
            self._broker_away = True
            raise

    def access_changed(self, change: Change) -> None:
        """Somebody's access was changed, and it is committed: what was known counts no longer, in no front door."""
        access_changed(self.keyring, self.publisher, change)
        self._recheck(change)

    def _recheck(self, change: Change | None) -> None:
        if self.feed is not None and (change is None or self.feed.serves(change.tenant)):
            self.feed.recheck_soon()
        for call in self.access_changes:
            call(change)

    def _heard_of_access(self, data: bytes) -> None:
        change = heard(data)
        self.keyring.forget(change)
        self._recheck(change)

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[None]:
        """Inside the block this front door hears what others changed."""
        async with AsyncExitStack() as stack:
            for phone in self.sessions.values():
                stack.push_async_callback(phone.close)
            for subject, hear in ((WAKE_SENDER, self.sources.forget), (WAKE_ACCESS, self._heard_of_access)):
                stack.push_async_callback(await self.publisher.subscribe_wake(subject, hear))
            yield


#: Where the application keeps its door, for those who have only a request.
DOOR: web.AppKey[Door] = web.AppKey("door", Door)

#: Where it keeps its routes without parameters, for a server that finds these by itself.
FIXED: web.AppKey[Sequence[web.AbstractRoute]] = web.AppKey("fixed", Sequence[web.AbstractRoute])


def build(door: Door, routes: tuple[Route, ...] = ROUTES) -> web.Application:
    """The web application. Nothing happens until it is started."""
    app = web.Application(middlewares=[answering_problems(door)])
    app[DOOR] = door
    app[DESCRIBED] = routes
    app.on_response_prepare.append(door.answering.complete)
    paths, fixed = {route.path for route in routes}, list[web.AbstractRoute]()
    for route in routes:
        add: Any = app.router.add_get if route.method == "GET" else _adder(app, route.method)
        made = add(for_router(route.path, paths), serve(door, route, LAYERS))
        if "{" not in route.path:
            fixed.append(made)
    app[FIXED] = fixed
    return app


def _adder(app: web.Application, method: str) -> Callable[[str, Any], Any]:
    return lambda path, handler: app.router.add_route(method, path, handler)


def _stored(answer: Ack | BusError) -> Ack:
    if isinstance(answer, BusError):
        raise answer
    return answer
