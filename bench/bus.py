"""What the bus costs: `python -m bench.bus` starts a broker of its own and prints CPU and wall time per message.

CPU is this process's alone (client side, all that Harkara adds); the broker runs beside it on the same machine.
Medians of five rounds; on a shared machine read ratios.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import uvloop

from harkara.bus import topology
from harkara.bus.connection import Bus, connect
from harkara.bus.frame import Frame
from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Outcome
from harkara.bus.schedule import Schedule
from harkara.embedded.ports import free_ports
from harkara.schemas.base import Message
from harkara.schemas.commands import StartEnrollment
from harkara.schemas.events import EnrollmentStarted

ROUNDS = 5


def out(number: int, tag: str) -> Outgoing:
    message = StartEnrollment(campaign_id="0199c0de-0000-7000-8000-000000000001", contact_id=f"contact-{number}")
    return Outgoing(message, "bench", f"{tag}-{number}", f"cause-{number}")


class Counting:
    """Does nothing but count, and say one event each if told to."""

    name: ClassVar[str] = "enrollment"
    takes: ClassVar[tuple[type[Message], ...]] = (StartEnrollment,)
    retries: ClassVar[Schedule] = Schedule.seconds(1)
    batch: ClassVar[int] = 100
    in_flight: ClassVar[int] = 4

    def __init__(self, expected: int, *, events: bool = False) -> None:
        self.left = expected
        self.events = events
        self.done = asyncio.Event()

    async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
        self.left -= len(batch)
        if self.left <= 0:
            self.done.set()
        return [Done(self._said(one)) for one in batch]

    def _said(self, one: Delivery[Any]) -> tuple[Outgoing, ...]:
        if not self.events:
            return ()
        said = EnrollmentStarted(id=one.id, campaign_id="c", contact_id="c")
        return (Outgoing(said, one.tenant, f"started-{one.id}", one.cause),)


class Timed(Counting):
    """Says when it was handed something."""

    def __init__(self, expected: int) -> None:
        super().__init__(expected)
        self.handed: asyncio.Queue[float] = asyncio.Queue()

    async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
        self.handed.put_nowait(asyncio.get_running_loop().time())
        return await super().handle(batch)


@contextlib.asynccontextmanager
async def broker() -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory() as store:
        (port,) = free_ports(1)
        binary = Path(sys.executable).with_name("nats-server")
        server = subprocess.Popen(
            [binary, "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", store], stderr=subprocess.DEVNULL
        )
        try:
            yield f"nats://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


async def measure(name: str, count: int, work: Callable[[int], Awaitable[None]]) -> None:
    cpu: list[float] = []
    wall: list[float] = []
    for number in range(ROUNDS):
        began, used = time.perf_counter(), time.process_time()
        await work(number)
        cpu.append((time.process_time() - used) / count * 1e6)
        wall.append((time.perf_counter() - began) / count * 1e6)
    report(name, cpu, wall)


async def publishing(bus: Bus) -> None:
    async def one_by_one(number: int) -> None:
        for index in range(1000):
            await bus.publisher.publish(out(index, f"one-{number}"))

    async def concurrently(number: int) -> None:
        for start in range(0, 5000, 100):
            await asyncio.gather(
                *(bus.publisher.publish(out(index, f"co-{number}")) for index in range(start, start + 100))
            )

    async def many(number: int) -> None:
        for start in range(0, 10_000, 1000):
            await bus.publisher.publish_many([out(i, f"many-{number}") for i in range(start, start + 1000)])

    await measure("publish, awaited one by one", 1000, one_by_one)
    await bus.js.purge_stream("COMMANDS")
    await measure("publish, 100 coroutines at once", 5000, concurrently)
    await bus.js.purge_stream("COMMANDS")
    await measure("publish_many of 1,000", 10_000, many)
    await bus.js.purge_stream("COMMANDS")


def report(name: str, cpu: list[float], wall: list[float]) -> None:
    print(f"{name:<58} {statistics.median(cpu):7.1f} µs CPU {statistics.median(wall):8.1f} µs wall per message")


@contextlib.asynccontextmanager
async def on_frame(bus: Bus, url: str, actor: Counting) -> AsyncIterator[None]:
    frame = Frame(url, bus.publisher.send)
    frame.declare(actor)
    async with frame.run():
        yield


async def consuming(name: str, bus: Bus, start: Callable[[Counting], Any], *, events: bool) -> None:
    count = 10_000
    cpu: list[float] = []
    wall: list[float] = []
    for number in range(ROUNDS):
        tag = f"{name}-{events}-{number}"
        for first in range(0, count, 1000):
            await bus.publisher.publish_many([out(index, tag) for index in range(first, first + 1000)])
        actor = Counting(count, events=events)
        began, used = time.perf_counter(), time.process_time()
        async with start(actor):
            await actor.done.wait()
            cpu.append((time.process_time() - used) / count * 1e6)
            wall.append((time.perf_counter() - began) / count * 1e6)
    report(f"{name}, batch 100: {'one event each, ack' if events else 'decode, hand over, ack'}", cpu, wall)


async def latency(name: str, bus: Bus, start: Callable[[Counting], Any]) -> None:
    """From publishing to the handler, one message at a time, with nothing else to do."""
    times: list[float] = []
    loop = asyncio.get_running_loop()
    actor = Timed(100)
    async with start(actor):
        for number in range(100):
            began = loop.time()
            await bus.publisher.publish(out(number, f"latency-{name}"))
            times.append(await actor.handed.get() - began)
            await asyncio.sleep(0.013)
    times.sort()
    late = sum(one > 1 for one in times)
    print(f"{name}, idle: {times[50] * 1e3:.1f} ms at the median, {times[95] * 1e3:.1f} ms at 95 %, {late} over 1 s")


async def main() -> None:
    async with broker() as url, await connect(url) as bus:
        await topology.apply(bus.js)
        await publishing(bus)
        carriers: dict[str, Callable[[Counting], Any]] = {
            "pull runner": bus.run,
            "FastStream": lambda actor: on_frame(bus, url, actor),
        }
        for name, start in carriers.items():
            await consuming(name, bus, start, events=False)
            await consuming(name, bus, start, events=True)
        for name, start in carriers.items():
            await latency(name, bus, start)


if __name__ == "__main__":
    print("asyncio")
    asyncio.run(main())
    print("uvloop")
    uvloop.run(main())
