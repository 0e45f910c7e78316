"""The bus as the rest of Harkara sees it: connect, publish, run actors, close."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from nats.js import JetStreamContext

from harkara.bus.actor import Actor
from harkara.bus.api import Api
from harkara.bus.broker import BrokerPublisher
from harkara.bus.counters import Counters
from harkara.bus.dead import DeadLetters
from harkara.bus.elections import Elections
from harkara.bus.ending import WAKE_ENDED
from harkara.bus.handling import Handling
from harkara.bus.hurrying import Hurry
from harkara.bus.link import Link
from harkara.bus.progress import Matters, has_read
from harkara.bus.runner import Credit, Runner, Slots
from harkara.bus.topology import Topology, load
from harkara.measures import Measures

if TYPE_CHECKING:
    from harkara.observing.tracing import Tracer

_GRACE = timedelta(seconds=15)


async def connect(
    url: str,
    creds: str | None = None,
    *,
    name: str = "harkara",
    topology: Topology | None = None,
    within: timedelta = timedelta(seconds=10),
    patience: timedelta = timedelta(seconds=10),
    measures: Measures | None = None,
    tracer: Tracer | None = None,
) -> Bus:
    """A bus on the server(s) at `url` (comma-separated), with `creds` the path of a credentials file.

    `patience` is how long publishing is retried. Raises Unavailable, in one line, if nobody answers `within` that time.
    """
    link = await Link.open(url, creds, name, within.total_seconds())
    bus = Bus(link, topology or load(), _publisher(tracer, link, patience.total_seconds(), measures), tracer)
    try:
        await bus.publisher.open()
        await bus.elections.open()
        await bus.publisher.subscribe_wake(WAKE_ENDED, lambda tenant: bus.ended.add(tenant.decode(errors="replace")))
    except BaseException:
        await link.close()
        raise
    return bus


def _publisher(tracer: Tracer | None, link: Link, patience_s: float, measures: Measures | None) -> BrokerPublisher:
    if tracer is None:
        return BrokerPublisher(link, patience_s, measures)
    from harkara.bus.traced import TracedPublisher

    return TracedPublisher(tracer, link, patience_s, measures)


class Bus:
    """A connection with all that is done over it. Made by `connect`; usable as `async with`."""

    def __init__(
        self, link: Link, topology: Topology, publisher: BrokerPublisher, tracer: Tracer | None = None
    ) -> None:
        self.tracer = tracer
        self.link = link
        self.topology = topology
        self.publisher = publisher
        self.elections = Elections(link)
        #: Actor's name -> what it has done on this bus so far.
        self.counters: dict[str, Counters] = {}
        #: Tenants that were said to be erased since this bus is there: no actor does anything for them any more.
        self.ended: set[str] = set()
        self._running: list[Running] = []

    async def __aenter__(self) -> Bus:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def js(self) -> JetStreamContext:
        """nats-py's JetStream context, for what is not on a hot path. Ask for it anew: connections are replaced."""
        return self.link.jetstream

    @property
    def connected(self) -> bool:
        """Whether the broker is there right now."""
        return self.link.connected

    @property
    def measures(self) -> Measures:
        """What has been stored over this bus, and how long that took."""
        return self.publisher.measures

    @asynccontextmanager
    async def run(self, actor: Actor, *, grace: timedelta = _GRACE) -> AsyncGenerator[Running]:
        """The actor at work inside the block; on leaving, what it has begun gets `grace` to end."""
        running = await self.start(actor)
        try:
            yield running
        finally:
            await running.stop(grace)

    async def start(self, actor: Actor) -> Running:
        """Start an actor: a durable on every stream it takes from. Raises TopologyError or Unavailable."""
        running = Running(self, actor)
        await running.start()
        self._running.append(running)
        return running

    def runner(
        self,
        actor: Actor,
        *,
        stream: str,
        durable: str,
        filters: Sequence[str],
        inactive_threshold: timedelta | None = None,
        credit: Credit | None = None,
    ) -> Runner:
        """A runner over one durable that is made on demand; its owner starts and stops it.

        With `inactive_threshold` the broker deletes the durable when nobody has pulled for that long. `credit` says
        how many more messages may be delivered beyond those in hand; call `runner.nudge()` when it has grown.
        """
        return Runner(
            self.link,
            self.elections,
            self.handling(actor),
            stream=stream,
            durable=durable,
            filters=filters,
            consumers=self.topology.consumers,
            inactive_threshold=inactive_threshold,
            credit=credit,
        )

    async def has_read(self, stream: str, actor: str, tenant: str, matters: Matters) -> bool:
        """Whether an actor is done with all of a tenant's that matters: that a stream holds now, or that it put off.

        It gets a few seconds; False if nobody knows.
        """
        retries = self.topology.stream_of(f"t.{tenant}.at.{actor}.any")
        api, pattern = Api(self.link.request), f"t.{tenant}.*.{actor}.>"
        return await has_read(api, stream, actor, tenant, (retries.name, pattern), matters)

    @property
    def dead(self) -> DeadLetters:
        """What actors gave up."""
        return DeadLetters(Api(self.link.request), self.publisher.send)

    def hurry(self) -> Hurry:
        """What brings messages back that wait on a schedule."""
        return Hurry(Api(self.link.request), self.topology, self.publisher.send)

    def handling(self, actor: Actor) -> Handling:
        """What opens, hands over and settles for an actor on this bus; all of one name count together."""
        counters = self.counters.setdefault(actor.name, Counters())
        parts = (actor, self.publisher.send, lambda: datetime.now(UTC), counters, self.measures.tally, self.ended)
        if self.tracer is None:
            return Handling(*parts)
        from harkara.bus.traced import TracedHandling

        return TracedHandling(self.tracer, *parts)

    def forget(self, running: Running) -> None:
        """The actor no longer runs here."""
        if running in self._running:
            self._running.remove(running)

    async def stop(self, grace: timedelta = _GRACE) -> None:
        """Stop all actors at the same time; each gets `grace` for what it has begun."""
        await asyncio.gather(*(running.stop(grace) for running in list(self._running)))

    async def close(self) -> None:
        """Stop the actors and end the connection, which would otherwise keep the process alive, whatever fails."""
        try:
            await self.stop()
            await self.elections.close()
            await self.publisher.close()
        finally:
            await self.link.close()


class Running:
    """One actor at work on a bus: a runner per stream it reads, sharing its slots and counters."""

    def __init__(self, bus: Bus, actor: Actor) -> None:
        self.actor = actor
        self._bus = bus
        self._handling = bus.handling(actor)
        slots = Slots(actor.in_flight)
        patterns = [kind.subject_filter() for kind in actor.takes]
        self._runners = [
            Runner(
                bus.link,
                bus.elections,
                self._handling,
                stream=stream,
                durable=actor.name,
                filters=filters,
                consumers=bus.topology.consumers,
                slots=slots,
            )
            for stream, filters in bus.topology.filters(actor.name, patterns).items()
        ]

    @property
    def counters(self) -> Counters:
        """What the actor has done so far."""
        return self._handling.counters

    async def start(self) -> None:
        """Start its runners: all of them, or none when one fails."""
        try:
            for runner in self._runners:
                await runner.start()
        except BaseException:
            await self.stop(timedelta())
            raise

    async def stop(self, grace: timedelta = _GRACE) -> None:
        """Stop its runners at the same time."""
        await asyncio.gather(*(runner.stop(grace) for runner in self._runners))
        self._bus.forget(self)
