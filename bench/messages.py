"""Pages of messages: `python -m bench.messages [ROWS]`: 50 of so many, by every filter, through the front door.

Nine tenth of the rows are one tenant's, over two months. The worst filters are those that nothing passes.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import quote

import aiohttp
import asyncpg
import uvloop
from loguru import logger

from bench.ingress import prepare
from bench.stack import APPLICATION, DATABASE, OWNER, free_port, percentile, until_ready
from harkara.bus import topology
from harkara.bus.connection import connect
from harkara.embedded.stack import Stack
from harkara.ids import uuid7
from harkara.storage.migrate import bootstrap, migrate

ROWS = 1_000_000
TIMES = 20

#: The others are `read`; a thousandth failed, a thousandth was kept back, one waits.
FILL = """
insert into messages (id, tenant_id, contact_id, sender_id, lane, "to", content, status, reason, error_code, cause,
                      attempts, due_at, created_at, attempted_at, sent_at, delivered_at, read_at, failed_at)
select overlay(gen_random_uuid()::text placing left(app.uuid7_floor(at)::text, 15) from 1 for 15)::uuid,
       case when n % 10 = 0 then 'other' else 'bench' end, null,
       case when n % 10 = 0 then $3::uuid else $2::uuid end, 'utility', '+919812345678', '{"body":"Hi Asha"}', status,
       case status when 'suppressed' then 'opted_out' when 'failed' then 'Message undeliverable' end,
       case status when 'failed' then 131026 end, 'bench', 1, at, at, at, case when status = 'read' then at end,
       case when status = 'read' then at end, case when status = 'read' then at end,
       case when status = 'failed' then at end
from (select n, now() - interval '30 days' * n / $1 as at,
             case n % 1000 when 501 then 'failed' when 502 then 'suppressed' else 'read' end as status
      from generate_series(1, $1) n) one
"""


async def fill(url: str, rows: int, sender: str) -> None:
    """The rows, and a second tenant."""
    con = await asyncpg.connect(url)
    other = uuid7()
    await con.execute("insert into tenants (id, name, created_at, updated_at) values ('other', 'o', now(), now())")
    await con.execute(
        'insert into senders (id, tenant_id, name, provider, phone_number_id, verify_token, mps, "window", status)'
        " values ($1, 'other', 'n', 'cloud', '2', 'v', 80, 'ignore', 'active')",
        other,
    )
    for _ in range(10):
        await con.execute(FILL, rows // 10, sender, other, timeout=600)
    await con.execute("vacuum analyze messages", timeout=600)
    await con.close()


async def measure(url: str, key: str, sender: str) -> None:
    """Each filter, so many times; the first time is not counted."""
    week = quote(time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() - 14 * 86400)))
    nobody = uuid7()
    async with aiohttp.ClientSession(url, headers={"X-API-Key": key}) as client:
        middle = ""
        for query in (
            "", "status=read", "status=failed", "status=suppressed", "status=queued", "status=unknown", "lane=otp",
            f"sender_id={sender}", f"sender_id={nobody}", f"contact_id={nobody}", f"campaign_id={nobody}",
            "reason=opted_out", "error_code=131026", "to=%2B15550001111", f"until={week}", f"since={week}",
            f"since={week}&status=failed", "cursor",
        ):  # fmt: skip
            took: list[float] = []
            for number in range(TIMES + 1):
                begun = time.perf_counter()
                asked = f"cursor={middle}" if query == "cursor" else query
                async with client.get(f"/api/v1/messages?{asked}") as answer:
                    page = await answer.json()
                if number:
                    took.append(1000 * (time.perf_counter() - begun))
            if query == f"until={week}":
                middle = page["next"]
            print(
                f"{query[:40]:40} p50 {statistics.median(took):6.1f} ms, p99 {percentile(took, 0.99):6.1f} ms,"
                f" {len(page['items'])} messages{', more' if page['next'] else ''}",
                flush=True,
            )


async def main(rows: int) -> None:
    """Start the servers and the front door, and measure."""
    logger.remove()
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harkara-bench-")))
        urls = await stack.enter_async_context(Stack(data))
        await bootstrap(urls.database_admin, database=DATABASE, owner=OWNER, app=APPLICATION)
        await migrate(urls.database(OWNER, DATABASE))
        async with await connect(urls.nats) as bus:
            await topology.apply(bus.js)
        port = free_port()
        environment = {
            **os.environ,
            "DATABASE_URL": urls.database(APPLICATION, DATABASE) + "&statement_cache_size=200",
            "NATS_URL": urls.nats,
            "REDIS_URL": urls.redis,
            "SECRET_KEY": "a key for measuring, of 32 bytes",
            "LOG_LEVEL": "WARNING",
        }
        door = subprocess.Popen([sys.executable, "-m", "harkara", "http", "--port", str(port)], env=environment)
        stack.callback(door.wait)
        stack.callback(door.terminate)
        url = f"http://127.0.0.1:{port}"
        await until_ready(url, door)
        key, sender, _, _ = await prepare(url, urls)
        await fill(urls.database("postgres", DATABASE), rows, sender)
        await asyncio.sleep(1)
        await measure(url, key, sender)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS))
