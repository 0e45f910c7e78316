"""What clients that misbehave do to the others: `python -m bench.abuse [SECONDS]`.

The front door alone, on servers of its own. Somebody asks 100 times a second (reads, and POST /messages) on 16
connections, first undisturbed and then beside each kind of abuse, which comes from a process of its own. What is one
request, made again and again, is also made of an aiohttp that has nothing to do with the front door: what others notice
of that is the machine's doing. With names after the seconds only these kinds are measured.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

import aiohttp
import uvloop
from loguru import logger

from bench.ingress import prepare
from bench.stack import (
    cpu_seconds,
    front_door,
    memory_mb,
    percentile,
    prepared,
)
from harkara.embedded.ports import free_ports

PER_S = 100
CONNECTIONS = 16
IDLE = 10_000

#: How often a second an attack that is one request is made, all connections together.
ATTACKS_PER_S = 200

#: How many connections some kinds of abuse hold; the others open a new one each time.
HELD = {"2,000 slow heads": 2000, "500 slow bodies": 500, "10,000 idle connections": IDLE}

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


class Attacker:
    """Whoever misbehaves; `key` is good, because most abuse needs none and some does."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self.post = f"POST /api/v1/messages HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n"

    async def opened(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def dribble(self, head: bytes, byte: bytes, connections: int) -> None:
        """Send the head at once and then a byte a second, on each connection, and begin again when it is ended."""

        async def one() -> None:
            while True:
                with suppress(OSError):
                    _, writer = await self.opened()
                    writer.write(head)
                    while not writer.transport.is_closing():
                        writer.write(byte)
                        await asyncio.sleep(1)

        await asyncio.gather(*(one() for _ in range(connections)))

    async def idle(self) -> None:
        """Open connections and say nothing."""
        held = []
        for _ in range(IDLE // 100):
            held += await asyncio.gather(*(self.opened() for _ in range(100)))
        await asyncio.sleep(3600)

    async def repeat(self, request: bytes, answers: int = 1) -> None:
        """Send this again and again, each on a connection of its own."""

        async def one() -> None:
            with suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await self.opened()
                for start in range(0, len(request), 1 << 20):
                    writer.write(request[start : start + (1 << 20)])
                    await writer.drain()
                for _ in range(answers):
                    await reader.readuntil(b"\r\n\r\n")
                writer.close()

        running: set[asyncio.Task[None]] = set()
        begun, number = time.perf_counter(), 0
        while True:
            number += 1
            await asyncio.sleep(max(0, begun + number * answers / ATTACKS_PER_S - time.perf_counter()))
            if len(running) < 64:
                task = asyncio.create_task(one())
                running.add(task)
                task.add_done_callback(running.discard)

    def kinds(self) -> dict[str, Callable[[], Awaitable[None]]]:
        """Every abuse by its name."""
        post, bomb = self.post, gzip.compress(b"[" * 100_000_000)
        packed = f"{post}Content-Encoding: gzip\r\nContent-Length: {len(bomb)}\r\n\r\n".encode() + bomb
        huge = f"{post}Content-Length: 100000000\r\n\r\n".encode() + b"x" * 100_000_000
        chunk = b"%x\r\n%s\r\n" % (1 << 20, b"x" * (1 << 20))
        flood = GET + b"".join(b"X-%d: %s\r\n" % (one, b"y" * 100) for one in range(2000)) + b"\r\n"
        chunked = f"{post}Transfer-Encoding: chunked\r\n\r\n".encode()
        return {
            "2,000 slow heads": lambda: self.dribble(GET + b"X-A: ", b"b", 2000),
            "500 slow bodies": lambda: self.dribble(f"{post}Content-Length: 10000\r\n\r\n".encode(), b" ", 500),
            "10,000 idle connections": self.idle,
            "bodies of 100 MB, announced": lambda: self.repeat(huge),
            "bodies of 100 MB, in chunks": lambda: self.repeat(chunked + chunk * 100),
            "packed bombs of 100 MB": lambda: self.repeat(packed),
            "floods of headers": lambda: self.repeat(flood),
            "malformed chunks": lambda: self.repeat(chunked + b"nonsense\r\n\r\n"),
            "1,000 requests sent ahead": lambda: self.repeat((GET + b"\r\n") * 1000, 1000),
        }


class Others:
    """Those who behave."""

    def __init__(self, port: int, requests: list[bytes], seconds: float) -> None:
        self._port, self._requests, self._seconds = port, requests, seconds
        self.took: list[float] = []
        self.failed = 0

    async def ask(self) -> None:
        """Ask steadily, on connections that are kept."""
        pairs = [await asyncio.open_connection("127.0.0.1", self._port) for _ in range(CONNECTIONS)]
        begun = time.perf_counter()

        async def one(place: int) -> None:
            reader, writer = pairs[place]
            for number in range(int(self._seconds * PER_S / CONNECTIONS)):
                due = begun + (number * CONNECTIONS + place) / PER_S
                await asyncio.sleep(max(0, due - time.perf_counter()))
                sent = time.perf_counter()
                writer.write(self._requests[number % len(self._requests)])
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
                self.took.append(1000 * (time.perf_counter() - sent))
                self.failed += head[9:10] != b"2"

        await asyncio.gather(*(one(place) for place in range(CONNECTIONS)))
        for _, writer in pairs:
            writer.close()


async def connections(port: int) -> int:
    """How many connections the front door has open."""
    async with aiohttp.ClientSession() as client, client.get(f"http://127.0.0.1:{port}/metrics") as answer:
        page = await answer.text()
    return int(float(page.partition("\nharkara_http_connections ")[2].partition("\n")[0]))


async def begun(port: int, held: int) -> None:
    """Wait until an attack is under way: all its connections are open, or some seconds have passed."""
    end = time.monotonic() + (60 if held else 5)
    while time.monotonic() < end and (not held or await connections(port) < held):
        await asyncio.sleep(0.2)


async def attack(name: str, port: int, key: str) -> None:
    """Be one kind of abuse until killed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536) if hard > 0 else 65_536, hard))
    await Attacker(port, key).kinds()[name]()


async def beside(name: str, door: subprocess.Popen[bytes], port: int, victim: int, key: str, others: Others) -> None:
    """Measure what others notice of a kind of abuse that is done to whoever listens on port `victim`."""
    attacker = None
    if name != "nobody":
        attacker = subprocess.Popen([sys.executable, "-m", "bench.abuse", "attack", name, str(victim), key])
        await begun(port, HELD.get(name, 0))
    await asyncio.sleep(1)
    cpu, at = cpu_seconds(door.pid), time.perf_counter()
    await others.ask()
    held = await connections(port)
    spent = (cpu_seconds(door.pid) - cpu) / (time.perf_counter() - at)
    if attacker is not None:
        attacker.kill()
        attacker.wait()
    p50, p99 = statistics.median(others.took), percentile(others.took, 0.99)
    whom = name if victim == port else f"{name}, of somebody else"
    told = f"{whom:44} p50 {p50:6.1f} ms  p99 {p99:6.1f} ms  worst {max(others.took):6.1f} ms  failed {others.failed}"
    print(f"{told}  door {100 * spent:.0f} % of a core, {memory_mb([door.pid]):.0f} MB, {held} connections", flush=True)


async def main(seconds: float, only: list[str]) -> None:
    """Start the servers and the front door, and measure beside each abuse."""
    logger.remove()
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(prepared())
        urls = made.urls
        port, door = await stack.enter_async_context(front_door(made.environment))
        key, sender, _, contacts = await prepare(f"http://127.0.0.1:{port}", urls)
        message = json.dumps({"contact_id": contacts[0], "sender_id": sender, "body": "Hi"}).encode()
        head = f"Host: x\r\nX-API-Key: {key}\r\n"
        read = f"GET /api/v1/contacts?limit=5 HTTP/1.1\r\n{head}\r\n".encode()
        kind = f"Content-Type: application/json\r\nContent-Length: {len(message)}\r\n\r\n"
        write = f"POST /api/v1/messages HTTP/1.1\r\n{head}{kind}".encode() + message
        (elsewhere,) = free_ports(1)
        nothing = subprocess.Popen([sys.executable, "-m", "bench.nothing", str(elsewhere)])
        stack.callback(nothing.wait)
        stack.callback(nothing.kill)
        for name in only or ("nobody", *Attacker(port, key).kinds()):
            for victim in (port,) if name in HELD or name == "nobody" else (port, elsewhere):
                await beside(name, door, port, victim, key, Others(port, [read, write], seconds))


if __name__ == "__main__":
    if sys.argv[1:2] == ["attack"]:
        uvloop.run(attack(sys.argv[2], int(sys.argv[3]), sys.argv[4]))
    else:
        uvloop.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 10, sys.argv[2:]))
