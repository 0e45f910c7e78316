"""What a front door has seen, in plain integers, because every request counts; `harkara/observing/page.py` tells them.

Labels are route patterns, methods and status classes: never a path, a tenant or an id.
"""

from __future__ import annotations

from aiohttp import web

from harkara.http.context import Context
from harkara.measures import Timing

#: The route of a request that fits none of ours.
UNMATCHED = "unmatched"

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Seen:
    """The requests of one route and method."""

    __slots__ = ("by_class", "in_flight", "method", "route")

    def __init__(self, method: str, route: str) -> None:
        self.method, self.route = method, route
        self.in_flight = 0
        self.by_class: dict[int, Timing] = {}

    def add(self, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        timing = self.by_class.get(status // 100)
        if timing is None:
            timing = self.by_class[status // 100] = Timing()
        timing.add(seconds)


class Metrics:
    """What a door has seen."""

    def __init__(self) -> None:
        self.routes: dict[tuple[str, str], Seen] = {}
        self.unmatched = self.seen("ANY", UNMATCHED)
        #: Connections that are open, were refused because there were too many, or sent what is no HTTP, or too slowly.
        self.connections = 0
        self.turned_away: dict[str, int] = {}

    def seen(self, method: str, route: str) -> Seen:
        """Where a route's requests are counted."""
        return self.routes.setdefault((method, route), Seen(method, route))

    def turn_away(self, why: str) -> None:
        """Count a connection that was ended by us; `why` is one of a few words."""
        self.turned_away[why] = self.turned_away.get(why, 0) + 1


async def show(ctx: Context[None, None]) -> web.Response:
    """Figures of this process, as Prometheus reads them. Not meant for the outside: see docs/observing.md."""
    page = await ctx.door.page.render()
    return web.Response(body=page, headers={"Content-Type": CONTENT_TYPE})
