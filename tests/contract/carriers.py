"""The three carriers behind one face, and what each of them cannot do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from harkara.bus import topology as topologies
from harkara.bus.actor import Actor
from harkara.bus.connection import Bus, connect
from harkara.bus.counters import Counters
from harkara.bus.frame import Frame
from harkara.bus.memory import MemoryBus
from harkara.bus.messages import Packet
from harkara.bus.topology import Topology

#: What a carrier may be unable to do; a test that needs one says so, and is not run where it is missing.
FEATURES: dict[str, frozenset[str]] = {
    # Loses everything with its process, and knows no broker that could fail.
    "memory": frozenset({"exact", "no_barrier", "concurrent", "gives_back"}),
    # FastStream 0.7.8, batch mode: a message that arrives just as its fetch ends is lost until the ack wait is over, so
    # neither attempts nor order are exact, and for that wait to be short, what a busy machine has in hand for long may
    # come twice; one batch at a time, which holds the next; what was fetched is not given back on stop; a deleted
    # consumer is never declared again.
    "frame": frozenset({"beats"}),
    "runner": frozenset({"beats", "exact", "no_barrier", "concurrent", "gives_back", "heals"}),
}


#: How long each waits for an acknowledgement, where a test doesn't say: longer than any busy machine takes.
ACK_WAIT_S = {"memory": 20.0, "frame": 2.0, "runner": 20.0}


class Carrier(Protocol):
    """What a contract test may use."""

    name: str
    topology: Topology

    @property
    def publisher(self) -> Any:
        """Its publisher."""

    def run(self, actor: Actor) -> Any:
        """An async context manager with the actor at work; gives its counters."""

    async def stored(self, stream: str) -> list[Packet]:
        """What lies in a stream, oldest first."""


@dataclass
class InMemory:
    bus: MemoryBus
    topology: Topology
    name: str = "memory"

    @property
    def publisher(self) -> MemoryBus:
        return self.bus

    @asynccontextmanager
    async def run(self, actor: Actor) -> AsyncIterator[Counters]:
        async with self.bus.run(actor) as running:
            yield running.counters

    async def stored(self, stream: str) -> list[Packet]:
        return [one.packet for one in self.bus.stored(stream)]


async def on_server(bus: Bus, stream: str) -> list[Packet]:
    """Everything in a stream of a real server, read message by message."""
    state = (await bus.js.stream_info(stream)).state
    found: list[Packet] = []
    for seq in range(max(state.first_seq, 1), state.last_seq + 1):
        try:
            msg = await bus.js.get_msg(stream, seq=seq)
        except Exception as error:
            if "no message found" not in str(error):
                raise
        else:
            found.append(Packet(msg.subject or "", msg.data or b"", dict(msg.headers or {})))
    return [one for one in found if not one.subject.startswith("sys.")]


@dataclass
class OnRunner:
    bus: Bus
    topology: Topology
    name: str = "runner"

    @property
    def publisher(self) -> Any:
        return self.bus.publisher

    @asynccontextmanager
    async def run(self, actor: Actor) -> AsyncIterator[Counters]:
        async with self.bus.run(actor, grace=timedelta(seconds=5)) as running:
            yield running.counters

    async def stored(self, stream: str) -> list[Packet]:
        return await on_server(self.bus, stream)


@dataclass
class OnFrame:
    bus: Bus
    topology: Topology
    url: str
    name: str = "frame"

    @property
    def publisher(self) -> Any:
        return self.bus.publisher

    @asynccontextmanager
    async def run(self, actor: Actor) -> AsyncIterator[Counters]:
        frame = Frame(self.url, self.bus.publisher.send, self.topology)
        handling = frame.declare(actor)
        async with frame.run():
            yield handling.counters

    async def stored(self, stream: str) -> list[Packet]:
        return await on_server(self.bus, stream)


@asynccontextmanager
async def opened(name: str, url: Callable[[], str], topology: Topology) -> AsyncIterator[Carrier]:
    """A carrier ready for use; `url` starts a server when one is needed."""
    if name == "memory":
        yield InMemory(MemoryBus(topology), topology)
        return
    address = url()
    async with await connect(address, topology=topology, patience=timedelta(seconds=60)) as bus:
        await topologies.apply(bus.js, topology)
        yield OnRunner(bus, topology) if name == "runner" else OnFrame(bus, topology, address)
