"""Commands over HTTP: `python -m bench.ingress [SECONDS]`.

POST /messages and enrol against the front door alone, each awaited until the broker has stored it. CPU is that of the
front door, PostgreSQL, the broker and Valkey together, without the client's: whoever sends is no part of the stack. The
streams are emptied before each measurement, because nobody takes from them here. Beside it, in turns, aiohttp that does
nothing but answer: on a busy machine the ratio says more than either figure.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import asyncpg
import uvloop
from loguru import logger

from bench.stack import DATABASE, cpu_seconds, family, front_door, percentile, prepared
from harkara.bus.connection import connect
from harkara.embedded.ports import free_ports
from harkara.embedded.stack import Urls

CONTACTS = 20_000
CONNECTIONS = 64
STEADY_PER_S = 300


class Client:
    """A bare HTTP client on one connection: what it costs itself must not hide what the front door costs."""

    def __init__(self, port: int, head: bytes) -> None:
        self._port, self._head = port, head

    async def open(self) -> None:
        while True:
            try:
                self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
                return
            except ConnectionRefusedError:  # it is being started
                await asyncio.sleep(0.05)

    async def post(self, path: str, body: bytes) -> int:
        """The status of the answer."""
        self._writer.write(
            b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n\r\n%s" % (path.encode(), self._head, len(body), body)
        )
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        await self._reader.readexactly(length)
        return int(head[9:12])


class Load:
    """Sends requests and remembers how long each took."""

    def __init__(self, clients: list[Client], request: Callable[[int], tuple[str, bytes]]) -> None:
        self._clients, self._request, self._next = clients, request, 0
        self.took: list[float] = []

    async def once(self, client: Client) -> None:
        path, body = self._request(self._next)
        self._next += 1
        begun = time.perf_counter()
        status = await client.post(path, body)
        self.took.append(time.perf_counter() - begun)
        if status != 202:
            raise RuntimeError(f"{path} answered {status}")

    async def flat_out(self, seconds: float) -> None:
        """As fast as the connections can."""
        end = time.perf_counter() + seconds

        async def one(client: Client) -> None:
            while time.perf_counter() < end:
                await self.once(client)

        await asyncio.gather(*(one(client) for client in self._clients))

    async def steady(self, seconds: float, per_s: float) -> None:
        """At a steady rate, whatever the answers take."""
        free, running = list(self._clients), set[asyncio.Task[None]]()
        begun = time.perf_counter()

        async def one(client: Client) -> None:
            await self.once(client)
            free.append(client)

        for number in range(int(seconds * per_s)):
            await asyncio.sleep(max(0, begun + number / per_s - time.perf_counter()))
            if free:
                task = asyncio.create_task(one(free.pop()))
                running.add(task)
                task.add_done_callback(running.discard)
        await asyncio.gather(*running)


async def prepare(url: str, urls: Urls) -> tuple[str, str, str, list[str]]:
    """An API key, a sender, an active campaign and the ids of contacts."""
    async with aiohttp.ClientSession(f"{url}/api/v1/") as client:

        async def post(path: str, body: Any = None) -> Any:
            async with client.post(path, json=body) as answer:
                if answer.status >= 300:
                    raise RuntimeError(f"{path}: {await answer.text()}")
                return await answer.json()

        owner = {"tenant": {"id": "bench", "name": "b"}, "email": "b@example.com", "password": "correct horse"}
        client.headers["Authorization"] = f"Bearer {(await post('auth/signup', owner))['access_token']}"
        con = await asyncpg.connect(urls.database("postgres", DATABASE))
        await con.execute("update tenants set plan = 'scale'")  # more than this machine can take
        key = (await post("api-keys", {}))["key"]
        number = {"phone_number_id": "1", "access_token": "t", "app_secret": "s"}
        sender = (await post("senders", {"name": "n", "provider": "cloud", **number}))["id"]
        campaign = (await post("campaigns", {"name": "c", "sender_id": sender}))["id"]
        await post(f"campaigns/{campaign}/steps", {"delay_hours": 0, "body": "Hi {{ name }}"})
        await post(f"campaigns/{campaign}/activate")
    rows = await con.fetch(
        "insert into contacts (id, tenant_id, name, phone, opted_in_at)"
        " select gen_random_uuid(), 'bench', 'Name ' || i, '+9198' || (10000000 + i), now()"
        " from generate_series(1, $1) i returning id",
        CONTACTS,
    )
    await con.execute("analyze contacts")
    await con.close()
    return key, sender, campaign, [str(row[0]) for row in rows]


async def emptied(url: str) -> None:
    """Take away what was published."""
    async with await connect(url) as bus:
        await bus.js.purge_stream("COMMANDS")


async def measure(name: str, load: Load, pids: list[int], seconds: float) -> None:
    """Flat out for the cost, then steadily for the latency."""

    def cpu() -> list[float]:
        return [sum(cpu_seconds(one) for one in family(pid)) for pid in pids]

    await load.flat_out(1)
    load.took.clear()
    before, begun = cpu(), time.perf_counter()
    await load.flat_out(seconds)
    spent = [after - earlier for after, earlier in zip(cpu(), before, strict=True)]
    done, lasted = len(load.took), time.perf_counter() - begun
    parts = ", ".join(
        f"{part} {1e6 * one / done:.0f}"
        for part, one in zip(("door", "postgres", "nats", "valkey"), spent, strict=True)
    )
    load.took.clear()
    await load.steady(seconds, STEADY_PER_S)
    took = [1000 * one for one in load.took]
    print(f"{name}: {done / sum(spent):,.0f} per stack CPU-second ({done / lasted:,.0f}/s here; µs each: {parts});")
    print(
        f"  at {STEADY_PER_S}/s p50 {statistics.median(took):.1f} ms, p99 {percentile(took, 0.99):.1f} ms", flush=True
    )


async def beside(load: Load, nothing: Load, pids: list[int], idle: int, rounds: int) -> None:
    """What both cost, and how many times what aiohttp alone costs, in turns; the medians."""
    ratios: list[tuple[float, float, float]] = []
    for _ in range(rounds):
        costs: list[float] = []
        for one, which in ((load, pids), (nothing, [idle])):
            one.took.clear()
            before = sum(cpu_seconds(member) for pid in which for member in family(pid))
            await one.flat_out(0.5)
            costs.append((sum(cpu_seconds(member) for pid in which for member in family(pid)) - before) / len(one.took))
        ratios.append((costs[0] / costs[1], 1e6 * costs[0], 1e6 * costs[1]))
    ratio, ours, bare = (statistics.median(one) for one in zip(*ratios, strict=True))
    print(f"  in turns: {ours:.0f} µs, {ratio:.2f} times aiohttp that only answers ({bare:.0f} µs)", flush=True)


async def main(seconds: float) -> None:
    """Start the servers and the front door, and measure."""
    logger.remove()
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(prepared())
        urls = made.urls
        port, door = await stack.enter_async_context(front_door(made.environment))
        key, sender, campaign, contacts = await prepare(f"http://127.0.0.1:{port}", urls)
        head = f"Host: x\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n".encode()
        clients = [Client(port, head) for _ in range(CONNECTIONS)]
        for client in clients:
            await client.open()

        def message(number: int) -> tuple[str, bytes]:
            body = {"contact_id": contacts[number % CONTACTS], "sender_id": sender, "body": "Hi {{ first_name }}"}
            return "/api/v1/messages", json.dumps(body).encode()

        def enrolment(number: int) -> tuple[str, bytes]:
            return f"/api/v1/contacts/{contacts[number % CONTACTS]}/campaign/{campaign}/enroll", b""

        (idle_port,) = free_ports(1)
        idle = subprocess.Popen([sys.executable, "-m", "bench.nothing", str(idle_port)])
        stack.callback(idle.wait)
        stack.callback(idle.kill)
        idlers = [Client(idle_port, head) for _ in range(CONNECTIONS)]
        pids = [door.pid, *(made.pids[name] for name in ("postgres", "nats", "valkey"))]
        await measure("POST /messages", Load(clients, message), pids, seconds)
        for client in idlers:
            await client.open()
        await emptied(urls.nats)
        await beside(Load(clients, message), Load(idlers, message), pids, idle.pid, int(4 * seconds))
        await emptied(urls.nats)
        await measure("enrol one", Load(clients, enrolment), pids, seconds)


if __name__ == "__main__":
    uvloop.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 5))
