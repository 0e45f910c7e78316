"""The front door: what its handlers need, and the web application made of the one route table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from aiohttp import web

from harkara.bus.publisher import Publisher
from harkara.http.asking import Questions
from harkara.http.authenticate import Keyring, authenticate
from harkara.http.identity import Tokens, utc_now
from harkara.http.messages import JustAccepted
from harkara.http.passwords import Passwords
from harkara.http.pipeline import Layer, answer_problems, serve, take_in
from harkara.http.route import Route
from harkara.http.routes import ROUTES
from harkara.http.webhooks import Sources
from harkara.settings import Settings
from harkara.storage.storage import Storage
from harkara.vault import Vault

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from harkara.bus.connection import Bus
    from harkara.http.feed import Feed

#: What wraps everything, unknown paths too.
MIDDLEWARES = (answer_problems,)

#: What every request of the table goes through on its way to the handler, from the outside in.
LAYERS: tuple[Layer, ...] = (authenticate, take_in)


@dataclass(kw_only=True, repr=False)
class Door:
    """What handlers need. Whoever builds it also opens and closes what it holds."""

    settings: Settings
    storage: Storage
    publisher: Publisher
    redis: Redis
    bus: Bus | None = None
    feed: Feed | None = None
    clock: Callable[[], datetime] = utc_now
    vault: Vault = field(init=False)
    tokens: Tokens = field(init=False)
    keyring: Keyring = field(init=False)
    sources: Sources = field(init=False)
    questions: Questions = field(init=False)
    passwords: Passwords = field(default_factory=Passwords)
    accepted: JustAccepted = field(default_factory=JustAccepted)

    def __post_init__(self) -> None:
        self.vault = Vault(self.settings.secret_key)
        self.tokens = Tokens(self.settings.secret_key)
        self.keyring = Keyring(self.storage, self.clock)
        self.questions = Questions(self.storage)
        self.sources = Sources(self.storage, self.vault, self.clock)


#: Where the application keeps its door, for those who have only a request.
DOOR: web.AppKey[Door] = web.AppKey("door", Door)


def build(door: Door, routes: tuple[Route, ...] = ROUTES) -> web.Application:
    """The web application. Nothing happens until it is started."""
    app = web.Application(middlewares=MIDDLEWARES)
    app[DOOR] = door
    for route in routes:
        add: Any = app.router.add_get if route.method == "GET" else _adder(app, route.method)
        add(route.path, serve(door, route, LAYERS))
    return app


def _adder(app: web.Application, method: str) -> Callable[[str, Any], Any]:
    return lambda path, handler: app.router.add_route(method, path, handler)
