"""Segments and dry runs of a large tenant, over HTTP: `python -m bench.segments [CONTACTS]`.

Half a million messages and ten thousand replies belong to 100,000 contacts (or to as many as are asked for). No index
serves a condition: a count looks at every contact of the tenant, a page at 10,000 at most, one of a bulk enrolment at
4,000.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import uvloop
from loguru import logger

from bench.ingress import prepare
from bench.stack import DATABASE, front_door, prepared
from harkara.storage import enrolling, segments
from harkara.storage.storage import Storage

CONTACTS = 100_000
TIMES = 5

CONDITIONS: dict[str, dict[str, Any]] = {
    "tag": {"type": "tag", "tag": "vip"},
    "attribute, nobody": {"type": "attribute", "name": "city", "value": "Nowhere"},
    "attribute, number": {"type": "attribute", "name": "orders", "op": "ge", "value": 90},
    "read a campaign": {"type": "message", "did": "read", "campaign_id": ""},
    "silent for 30 days": {"type": "not", "of": {"type": "replied", "within_days": 30}},
    "five of these": {
        "type": "all",
        "of": [
            {"type": "consent"},
            {"type": "not", "of": {"type": "campaign", "campaign_id": ""}},
            {
                "type": "any",
                "of": [{"type": "tag", "tag": "vip"}, {"type": "message", "did": "read", "campaign_id": ""}],
            },
            {"type": "not", "of": {"type": "replied", "within_days": 30}},
        ],
    },
}

FILL = """
insert into contacts (id, tenant_id, name, phone, opted_in_at, tags, attributes)
  select overlay(gen_random_uuid()::text placing left(app.uuid7_floor(now() - $1 * interval '1 s' + n * interval '1 s')
                 ::text, 15) from 1 for 15)::uuid, 'bench', 'Name ' || n, '+9177' || (10000000 + n), now(),
         case when n % 10 = 0 then array['vip'] else '{}'::text[] end,
         jsonb_build_object('city', 'Pune', 'orders', n % 100)
  from generate_series(1, $1) n
"""

MESSAGES = """
insert into messages (id, tenant_id, contact_id, sender_id, campaign_id, step, lane, "to", content, status, due_at,
                      sent_at)
  select overlay(gen_random_uuid()::text placing left(app.uuid7_floor(now() - interval '20 days')::text, 15)
                 from 1 for 15)::uuid, 'bench', k.id, c.sender_id, c.id, s, 'marketing', '+1', '{}',
         case when s % 2 = 0 then 'read' else 'delivered' end, now(), now()
  from contacts k, campaigns c, generate_series(0, 4) s where k.tenant_id = 'bench' and c.tenant_id = 'bench'
"""

REPLIES = """
with talk as (
  insert into conversations (id, tenant_id, contact_id, sender_id, last_activity)
  select gen_random_uuid(), 'bench', k.id, c.sender_id, k.id from (select * from contacts where tenant_id = 'bench'
    limit 10000) k, campaigns c where c.tenant_id = 'bench' returning id, contact_id, sender_id)
insert into replies (id, tenant_id, conversation_id, contact_id, sender_id, wamid, type, payload, received_at)
  select gen_random_uuid(), 'bench', id, contact_id, sender_id, id::text, 'text', '{}', now() from talk
"""


async def measure(url: str, key: str, campaign: str) -> None:
    """Each condition: its count, a page of its contacts, and a dry run for it."""
    async with aiohttp.ClientSession(f"{url}/api/v1/", headers={"X-API-Key": key}) as client:

        async def ask(method: str, path: str, body: Any = None) -> Any:
            async with client.request(method, path, json=body) as answer:
                if answer.status >= 300:
                    raise RuntimeError(f"{path}: {await answer.text()}")
                return await answer.json()

        async def took(method: str, path: str, body: Any = None) -> float:
            times = list[float]()
            for _ in range(TIMES):
                begun = time.perf_counter()
                await ask(method, path, body)
                times.append(1000 * (time.perf_counter() - begun))
            return statistics.median(times)

        for name, condition in CONDITIONS.items():
            condition = filled(condition, campaign)
            made = (await ask("POST", "segments", {"name": name, "condition": condition}))["id"]
            count = (await ask("GET", f"segments/{made}/count"))["contacts"]
            times = (
                await took("GET", f"segments/{made}/count"),
                await took("GET", f"segments/{made}/contacts"),
                await took("POST", f"campaigns/{campaign}/dry-run", {"segment_id": made}),
            )
            print(
                f"{name:20} {count:8,} contacts   count {times[0]:7.0f} ms   page {times[1]:6.1f} ms"
                f"   dry run {times[2]:7.0f} ms",
                flush=True,
            )
        print(f"{'dry run for all':50} {await took('POST', f'campaigns/{campaign}/dry-run', {'all': True}):.0f} ms")


def filled(condition: Any, campaign: str) -> Any:
    """The condition about this campaign."""
    if isinstance(condition, list):
        return [filled(one, campaign) for one in condition]
    if not isinstance(condition, dict):
        return condition
    return {name: campaign if name == "campaign_id" else filled(one, campaign) for name, one in condition.items()}


async def bulk(storage: Storage, campaign: str) -> None:
    """Reading the pages of a bulk enrolment, as the actor does, for the rarest and for a usual condition."""
    for name in ("tag", "attribute, nobody", "five of these"):
        condition = segments.read(filled(CONDITIONS[name], campaign))
        after, pages, found, longest, begun = None, 0, 0, 0.0, time.perf_counter()
        while True:
            one = time.perf_counter()
            async with storage.batch(("bench",)) as con:
                page = await enrolling.page(con, "bench", UUID(campaign), after, condition, 1000)
            longest = max(longest, time.perf_counter() - one)
            pages, found, after = pages + 1, found + len(page.ids), page.next
            if after is None:
                break
        spent = time.perf_counter() - begun
        print(f"bulk, {name:20} {found:7,} in {pages} pages: {spent:5.1f} s, the longest {1000 * longest:.0f} ms")


async def main(contacts: int) -> None:
    """Fill, and measure."""
    logger.remove()
    async with prepared() as made, front_door(made.environment) as (port, _):
        urls = made.urls
        key, _, campaign, _ = await prepare(f"http://127.0.0.1:{port}", urls)
        con = await asyncpg.connect(urls.database("postgres", DATABASE))
        await con.execute(FILL, contacts, timeout=600)
        await con.execute(MESSAGES, timeout=600)
        await con.execute(REPLIES, timeout=600)
        await con.execute("analyze")
        await con.close()
        await measure(f"http://127.0.0.1:{port}", key, campaign)
        storage = Storage(made.environment["DATABASE_URL"])
        await storage.open()
        await bulk(storage, campaign)
        await storage.close()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else CONTACTS))
