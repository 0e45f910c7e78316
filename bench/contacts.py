"""Contacts: `python -m bench.contacts [ROWS]`: pages of 50 of so many by every filter, then a large file in and out.

Nine tenth are one tenant's. A million, with what they are found by, take some minutes to make. The worst filters are
those that nobody passes. The file has 100,000 rows; memory is that of the door and of the importer.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import asyncpg
import uvloop
from loguru import logger

from bench.ingress import prepare
from bench.stack import DATABASE, front_door, harkara, memory_mb, percentile, prepared

ROWS = 1_000_000
FILE = 100_000
TIMES = 20

#: A third is in Pune, one in 100,000 is rare, one in a thousand has opted out; the oldest bear a name nobody else has.
FILL = """
insert into contacts (id, tenant_id, name, phone, tags, attributes, opted_in_at, opted_out_at)
select overlay(gen_random_uuid()::text placing left(app.uuid7_floor(now() - interval '1 second' * n)::text, 15)
               from 1 for 15)::uuid,
       case when n % 10 = 0 then 'other' else 'bench' end,
       case when n > $3 - 50 then 'Methuselah ' else 'Asha ' end || 'Rao' || n % 5000,
       '+917' || lpad(n::text, 9, '0'),
       case when n % 100000 = 1 then array['customer', 'rare'] else array['customer'] end,
       jsonb_build_object('city', (array['Pune', 'Goa', 'Delhi'])[n % 3 + 1], 'order', n), now(),
       case when n % 1000 = 1 then now() end
from generate_series($1::int, $2::int) n
"""

TERMS = """
insert into contact_terms (tenant_id, term, contact_id)
select c.tenant_id, t.term, c.id from contacts c, app.contact_terms(c.name, c.phone, c.tags, c.attributes) t (term)
"""

QUERIES = (
    "", "tag=customer", "tag=rare", "tag=nobody", "attribute=city:Pune", "attribute=order:777771",
    "attribute=city:Pune&tag=rare", "phone=%2B917000777771", "phone=%2B12025550123", "q=asha", "q=methuselah",
    "q=nobody", "q=asha%20rao77", "q=777771", "q=%2B91700", "opted_out=true", "opted_out=true&tag=customer",
    "consent=false", "consent=true", "since=2026-01-01T00:00:00Z&tag=customer", "q=asha&tag=rare", "cursor",
)  # fmt: skip


async def fill(url: str, rows: int) -> None:
    """The contacts, and a second tenant."""
    con = await asyncpg.connect(url)
    await con.execute("insert into tenants (id, name, plan) values ('other', 'o', 'scale')")
    await con.execute("delete from contacts")
    await con.execute("set session_replication_role = replica")  # the triggers' work is done at once below
    begun, step = time.perf_counter(), max(rows // 50, 1)
    for first in range(1, rows + 1, step):
        await con.execute(FILL, first, min(first + step - 1, rows), rows, timeout=600)
    await con.execute(TERMS, timeout=1200)
    print(f"{rows} contacts made in {time.perf_counter() - begun:.0f} s", flush=True)
    await con.execute("vacuum analyze contacts, contact_terms", timeout=600)
    for name in ("contacts", "contact_terms"):
        size = await con.fetchval("select pg_total_relation_size($1::regclass)", name)
        print(f"{name}: {size / rows:.0f} bytes a contact, indexes included", flush=True)
    await con.close()


async def pages(client: aiohttp.ClientSession) -> None:
    """Each filter, so many times; the first time is not counted."""
    middle = ""
    for query in QUERIES:
        took: list[float] = []
        page: dict[str, Any] = {}
        for number in range(TIMES + 1):
            begun = time.perf_counter()
            asked = f"cursor={middle}" if query == "cursor" else query
            async with client.get(f"/api/v1/contacts?{asked}") as answer:
                page = await answer.json()
            if number:
                took.append(1000 * (time.perf_counter() - begun))
        if query == "tag=customer":
            middle = page["next"]
        print(
            f"{query[:40]:40} p50 {statistics.median(took):6.1f} ms, p99 {percentile(took, 0.99):6.1f} ms,"
            f" {len(page['items'])} contacts{', more' if page['next'] else ''}",
            flush=True,
        )


async def lines(rows: int) -> AsyncIterator[bytes]:
    """A file of 20 MB: nobody who is there already, and some columns."""
    yield b"name,phone,consent,tags,city,note,age:number\n"
    for first in range(0, rows, 1000):
        numbers = range(first, min(first + 1000, rows))
        note = b"x" * 100
        yield b"".join(b"Ravi %d,+916%09d,yes,new;vip,Pune,%s,%d\n" % (n, n, note, n % 90) for n in numbers)


class Memory:
    """The most that a process has taken while this runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.before = self.most = memory_mb([pid])

    async def watch(self) -> None:
        """Look often."""
        while True:
            self.most = max(self.most, memory_mb([self._pid]))
            await asyncio.sleep(0.05)


async def in_and_out(client: aiohttp.ClientSession, pid: int) -> None:
    """A large file, and all of it back."""
    memory = Memory(pid)
    watching = asyncio.create_task(memory.watch())
    begun = time.perf_counter()
    headers = {"Content-Type": "text/csv"}
    async with client.post("/api/v1/contacts/import", data=lines(FILE), headers=headers) as answer:
        made = await answer.json()
    received = time.perf_counter()
    status: dict[str, Any] = {}
    while status.get("status") != "completed":
        await asyncio.sleep(0.2)
        async with client.get(f"/api/v1/contacts/imports/{made['id']}") as answer:
            status = await answer.json()
    stored = time.perf_counter()
    print(
        f"a file of {FILE} rows: received in {received - begun:.1f} s, stored in {stored - received:.1f} s"
        f" ({status['created']} made, {status['errors']} errors); memory {memory.before:.0f} MB before,"
        f" {memory.most:.0f} MB at most",
        flush=True,
    )
    memory.before = memory.most = memory_mb([pid])
    for kind in ("csv", "jsonl"):
        begun, size, count = time.perf_counter(), 0, 0
        async with client.get(f"/api/v1/contacts/export?tag=vip&format={kind}") as answer:
            async for chunk in answer.content.iter_any():
                size, count = size + len(chunk), count + chunk.count(b"\n")
        took = time.perf_counter() - begun
        print(f"export as {kind}: {count} lines, {size / 1e6:.0f} MB in {took:.1f} s", flush=True)
    print(f"memory of both: {memory.before:.0f} MB before, {memory.most:.0f} MB at most", flush=True)
    watching.cancel()


async def main(rows: int) -> None:
    """Start the servers, the front door and the importer, and measure."""
    logger.remove()
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(prepared())
        urls = made.urls
        port, door = await stack.enter_async_context(front_door(made.environment))
        importer = await stack.enter_async_context(harkara(made.environment, "actor", "importer", "herald"))
        url = f"http://127.0.0.1:{port}"
        key, _, _, _ = await prepare(url, urls)
        await fill(urls.database("postgres", DATABASE), rows)
        await asyncio.sleep(1)
        async with aiohttp.ClientSession(
            url, headers={"X-API-Key": key}, timeout=aiohttp.ClientTimeout(total=1200)
        ) as client:
            await pages(client)
            for name, process in (("the door", door), ("the importer", importer)):
                print(f"memory of {name}: {memory_mb([process.pid]):.0f} MB", flush=True)
            other = Memory(importer.pid)
            watching = asyncio.create_task(other.watch())
            await in_and_out(client, door.pid)
            watching.cancel()
            print(f"memory of the importer: {other.before:.0f} MB before, {other.most:.0f} MB at most", flush=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else ROWS))
