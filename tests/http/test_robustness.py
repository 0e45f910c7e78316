"""Clients that misbehave get an answer that says so, and nobody else notices."""

from __future__ import annotations

import asyncio
import gc
import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import pytest
from aiohttp import ClientSession
from door_client import Account, Api, things
from loguru import logger
from support import until

from harkara.http import pipeline, server
from harkara.http.door import Door
from harkara.http.pipeline import BODY_PATIENCE_S
from harkara.http.route import PREFIX, Route
from harkara.http.routes import ROUTES
from harkara.http.server import listening
from harkara.log import Seldom
from harkara.storage.storage import Storage

#: Bytes that the walk over all routes really sends.
MOST_SENT = 4_000_000

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


class Raw:
    """One connection, byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        with suppress(ConnectionError):
            await self._writer.drain()

    async def answer(self, within_s: float = 30) -> tuple[int, dict[str, str], bytes]:
        """Status, headers and body of the next answer."""
        async with asyncio.timeout(within_s):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)}
            body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return int(head[0].split()[1]), headers, body

    async def problem(self, status: int) -> None:
        """The next answer has to be this problem, and the last one."""
        told, headers, body = await self.answer()
        assert told == status, body
        assert headers["content-type"] == "application/problem+json"
        assert headers["x-content-type-options"] == "nosniff"
        assert json.loads(body)["status"] == status
        await self.ended()

    async def ended(self) -> None:
        """Nothing more comes, and the connection is closed."""
        async with asyncio.timeout(30):
            with suppress(ConnectionResetError):
                assert await self.reader.read() == b""


@asynccontextmanager
async def connection(api: Api) -> AsyncIterator[Raw]:
    host, port = api.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield Raw(reader, writer)
    finally:
        writer.close()


def posted(account: Account, path: str, *headers: str) -> bytes:
    lines = (f"POST /api/v1{path} HTTP/1.1", "Host: x", f"Authorization: {account.headers['Authorization']}", *headers)
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\n"


async def works(account: Account) -> None:
    """Others don't notice."""
    assert (await account.call("GET", "/tenant")).status == 200


