"""The bus as the rest of Harkara sees it: connect, publish, run actors, close."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import TracebackType

from nats.js import JetStreamContext

from harkara.bus.actor import Actor
from harkara.bus.broker import BrokerPublisher
from harkara.bus.counters import Counters
from harkara.bus.handling import Handling
from harkara.bus.link import Link
from harkara.bus.runner import Credit, Runner, Slots
from harkara.bus.topology import Topology, load

_GRACE = timedelta(seconds=15)


async def connect(
    url: str,
    creds: str | None = None,
    *,
    name: str = "harkara",
    topology: Topology | None = None,
    within: timedelta = timedelta(seconds=10),
    patience: timedelta = timedelta(seconds=10),
) -> Bus:
    """A bus on the server(s) at `url` (comma-separated), with `creds` the path of a credentials file.

    `patience` is how long publishing is retried. Raises Unavailable, in one line, if nobody answers `within` that time.
    """
    link = await Link.open(url, creds, name, within.total_seconds())
    bus = Bus(link, topology or load(), BrokerPublisher(link, patience.total_seconds()))
    await bus.publisher.open()
    return bus


class Bus:
    """A connection with all that is done over it. Made by `connect`; usable as `async with`."""

    def __init__(self, link: Link, topology: Topology, publisher: BrokerPublisher) -> None:
        self.link = link
        self.topology = topology
        self.publisher = publisher
        #: Actor's name -> what it has done on this bus so far.
        self.counters: dict[str, Counters] = {}
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
            self.handling(actor),
            stream=stream,
            durable=durable,
            filters=filters,
            consumers=self.topology.consumers,
            inactive_threshold=inactive_threshold,
            credit=credit,
        )

    def handling(self, actor: Actor) -> Handling:
        """What opens, hands over and settles for an actor on this bus; all of one name count together."""
        counters = self.counters.setdefault(actor.name, Counters())
        return Handling(actor, self.publisher.send, lambda: datetime.now(UTC), counters)

    def forget(self, running: Running) -> None:
        """The actor no longer runs here."""
        if running in self._running:
            self._running.remove(running)

    async def stop(self, grace: timedelta = _GRACE) -> None:
        """Stop all actors at the same time; each gets `grace` for what it has begun."""
        await asyncio.gather(*(running.stop(grace) for running in list(self._running)))

    async def close(self) -> None:
        """Stop the actors and end the connection."""
        await self.stop()
        await self.publisher.close()
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
