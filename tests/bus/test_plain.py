"""Plain messages go past nats-py's own way, however the bytes are cut; everything else takes it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from harkara.bus.link import PlainParser

PLAIN = b"MSG _INBOX.a.1 1 5\r\nhello\r\n"
EMPTY = b"MSG _INBOX.a.2 1 0\r\n\r\n"
LINES = b"MSG _INBOX.a.3 1 7\r\nMSG \r\n1\r\n"
ANSWERED = b"MSG _INBOX.a.4 1 back 2\r\nhi\r\n"
HEADERS = b"HMSG _INBOX.a.5 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"
OTHERS = b"MSG _INBOX.b.1 2 2\r\nyo\r\n"

#: What of each message arrives, by what it looks like on the wire.
MEANT = {
    PLAIN: ("_INBOX.a.1", b"hello"),
    EMPTY: ("_INBOX.a.2", b""),
    LINES: ("_INBOX.a.3", b"MSG \r\n1"),
    ANSWERED: ("_INBOX.a.4", b"hi"),
    HEADERS: ("_INBOX.a.5", b"hi"),
    OTHERS: ("_INBOX.b.1", b"yo"),
}


class Client:
    """Takes what goes nats-py's own way."""

    def __init__(self) -> None:
        self.quick: list[tuple[str, bytes]] = []
        self.all: list[tuple[str, bytes]] = []
        self.pings = 0

    def plain(self, subject: bytes, data: bytes) -> None:
        self.quick.append((subject.decode(), data))
        self.all.append((subject.decode(), data))

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.all.append((subject.decode(), data))

    async def _process_ping(self) -> None:
        self.pings += 1


def parser(client: Any) -> PlainParser:
    made = PlainParser(client)
    made.plain[b"1"] = client.plain
    return made


@pytest.mark.parametrize("size", [1, 2, 3, 7, 25, 1000])
async def test_all_arrive_in_order_however_they_are_cut(size: int) -> None:
    for order in itertools.islice(itertools.permutations(MEANT), 0, None, 13):
        wire = b"".join(order) + b"PING\r\n"
        client = Client()
        parsing = parser(client)
        for place in range(0, len(wire), size):
            await parsing.parse(wire[place : place + size])
        assert client.all == [MEANT[one] for one in order]
        assert client.pings == 1


async def test_what_is_plain_and_whole_does_not_take_the_long_way() -> None:
    client = Client()
    await parser(client).parse(PLAIN + EMPTY + LINES + ANSWERED + PLAIN)
    assert client.quick == [MEANT[one] for one in (PLAIN, EMPTY, LINES)]
    assert client.all == [MEANT[one] for one in (PLAIN, EMPTY, LINES, ANSWERED, PLAIN)]


async def test_a_taker_that_fails_stops_nobody() -> None:
    client = Client()
    parsing = parser(client)

    def fail(subject: bytes, data: bytes) -> None:
        raise RuntimeError("no")

    parsing.plain[b"2"] = fail
    await parsing.parse(OTHERS + PLAIN)
    assert client.all == [MEANT[PLAIN]]


@pytest.mark.parametrize("size", [1, 5, 22, 30])
async def test_what_is_plain_and_cut_does_not_take_the_long_way(size: int) -> None:
    client, wire = Client(), PLAIN + EMPTY + LINES + PLAIN
    parsing = parser(client)
    for place in range(0, len(wire), size):
        await parsing.parse(wire[place : place + size])
    assert client.quick == [MEANT[one] for one in (PLAIN, EMPTY, LINES, PLAIN)]
