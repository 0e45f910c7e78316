"""Reading a stream's live end and its history on a real server: everything once, in order, whatever is lost between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial

import pytest
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError
from nats_server import Server, serving
from support import until

from harkara.bus.connection import Bus
from harkara.bus.errors import Unavailable
from harkara.bus.messages import Outgoing
from harkara.bus.tail import History, Stored, Tail
from harkara.ids import uuid7
from harkara.schemas.events import MessageRead, MessageSent


@pytest.fixture(scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    async with serving(tmp_path_factory.mktemp("nats")) as made:
        yield made


class Reader:
    """A tail that remembers what it was handed."""

    def __init__(self, bus: Bus) -> None:
        self.got: list[Stored] = []
        self.losses = 0
        self.tail = Tail(bus.link, "EVENTS", self.got.append, self._lost)

    def _lost(self) -> None:
        self.losses += 1


@pytest.fixture
async def reader(bus: Bus) -> AsyncIterator[Reader]:
    made = Reader(bus)
    await made.tail.start(within_s=60)
    assert made.tail.ready.is_set()
    yield made
    await made.tail.stop()


async def publish(bus: Bus, count: int, tenant: str = "acme") -> list[int]:
    """The sequences of so many new events."""
    outs = [Outgoing(MessageSent(id=str(number)), tenant, str(uuid7())) for number in range(count)]
    acks = await bus.publisher.publish_many(outs)
    return [ack.seq for ack in acks if not isinstance(ack, Exception)]


def is_status(msg: Msg) -> bool:
    return bool(msg.headers and "Status" in msg.headers)


async def consumers(bus: Bus) -> list[str]:
    return [info.name for info in await bus.js.consumers_info("EVENTS")]


def consumer_of(reader: Reader) -> str:
    """What it reads through now; empty if another one is being made."""
    session = reader.tail._session  # pyright: ignore[reportPrivateUsage]
    return session.consumer.rpartition(".")[2] if session else ""


async def test_the_live_end_hands_on_what_is_new(bus: Bus, reader: Reader) -> None:
    before = reader.tail.position
    wanted = await publish(bus, 3)
    await until(lambda: len(reader.got) == 3, "three events")
    assert [one.seq for one in reader.got] == wanted
    assert before < wanted[0]
    assert reader.tail.position == wanted[-1]
    assert reader.got[0].subject == "t.acme.evt.message.sent"
    assert reader.got[0].body == b'{"id":"0"}'


async def test_a_consumer_that_disappears_is_replaced_without_a_gap(bus: Bus, reader: Reader) -> None:
    wanted = await publish(bus, 2)

    async def deleted() -> bool:
        name = consumer_of(reader)
        try:
            return bool(name) and await bus.js.delete_consumer("EVENTS", name)
        except NotFoundError:  # a busy machine's silence has led to another one meanwhile
            return False

    await until(deleted, "its consumer is deleted")
    wanted += await publish(bus, 2)
    await until(lambda: len(reader.got) >= 4, "all four events")
    assert [one.seq for one in reader.got] == wanted


async def test_messages_that_get_lost_on_the_way_are_read_again(bus: Bus, reader: Reader) -> None:
    session = reader.tail._session  # pyright: ignore[reportPrivateUsage]
    assert session is not None
    dropped = iter([True])
    on = session.on

    def lossy(msg: Msg) -> None:
        if is_status(msg) or not next(dropped, False):
            on(msg)

    session.listener.sub._pending_queue._on = lossy  # type: ignore[union-attr]
    wanted = await publish(bus, 5)
    await until(lambda: len(reader.got) == 5, "all five events")
    assert [one.seq for one in reader.got] == wanted


async def test_a_lost_last_message_is_noticed_by_the_heartbeat(bus: Bus, reader: Reader) -> None:
    session = reader.tail._session  # pyright: ignore[reportPrivateUsage]
    assert session is not None
    on = session.on

    def deaf(msg: Msg) -> None:
        if is_status(msg):
            on(msg)

    session.listener.sub._pending_queue._on = deaf  # type: ignore[union-attr]
    wanted = await publish(bus, 1)
    await until(lambda: len(reader.got) == 1, "the event")
    assert [one.seq for one in reader.got] == wanted


async def test_nothing_is_lost_or_doubled_while_the_broker_is_killed(server: Server, bus: Bus, reader: Reader) -> None:
    wanted: list[int] = []

    async def work() -> None:
        for _ in range(100):
            wanted.extend(await publish(bus, 5))

    def got(enough: int) -> bool:
        return len(reader.got) >= enough

    working = asyncio.create_task(work())
    for enough in (100, 250, 400):
        await until(partial(got, enough), f"{enough} events", timeout=60)
        server.kill()
        await server.start()
    await working
    await until(lambda: len(reader.got) >= len(wanted), "all events", timeout=60)
    assert [one.seq for one in reader.got] == wanted
    assert reader.losses == 0


async def test_what_the_stream_dropped_meanwhile_is_said(
    bus: Bus, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    await publish(bus, 1)
    await until(lambda: len(reader.got) == 1, "the first event")
    # Another consumer is made when the test says so, and not because a busy machine is silent for a while.
    monkeypatch.setattr("harkara.bus.tail._SILENCE_S", 3600)
    await until(reader.tail.ready.is_set, "it reads")
    await bus.js.pause_consumer("EVENTS", consumer_of(reader), "2099-01-01T00:00:00Z")
    wanted = await publish(bus, 4)
    await bus.js.purge_stream("EVENTS", seq=wanted[2])
    reader.tail._on_up()  # pyright: ignore[reportPrivateUsage]
    await until(lambda: len(reader.got) == 3, "what was kept")
    assert [one.seq for one in reader.got[1:]] == wanted[2:]
    assert reader.losses == 1


async def test_stopping_takes_the_consumer_away(bus: Bus) -> None:
    reader = Reader(bus)
    await reader.tail.start(within_s=60)
    name = consumer_of(reader)
    assert name in await consumers(bus)
    await reader.tail.stop()
    await reader.tail.stop()

    async def gone() -> bool:
        return name not in await consumers(bus)

    await until(gone, "its consumer is gone")


async def test_it_waits_for_a_broker_that_is_away_at_the_start(server: Server, bus: Bus) -> None:
    server.kill()
    reader = Reader(bus)
    await reader.tail.start(within_s=0.2)
    assert not reader.tail.ready.is_set()
    await server.start()
    await until(reader.tail.ready.is_set, "it reads")
    wanted = await publish(bus, 1)
    await until(lambda: bool(reader.got), "the event")
    assert reader.got[0].seq == wanted[0]
    await reader.tail.stop()


@pytest.fixture
async def history(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[History]:
    monkeypatch.setattr("harkara.bus.tail._PAGE_WAIT_S", 60)
    made = History(bus.link, "EVENTS")
    yield made
    await made.close()


async def test_history_comes_in_pages_of_one_tenant(bus: Bus, history: History) -> None:
    start = (await history.bounds()).last
    ours: list[int] = []
    for _ in range(5):
        ours += await publish(bus, 2, "ours")
        await publish(bus, 1, "theirs")
    page = await history.page("t.ours.evt.>", start, 7)
    assert [one.seq for one in page.messages] == ours[:7]
    assert page.more
    page = await history.page("t.ours.evt.>", ours[6], 7)
    assert [one.seq for one in page.messages] == ours[7:]
    assert not page.more
    assert not (await history.page("t.ours.evt.>", ours[-1], 7)).messages
    assert not (await history.page("t.nobody.evt.>", 0, 7)).messages
    assert (await history.bounds()).last == ours[-1] + 1


async def test_history_and_live_end_tell_an_event_in_the_same_words(bus: Bus, reader: Reader, history: History) -> None:
    start = reader.tail.position
    for _ in range(20):  # the broker leaves trailing zeros of a fraction out
        await publish(bus, 1)
    await until(lambda: len(reader.got) == 20, "twenty events")
    page = (await history.page("t.acme.evt.>", start, 100)).messages
    assert [one._replace(headers=None) for one in page] == reader.got


async def test_the_leader_says_what_comes_next(bus: Bus, history: History) -> None:
    start = (await history.bounds()).last
    [first, second] = await publish(bus, 2, "ours")
    assert await history.next_after("t.ours.evt.>", start) == first
    assert await history.next_after("t.ours.evt.>", first) == second
    assert await history.next_after("t.ours.evt.>", second) is None


async def test_a_page_is_bounded_in_bytes_too(bus: Bus, history: History) -> None:
    start = (await history.bounds()).last
    for _ in range(5):
        await bus.publisher.publish(Outgoing(MessageRead(id="x" * 600_000), "ours", str(uuid7())))
    assert 1 <= len((await history.page("t.ours.evt.>", start, 100)).messages) < 5


async def test_history_is_unavailable_while_the_broker_is_away(
    server: Server, bus: Bus, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    await history.page("t.acme.evt.>", 0, 1)
    monkeypatch.setattr("harkara.bus.tail._PAGE_WAIT_S", 0.3)
    server.kill()
    with pytest.raises(Unavailable):
        await history.page("t.acme.evt.>", 0, 1)
    await server.start()

    async def answers() -> bool:
        try:
            await history.page("t.acme.evt.>", 0, 1)
        except Unavailable:
            return False
        return True

    await until(answers, "it answers again")
