"""Steps that fall into quiet hours: `python -m bench.quiet [STEPS]`.

`harkara up` with a campaign whose quiet hours are now. STEPS enrolments fall due at one instant and are put off to the
end of the quiet hours; then these are over. Measured are what putting off costs, what waiting costs, and the order in
which all leave once they may.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import uvloop

from bench.due import accepted
from bench.stack import Running, enroll, running, shop

STEPS = 20_000

#: How long nothing happens.
IDLE_S = 10

WAITING = "select count(*) from contact_campaign_progress where deferred_until is not null"


async def spent(run: Running, what: str, begun: float, before: dict[str, float]) -> None:
    """Print what each process has used since."""
    after = run.cpu()
    parts = " ".join(f"{part} {after[part] - before[part]:.2f}" for part in after)
    print(f"{what:40} {time.monotonic() - begun:6.1f} s   CPU s: {parts}", flush=True)


async def until_waiting(run: Running, count: int) -> None:
    """Wait until so many steps wait."""
    while (await run.sql(WAITING))[0][0] != count:
        await asyncio.sleep(0.2)


async def main(steps: int) -> None:
    """One campaign on a fresh stack."""
    there = datetime.now(UTC).astimezone(ZoneInfo("Asia/Kolkata"))
    quiet = {"start": f"{there - timedelta(hours=1):%H:%M}", "end": f"{there + timedelta(hours=2):%H:%M}"}
    async with running() as run:
        made = await shop(run, steps, quiet_hours=quiet)
        begun, before = time.monotonic(), run.cpu()
        await enroll(run, made, "date_trunc('second', now()) - n * interval '1 s'", steps)
        await until_waiting(run, steps)
        await spent(run, f"{steps} steps put off", begun, before)
        begun, before = time.monotonic(), run.cpu()
        await asyncio.sleep(IDLE_S)
        await spent(run, "waiting", begun, before)
        begun, before = time.monotonic(), run.cpu()
        await run.sql("update campaigns set quiet_hours = null")
        await run.sql(
            "update contact_campaign_progress"
            " set deferred_until = now(), next_claim_at = now() + (next_claim_at - deferred_until)"
        )
        times = await accepted(run, steps, 300)
        await spent(run, "all left", begun, before)
        rows = await run.sql("select id::text from messages order by due_at")
        order = [times[row[0]] for row in rows]
        late = sum(one > two + 0.5 for one, two in pairwise(order))
        print(f"{late} of {steps} left more than half a second before one that was due earlier")


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else STEPS))
