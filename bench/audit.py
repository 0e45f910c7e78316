"""What the audit log costs a batch of contacts, and its pages at many entries: `python -m bench.audit [ENTRIES]`."""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg

from harkara.embedded.stack import Stack
from harkara.http.audit import AUDIT_LOG
from harkara.http.search import Search
from harkara.ids import uuid7
from harkara.schemas.api import AuditQuery
from harkara.storage.migrate import bootstrap, migrate
from harkara.storage.storage import Storage

ROWS = 1000
TENANT = "acme"

UPSERT = """
insert into contacts (id, name, phone) select * from unnest($1::uuid[], $2::text[], $3::text[])
on conflict (tenant_id, phone) do update set name = excluded.name, updated_at = now()
"""

FILL = """
insert into audit_log (id, tenant_id, user_id, action, entity, entity_id, request_id, address, via, after)
select app.uuid7(), $1, case when n % 1000 = 0 then $2::uuid else $3::uuid end,
       case when n % 5000 = 0 then 'export' else 'update' end, 'contact', gen_random_uuid()::text, '', '', '', '{}'
from generate_series(1, $4::int) n
"""


async def median_ms(what: Callable[[], Awaitable[object]], times: int = 15) -> float:
    """The median of so many runs, after one that doesn't count."""
    await what()
    took: list[float] = []
    for _ in range(times):
        begun = time.perf_counter()
        await what()
        took.append((time.perf_counter() - begun) * 1000)
    return statistics.median(took)


async def batches(storage: Storage) -> None:
    """A thousand contacts, new and changed, with nobody acting and with somebody."""
    note = {"user_id": str(uuid7()), "request_id": "r", "address": "192.0.2.1", "via": "POST /contacts/import"}
    who = json.dumps(note)
    turn = iter(range(1_000_000))
    for name, said in (("nobody acts", ""), ("noted", who)):

        async def store(phones: list[str], said: str = said) -> None:
            async with storage.tenant(TENANT, said) as con:
                number = next(turn)
                await con.execute(UPSERT, [uuid7() for _ in phones], [f"N{number}"] * len(phones), phones)

        async def fresh(store: Any = store) -> None:
            start = next(turn) * ROWS
            await store([f"+9198{start + n:09d}" for n in range(ROWS)])

        known = [f"+9199{n:09d}" for n in range(ROWS)]
        print(f"{ROWS} contacts, {name}: new {await median_ms(fresh):.1f} ms", end=", ")
        print(f"changed {await median_ms(partial(store, known)):.1f} ms")


async def pages(storage: Storage, owner: asyncpg.Connection, entries: int) -> None:
    """Pages of 50, by filters that many and few entries pass."""
    rare, common = uuid7(), uuid7()
    await owner.execute(FILL, TENANT, rare, common, entries)
    await owner.execute("analyze audit_log")
    for name, query in (
        ("newest", AuditQuery()),
        ("a user with few", AuditQuery(user_id=rare)),
        ("an entity", AuditQuery(entity="contact")),
        ("an entity that is not there", AuditQuery(entity="lead")),
        ("one thing", AuditQuery(entity_id=str(common))),
        ("an action that is rare", AuditQuery(action="export")),
    ):

        async def ask(query: AuditQuery = query) -> None:
            async with storage.tenant(TENANT) as con:
                await Search(AUDIT_LOG, TENANT, query).run(con)

        print(f"{entries} entries, {name}: {await median_ms(ask):.2f} ms")


async def main(entries: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        async with Stack(Path(directory)) as urls:
            await bootstrap(urls.database_admin, database="bench", owner="harkara_owner", app="harkara_app")
            await migrate(urls.database("harkara_owner", "bench"))
            storage = Storage(urls.database("harkara_app", "bench"), pool=4)
            await storage.open()
            owner = await asyncpg.connect(urls.database("harkara_owner", "bench"))
            async with storage.anonymous() as con:
                await con.execute("select app.signup($1, $1, $2, 'o@a.example', 'x', $3)", TENANT, uuid7(), uuid7())
            await batches(storage)
            await pages(storage, owner, entries)
            await owner.close()
            await storage.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
