"""Fanning out: a frame is built once, goes out at once when it is quiet and together when it is busy."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from typing import Any, cast

import pytest
from support import until

from harkara.bus.tail import Stored
from harkara.http.hub import COALESCE, Event, Hub, Patterns, event_of, frame_of

NOBODY = cast("Any", None)  # the hub is told what happens by hand: it needs no broker


class Ear:
    """A listener that remembers each write and when it came."""

    def __init__(self) -> None:
        self.writes: list[tuple[float, bytes, int]] = []

    def take(self, frames: bytes, last: int) -> None:
        self.writes.append((asyncio.get_running_loop().time(), frames, last))

    def lost(self) -> None:
        self.writes.append((0, b"lost", 0))


def happen(hub: Hub, seq: int, tenant: str = "acme", type_: str = "message.sent", body: bytes = b'{"id":"1"}') -> None:
    """What the tail does with a message."""
    hub._tail.hand_on(  # pyright: ignore[reportPrivateUsage]
        Stored(seq, "2026-03-01T12:30:15.123Z", f"t.{tenant}.evt.{type_}", body)
    )


@pytest.mark.parametrize("size", [0, 60, 61, 62, 65_000, 65_470, 65_471, 65_472, 200_000])
def test_a_frame_is_one_websocket_text_message(size: int) -> None:
    data = json.dumps({"x": "y" * size}).encode()
    frame = frame_of(Event(7, "message.sent", "2026-03-01T12:30:15.123Z", data))
    assert frame[0] == 0x81
    length, start = frame[1], 2
    if length == 126:
        length, start = int.from_bytes(frame[2:4], "big"), 4
        assert length >= 126
    elif length == 127:
        length, start = int.from_bytes(frame[2:10], "big"), 10
        assert length >= 65_536
    assert len(frame) == start + length
    assert json.loads(frame[start:]) == {
        "seq": 7,
        "type": "message.sent",
        "at": "2026-03-01T12:30:15.123Z",
        "data": {"x": "y" * size},
    }


@pytest.mark.parametrize("body", [b"", b"{", b'{"a":1} x', b'{"a":"\xff"}'])
def test_a_body_that_is_no_json_is_told_as_null(body: bytes) -> None:
    assert event_of(Stored(1, "", "t.acme.evt.message.sent", body)).data == b"null"


@pytest.mark.parametrize(
    ("patterns", "wanted", "unwanted"),
    [
        (["*"], ["message.sent", "enrollment.bulk_completed"], []),
        ([">"], ["message.sent"], []),
        (["message.*"], ["message.sent", "message.read"], ["reply.received", "message"]),
        (["*.sent"], ["message.sent", "reminder.sent"], ["message.read"]),
        (["message.sent", "reply.*"], ["message.sent", "reply.received"], ["message.read"]),
    ],
)
def test_a_filter_takes_what_it_says(patterns: list[str], wanted: list[str], unwanted: list[str]) -> None:
    made = Patterns(patterns)
    assert [made.want(type_) for type_ in wanted] == [True] * len(wanted)
    assert [made.want(type_) for type_ in unwanted] == [False] * len(unwanted)


def test_history_is_filtered_by_the_broker_where_it_can_be() -> None:
    assert Patterns(["message.*"]).subject("acme") == "t.acme.evt.message.*"
    assert Patterns(["message.*", "reply.*"]).subject("acme") == "t.acme.evt.>"
    assert Patterns(["*"]).subject("acme") == "t.acme.evt.>"


async def test_when_it_is_quiet_an_event_goes_out_at_once() -> None:
    hub, ear = Hub(NOBODY), Ear()
    hub.join(ear, "acme", Patterns(["*"]))
    happen(hub, 1)
    timer = hub._timer  # pyright: ignore[reportPrivateUsage]
    assert timer is not None
    assert timer.when() <= asyncio.get_running_loop().time()
    assert not ear.writes, "what else arrives in this turn goes along"
    happen(hub, 2)
    await until(lambda: ear.writes, "it was written", every=0.001)
    [(_, frames, last)] = ear.writes
    assert frames.count(b'"seq"') == 2
    assert last == 2


async def test_when_it_is_busy_events_go_out_together() -> None:
    hub, ear = Hub(NOBODY), Ear()
    hub.join(ear, "acme", Patterns(["*"]))
    for seq in range(1, 101):
        happen(hub, seq)
        await asyncio.sleep(0.001)
    await until(lambda: ear.writes[-1][2] == 100, "all were written", every=0.001)
    times = [at for at, _, _ in ear.writes]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert min(pauses) > COALESCE.total_seconds() * 0.9
    assert b"".join(frames for _, frames, _ in ear.writes).count(b'"seq"') == 100


async def test_those_who_want_the_same_get_the_very_same_bytes_and_others_nothing() -> None:
    hub = Hub(NOBODY)
    ears = [Ear() for _ in range(4)]
    for ear, tenant, patterns in zip(
        ears, ("acme", "acme", "acme", "other"), (["message.*"], ["message.*"], ["reply.*"], ["*"]), strict=True
    ):
        hub.join(ear, tenant, Patterns(patterns))
    happen(hub, 1)
    await until(lambda: ears[0].writes, "it was written", every=0.001)
    assert ears[0].writes[0][1] is ears[1].writes[0][1]
    assert ears[2].writes == ears[3].writes == []


async def test_who_leaves_hears_nothing_more_and_leaves_nothing_behind() -> None:
    hub, ear = Hub(NOBODY), Ear()
    patterns = Patterns(["*"])
    hub.join(ear, "acme", patterns)
    happen(hub, 1)
    hub.leave(ear, "acme", patterns)
    hub.leave(ear, "acme", patterns)
    happen(hub, 2)
    await asyncio.sleep(2 * COALESCE.total_seconds())
    assert ear.writes == []
    assert hub._groups == {}  # pyright: ignore[reportPrivateUsage]


async def test_who_joins_hears_only_what_comes_after_the_position_it_is_told() -> None:
    hub, first, second = Hub(NOBODY), Ear(), Ear()
    hub.join(first, "acme", Patterns(["*"]))
    happen(hub, 1)
    assert hub.join(second, "acme", Patterns(["*"])) == 1
    happen(hub, 2)
    await until(lambda: second.writes, "it was written", every=0.001)
    assert [last for _, _, last in first.writes] == [1, 2]
    assert [last for _, _, last in second.writes] == [2]


async def test_a_position_can_be_waited_for() -> None:
    hub = Hub(NOBODY)
    waiting = [asyncio.create_task(hub.reach(seq)) for seq in (0, 2, 3)]
    await asyncio.sleep(0)
    assert [task.done() for task in waiting] == [True, False, False]
    happen(hub, 2)
    await waiting[1]
    assert not waiting[2].done()
    waiting[2].cancel()
    await asyncio.gather(waiting[2], return_exceptions=True)
    assert hub._arrivals == []  # pyright: ignore[reportPrivateUsage]
