"""Many numbers at once: `python -m bench.senders [NUMBERS]`.

One process with front door and all actors, the sandbox beside it. Each of NUMBERS numbers of 20 tenants gets a message,
so that it is pulled for; then all are idle; then messages come at a hundred a second, each to another number.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from uuid import UUID

import uvloop
from loguru import logger

from bench.crowd import arrivals, open_bus, publish, tenant, unlimited, work
from bench.stack import Running, family, memory_mb, percentile, running
from harkara.bus.connection import Bus

NUMBERS, TENANTS = 2_000, 20
IDLE_S, PER_S, PROBES = 15.0, 100, 1_500


async def main(numbers: int) -> None:
    """Make them, let them rest, and send."""
    logger.remove()
    async with AsyncExitStack() as stack:
        run = await stack.enter_async_context(running())
        bus = await open_bus(run, stack)
        await unlimited(run)
        everyone: list[tuple[str, UUID, UUID]] = []
        for n in range(TENANTS):
            senders, contact = await tenant(run, f"tenant-{n:02d}", numbers // TENANTS, 80)
            everyone += [(f"tenant-{n:02d}", sender, contact) for sender in senders]
        bare, before, begun = _memory(run), run.cpu(), time.monotonic()
        await publish(bus, [work(*one, "utility") for one in everyone])
        while await _left(bus) and time.monotonic() - begun < 90:
            await asyncio.sleep(0.2)
        spent = {name: after - before[name] for name, after in run.cpu().items()}
        print(f"{numbers} numbers woken and served in {time.monotonic() - begun:.1f} s; CPU s: {_told(spent)}")
        before = run.cpu()
        await asyncio.sleep(IDLE_S)
        spent = {name: (after - before[name]) / IDLE_S for name, after in run.cpu().items()}
        consumers = (await bus.js.stream_info("SEND")).state.consumer_count
        print(
            f"idle, {consumers} durables: cores: {_told(spent)}; memory {_memory(run) - bare:.0f} MB more",
            flush=True,
        )
        sent: dict[str, float] = {}
        for n in range(PROBES):
            out = work(*everyone[n * 7 % len(everyone)], "utility")
            sent[out.id] = time.time()
            await publish(bus, [out])
            await asyncio.sleep(1 / PER_S)
        await asyncio.sleep(2)
        seen = await arrivals(run, [sender for _, sender, _ in everyone])
        took = [1000 * (seen[id_] - at) for id_, at in sent.items() if id_ in seen]
        print(f"{len(took)} of {PROBES}: p50 {percentile(took, 0.5):.1f} ms, p99 {percentile(took, 0.99):.1f} ms")


def _memory(run: Running) -> float:
    return memory_mb(family(run.process.pid) + [pid for one in run.servers.values() for pid in family(one)])


async def _left(bus: Bus) -> int:
    """How many wait; 1 if the broker is too busy to say."""
    try:
        return int((await bus.js.stream_info("SEND")).state.messages)
    except TimeoutError:
        return 1


def _told(parts: dict[str, float]) -> str:
    return ", ".join(f"{name} {one:.2f}" for name, one in parts.items())


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else NUMBERS))
