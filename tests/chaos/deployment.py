"""Three brokers and two copies of every role: to kill or replace any one of them, and to see what that did."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from statistics import median
from typing import Any, Literal

from chaos.books import Books, Campaign
from chaos.customers import Customers
from chaos.roles import Roles, roles
from nats_nodes import Nodes, clustered
from support import quick_directory, until

from harkara.bus.api import Api
from harkara.bus.connection import Bus, connect
from harkara.bus.errors import BusError
from harkara.embedded.ports import free_ports
from harkara.embedded.stack import Stack

Part = Literal["leader", "follower", "connected"]

#: A kill is felt within this time, or not at all: no election takes longer.
_FELT_S = 12.0

_ELECTED = "$JS.EVENT.ADVISORY.*.LEADER_ELECTED.>"


@dataclass
class Deployment:
    """All that runs, and an eye on the broker."""

    nodes: Nodes
    roles: Roles
    bus: Bus
    #: When which stream, or consumer of a stream, got a new leader: the broker says so.
    elections: list[tuple[float, str]] = field(default_factory=list)

    async def leader(self) -> str:
        """The server that leads SEND, which has the most to do."""
        return await self._leader_of("SEND")

    async def follower(self) -> str:
        """One that leads as little as possible, and not SEND."""
        led = [await self._leader_of(stream.name) for stream in self.bus.topology.streams]
        return min(set(self.nodes.nodes) - {await self.leader()}, key=led.count)

    async def _leader_of(self, stream: str) -> str:
        """Wait until there is one: on a busy machine another may just be elected."""
        leaders: list[str] = []

        async def elected() -> bool:
            with suppress(BusError):
                info = await Api(self.bus.link.request).call(f"STREAM.INFO.{stream}")
                leaders[:] = filter(None, [info["cluster"].get("leader")])
            return bool(leaders)

        await until(elected, f"{stream} has a leader", 60, every=0.2)
        return leaders[0]

    async def connected(self) -> str:
        """The server that most processes are connected to."""
        nodes = self.nodes.nodes
        told = {name: await asyncio.to_thread(node.ask, "connz") for name, node in nodes.items()}
        counts = {name: 0 if one is None else int(one["total"]) for name, one in told.items()}
        return max(counts, key=lambda name: counts[name])

    async def kill(self, part: Part) -> Kill:
        """kill -9 of the server that has this part."""
        name = await {"leader": self.leader, "follower": self.follower, "connected": self.connected}[part]()
        at = time.time()
        self.nodes.nodes[name].kill()
        return Kill(part, name, at)


@dataclass(frozen=True)
class Kill:
    """One server that was killed."""

    part: Part
    node: str
    at: float

    def gaps(self, at_doors: list[float], left: list[float], elections: list[tuple[float, str]]) -> str:
        """For how long at most nothing was accepted after it, and what of that was after the broker's own elections."""
        doors = self._gap(at_doors, elections, {"COMMANDS"})
        # Before a number goes on it tells what it has sent.
        numbers = self._gap(left, elections, {"SEND", "EVENTS"})
        return f"{self.part} killed: nothing accepted at the doors for {doors}, nothing left for {numbers}"

    def _gap(self, instants: list[float], elections: list[tuple[float, str]], streams: set[str]) -> str:
        # What was in hand went on for a while, so the longest gap may begin some time after the kill.
        begin = max(bisect_left(instants, self.at) - 1, 0)
        felt = instants[begin : bisect_left(instants, self.at + _FELT_S)]
        if len(felt) < 2:
            return f"more than {_FELT_S:g} s"
        before, after = max(pairwise(felt), key=lambda pair: pair[1] - pair[0])
        elected = [at for at, name in elections if self.at <= at <= after and name.split(".")[0] in streams]
        return f"{after - before:.2f} s, {after - max(before, self.at, *elected):.2f} s of it ours"


@asynccontextmanager
async def deployed(speed: float) -> AsyncIterator[Deployment]:
    """A cluster with all roles on it, made by the commands that operators have."""
    with quick_directory() as directory:
        async with (
            clustered(directory / "nodes", free_ports(9)) as nodes,
            Stack(directory / "data", nats_url=nodes.url) as urls,
            roles(directory, urls, speed=speed) as running,
            await connect(nodes.url) as bus,
        ):
            deployment = Deployment(nodes, running, bus)

            def note(subject: bytes, _: bytes = b"") -> None:
                deployment.elections.append((time.time(), subject.decode().split(".LEADER_ELECTED.")[1]))

            await bus.link.listen(_ELECTED, lambda msg: note(msg.subject.encode()), note)
            yield deployment


@asynccontextmanager
async def with_customers(campaign: Campaign, made: Roles) -> AsyncIterator[Customers]:
    """People who ask at both doors, inside the block; after it all have what they were promised."""
    codes = await campaign.tenant.sender(name="codes")
    doors = [replace(campaign.tenant, url=url) for url in made.door_urls]
    customers = Customers(doors, codes["id"], every_s=0.05)
    asking = asyncio.create_task(customers.ask_for_ever())
    try:
        yield customers
        assert not asking.done(), asking
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)

    async def sent() -> bool:
        got = {one["biz_opaque_callback_data"] for one in await made.gateway.accepted(codes["phone_number_id"])}
        return got >= set(customers.answered)

    await until(sent, "every code has left", 120, every=0.5)
    customers.check(await made.gateway.accepted(codes["phone_number_id"]), set())


def instants(accepted: list[dict[str, Any]]) -> list[float]:
    """When the gateway took each message."""
    return sorted(datetime.fromisoformat(one["accepted_at"]).timestamp() for one in accepted)


def check_budget(accepted: list[dict[str, Any]], mps: float) -> None:
    """Fail if the number was faster than it may be: two copies that did not share would be twice as fast.

    Not in every second: what a busy machine has held up comes at once, and whenever Redis does not answer in time,
    each copy keeps the whole budget by itself for a second. So it is the usual second that counts, of those in which
    anything left.
    """
    usual = median(Counter(int(at) for at in instants(accepted)).values())
    assert usual <= mps * 1.5, f"{usual:.0f} messages a second left, {mps} were allowed"


def check_order(books: Books) -> None:
    """Fail if a contact got a step before the one that comes first."""
    last: dict[str, int] = {}
    for one in sorted(books.accepted, key=lambda one: str(one["accepted_at"])):
        step = int(one["body"].split()[1])
        assert step == last.get(one["to"], -1) + 1, f"{one['to']} got step {step} after {last.get(one['to'])}"
        last[one["to"]] = step


async def until_more(campaign: Campaign, count: int) -> None:
    """Wait until the gateway has taken so many messages more."""
    accepted = campaign.platform.gateway.accepted
    before = len(await accepted(campaign.phone_number_id))

    async def enough() -> bool:
        return len(await accepted(campaign.phone_number_id)) >= before + count

    await until(enough, f"{count} more messages leave", 120, every=0.2)
