"""Publishing to a real server that is slow, away, or killed in the middle."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

import pytest
from bus.actors import begin
from nats_server import Server
from support import turning, until

from harkara.bus import broker, topology
from harkara.bus.connection import Bus, connect
from harkara.bus.errors import BusError, Refused, Unavailable
from harkara.bus.messages import Ack, Outgoing, Packet


async def test_many_are_stored_in_their_order(bus: Bus) -> None:
    results = await bus.publisher.publish_many([begin(n) for n in range(2500)])
    assert [one.seq for one in results if isinstance(one, Ack)] == list(range(1, 2501))


async def test_publishing_waits_for_a_server_that_comes_back(server: Server, bus: Bus) -> None:
    server.kill()
    publishing = asyncio.create_task(bus.publisher.publish_many([begin(n) for n in range(50)]))
    await until(lambda: not bus.connected, "the loss to be noticed")
    assert not publishing.done()
    await server.start()
    results = await publishing
    assert all(isinstance(one, Ack) for one in results)


async def _stored(bus: Bus, count: int) -> bool:
    return (await bus.js.stream_info("COMMANDS")).state.messages >= count


async def test_a_kill_in_the_middle_stores_each_once(server: Server, bus: Bus) -> None:
    await bus.publisher.publish_many([begin(n) for n in range(10)])
    publishing = asyncio.create_task(bus.publisher.publish_many([begin(n) for n in range(5000)]))
    await until(lambda: _stored(bus, 11), "some of them are stored", every=0.001)
    server.kill()
    await server.start()
    results = await publishing
    assert not [one for one in results if isinstance(one, BusError)]
    assert (await bus.js.stream_info("COMMANDS")).state.messages == 5000


async def test_a_server_that_stays_away_is_unavailable_within_the_patience(server: Server) -> None:
    async with await connect(server.url, patience=timedelta(seconds=0.5)) as bus:
        await topology.apply(bus.js)
        server.kill()
        began = time.perf_counter()
        with turning() as turns_a_second, pytest.raises(Unavailable, match="try again"):
            await bus.publisher.publish(begin(1))
        assert 0.4 < time.perf_counter() - began < 20
        assert turns_a_second() < 200
        await server.start()


async def test_a_server_that_hangs_is_waited_for(server: Server, bus: Bus) -> None:
    server.freeze()
    publishing = asyncio.create_task(bus.publisher.publish(begin(1)))
    await until(lambda: bus.publisher._waiting, "it waits for the answer")
    assert not publishing.done()
    server.thaw()
    assert isinstance(await publishing, Ack)


async def test_what_was_asked_over_a_lost_connection_is_asked_again_once_there_is_another(
    server: Server, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker, "_ACK_WAIT_S", 60)
    async with await connect(server.url, patience=timedelta(seconds=60)) as other:
        server.freeze()
        alone = asyncio.create_task(other.publisher.publish(begin(1)))
        many = asyncio.create_task(other.publisher.publish_many([begin(2), begin(3)]))
        await until(lambda: len(other.publisher._waiting) == 3, "they wait for the answers")
        server.kill()
        await server.start()
        async with asyncio.timeout(40):
            assert isinstance(await alone, Ack)
            assert [type(one) for one in await many] == [Ack, Ack]


async def test_nothing_can_be_smuggled_into_the_protocol(bus: Bus) -> None:
    evil = "x\r\nNats-Rollup: all"
    results = await bus.publisher.publish_many([begin(1), Outgoing(begin(2).message, "acme", evil, evil)])
    assert [type(one) for one in results] == [Ack, Refused]
    (result,) = await bus.publisher.send([Packet("t.acme.cmd.enrollment.start x", b"{}", {})])
    assert isinstance(result, Refused)
    assert (await bus.js.stream_info("COMMANDS")).state.messages == 1


async def test_too_large_is_refused_and_the_connection_lives(bus: Bus) -> None:
    just_over = Packet("t.acme.evt.enrollment.started", b"x" * (1024 * 1024 - 20), {"X-Msg-Id": "1" * 100})
    (result,) = await bus.publisher.send([just_over])
    assert isinstance(result, Refused)
    assert "bytes are more than" in str(result)
    assert isinstance(await bus.publisher.publish(begin(1)), Ack)


async def test_a_cancelled_publish_leaves_nothing_behind(server: Server, bus: Bus) -> None:
    server.freeze()
    publishing = asyncio.create_task(bus.publisher.publish(begin(1)))
    await until(lambda: bus.publisher._waiting, "it waits for the answer")
    publishing.cancel()
    await asyncio.gather(publishing, return_exceptions=True)
    assert not bus.publisher._waiting
    server.thaw()
    assert isinstance(await bus.publisher.publish(begin(2)), Ack)