async def test_a_head_that_dribbles_is_given_up(acme: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_PATIENCE_S", 0.3)
    async with connection(acme.api) as raw:

        async def dribble() -> None:
            for number in range(10_000):
                await raw.send(b"GET" if not number else b" " if number == 1 else b"/")
                await asyncio.sleep(0.01)

        dribbling = asyncio.create_task(dribble())
        await raw.problem(408)
        dribbling.cancel()
    await works(acme)


async def test_a_second_request_that_dribbles_is_given_up_too(acme: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_PATIENCE_S", 0.3)
    async with connection(acme.api) as raw:
        await raw.send(GET + b"\r\n")
        assert (await raw.answer())[0] == 200
        await raw.send(GET)
        await raw.problem(408)


async def test_a_head_in_pieces_that_comes_in_time_is_answered(acme: Account) -> None:
    async with connection(acme.api) as raw:
        for byte in (GET + b"\r\n").decode():
            await raw.send(byte.encode())
            await asyncio.sleep(0)
        assert (await raw.answer())[0] == 200


async def test_a_body_that_dribbles_is_given_up(acme: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "BODY_PATIENCE_S", 0.3)
    async with connection(acme.api) as raw:
        await raw.send(posted(acme, "/contacts", "Content-Type: application/json", "Content-Length: 1000"))
        await raw.send(b'{"name":')
        await raw.problem(408)
    await works(acme)


def test_a_large_body_has_more_time_than_a_small_one() -> None:
    assert BODY_PATIENCE_S >= 5
    assert pipeline.SLOWEST_BYTES_PER_S <= 50_000


async def test_a_hundred_megabytes_are_refused_before_they_come(acme: Account) -> None:
    async with connection(acme.api) as raw:
        await raw.send(posted(acme, "/contacts", "Content-Type: application/json", "Content-Length: 100000000"))
        await raw.problem(413)
    async with connection(acme.api) as raw:
        await raw.send(posted(acme, "/contacts", "Content-Type: application/json", "Transfer-Encoding: chunked"))
        sent = 0
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"

        async def pour() -> None:
            nonlocal sent
            while sent < 100_000_000:
                await raw.send(chunk)
                sent += 0x10000

        pouring = asyncio.create_task(pour())
        status, _, _ = await raw.answer()
        assert status == 413
        pouring.cancel()
        assert sent < 50_000_000
    await works(acme)


async def test_a_bomb_is_not_unpacked(acme: Account) -> None:
    bomb = gzip.compress(b"[" * 50_000_000)
    async with connection(acme.api) as raw:
        headers = ("Content-Type: application/json", "Content-Encoding: gzip", f"Content-Length: {len(bomb)}")
        await raw.send(posted(acme, "/contacts", *headers) + bomb)
        await raw.problem(415)
    await works(acme)


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (GET + b"X-Long: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (GET + b"".join(b"X-%d: y\r\n" % number for number in range(1000)) + b"\r\n", 431),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (GET + b"no colon\r\n\r\n", 400),
        (GET + b"X: \x00\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"SSH-2.0-OpenSSH_9.2\r\n", 400),
        (b"GET /healthz HTTP/9.9\r\n\r\n", 400),
        (GET + b"Content-Length: nonsense\r\n\r\n", 400),
        (GET + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n\r\n", 400),
        (b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nxxxxx\r\n", 400),
        (b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nxxxxx\r\n", 415),
    ],
)
async def test_what_is_no_http_ends_the_connection(acme: Account, request_: bytes, status: int) -> None:
    async with connection(acme.api) as raw:
        await raw.send(request_)
        await raw.problem(status)
    await works(acme)


FLOOD = GET + b"".join(b"X-%d: %s\r\n" % (one, b"y" * 100) for one in range(2000)) + b"\r\n"


def open_connections() -> int:
    return sum(isinstance(one, server.Connection) for one in gc.get_objects())


@pytest.mark.parametrize("kind", ["headers", "chunks", "packed"])
async def test_what_is_refused_is_freed_without_the_garbage_collector(acme: Account, kind: str) -> None:
    """Circles would keep hundreds of kilobytes each until it comes, and then all wait for a tenth of a second."""
    packed = posted(acme, "/contacts", "Content-Type: application/json", "Content-Encoding: gzip", "Content-Length: 9")
    bad = {
        "headers": FLOOD,
        "chunks": posted(acme, "/contacts", "Transfer-Encoding: chunked") + b"nonsense\r\n\r\n",
        "packed": packed + b"x" * 9,
    }
    async with connection(acme.api) as raw:  # the first of all is logged, and that keeps things for a moment
        await raw.send(bad[kind])
        await raw.answer()
    gc.collect()
    before = open_connections()
    gc.disable()
    try:
        for _ in range(3):
            async with connection(acme.api) as raw:
                await raw.send(bad[kind])
                await raw.answer()
        await until(lambda: open_connections() <= before, "their connections are gone")
    finally:
        gc.enable()


async def test_a_flood_of_the_same_is_one_line_and_a_number(acme: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_seldom", Seldom(2))
    monkeypatch.setattr(pipeline, "_seldom", Seldom(2))
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="DEBUG", format="{message}")
    try:
        for _ in range(20):
            async with connection(acme.api) as raw:
                await raw.send(b"nonsense\r\n\r\n")
                await raw.answer()
            assert (await acme.call("GET", "/nowhere")).status == 404
        await until(lambda: counted(lines, "no HTTP") == counted(lines, "answered 404") == 20, "all are told")
    finally:
        logger.remove(sink)
    assert len([line for line in lines if "no HTTP" in line or "answered 404" in line]) < 40


def counted(lines: list[str], what: str) -> int:
    """How many times these lines say that something happened, one by one or as a number."""
    # Sums over the usual five seconds are of requests before these.
    told = [line.partition(" times more")[0] for line in lines if what in line and " in 5 s" not in line]
    numbers = [line.rpartition(" ")[2] for line in told]
    return sum(int(number) if number.isdecimal() else 1 for number in numbers)


async def test_requests_sent_ahead_are_answered_in_order(acme: Account) -> None:
    async with connection(acme.api) as raw:
        for number in range(200):
            path = b"/healthz" if number % 2 else b"/nowhere"
            await raw.send(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        statuses = [(await raw.answer())[0] for _ in range(200)]
    assert statuses == [404, 200] * 100


async def test_more_connections_than_there_may_be_are_ended_and_the_others_stay(door: Door) -> None:
    made = replace(door, most_connections=5)
    async with listening(made, "127.0.0.1", 0) as port, ClientSession() as session:
        api = Api(f"http://127.0.0.1:{port}", session, made)
        async with connection(api) as first:
            await first.send(GET + b"\r\n")
            assert (await first.answer())[0] == 200
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
            await until(lambda: made.metrics.turned_away.get("too many") == 6, "six of ten were too many")
            await first.send(GET + b"\r\n")
            assert (await first.answer())[0] == 200
            for _, writer in idle:
                writer.close()
            await until(lambda: made.metrics.connections == 1, "they are gone")
            async with connection(api) as again:
                await again.send(GET + b"\r\n")
                assert (await again.answer())[0] == 200


async def test_a_body_one_byte_over_its_routes_limit_is_refused_before_it_is_read(
    acme: Account, storage: Storage
) -> None:
    """Every route that takes a body, present and future: announced as too much, or turning out to be."""
    made = await things(acme, storage)
    walked = [route for route in ROUTES if route.body is not None or route.accepts]
    assert len(walked) > 15

    async def walk(route: Route, *, announced: bool) -> None:
        kind = f"Content-Type: {route.accepts[0] if route.accepts else 'application/json'}"
        length = f"Content-Length: {route.body_limit + 1}" if announced else "Transfer-Encoding: chunked"
        head = posted(acme, route.path.removeprefix(PREFIX).format(**made.ids), kind, length)
        size = route.body_limit + 1
        async with connection(acme.api) as raw:
            await raw.send(head.replace(b"POST", route.method.encode(), 1))
            if not announced:
                await raw.send(b"%x\r\n%s\r\n" % (size, b" " * size))
            assert (await raw.answer())[0] == 413, route.path

    await asyncio.gather(*(walk(route, announced=True) for route in walked))
    for route in walked:
        if route.body_limit <= MOST_SENT:
            await walk(route, announced=False)
