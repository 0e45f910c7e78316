"""What is taken as it is goes past nats-py's own way, however the bytes are cut; everything else takes it."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from harkara.bus import headers
from harkara.bus.link import QuickParser

PLAIN = b"MSG _INBOX.a.1 1 5\r\nhello\r\n"
EMPTY = b"MSG _INBOX.a.2 1 0\r\n\r\n"
LINES = b"MSG _INBOX.a.3 1 7\r\nMSG \r\n1\r\n"
ANSWERED = b"MSG _INBOX.a.4 1 back 2\r\nhi\r\n"
HEADERS = b"HMSG _INBOX.a.5 1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"
WHOLE = b'HMSG t.a.work 1 $JS.ACK.S.d.1.2.3.4.0 18 26\r\nNATS/1.0\r\nA: b\r\n\r\n{"a":"\r\n\r\n'
NO_BODY = b"HMSG t.a.work 1 $JS.ACK.S.d.1.2.3.4.0 12 12\r\nNATS/1.0\r\n\r\n\r\n"
STATUS = b"HMSG _INBOX.a.6 1 31 31\r\nNATS/1.0 100 Idle Heartbeat\r\n\r\n\r\n"
OTHERS = b"MSG _INBOX.b.1 2 2\r\nyo\r\n"

#: What of each message arrives, by what it looks like on the wire.
MEANT = {
    PLAIN: ("_INBOX.a.1", b"hello"),
    EMPTY: ("_INBOX.a.2", b""),
    LINES: ("_INBOX.a.3", b"MSG \r\n1"),
    ANSWERED: ("_INBOX.a.4", b"hi"),
    HEADERS: ("_INBOX.a.5", b"hi"),
    WHOLE: ("t.a.work", b'{"a":"\r\n'),
    NO_BODY: ("t.a.work", b""),
    STATUS: ("_INBOX.a.6", b""),
    OTHERS: ("_INBOX.b.1", b"yo"),
}


class Client:
    """Takes what goes nats-py's own way."""

    def __init__(self) -> None:
        self.quick: list[tuple[str, bytes]] = []
        self.all: list[tuple[str, bytes]] = []
        self.whole_of: list[tuple[bytes, bytes]] = []
        self.pings = 0

    def whole(self, subject: bytes, reply: bytes, head: bytes, body: bytes) -> None:
        self.whole_of.append((reply, head))
        self.plain(subject, body)

    def plain(self, subject: bytes, data: bytes) -> None:
        self.quick.append((subject.decode(), data))
        self.all.append((subject.decode(), data))

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.all.append((subject.decode(), data))

    async def _process_ping(self) -> None:
        self.pings += 1


def parser(client: Any) -> QuickParser:
    made = QuickParser(client)
    made.plain[b"1"] = client.plain
    made.whole[b"1"] = client.whole
    return made


@pytest.mark.parametrize("size", [1, 2, 3, 7, 25, 1000])
async def test_all_arrive_in_order_however_they_are_cut(size: int) -> None:
    for order in itertools.islice(itertools.permutations(MEANT), 0, None, 3701):
        wire = b"".join(order) + b"PING\r\n"
        client = Client()
        parsing = parser(client)
        for place in range(0, len(wire), size):
            await parsing.parse(wire[place : place + size])
        assert client.all == [MEANT[one] for one in order]
        assert client.pings == 1


async def test_what_is_taken_as_it_is_does_not_take_the_long_way() -> None:
    client = Client()
    await parser(client).parse(PLAIN + EMPTY + LINES + WHOLE + NO_BODY + STATUS + PLAIN)
    assert client.quick == [MEANT[one] for one in (PLAIN, EMPTY, LINES, WHOLE, NO_BODY)]
    assert client.all == [MEANT[one] for one in (PLAIN, EMPTY, LINES, WHOLE, NO_BODY, STATUS, PLAIN)]
    reply = b"$JS.ACK.S.d.1.2.3.4.0"
    assert client.whole_of == [(reply, b"NATS/1.0\r\nA: b\r\n\r\n"), (reply, b"NATS/1.0\r\n\r\n")]


async def test_a_taker_that_fails_stops_nobody() -> None:
    client = Client()
    parsing = parser(client)

    def fail(*_: bytes) -> None:
        raise RuntimeError("no")

    parsing.plain[b"2"] = fail
    parsing.whole[b"2"] = fail
    await parsing.parse(OTHERS + WHOLE.replace(b" 1 ", b" 2 ", 1) + PLAIN)
    assert client.all == [MEANT[PLAIN]]


@pytest.mark.parametrize("size", [1, 5, 22, 30])
async def test_what_is_cut_does_not_take_the_long_way_either(size: int) -> None:
    client, wire = Client(), PLAIN + EMPTY + WHOLE + LINES + NO_BODY + PLAIN
    parsing = parser(client)
    for place in range(0, len(wire), size):
        await parsing.parse(wire[place : place + size])
    assert client.quick == [MEANT[one] for one in (PLAIN, EMPTY, WHOLE, LINES, NO_BODY, PLAIN)]


def test_odd_headers_are_read_and_what_is_none_is_left_out() -> None:
    block = b"NATS/1.0 503\r\nA:  b c \r\n D :e\r\nF:\r\nno header\r\nG h: i\r\n\xff: j\r\nK: l\nM: n\r\nA: o\r\n\r\n"
    assert headers.read(block) == {"A": "o", "D": "e", "F": "", "\ufffd": "j", "K": "l"}
