"""Partners on NATS: `python -m bench.partners [TIMES]`.

Connecting is measured from opening the socket to the answer to the first PING, one after the other, in turn: a user of
the broker's own configuration, about whom nobody is asked; a partner whose key the front door was asked about a moment
ago; and partners whose keys it has never seen. Then one command after the other, over NATS and over HTTP.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import nats
import uvloop

from bench.stack import Running, percentile, running

TIMES = 500


async def connecting(address: tuple[str, int], user: str, password: str) -> float:
    """Seconds until the broker has let somebody in."""
    told = {"user": user, "pass": password, "verbose": False, "pedantic": False, "protocol": 1, "headers": True}
    begun = time.perf_counter()
    reader, writer = await asyncio.open_connection(*address)
    await reader.readline()
    writer.write(b"CONNECT " + json.dumps(told).encode() + b"\r\nPING\r\n")
    answer = await reader.readline()
    while answer.startswith(b"INFO"):
        answer = await reader.readline()
    took = time.perf_counter() - begun
    writer.close()
    await writer.wait_closed()
    if not answer.startswith(b"PONG"):
        raise RuntimeError(f"the broker said {answer.decode()}")
    return took


def show(what: str, seconds: list[float], beside: list[float] | None = None) -> None:
    """One line of milliseconds; `beside` is what it is compared with."""
    line = f"{what:44} p50 {statistics.median(seconds) * 1e3:6.2f}  p99 {percentile(seconds, 0.99) * 1e3:6.2f} ms"
    if beside:
        line += f"   p50 is {(statistics.median(seconds) - statistics.median(beside)) * 1e3:+.2f} ms"
    print(line, flush=True)


async def connects(run: Running, tenant: str, keys: list[str]) -> None:
    """All three kinds in turn, so that what else the machine does falls on all."""
    url = urlsplit(run.urls.nats)
    address = (url.hostname or "", url.port or 0)
    own, known, new = list[float](), list[float](), list[float]()
    await connecting(address, tenant, keys[0])
    for key in keys[1:]:
        own.append(await connecting(address, url.username or "", url.password or ""))
        known.append(await connecting(address, tenant, keys[0]))
        new.append(await connecting(address, tenant, key))
    show("connect, a user of the configuration", own)
    show("connect, a partner", known, own)
    show("connect, a partner whose key is new", new, own)


async def commands(run: Running, client: aiohttp.ClientSession, tenant: str, key: str, sender: str, times: int) -> None:
    """The same messages, one after the other, over both."""
    url = urlsplit(run.urls.nats)
    broker = await nats.connect(
        f"nats://{url.hostname}:{url.port}", user=tenant, password=key, inbox_prefix=f"_INBOX_{tenant}"
    )
    over_nats, over_http = list[float](), list[float]()
    for number in range(times):
        wanted = json.dumps({"sender_id": sender, "to": f"+9198{10_000_000 + number}", "body": "Hello"}).encode()
        begun = time.perf_counter()
        answer = await broker.request(f"t.{tenant}.cmd.message.send", wanted, timeout=10)
        over_nats.append(time.perf_counter() - begun)
        if json.loads(answer.data)["status"] != "accepted":
            raise RuntimeError(answer.data.decode())
        head = {"X-API-Key": key, "Content-Type": "application/json"}
        begun = time.perf_counter()
        async with client.post("/api/v1/messages", data=wanted, headers=head) as response:
            await response.read()
        over_http.append(time.perf_counter() - begun)
    await broker.close()
    show("message.send over HTTP", over_http)
    show("message.send over NATS", over_nats, over_http)


async def post(client: aiohttp.ClientSession, path: str, body: Any) -> Any:
    """What a POST answers."""
    async with client.post(f"/api/v1{path}", json=body) as answer:
        answer.raise_for_status()
        return await answer.json()


async def main(times: int) -> None:
    """One tenant on a fresh stack."""
    async with running() as run, aiohttp.ClientSession(run.door) as client:
        tenant = "bench-partners"
        owner = {"tenant": {"id": tenant, "name": tenant}, "email": "p@example.com", "password": "correct horse 1"}
        token = (await post(client, "/auth/signup", owner))["access_token"]
        bearer = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(run.door, headers=bearer) as own:
            keys = [(await post(own, "/api-keys", {}))["key"] for _ in range(times + 1)]
            sender = (await post(own, "/senders", {"name": "n", "provider": "sandbox", "mps": 10_000}))["id"]
        await connects(run, tenant, keys)
        await commands(run, client, tenant, keys[0], sender, times)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else TIMES))
