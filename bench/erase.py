"""What a tenant's end takes, and whether others feel it: `python -m bench.erase [MESSAGES]`.

One process with front door and all actors, the sandbox beside it. Single messages of tenant B are sent ten times a
second, first beside tenant A at work, then while `harkara ops erase tenant` takes out tenant A: as many rows of
messages and of the audit log as MESSAGES says, twice as many events, a fifth as many contacts, half as many that wait.
`left` and `arrived` are what `bench.fairness` says.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import AsyncExitStack
from uuid import UUID

import uvloop
from loguru import logger

from bench.crowd import CHUNK, open_bus, publish, tenant, unlimited, work
from bench.fairness import MPS, Probe, probe
from bench.stack import APPLICATION, DATABASE, OWNER, Running, running
from harkara.bus.connection import Bus
from harkara.bus.messages import Packet

MESSAGES = 100_000

ROWS = """
insert into messages (id, tenant_id, contact_id, sender_id, lane, "to", content, status, cause, attempts, due_at)
select app.uuid7(), 'aaa', $3, $2, 'utility', '+919812345678', '{"body":"Hi Asha"}', 'read', 'bench', 1, now()
from generate_series(1, $1) n
"""

CONTACTS = """
insert into contacts (id, tenant_id, name, phone)
select app.uuid7(), 'aaa', 'Asha Rao', '+9177' || 10000000 + n from generate_series(1, $1 / 5) n
"""

ENTRIES = """
insert into audit_log (id, tenant_id, action, entity, entity_id, request_id, address, via, after)
select app.uuid7(), 'aaa', 'create', 'contact', n, 'bench', '', 'bench', '{"name":"Asha Rao"}'
from generate_series(1, $1) n
"""

EVENT = b'{"id":"01982c51-5f3a-7cc1-b4a0-3d1f6e2a9b07","contact_id":"01982c51-5f3a-7cc1-b4a0-3d1f6e2a9b07","step":0}'


async def fill(run: Running, bus: Bus, messages: int, sender: UUID, contact: UUID) -> None:
    """Give tenant A all that it has."""
    await run.sql(ROWS, messages, sender, contact)
    await run.sql(CONTACTS, messages)
    await run.sql(ENTRIES, messages)
    await run.sql("analyze")
    for _ in range(0, 2 * messages, CHUNK):
        await bus.publisher.send([Packet("t.aaa.evt.message.read", EVENT) for _ in range(CHUNK)])
    for _ in range(0, messages // 2, CHUNK):
        await publish(bus, [work("aaa", sender, contact, "marketing") for _ in range(CHUNK)])


async def erase(run: Running) -> None:
    """Run the command, and tell what it found, and how long it took."""
    environ = os.environ | {
        "DATABASE_URL": run.urls.database(APPLICATION, DATABASE),
        "DATABASE_DIRECT_URL": run.urls.database(OWNER, DATABASE),
        "NATS_URL": run.urls.nats,
        "REDIS_URL": run.urls.redis,
        "LOG_LEVEL": "WARNING",
    }
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harkara", "ops", "erase", "tenant", "aaa", "--yes", "--json"),
        stdout=asyncio.subprocess.PIPE,
        env=environ,
    )
    out, _ = await process.communicate()
    told = json.loads(out)
    if not told["erased"]:
        raise SystemExit(f"something is left: {told}")
    found = {one["place"]: one["found"] for one in told["places"] if one["found"]}
    print(f"erased in {time.monotonic() - begun:.1f} s, the wait of 20 s included: {found}", flush=True)


async def main(messages: int) -> None:
    """Measure both."""
    logger.remove()
    async with AsyncExitStack() as stack:
        run = await stack.enter_async_context(running())
        bus = await open_bus(run, stack)
        await unlimited(run)
        (a,), a_contact = await tenant(run, "aaa", 1, MPS)
        (b,), b_contact = await tenant(run, "bbb", 1, MPS)
        await publish(bus, [work("bbb", b, b_contact, "utility")])
        await fill(run, bus, messages, a, a_contact)
        await asyncio.sleep(8)
        kinds: list[Probe] = [("bbb", b, b_contact, "utility")]
        await probe(run, bus, "beside A at work", kinds)
        erasing = asyncio.create_task(erase(run))
        while not erasing.done():
            await probe(run, bus, "while A is erased", kinds)
        await erasing
        await probe(run, bus, "afterwards", kinds)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else MESSAGES))
