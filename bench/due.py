"""From due to gateway: `python -m bench.due`.

`harkara up` runs as one process (front door and all actors) with the sandbox gateway beside it; PostgreSQL, the broker
and Valkey share the machine. Latency is the gateway's own time of acceptance minus the time at which the step was due.
"""

from __future__ import annotations

import asyncio
import time
from datetime import datetime
from typing import Any

import aiohttp
import uvloop

from bench.stack import Running, enroll, family, memory_mb, percentile, running, shop


async def accepted(run: Running, count: int, within_s: float) -> dict[str, float]:
    """What the gateway accepted: our message ids and its times. Fails on a message that came twice."""
    end = time.monotonic() + within_s
    async with aiohttp.ClientSession(run.gateway) as client:
        while True:
            items = await _all(client)
            if len(items) >= count:
                break
            if time.monotonic() > end:
                raise TimeoutError(f"only {len(items)} of {count} messages within {within_s:.0f} s")
            await asyncio.sleep(0.5)
    seen = {item["biz_opaque_callback_data"]: datetime.fromisoformat(item["accepted_at"]).timestamp() for item in items}
    assert len(seen) == len(items), f"{len(items) - len(seen)} messages were sent twice"
    return seen


async def _all(client: aiohttp.ClientSession) -> list[Any]:
    items, cursor = list[Any](), ""
    while True:
        page = await _page(client, cursor)
        items += page["items"]
        if not (cursor := page["next"]):
            return items


async def _page(client: aiohttp.ClientSession, cursor: str) -> Any:
    query = {"limit": "1000", **({"cursor": cursor} if cursor else {})}
    async with client.get("/sandbox/messages", params=query) as answer:
        answer.raise_for_status()
        return await answer.json()


async def measure(name: str, count: int, due: str, wait_s: float) -> None:
    """One case on a fresh stack."""
    async with running() as run:
        made = await shop(run, count)
        idle = memory_mb(family(run.process.pid) + [pid for one in run.servers.values() for pid in family(one)])
        before, begun = run.cpu(), time.monotonic()
        await enroll(run, made, due, count)
        await asyncio.sleep(wait_s)
        times = await accepted(run, count, 120)
        after = run.cpu()
        full = memory_mb(family(run.process.pid) + [pid for one in run.servers.values() for pid in family(one)])
        rows = await run.sql("select id::text, due_at from messages")
        latencies = [times[row[0]] - row[1].timestamp() for row in rows if row[0] in times]
        assert len(latencies) == count
        assert min(latencies) > -0.002, f"a message left {-min(latencies) * 1000:.1f} ms before it was due"
        spread = " ".join(f"{part} {after[part] - before[part]:.2f}" for part in after)
        p50, p99 = (percentile(latencies, share) * 1000 for share in (0.5, 0.99))
        print(
            f"{name:28} p50 {p50:7.1f} ms  p99 {p99:7.1f} ms  last {max(latencies) * 1000:7.1f} ms"
            f"   CPU s: {spread}   memory {idle:.0f} -> {full:.0f} MB   ({time.monotonic() - begun:.0f} s)",
            flush=True,
        )


async def main() -> None:
    await measure(
        "steady 80 a second, 20 s", 1600, "date_trunc('second', now()) + interval '5 s' + n * interval '12500 us'", 26
    )
    await measure("1,000 at the same instant", 1000, "date_trunc('second', now()) + interval '5 s'", 6)
    await measure("10,000 at the same instant", 10_000, "date_trunc('second', now()) + interval '8 s'", 12)


if __name__ == "__main__":
    uvloop.run(main())
