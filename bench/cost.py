"""What one message costs whoever sends it: `python -m bench.cost [MESSAGES] [ANSWER_MS]`.

The ticker has put all messages into one number's queue; then one process with the sender alone sends them to a gateway
that answers each after ANSWER_MS. Gate, budgets, intent and result rows and events are on. The CPU of the sender,
PostgreSQL, broker and Valkey counts, from when a tenth has been sent to when nine tenths have; the gateway's does not.
`python -m bench.cost profile` samples the sender meanwhile (which costs it some) and tells where its time goes.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import uvloop
from loguru import logger
from msgspec import Struct

from bench.saturate import enrol, prepare
from bench.stack import (
    DATABASE,
    cpu_seconds,
    family,
    front_door,
    harkara,
    prepared,
)
from harkara.bus.connection import connect
from harkara.embedded.ports import free_ports
from harkara.embedded.stack import Urls

MESSAGES = 20_000
RATE = 10_000
SAMPLER = Path(__file__).parent / "sampler"


class Gateway(asyncio.Protocol):
    """One connection of the Cloud API, as little of it as will do; `count` is of all connections together."""

    count = 0
    answer_s = 0.0

    def __init__(self) -> None:
        self._rest = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._rest += data
        while (end := self._rest.find(b"\r\n\r\n")) >= 0:
            length = int(self._rest[:end].lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
            if len(self._rest) < end + 4 + length:
                return
            self._rest = self._rest[end + 4 + length :]
            if self.answer_s:
                asyncio.get_running_loop().call_later(self.answer_s, self._answer)
            else:
                self._answer()

    def _answer(self) -> None:
        Gateway.count += 1
        answer = b'{"messages":[{"id":"wamid.%d"}]}' % Gateway.count
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer))


async def gateway(port: int, answer_s: float) -> None:
    """The gateway's process: tells how many it has taken for each line it is sent."""
    Gateway.answer_s = answer_s
    loop = asyncio.get_running_loop()
    await loop.create_server(Gateway, "127.0.0.1", port, backlog=2048)
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    print(0, flush=True)
    while await reader.readline():
        print(Gateway.count, flush=True)


async def queued(urls: Urls, messages: int) -> None:
    """Return when so many messages wait for the sender."""
    async with await connect(urls.nats) as bus:
        while (await bus.js.stream_info("SEND")).state.messages < messages:
            await asyncio.sleep(0.2)


def tell_profile(path: Path, us: float) -> None:
    """Where the sender's time goes, a message."""
    parts = json.loads(path.read_text())
    whole = sum(count for _, count in parts)
    for name, count in parts:
        print(f"{us * count / whole:6.0f} µs  {100 * count / whole:4.1f} %  {name}")


class Cost(Struct, frozen=True):
    """What was measured: messages a second, and CPU seconds a message by part of the stack."""

    rate: float
    parts: dict[str, float]

    @property
    def per_cpu_second(self) -> float:
        """Messages per CPU-second of all parts together."""
        return 1 / sum(self.parts.values())

    def __str__(self) -> str:
        return (
            f"{self.rate:,.0f} messages a second, {self.per_cpu_second:,.0f} per CPU-second of the stack;"
            f" µs a message: {', '.join(f'{name} {1e6 * one:.0f}' for name, one in self.parts.items())}"
        )


@asynccontextmanager
async def answering(port: int, answer_s: float = 0) -> AsyncIterator[Any]:
    """The gateway's process, ready, which `measure` asks how many it has taken."""
    command = (sys.executable, "-m", "bench.cost", "gateway", str(port), str(answer_s))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    try:
        assert process.stdout is not None
        await process.stdout.readline()
        yield process
    finally:
        process.terminate()
        await process.wait()


async def measure(asked: Any, pids: dict[str, int], messages: int) -> Cost:
    """Take CPU and count when a tenth has gone, and again when nine tenths have."""

    async def seen() -> int:
        asked.stdin.write(b"\n")
        return int(await asked.stdout.readline())

    async def at(least: int) -> tuple[int, float, dict[str, float]]:
        while (count := await seen()) < least:
            await asyncio.sleep(0.02)
        cpu = {name: sum(map(cpu_seconds, family(pid))) for name, pid in pids.items()}
        return count, asyncio.get_running_loop().time(), cpu

    first, begun, before = await at(messages // 10)
    last, ended, after = await at(messages * 9 // 10)
    return Cost(
        (last - first) / (ended - begun), {name: (after[name] - before[name]) / (last - first) for name in pids}
    )


async def cost(messages: int, answer_ms: int = 0, profile: Path | None = None) -> Cost:
    """Start the servers, fill the queue, send; what the sender was sampled at is in `profile` then, if one is given."""
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(prepared())
        urls = made.urls
        (gateway_port,) = free_ports(1)
        environment = made.environment | {"WHATSAPP_GATEWAY_URL": f"http://127.0.0.1:{gateway_port}"}
        async with front_door(environment) as (port, _):
            _, campaign = await prepare(f"http://127.0.0.1:{port}", urls, messages, mps=RATE, delays=(0, 24))
        con = await asyncpg.connect(urls.database("postgres", DATABASE))
        stack.push_async_callback(con.close)
        await enrol(con, campaign)
        async with harkara(environment, "actor", "ticker"):
            await queued(urls, messages)
        asked = await stack.enter_async_context(answering(gateway_port, answer_ms / 1000))
        if profile:
            path = os.pathsep.join((str(SAMPLER), os.environ.get("PYTHONPATH", "")))
            environment |= {"PYTHONPATH": path, "PROFILE_OUT": str(profile)}
        async with harkara(environment, "actor", "sender") as sender:
            return await measure(asked, {"sender": sender.pid} | made.pids, messages)


async def main(messages: int, answer_ms: int, *, profile: bool) -> None:
    """Measure and tell."""
    logger.remove()
    with tempfile.TemporaryDirectory(prefix="harkara-bench-") as directory:
        path = Path(directory) / "profile.json" if profile else None
        measured = await cost(messages, answer_ms, path)
        print(measured)
        if path:
            tell_profile(path, 1e6 * measured.parts["sender"])


if __name__ == "__main__":
    given = sys.argv[1:]
    if given[:1] == ["gateway"]:
        uvloop.run(gateway(int(given[1]), float(given[2])))
    else:
        numbers = [int(one) for one in given if one != "profile"]
        messages, answer_ms = (*numbers, *(MESSAGES, 0)[len(numbers) :])
        uvloop.run(main(messages, answer_ms, profile="profile" in given))
