"""Whether others feel it: `python -m bench.fairness [WAITING]`.

One process with front door and all actors, the sandbox beside it. Single messages of tenant B, and codes through tenant
A's own number, are sent ten times a second, first on an empty system, then while WAITING marketing messages of tenant A
wait for that number, then while besides a number's gateway never answers, one tenant's credentials are refused, and
messages that can't be read lie in a queue. `arrived` is the gateway's time of acceptance minus that of the publish;
`left` is when the attempt was written, right before the request.
"""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import aiohttp
import uvloop
from loguru import logger

from bench.crowd import CHUNK, arrivals, open_bus, publish, tenant, unlimited, work
from bench.stack import Running, percentile, running
from harkara.bus.connection import Bus
from harkara.bus.messages import Packet
from harkara.schemas.commands import Lane

WAITING = 200_000
PROBES, EVERY_S = 600, 0.1
MPS = 80

Probe = tuple[str, UUID, UUID, Lane]


async def probe(run: Running, bus: Bus, name: str, of: list[Probe]) -> list[float]:
    """Send each of these kinds of message again and again, and tell how fast they reached the gateway."""
    sent: list[dict[str, float]] = [{} for _ in of]
    for _ in range(PROBES):
        begun = time.monotonic()
        for kind, times in zip(of, sent, strict=True):
            out = work(*kind)
            times[out.id] = time.time()
            await publish(bus, [out])
        await asyncio.sleep(max(0, EVERY_S - (time.monotonic() - begun)))
    await asyncio.sleep(2)
    seen = await arrivals(run, list({kind[1] for kind in of}))
    rows = await run.sql(
        "select id::text, attempted_at from messages where id = any ($1)",
        [UUID(id_) for times in sent for id_ in times],
    )
    left = {row["id"]: row["attempted_at"].timestamp() for row in rows if row["attempted_at"]}
    p99s: list[float] = []
    for kind, times in zip(of, sent, strict=True):
        told = list[str]()
        for word, found in (("left", left), ("arrived", seen)):
            took = [1000 * (found[id_] - at) for id_, at in times.items() if id_ in found]
            p99s.append(percentile(took, 0.99))
            told.append(f"{len(took)} {word}, p50 {percentile(took, 0.5):.1f} ms, p99 {p99s[-1]:.1f} ms")
        print(f"{name}: {kind[3]} of {kind[0]}: {'; '.join(told)}", flush=True)
    return p99s


async def trouble(run: Running, bus: Bus) -> None:
    """A number whose gateway never answers, one whose credentials are refused, and messages nobody can read."""
    (dead, refused, poisoned), contact = await tenant(run, "unlucky", 3, MPS)
    faults: list[dict[str, Any]] = [{"kind": "hang", "phone_number_id": "9" + dead.hex[:20]}]
    faults += [{"kind": "error", "code": 190, "phone_number_id": "9" + refused.hex[:20]}]
    async with aiohttp.ClientSession(run.gateway) as client, client.put("/sandbox/faults", json=faults) as answer:
        answer.raise_for_status()
    for sender in (dead, refused):
        await publish(bus, [work("unlucky", sender, contact, "marketing") for _ in range(CHUNK)])
    packets = [Packet(f"t.unlucky.work.send.{poisoned}.utility", b"{", {"Nats-Msg-Id": f"x.{n}"}) for n in range(100)]
    await bus.publisher.send(packets)


async def main(waiting: int) -> None:
    """Measure the three, one after the other."""
    logger.remove()
    async with AsyncExitStack() as stack:
        run = await stack.enter_async_context(running())
        bus = await open_bus(run, stack)
        await unlimited(run)
        (a,), a_contact = await tenant(run, "aaa", 1, MPS)
        (b,), b_contact = await tenant(run, "bbb", 1, MPS)
        kinds: list[Probe] = [("bbb", b, b_contact, "utility"), ("aaa", a, a_contact, "otp")]
        await publish(bus, [work(*kind) for kind in kinds])  # their numbers are known and pulled for
        await asyncio.sleep(8)
        empty = await probe(run, bus, "empty", kinds)
        for _ in range(0, waiting, CHUNK):
            await publish(bus, [work("aaa", a, a_contact, "marketing") for _ in range(CHUNK)])
        crowded = await probe(run, bus, f"{waiting} waiting", kinds)
        await trouble(run, bus)
        troubled = await probe(run, bus, "and trouble", kinds)
        words = [f"{kind[3]} of {kind[0]} {word}" for kind in kinds for word in ("left", "arrived")]
        for about, *p99s in zip(words, empty, crowded, troubled, strict=True):
            first, *others = p99s
            print(f"{about}: p99 against empty: " + ", ".join(f"{one / first:.2f}" for one in others))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else WAITING))
