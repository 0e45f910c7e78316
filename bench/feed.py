"""The live feed: `python -m bench.feed [SOCKETS]` opens sockets on a front door and publishes events to their tenant.

CPU and memory are the front door's alone; broker, publisher and clients run beside it on the same machine. How long an
event takes is told by twenty of the sockets, in a process that has nothing else to do.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import uvloop
from loguru import logger

from bench.stack import (
    cpu_seconds,
    front_door,
    memory_mb,
    percentile,
    prepared,
)
from harkara.bus.connection import Bus, connect
from harkara.bus.messages import Outgoing
from harkara.ids import uuid7
from harkara.schemas.events import MessageSent

TENANT = "bench"
SOCKETS = 1000
BURST = 5000
SECONDS = 5
WITNESSES = 20

#: What the front door asks now and then, and what a client answers; no event of ours has these bytes in it.
PING, PONG = b"\x89\x00", b"\x8a\x80" + bytes(4)


class Socket(asyncio.Protocol):
    """A bare WebSocket client: counts events, notes how old the oldest of each read is, and answers pings."""

    def __init__(self, hello: bytes, seen: Seen) -> None:
        self._hello, self._seen = hello, seen
        self._rest = b""
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        self._seen.events += (self._rest + data).count(b'{"seq":')
        self._rest = data[-6:]
        if PING in data:
            self._transport.write(PONG)
        place = data.find(b'"wamid":"')
        if place >= 0 and len(data) >= place + 28:
            self._seen.ages.append(time.time_ns() - int(data[place + 9 : place + 28]))

    def connection_lost(self, exc: Exception | None) -> None:
        self._seen.lost += 1


class Seen:
    """What all sockets saw."""

    def __init__(self) -> None:
        self.events, self.lost, self.ages = 0, 0, list[int]()


async def listen(port: int, key: str, sockets: int) -> None:
    """The clients' process: opens the sockets, then tells what they have seen for each line it is sent."""
    wish = b'{"subscribe":["message.*"],"since":"now"}'
    head = f"GET /api/v1/feed HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    head += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    hello = head.encode() + b"\x81" + bytes([0x80 | len(wish)]) + bytes(4) + wish
    seen, loop = Seen(), asyncio.get_running_loop()
    for _ in range(sockets):
        await loop.create_connection(lambda: Socket(hello, seen), "127.0.0.1", port)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(flush=True)
    while await reader.readline():
        ages = seen.ages
        print(
            json.dumps({"events": seen.events, "lost": seen.lost, "ages_ms": [age / 1e6 for age in ages]}), flush=True
        )
        seen.ages = []


class Clients:
    """The clients' process as the measurement sees it."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, stack: AsyncExitStack, port: int, key: str, sockets: int) -> Clients:
        """A process with so many sockets open; it ends with the stack."""
        arguments = ["-m", "bench.feed", "listen", str(port), key, str(sockets)]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 28
        )
        stack.callback(process.terminate)
        assert process.stdout is not None
        await process.stdout.readline()
        return cls(process)

    async def seen(self) -> dict[str, Any]:
        """Events so far, sockets lost, and ages since it was last asked."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(b"\n")
        return dict(json.loads(await self._process.stdout.readline()))

    async def until(self, events: int) -> dict[str, Any]:
        """Wait until so many events have arrived, at most a minute."""
        ages: list[float] = []
        for _ in range(600):
            seen = await self.seen()
            ages += seen["ages_ms"]
            if seen["events"] >= events:
                break
            await asyncio.sleep(0.1)
        return {**seen, "ages_ms": ages}


async def publish(bus: Bus, count: int) -> None:
    """So many events at once; each carries the time at which it was made."""

    def event() -> Outgoing:
        made = str(time.time_ns())
        message = MessageSent(id=str(uuid7()), contact_id=str(uuid7()), sender_id=str(uuid7()), wamid=made)
        return Outgoing(message, TENANT, str(uuid7()))

    await bus.publisher.publish_many([event() for _ in range(count)])


async def steady(bus: Bus, per_s: int) -> None:
    """Events one by one, evenly, for some seconds."""
    begun = time.perf_counter()
    for number in range(per_s * SECONDS):
        await asyncio.sleep(max(0, begun + number / per_s - time.perf_counter()))
        await publish(bus, 1)


async def measure(bus: Bus, door: int, clients: Clients, witnesses: Clients, sockets: int) -> None:
    """Latency at two rates, then as many events as can be had. `clients` are all sockets but the witnesses."""
    others = sockets - WITNESSES
    events = (await clients.seen())["events"]
    for deliveries_per_s in (10_000, 50_000, 200_000):
        per_s = max(1, deliveries_per_s // sockets)
        await witnesses.seen()
        before = cpu_seconds(door)
        await steady(bus, per_s)
        events += per_s * SECONDS * others
        await clients.until(events)
        ages = (await witnesses.seen())["ages_ms"]
        spent = cpu_seconds(door) - before
        print(
            f"{per_s} events/s to {sockets} sockets: publish to arrival p50 {percentile(ages, 0.5):.1f} ms, "
            f"p99 {percentile(ages, 0.99):.1f} ms; {per_s * SECONDS * sockets / spent:,.0f} deliveries per CPU-second",
            flush=True,
        )
    before, begun = cpu_seconds(door), time.perf_counter()
    burst = BURST * SOCKETS // max(SOCKETS, sockets)
    for _ in range(burst // 500):
        await publish(bus, 500)
    events += burst * others
    seen = await clients.until(events)
    lasted, spent = time.perf_counter() - begun, cpu_seconds(door) - before
    deliveries = burst * sockets - max(0, events - seen["events"])
    print(
        f"{burst} events to {sockets} sockets: {deliveries / spent:,.0f} deliveries per CPU-second "
        f"({deliveries / lasted:,.0f}/s here), {seen['lost']} sockets lost",
        flush=True,
    )


async def main(sockets: int) -> None:
    """Start the servers and the front door, and measure."""
    logger.remove()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket here and one there, each in its own process
    if sockets + 100 > most:
        raise SystemExit(f"a process may open {most} files here: ask for fewer sockets")
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(prepared())
        urls = made.urls
        bus = await stack.enter_async_context(await connect(urls.nats))
        port, door = await stack.enter_async_context(front_door(made.environment))
        key = await _key(port)
        idle = memory_mb([door.pid])
        clients = await Clients.start(stack, port, key, sockets - WITNESSES)
        witnesses = await Clients.start(stack, port, key, WITNESSES)
        await asyncio.sleep(1)
        lost = (await clients.seen())["lost"] + (await witnesses.seen())["lost"]
        assert not lost, f"{lost} sockets could not be opened"
        print(f"memory: {1024 * (memory_mb([door.pid]) - idle) / sockets:.1f} kB per idle socket", flush=True)
        await measure(bus, door.pid, clients, witnesses, sockets)


async def _key(port: int) -> str:
    owner = {"tenant": {"id": TENANT, "name": "b"}, "email": "b@example.com", "password": "correct horse"}
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}/api/v1/") as client:
        async with client.post("auth/signup", json=owner) as answer:
            token = (await answer.json())["access_token"]
        async with client.post("api-keys", json={}, headers={"Authorization": f"Bearer {token}"}) as answer:
            return str((await answer.json())["key"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["listen"]:
        uvloop.run(listen(int(sys.argv[2]), sys.argv[3], int(sys.argv[4])))
    else:
        uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else SOCKETS))
