"""The pull runner when things go wrong around it: killed servers, lost connections, deleted consumers, no credit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from bus.actors import Begun, Clerk, Sender, begin, page, ship
from nats_server import Server
from support import turning, until

from harkara.bus import link as links
from harkara.bus import runner as runners
from harkara.bus import topology
from harkara.bus.connection import Bus, connect
from harkara.bus.errors import BusError, TopologyError, Unavailable
from harkara.bus.handling import Handling, Judged
from harkara.bus.messages import Ack, Delivery, Outgoing, Packet
from harkara.bus.outcomes import Done, Outcome, Retry
from harkara.bus.settle import Verdict

LANE = "t.acme.work.send.s-1.otp"


def with_ack_wait(page: topology.Topology, seconds: float) -> topology.Topology:
    return msgspec.structs.replace(page, consumers=msgspec.structs.replace(page.consumers, ack_wait_s=seconds))


async def test_killing_the_server_loses_nothing_and_everything_goes_on_by_itself(server: Server, bus: Bus) -> None:
    clerk = Clerk(lambda one: Done((Outgoing(Begun(number=one.message.number), "acme", f"e-{one.id}"),)))
    accepted: list[int] = []

    async def feed() -> None:
        for start in range(0, 600, 20):
            results = await bus.publisher.publish_many([begin(n) for n in range(start, start + 20)])
            accepted.extend(n for n, one in zip(range(start, start + 20), results, strict=True) if one)
            assert not [one for one in results if isinstance(one, BusError)]
            await asyncio.sleep(0.02)

    def handled(at_least: int) -> bool:
        return len(clerk.numbers()) >= at_least

    async with bus.run(clerk):
        feeding = asyncio.create_task(feed())
        for at_least in (100, 300):
            await until(partial(handled, at_least), f"{at_least} handled")
            server.kill()
            await asyncio.sleep(0.1)
            await server.start()
        await feeding
        # What was on its way when the server went comes again after the ack wait, at the latest.
        await until(lambda: len(clerk.numbers()) == 600, "all that was accepted", timeout=60)
        await until(lambda: _events(bus, 600), "an event for each", timeout=60)


async def _events(bus: Bus, count: int) -> bool:
    return (await bus.js.stream_info("EVENTS")).state.messages >= count


async def test_without_a_server_nothing_spins(server: Server, bus: Bus) -> None:
    async with bus.run(Clerk()):
        server.kill()
        await until(lambda: not bus.connected, "the loss to be noticed")
        with turning() as turns_a_second:
            await asyncio.sleep(1.0)
        assert turns_a_second() < 200
        await server.start()
        await until(lambda: bus.connected, "the connection")


async def test_without_its_stream_nothing_spins_and_it_comes_back(bus: Bus) -> None:
    clerk = Clerk()
    async with bus.run(clerk):
        await bus.js.delete_stream("COMMANDS")
        with turning() as turns_a_second:
            await asyncio.sleep(1.0)
        assert turns_a_second() < 200
        await topology.apply(bus.js)
        await bus.publisher.publish(begin(1))
        await until(lambda: clerk.numbers() == {1}, "the message")


async def test_an_idle_actor_costs_nothing(bus: Bus) -> None:
    async with bus.run(Clerk()):
        await asyncio.sleep(0.2)
        with turning() as turns_a_second:
            await asyncio.sleep(1.0)
        assert turns_a_second() < 50


async def test_a_connection_closed_for_good_is_replaced(bus: Bus) -> None:
    clerk = Clerk()
    async with bus.run(clerk):
        await bus.publisher.publish(begin(1))
        await until(lambda: clerk.numbers() == {1}, "the first")
        await bus.link._client.close()
        await bus.publisher.publish(begin(2))
        await until(lambda: clerk.numbers() == {1, 2}, "the second")


async def test_a_dead_read_loop_is_noticed(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links, "_WATCH_EVERY_S", 0.2)
    bus.topology = with_ack_wait(bus.topology, 1.0)
    clerk = Clerk()
    async with bus.run(clerk):
        bus.link._client._reading_task.cancel()
        await bus.publisher.publish(begin(1))
        await until(lambda: clerk.numbers() == {1}, "the message")


async def test_a_deleted_consumer_loses_nothing_that_was_in_hand(bus: Bus) -> None:
    go_on = asyncio.Event()

    class Slow(Clerk):
        async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            await go_on.wait()
            return await super().handle(batch)

    clerk = Slow()
    async with bus.run(clerk) as running:
        await bus.publisher.publish_many([begin(n) for n in range(30)])
        await until(lambda: running.counters.in_flight >= 10, "a batch in hand")
        await bus.js.delete_consumer("COMMANDS", "enrollment")
        go_on.set()
        await until(lambda: _empty(bus, "COMMANDS"), "an empty queue")
    assert clerk.numbers() == set(range(30))


async def _empty(bus: Bus, stream: str) -> bool:
    info = await bus.js.stream_info(stream, subjects_filter="t.>")
    return not info.state.subjects


async def test_a_defect_in_settling_does_not_spin_and_loses_nothing(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = 0

    class Broken(Handling):
        async def settle(self, judged: Sequence[Judged]) -> list[Verdict]:
            nonlocal tries
            tries += 1
            if tries < 3:
                raise AssertionError("a defect")
            return await super().settle(judged)

    monkeypatch.setattr(runners, "_UNSETTLED_WAIT", timedelta(seconds=0.2))
    clerk = Clerk()
    loop = asyncio.get_running_loop()
    began = loop.time()
    broken = Broken(clerk, bus.publisher.send, lambda: datetime.now(UTC))
    runner = runners.Runner(
        bus.link,
        bus.elections,
        broken,
        stream="COMMANDS",
        durable="enrollment",
        filters=["t.*.cmd.enrollment.>"],
        consumers=bus.topology.consumers,
    )
    await runner.start()
    await bus.publisher.publish(begin(1))
    await until(lambda: tries == 3, "the third try")
    assert loop.time() - began > 0.35
    await until(lambda: _empty(bus, "COMMANDS"), "an empty queue")
    await runner.stop()


class Held(Clerk):
    """Takes one at a time, many at once, and answers when it is let go; number 0 is let go last."""

    batch: ClassVar[int] = 1
    in_flight: ClassVar[int] = 20

    def __init__(self) -> None:
        super().__init__(lambda one: Done((Outgoing(Begun(number=one.message.number), "acme", f"e-{one.id}"),)))
        self.go_on, self.last = asyncio.Event(), asyncio.Event()

    async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
        await (self.go_on if batch[0].message.number else self.last).wait()
        return await super().handle(batch)


async def test_what_is_handled_in_one_turn_is_settled_together_and_waits_for_nobody_else(bus: Bus) -> None:
    clerk, published = Held(), list[int]()

    async def send(packets: Sequence[Packet]) -> list[Ack | BusError]:
        published.append(len(packets))
        return await bus.publisher.send(packets)

    runner = runners.Runner(
        bus.link,
        bus.elections,
        Handling(clerk, send, lambda: datetime.now(UTC)),
        stream="COMMANDS",
        durable="enrollment",
        filters=["t.*.cmd.enrollment.>"],
        consumers=bus.topology.consumers,
    )
    await runner.start()
    await bus.publisher.publish_many([begin(n) for n in range(10)])
    await until(lambda: runner.counters.in_flight == 10, "all in hand")
    clerk.go_on.set()
    await until(lambda: runner.in_hand == 1, "nine settled, beside the one that is held")
    assert published == [9]
    clerk.last.set()
    await until(lambda: _empty(bus, "COMMANDS"), "an empty queue")
    await runner.stop()
    assert (await bus.js.stream_info("EVENTS")).state.messages == 10


async def test_what_ends_within_the_grace_is_settled_before_a_stop_is_done(bus: Bus) -> None:
    clerk = Held()
    async with bus.run(clerk) as running:
        await bus.publisher.publish_many([begin(n) for n in range(1, 10)])
        await until(lambda: running.counters.in_flight == 9, "all in hand")
        asyncio.get_running_loop().call_later(0.1, clerk.go_on.set)
    await until(lambda: _empty(bus, "COMMANDS"), "an empty queue, though nobody reads it any more")
    assert (await bus.js.stream_info("EVENTS")).state.messages == 9


async def test_stopping_without_a_server_does_not_hang(
    server: Server, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "_ROUND_TRIP_S", 60)
    running = await bus.start(Clerk())
    server.kill()
    await until(lambda: not bus.connected, "the loss to be noticed")
    loop = asyncio.get_running_loop()
    began = loop.time()
    await running.stop()
    assert loop.time() - began < 20
    await server.start()


async def test_a_missing_stream_stops_the_start_in_one_line(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "_START_WITHIN_S", 0.2)
    async with await connect(server.url) as bus:
        with pytest.raises(Unavailable, match="run `harkara topology apply`"):
            await bus.start(Clerk())


async def test_an_actor_whose_retries_have_no_home_is_refused(bus: Bus) -> None:
    class Homeless(Clerk):
        name: ClassVar[str] = "homeless"

    with pytest.raises(TopologyError, match=r"t\.\*\.work\.homeless\.retry"):
        await bus.start(Homeless())


async def test_no_server_is_one_clear_line() -> None:
    with pytest.raises(Unavailable, match=r"no NATS server answers at 127\.0\.0\.1:1 .*NATS_URL") as caught:
        await connect("nats://svc:hush@127.0.0.1:1", within=timedelta(seconds=0.5))
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_wrong_password_is_said_at_once(tmp_path: Path) -> None:
    server = Server(tmp_path / "nats", password="right")
    await server.start()
    try:
        loop = asyncio.get_running_loop()
        began = loop.time()
        with pytest.raises(Unavailable, match=r"refuses us .*NATS_CREDS") as caught:
            await connect(server.url.replace("//", "//svc:wrong@"), within=timedelta(seconds=60))
        assert loop.time() - began < 30
        assert "wrong" not in str(caught.value)
        async with await connect(server.url.replace("//", "//svc:right@")) as bus:
            await topology.apply(bus.js)
    finally:
        server.stop()


@pytest.mark.parametrize("wrong", [{"url": "http:// nowhere"}, {"creds": "/nowhere/at.all"}])
async def test_a_malformed_setting_is_one_clear_line(server: Server, wrong: dict[str, Any]) -> None:
    with pytest.raises(Unavailable, match="NATS_CREDS") as caught:
        await connect(**({"url": server.url} | wrong), within=timedelta(seconds=1))
    assert "\n" not in str(caught.value)


async def test_pulling_rests_while_what_everything_needs_is_away(bus: Bus) -> None:
    class Offline(Clerk):
        async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            self.calls += 1
            raise ConnectionRefusedError

    clerk = Offline()
    await bus.publisher.publish_many([begin(n) for n in range(500)])
    async with bus.run(clerk):
        await until(lambda: clerk.calls, "it is tried")
        await asyncio.sleep(1.5)
        assert clerk.calls <= 20
    assert (await bus.js.stream_info("COMMANDS")).state.messages == 500


async def test_waiting_for_its_time_does_not_hold_what_is_due(bus: Bus) -> None:
    later = timedelta(seconds=20)
    clerk = Clerk(lambda one: Retry("quiet hours", later, counts=False) if one.message.number == 1 else Done())

    def handled(number: int) -> bool:
        return number in clerk.numbers()

    async with bus.run(clerk) as running:
        for number in range(1, 6):
            await bus.publisher.publish(begin(number))
            await until(partial(handled, number), f"number {number}", timeout=15)
    assert running.counters.handled == 4


async def test_a_busy_stream_does_not_starve_a_quiet_one(bus: Bus) -> None:
    class OneByOne(Clerk):
        batch: ClassVar[int] = 1
        in_flight: ClassVar[int] = 1

        async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            await asyncio.sleep(0.001)
            return await super().handle(batch)

    clerk = OneByOne()
    await bus.publisher.publish_many([begin(n) for n in range(3000)])
    async with bus.run(clerk):
        await until(lambda: len(clerk.seen) > 10, "a flood")
        await bus.publisher.publish(page(7777))
        await until(lambda: 7777 in clerk.numbers(), "the page in between")
        assert len(clerk.seen) < 2900


async def test_a_durable_is_made_on_demand_and_its_owner_sees_when_it_is_idle(bus: Bus) -> None:
    sender = Sender()
    runner = bus.runner(
        sender, stream="SEND", durable="send-acme-s-1-otp", filters=[LANE], inactive_threshold=timedelta(minutes=5)
    )
    await bus.publisher.publish(ship(1))
    await runner.start()
    await until(lambda: sender.numbers() == {1}, "the message")
    await until(lambda: runner.idle_for > timedelta(seconds=0.05), "idleness")
    info = await bus.js.consumer_info("SEND", "send-acme-s-1-otp")
    assert info.config.inactive_threshold == 300
    await runner.stop()
    await runner.stop()


async def test_no_more_is_pulled_than_there_is_credit_for(bus: Bus) -> None:
    credit = 3

    class Spending(Sender):
        async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            nonlocal credit
            credit -= len(batch)
            return await super().handle(batch)

    sender = Spending()
    await bus.publisher.publish_many([ship(n) for n in range(10)])
    runner = bus.runner(sender, stream="SEND", durable="lane", filters=[LANE], credit=lambda: credit - runner.in_hand)
    await runner.start()
    await until(lambda: len(sender.seen) == 3, "the first three")
    await asyncio.sleep(0.3)
    assert len(sender.seen) == 3
    credit += 4
    runner.nudge()
    await until(lambda: len(sender.seen) == 7, "four more")
    await asyncio.sleep(0.2)
    assert len(sender.seen) == 7
    await runner.stop()


async def test_what_is_on_its_way_to_a_runner_that_stops_goes_back_at_once(bus: Bus) -> None:
    bus.topology = with_ack_wait(bus.topology, 90)
    got: set[int] = set()
    for turn in range(6):
        sender = Sender()
        runner = bus.runner(sender, stream="SEND", durable="lane", filters=[LANE])
        await runner.start()
        publishing = asyncio.create_task(bus.publisher.publish_many([ship(turn * 100 + n) for n in range(100)]))
        await asyncio.sleep(0.002 * turn)
        await runner.stop()
        await publishing
        got |= sender.numbers()
    last = Sender()
    runner = bus.runner(last, stream="SEND", durable="lane", filters=[LANE])
    await runner.start()
    await until(lambda: got | last.numbers() == set(range(600)), "the rest", timeout=45)
    await runner.stop()


async def test_what_was_delivered_to_a_runner_that_stops_and_not_begun_goes_back_at_once(bus: Bus) -> None:
    bus.topology = with_ack_wait(bus.topology, 90)
    go_on = asyncio.Event()

    class Slow(Sender):
        in_flight: ClassVar[int] = 1

        async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
            await go_on.wait()
            return await super().handle(batch)

    slow, next_one = Slow(), Sender()
    first, second = (bus.runner(one, stream="SEND", durable="lane", filters=[LANE]) for one in (slow, next_one))
    await first.start()
    await bus.publisher.publish(ship(0))
    await until(lambda: first.counters.in_flight == 1, "one is begun")
    await bus.publisher.publish_many([ship(n) for n in range(1, 5)])
    await until(lambda: first.in_hand == 5, "the others are delivered")
    asyncio.get_running_loop().call_later(0.1, go_on.set)
    await first.stop()
    assert slow.numbers() == {0}
    await second.start()
    await until(lambda: next_one.numbers() == {1, 2, 3, 4}, "the rest", timeout=45)
    await second.stop()


async def test_a_new_leader_is_asked_at_once(bus: Bus) -> None:
    """It knows nothing of what was asked of the one before, which would only be noticed by its silence."""
    asked: list[bytes] = []
    async with bus.run(Clerk()):
        await bus.link.listen("$JS.API.CONSUMER.MSG.NEXT.COMMANDS.enrollment", lambda msg: asked.append(msg.data))
        bus.publisher.wake("$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED.COMMANDS.other", b"{}")
        bus.publisher.wake("$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED.COMMANDS.enrollment", b"{}")
        await until(lambda: asked, "it is asked anew", 20)
        assert len(asked) == 1


async def test_what_is_done_is_said_again_to_a_new_leader(bus: Bus) -> None:
    """The one before may have died before it had told the others."""
    said: list[bytes] = []
    await bus.link.listen("$JS.ACK.COMMANDS.enrollment.>", lambda msg: said.append(msg.data))
    async with bus.run(Clerk(lambda one: Done() if one.message.number else Retry("later", timedelta(seconds=30)))):
        for number in range(3):
            await bus.publisher.publish(begin(number))
        await until(lambda: len(said) >= 3, "all are answered")
        acks = [one for one in said if one.startswith(b"+ACK")]
        assert len(acks) == 2
        bus.publisher.wake("$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED.COMMANDS.enrollment", b"{}")
        await until(lambda: len(said) >= 5, "what is done is said again", 20)
        assert sorted(said[3:5]) == sorted(acks)
