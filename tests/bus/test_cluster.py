"""Three servers that elect leaders: everything lies on all of them, and any one may go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec
import pytest
from bus.actors import Clerk, begin
from nats_nodes import Nodes, clustered
from support import quick_directory, until

from harkara.bus import runner, topology
from harkara.bus.api import Api
from harkara.bus.connection import Bus, connect
from harkara.bus.errors import Full, Unavailable
from harkara.bus.placement import Placed, faults, placed
from harkara.embedded.ports import free_ports

#: Longer than an election takes on a machine that is busy with much else.
_ELECTED_WITHIN_S = 90

#: A test waits for some of them.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture(autouse=True)
def patient_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever starts while the servers still elect waits for them."""
    monkeypatch.setattr(runner, "_START_WITHIN_S", _ELECTED_WITHIN_S)


@pytest.fixture(scope="module")
async def servers() -> AsyncIterator[Nodes]:
    with quick_directory() as directory:
        async with clustered(directory, free_ports(9)) as made:
            yield made


@pytest.fixture
async def nodes(servers: Nodes) -> AsyncIterator[Nodes]:
    """All three, whole again after the test."""
    yield servers
    if away := [name for name, node in servers.nodes.items() if not node.running]:
        await servers.start(*away)


@pytest.fixture
async def bus(nodes: Nodes) -> AsyncIterator[Bus]:
    """A bus with the real topology, and nothing in its queues; ids are remembered, so each test has its own numbers."""
    async with await connect(nodes.url, patience=timedelta(seconds=60)) as opened:
        await topology.apply(opened.js)
        await Api.over(opened.js, _ELECTED_WITHIN_S).call("STREAM.PURGE.COMMANDS")
        yield opened


async def _until_whole(bus: Bus, expected: int) -> list[Placed]:
    async def whole() -> list[Placed]:
        places = await placed(bus.js)
        return places if len(places) >= expected and not faults(places, 3) else []

    return await until(whole, "everything lies on three servers", _ELECTED_WITHIN_S, every=0.2)


async def _leader(bus: Bus, what: str) -> str:
    """Who leads it, once somebody does: servers that elect may not even list it."""

    async def leads() -> str:
        return next((place.leader for place in await placed(bus.js) if place.what == what), "")

    return await until(leads, f"somebody leads {what}", _ELECTED_WITHIN_S, every=0.2)


async def test_everything_lies_on_three_servers_and_it_is_told_if_not(nodes: Nodes, bus: Bus) -> None:
    assert await topology.diff(bus.js) == []
    assert (await bus.js.stream_info("COMMANDS")).config.num_replicas == 3
    # A durable of an actor, and one that is made on demand.
    lane = bus.runner(
        Clerk(), stream="SEND", durable="send-x", filters=["t.x.work.send.>"], inactive_threshold=timedelta(minutes=5)
    )
    async with bus.run(Clerk()):
        await lane.start()
        streams = len(bus.topology.streams)
        places = await _until_whole(bus, streams + 3)
        assert {place.what for place in places} >= {"COMMANDS/enrollment", "WORK/enrollment", "SEND/send-x"}
        away = next(iter(set(nodes.nodes) - {await _leader(bus, "EVENTS")}))
        nodes.nodes[away].kill()

        async def told() -> bool:
            found = faults(await placed(bus.js), 3)
            return any(line.startswith(f"EVENTS: {away} away or behind; ") for line in found)

        await until(told, "it is told which server is away", _ELECTED_WITHIN_S, every=0.2)
        await nodes.start(away)
        await _until_whole(bus, streams + 3)
        await lane.stop()
    one = await topology.diff(bus.js, replicas=1)
    assert {str(change) for change in one} >= {"stream SEND num_replicas: 3 -> 1"}


async def test_servers_that_were_only_told_of_are_gone_to_as_well(nodes: Nodes) -> None:
    """NATS_URL names one; the others are heard of from it, and take the same login."""
    async with await connect(nodes.url_of("n1")) as bus:
        again = asyncio.Event()
        bus.link.on_up.append(again.set)
        await until(lambda: len(bus.link._client.discovered_servers) >= 2, "it is told of the others")
        nodes.nodes["n1"].kill()
        async with asyncio.timeout(_ELECTED_WITHIN_S):
            await again.wait()
        await until(lambda: _answered(bus), "the broker answers", _ELECTED_WITHIN_S, every=0.2)


async def _answered(bus: Bus) -> bool:
    try:
        await Api(bus.link.request).call("STREAM.NAMES")
    except Unavailable:
        return False
    return True


async def test_readers_go_on_when_the_server_that_led_them_is_gone(nodes: Nodes, bus: Bus) -> None:
    clerk = Clerk()
    async with bus.run(clerk):
        await _until_whole(bus, len(bus.topology.streams) + 2)
        await bus.publisher.publish(begin(1))
        await until(lambda: clerk.numbers() == {1}, "the first is read", _ELECTED_WITHIN_S)
        nodes.nodes[await _leader(bus, "COMMANDS/enrollment")].kill()
        await until(lambda: _stored(bus, 2), "messages are taken again", _ELECTED_WITHIN_S)
        # The first comes again if its leader was gone before the others had heard that it is done.
        await until(lambda: clerk.numbers() == {1, 2}, "the second is read", _ELECTED_WITHIN_S)


async def _stored(bus: Bus, number: int) -> bool:
    try:
        await bus.publisher.publish(begin(number))
    except Unavailable:
        return False
    return True


async def test_without_most_servers_nothing_is_taken_and_afterwards_once(nodes: Nodes) -> None:
    async with await connect(nodes.url, patience=timedelta(seconds=5)) as bus:
        await topology.apply(bus.js)
        await Api.over(bus.js, _ELECTED_WITHIN_S).call("STREAM.PURGE.COMMANDS")
        await until(lambda: _stored(bus, 11), "messages are taken", _ELECTED_WITHIN_S)
        leader = await _leader(bus, "COMMANDS")
        lost = [name for name in nodes.nodes if name != leader]
        for name in lost:
            nodes.nodes[name].kill()
        # The one that is left may have it written down, and says of the next try that the first is being dealt with.
        with pytest.raises(Unavailable):
            await bus.publisher.publish(begin(12))
        await nodes.start(*lost)

        await until(lambda: _stored(bus, 12), "messages are taken again", _ELECTED_WITHIN_S)
        info = await Api.over(bus.js, _ELECTED_WITHIN_S).call("STREAM.INFO.COMMANDS")
        assert info["state"]["messages"] == 2


async def test_a_full_queue_is_told_apart_on_a_cluster_too(bus: Bus) -> None:
    page = bus.topology
    small = [msgspec.structs.replace(one, max_per_subject=2) if one.name == "COMMANDS" else one for one in page.streams]
    await topology.apply(bus.js, msgspec.structs.replace(page, streams=tuple(small)))
    results = await bus.publisher.publish_many([begin(number) for number in range(21, 26)])
    assert [type(one) for one in results[2:]] == [Full] * 3
    await topology.apply(bus.js)
