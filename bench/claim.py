"""Due steps claimed and published: `python -m bench.claim [ROWS]`.

A million enrolments, a tenth of them due. The ticker claims and publishes until nothing is left; CPU is that of this
process, PostgreSQL and the broker together.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import uvloop
from loguru import logger

from bench.stack import APPLICATION, DATABASE, OWNER, cpu_seconds, family
from harkara.actors.ticker import Ticker
from harkara.bus import topology
from harkara.bus.connection import connect
from harkara.embedded.stack import Stack
from harkara.storage.migrate import bootstrap, migrate
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
insert into contacts (id, tenant_id, name, phone, opted_in_at, attributes)
  select gen_random_uuid(), 'bench', 'Name ' || i, '+9198' || (10000000 + i), now(), '{"city":"Pune"}'
  from generate_series(1, $ROWS$) i;
insert into contact_campaign_progress (id, tenant_id, campaign_id, version_id, contact_id, started_at, next_step_id,
                                       next_message_id, next_step_scheduled_at, next_claim_at)
  select gen_random_uuid(), 'bench', c.id, c.version_id, k.id, now(), s.id, gen_random_uuid(), due, due
  from (select *, row_number() over () as n from contacts) k, campaigns c, campaign_steps s,
       lateral (select now() + case when k.n % 10 = 0 then interval '-1 s' else interval '1 day' end as due) d;
analyze;
"""


async def main(rows: int) -> None:
    """Fill, claim everything that is due, and say what it cost."""
    logger.remove()
    with tempfile.TemporaryDirectory(prefix="harkara-bench-") as directory:
        servers = Stack(Path(directory) / "data")
        async with servers as urls:
            await bootstrap(urls.database_admin, database=DATABASE, owner=OWNER, app=APPLICATION)
            await migrate(urls.database(OWNER, DATABASE))
            print(f"filling {rows:,} enrolments …", flush=True)
            con = await asyncpg.connect(urls.database("postgres", DATABASE))
            await con.execute(FILL.replace("$ROWS$", str(rows)), timeout=600)
            storage = Storage(urls.database(APPLICATION, DATABASE) + "&statement_cache_size=200")
            await storage.open()
            async with await connect(urls.nats) as bus:
                await topology.apply(bus.js)

                def cpu() -> dict[str, float]:
                    parts = {name: sum(map(cpu_seconds, family(pid))) for name, pid in servers.pids.items()}
                    return {"ticker": time.process_time(), **parts}

                ticker = Ticker(storage, bus.publisher)
                before, begun = cpu(), time.monotonic()
                await ticker.start()
                due = rows // 10
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
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
