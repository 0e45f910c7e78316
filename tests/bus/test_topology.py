"""The topology page against a real server: made, compared, changed, and refused where it cannot be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import msgspec
import pytest
from bus.actors import begin
from nats_server import Server
from support import until

import harkara
from harkara.bus import topology
from harkara.bus.connection import Bus, connect
from harkara.bus.errors import TopologyError
from harkara.bus.topology import Topology, load, parse


@pytest.fixture
async def bare(server: Server) -> AsyncIterator[Bus]:
    """A bus on a server without any stream."""
    async with await connect(server.url) as bus:
        yield bus


def changed(name: str, **fields: object) -> Topology:
    """The page with one stream changed."""
    page = load()
    streams = [msgspec.structs.replace(one, **fields) if one.name == name else one for one in page.streams]
    return msgspec.structs.replace(page, streams=tuple(streams))


async def test_applying_makes_everything_once(bare: Bus) -> None:
    missing = await topology.diff(bare.js)
    assert len(missing) == len(load().streams) + len(load().schedules)
    assert str(missing[0]) == "stream COMMANDS: missing -> t.*.cmd.>"
    assert await topology.apply(bare.js) == missing
    assert await topology.diff(bare.js) == []
    assert await topology.apply(bare.js) == []


async def test_many_may_apply_at_the_same_time(server: Server) -> None:
    buses = [await connect(server.url) for _ in range(4)]
    await asyncio.gather(*(topology.apply(bus.js) for bus in buses for _ in range(3)))
    assert await topology.diff(buses[0].js) == []
    for bus in buses:
        await bus.close()


async def test_drift_is_shown_and_taken_back(bare: Bus) -> None:
    await topology.apply(bare.js)
    config = (await bare.js.stream_info("EVENTS")).config
    await bare.js.update_stream(config.evolve(max_age=3600.0, description="mine"))
    assert [str(one) for one in await topology.diff(bare.js)] == [
        "stream EVENTS description: mine -> What happened: read by feeds, webhooks, billing and partners",
        "stream EVENTS max_age: 3600000000000 -> 604800000000000",
    ]
    assert len(await topology.apply(bare.js)) == 2
    assert (await bare.js.stream_info("EVENTS")).config.max_age == 604800.0


async def test_a_changed_page_is_applied_without_touching_messages(bare: Bus) -> None:
    await topology.apply(bare.js)
    await bare.publisher.publish(begin(1))
    page = changed("COMMANDS", max_per_subject=7)
    (change,) = await topology.apply(bare.js, page)
    assert str(change) == "stream COMMANDS max_msgs_per_subject: 100000 -> 7"
    assert (await bare.js.stream_info("COMMANDS")).state.messages == 1


async def test_what_the_server_cannot_change_is_an_error_that_says_what_to_do(bare: Bus) -> None:
    await topology.apply(bare.js)
    page = changed("COMMANDS", retention="limits")
    with pytest.raises(TopologyError, match=r"retention: workqueue -> limits.*Take that back") as caught:
        await topology.apply(bare.js, page)
    assert "\n" not in str(caught.value)
    assert (await bare.js.stream_info("COMMANDS")).config.retention == "workqueue"


async def test_too_little_disk_says_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = Server(tmp_path_factory.mktemp("small"), max_file="100MB")
    await server.start()
    try:
        async with await connect(server.url) as bus:
            with pytest.raises(TopologyError, match="lower max_megabytes"):
                await topology.apply(bus.js)
    finally:
        server.stop()


async def test_more_replicas_than_servers_is_an_error(bare: Bus) -> None:
    with pytest.raises(TopologyError, match="COMMANDS cannot be created"):
        await topology.apply(bare.js, replicas=3)


async def test_the_tick_comes_every_second_and_missed_ones_are_one(bare: Bus) -> None:
    await topology.apply(bare.js)
    await topology.apply(bare.js)

    async def ticked(seq: int) -> bool:
        return (await bare.js.stream_info("WORK")).state.last_seq >= seq

    await until(lambda: ticked(4), "three ticks")
    subjects = (await bare.js.stream_info("WORK", subjects_filter="sys.>")).state.subjects
    assert subjects is not None
    assert subjects.items() >= {"sys.at.due": 1, "sys.tick.due": 1}.items()


async def test_a_changed_tick_replaces_the_old_one(bare: Bus) -> None:
    await topology.apply(bare.js)
    page = load()
    slower = msgspec.structs.replace(
        page, schedules=tuple(msgspec.structs.replace(one, every_s=5) for one in page.schedules)
    )
    named = {one.subject for one in page.schedules}
    assert {change.what for change in await topology.diff(bare.js, slower)} == {f"schedule {name}" for name in named}
    await topology.apply(bare.js, slower)
    assert await topology.diff(bare.js, slower) == []
    assert (await bare.js.stream_info("WORK", subjects_filter="sys.at.*")).state.subjects == dict.fromkeys(named, 1)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"[[streams", "cannot be read"),
        (b'defaults = {}\nconsumers = {}\n[[streams]]\nname = "X"\n', "about"),
        (b"defaults = {}\nconsumers = {ack_weight = 3}\nstreams = []\n", "ack_weight"),
        (
            b'defaults = {}\nconsumers = {}\n[[streams]]\nname = "X"\nabout = ""\nsubjects = ["x"]\n'
            b'retention = "workqueue"\nschedules = true\nmax_megabytes = 5\n',
            "throwing accepted messages away",
        ),
    ],
)
def test_a_faulty_page_is_named(text: bytes, says: str) -> None:
    with pytest.raises(TopologyError, match=says):
        parse(text)


def test_a_missing_page_says_where_it_should_be(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setattr(harkara, "__file__", f"{tmp_path}/harkara/__init__.py")
    with pytest.raises(TopologyError, match="reinstall harkara"):
        topology.page()


def test_no_queue_ever_makes_room_by_throwing_away() -> None:
    page = load()
    for stream in page.streams:
        config = topology.wanted_config(page, stream)
        if stream.retention == "workqueue":
            limited = config["max_bytes"] > 0 or config["max_msgs"] > 0 or config["max_msgs_per_subject"] > 0
            assert config["discard"] == "new" or not limited
            assert config["max_age"] == 0
