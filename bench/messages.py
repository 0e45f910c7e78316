"""Pages of messages and conversations: `python -m bench.messages [ROWS]`: 50 of so many, by every filter, over HTTP.

Nine tenth of the messages are one tenant's, over two months. The worst filters are those that nothing passes. The
conversations are of ten numbers with a tenth as many contacts; a thousandth is closed, a thousandth is somebody's.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from urllib.parse import quote
from uuid import UUID

import aiohttp
import asyncpg
import uvloop
from loguru import logger

from bench.ingress import prepare
from bench.stack import DATABASE, front_door, percentile, prepared
from harkara.ids import uuid7

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

CONTACTS = """
insert into contacts (id, tenant_id, name, phone)
select gen_random_uuid(), 'bench', 'Asha', '+9177' || 10000000 + n from generate_series(1, $1) n
"""

NUMBERS = """
insert into senders (id, tenant_id, name, provider, phone_number_id, verify_token, mps, "window", status)
select gen_random_uuid(), 'bench', 'n', 'cloud', 'n' || n, 'v', 80, 'enforce', 'active' from generate_series(1, 10) n
"""

#: In the order of their last words they are as mixed as can be.
TALK = """
insert into conversations (id, tenant_id, contact_id, sender_id, status, closed_at, assigned_to, last_inbound_at,
                           last_activity)
select app.uuid7(), 'bench', c.id, s.id, case when n % 1000 = 1 then 'closed' else 'open' end,
       case when n % 1000 = 1 then now() end, case when n % 1000 = 2 then $1::uuid end, now(),
       overlay(gen_random_uuid()::text placing left(app.uuid7_floor(now() - random() * interval '90 days')::text, 15)
               from 1 for 15)::uuid
from (select c.id, row_number() over () as n from contacts c where c.tenant_id = 'bench') c
cross join (select id from senders where tenant_id = 'bench' and phone_number_id like 'n%') s
"""


async def fill_talk(url: str, rows: int) -> tuple[UUID, UUID, UUID]:
    """So many conversations; whose some are, and one contact and one number of many."""
    con = await asyncpg.connect(url)
    user: UUID = await con.fetchval("select user_id from tenant_users where tenant_id = 'bench'")
    await con.execute(NUMBERS)
    await con.execute(CONTACTS, rows // 10, timeout=600)
    await con.execute(TALK, user, timeout=600)
    await con.execute("vacuum analyze conversations, contacts", timeout=600)
    row = await con.fetchrow("select contact_id, sender_id from conversations limit 1")
    await con.close()
    assert row is not None
    return user, row["contact_id"], row["sender_id"]


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
    """Each filter of messages."""
    week = quote(time.strftime("%Y-%m-%dT00:00:00Z", time.gmtime(time.time() - 14 * 86400)))
    nobody = uuid7()
    await ask(
        url,
        key,
        "messages",
        (
            "", "status=read", "status=failed", "status=suppressed", "status=queued", "status=unknown", "lane=otp",
            f"sender_id={sender}", f"sender_id={nobody}", f"contact_id={nobody}", f"campaign_id={nobody}",
            "reason=opted_out", "error_code=131026", "to=%2B15550001111", f"since={week}",
            f"since={week}&status=failed", f"until={week}", "cursor",
        ),
    )  # fmt: skip


async def measure_talk(url: str, key: str, user: UUID, contact: UUID, sender: UUID) -> None:
    """Each filter of conversations."""
    await ask(
        url,
        key,
        "conversations",
        (
            "", "status=open", "status=closed", f"assigned_to={user}", f"assigned_to={uuid7()}", "unassigned=true",
            f"sender_id={sender}", f"contact_id={contact}", f"sender_id={sender}&status=closed",
            f"assigned_to={user}&status=closed", "status=open", "cursor",
        ),
    )  # fmt: skip


async def ask(url: str, key: str, what: str, queries: Sequence[str]) -> None:
    """Each query, so many times; the first time is not counted. `cursor` is the page after the query before."""
    async with aiohttp.ClientSession(url, headers={"X-API-Key": key}) as client:
        middle = ""
        for query in queries:
            took: list[float] = []
            for number in range(TIMES + 1):
                begun = time.perf_counter()
                asked = f"cursor={middle}" if query == "cursor" else query
                async with client.get(f"/api/v1/{what}?{asked}") as answer:
                    page = await answer.json()
                if number:
                    took.append(1000 * (time.perf_counter() - begun))
            middle = page["next"] or middle
            print(
                f"{query[:40]:40} p50 {statistics.median(took):6.1f} ms, p99 {percentile(took, 0.99):6.1f} ms,"
                f" {len(page['items'])} {what}{', more' if page['next'] else ''}",
                flush=True,
            )


async def main(rows: int) -> None:
    """Start the servers and the front door, and measure."""
    logger.remove()
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(prepared())
        urls = made.urls
        port, _ = await stack.enter_async_context(front_door(made.environment))
        url = f"http://127.0.0.1:{port}"
        key, sender, _, _ = await prepare(url, urls)
        await fill(urls.database("postgres", DATABASE), rows, sender)
        await asyncio.sleep(1)
        await measure(url, key, sender)
        await measure_talk(url, key, *await fill_talk(urls.database("postgres", DATABASE), rows))


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS))
