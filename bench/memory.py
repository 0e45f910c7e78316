"""Memory of `harkara up` in a large campaign: `python -m bench.memory [MESSAGES] [A_SECOND]`.

A bulk enrols everybody over HTTP, and one number of so many messages a second sends to all of them; the sandbox gateway
reports sent, delivered and read. Counted are all processes together, the sandbox and all servers too:
each one's own pages, and shared memory once.
"""

from __future__ import annotations

import asyncio
import sys
import time

import aiohttp
import uvloop

from bench.stack import Running, family, memory_mb, running, shop

MESSAGES, A_SECOND = 100_000, 1_000

_ARRIVED = "select count(*) filter (where delivered_at is not null) as arrived, count(*) as rows from messages"


def parts(run: Running) -> dict[str, float]:
    """MB of each part, and of all."""
    main, *gateway = family(run.process.pid)
    pids = {"harkara": [main], "sandbox": gateway} | {name: family(pid) for name, pid in run.servers.items()}
    every = [pid for some in pids.values() for pid in some]
    return {name: memory_mb(some) for name, some in pids.items()} | {"all": memory_mb(every)}


def told(mb: dict[str, float]) -> str:
    return ", ".join(f"{name} {one:.0f}" for name, one in mb.items())


async def main(messages: int, a_second: int) -> None:
    async with running() as run:
        made = await shop(run, messages, mps=a_second)
        print(f"at rest: {told(parts(run))} MB", flush=True)
        begun = time.monotonic()
        async with (
            aiohttp.ClientSession(run.door, headers={"Authorization": f"Bearer {made.token}"}) as client,
            client.post(f"/api/v1/campaigns/{made.campaign_id}/enroll", json={"all": True}) as answer,
        ):
            assert answer.status == 202, await answer.text()
        samples = list[dict[str, float]]()
        arrived = 0
        while arrived < messages:
            await asyncio.sleep(1)
            samples.append(parts(run))
            if len(samples) % 10 == 0:
                [row] = await run.sql(_ARRIVED)
                arrived = row["arrived"]
                print(f"{time.monotonic() - begun:4.0f} s: {row['rows']} sent, {arrived} there: {told(samples[-1])} MB")
        most = max(samples, key=lambda one: one["all"])
        usual = sorted(one["all"] for one in samples)[len(samples) // 2]
        print(f"all in {time.monotonic() - begun:.0f} s: {usual:.0f} MB (median); most: {told(most)} MB")


if __name__ == "__main__":
    asked = [int(one) for one in sys.argv[1:]]
    uvloop.run(main(*asked, *(MESSAGES, A_SECOND)[len(asked) :]))
