"""Due steps claimed and published: `python -m bench.claim [ROWS] [DUE]`.

A million enrolments of one bulk, a tenth of them due, with ids as the product makes them. The ticker claims and
publishes until nothing is left; CPU is that of this process, PostgreSQL and the broker together.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta

import asyncpg
import uvloop
from loguru import logger

from bench.stack import A_SECOND, DATABASE, cpu_seconds, family, prepared
from harkara.actors.ticker import Ticker
from harkara.bus.connection import connect
from harkara.cli import collect_less
from harkara.ids import uuid7, uuid7_beside
from harkara.storage.storage import Storage

FILL = """
insert into tenants (id, name) values ('bench', 'bench');
insert into senders (id, tenant_id, name, provider, phone_number_id, verify_token, mps, "window", status)
  values (gen_random_uuid(), 'bench', 'n', 'sandbox', '1', 'v', 80, 'ignore', 'active');
insert into campaigns (id, tenant_id, name, type, sender_id, status, version_id, stop_on_reply)
  select gen_random_uuid(), 'bench', 'c', 'drip', id, 'active', gen_random_uuid(), true from senders;
insert into campaign_versions (id, tenant_id, campaign_id, number) select version_id, 'bench', id, 1 from campaigns;
insert into campaign_steps (id, tenant_id, campaign_id, version_id, position, name, delay_hours, content)
  select gen_random_uuid(), 'bench', id, version_id, 0, 's', 0, '{"body":"hi"}' from campaigns;
"""

CONTACTS = """
insert into contacts (id, tenant_id, name, phone, opted_in_at, attributes)
select id, 'bench', 'Name ' || i, '+9198' || (10000000 + i), now(), '{"city":"Pune"}'
from unnest($1::uuid[]) with ordinality as k (id, i)
"""

ENROLLMENTS = """
insert into contact_campaign_progress (id, tenant_id, campaign_id, version_id, contact_id, started_at, next_step_id,
                                       next_message_id, next_step_scheduled_at, next_claim_at)
select e.id, 'bench', c.id, c.version_id, e.contact_id, now(), s.id, gen_random_uuid(), due, due
from unnest($1::uuid[], $2::uuid[]) with ordinality as e (id, contact_id, n), campaigns c, campaign_steps s,
     lateral (select now() + case when n % $3 = 0 then interval '-1 s' else interval '1 day' end as due) d
"""


async def fill(con: asyncpg.Connection[asyncpg.Record], rows: int, due: int) -> None:
    """Write so many enrolments, `due` of them due, and leave nothing to be tidied up meanwhile."""
    await con.execute("set session_replication_role = replica")  # nothing is to be checked or told of
    await con.execute(FILL)
    now = datetime.now(UTC)
    contacts = [uuid7(now - timedelta(days=1) + timedelta(seconds=n / A_SECOND)) for n in range(rows)]
    await con.execute(CONTACTS, contacts, timeout=600)
    contacts.sort()  # in the order of which a bulk takes them
    enrollments = [uuid7_beside(one, now, "bulk", str(one)) for one in contacts]
    await con.execute(ENROLLMENTS, enrollments, contacts, rows // due, timeout=600)
    for table in ("contacts", "contact_campaign_progress"):
        await con.execute(f"vacuum analyze {table}")
    await con.execute("analyze; checkpoint")


async def main(rows: int, due: int) -> None:
    """Fill, claim everything that is due, and say what it cost."""
    logger.remove()
    collect_less()  # as every process of ours does
    async with prepared() as made, await connect(made.urls.nats) as bus:
        print(f"filling {rows:,} enrolments …", flush=True)
        con = await asyncpg.connect(made.urls.database("postgres", DATABASE))
        await fill(con, rows, due)
        storage = Storage(made.environment["DATABASE_URL"])
        await storage.open()

        def cpu() -> dict[str, float]:
            parts = {name: sum(map(cpu_seconds, family(pid))) for name, pid in made.pids.items()}
            return {"ticker": time.process_time(), **parts}

        ticker = Ticker(storage, bus.publisher)
        before, begun = cpu(), time.monotonic()
        await ticker.start()
        while (await bus.js.stream_info("SEND")).state.messages < due:
            await asyncio.sleep(0.05)
        elapsed = time.monotonic() - begun
        parts = {name: now - before[name] for name, now in cpu().items()}
        await ticker.stop()
        await storage.close()
        await con.close()
    spent = sum(parts.values())
    print(f"{due:,} of {rows:,} due: {due / spent:,.0f} rows per CPU-second, {due / elapsed:,.0f} a second")
    print("CPU s: " + "  ".join(f"{name} {seconds:.2f}" for name, seconds in parts.items()))


if __name__ == "__main__":
    numbers = [int(one) for one in sys.argv[1:]]
    rows = numbers[0] if numbers else 1_000_000
    uvloop.run(main(rows, numbers[1] if len(numbers) > 1 else rows // 10))
