"""How fast a sender's messages go: percentiles over its recent messages, at a cost that has a bound."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from harkara.http.context import Context
from harkara.http.senders import get_sender
from harkara.schemas.api import Percentiles, SenderStats, StatsQuery

#: So many of the tenant's latest messages are looked at, at most; a few milliseconds for a thousand.
MOST = 20_000

#: What is due later has not left yet.
CLOCKS_DIFFER = timedelta(minutes=1)

#: Seconds of each stage, at least 0: WhatsApp tells whole seconds, so a receipt may seem to come early.
STATS = f"""
with recent as materialized (
  select m.sender_id, m.due_at, m.sent_at, m.delivered_at, m.read_at from messages m
  where m.tenant_id = $1 and m.id >= app.uuid7_floor($3) and m.id < app.uuid7_floor($4)
  order by m.id desc limit {MOST}),
stages as (
  select due_at, extract(epoch from sent_at - due_at)::float8 as sent,
         extract(epoch from delivered_at - sent_at)::float8 as delivered,
         extract(epoch from read_at - coalesce(delivered_at, sent_at))::float8 as read
  from recent where sender_id = $2)
select count(*), min(due_at),
       count(sent), percentile_cont(array[0.5, 0.95, 0.99]) within group (order by sent),
       count(delivered), percentile_cont(array[0.5, 0.95, 0.99]) within group (order by delivered),
       count(read), percentile_cont(array[0.5, 0.95, 0.99]) within group (order by read)
from stages
"""  # noqa: S608 - a number of ours


async def show(ctx: Context[None, StatsQuery]) -> SenderStats:
    """How long this sender's messages took lately: from being due to sent, from sent to delivered, then to read.

    Of the tenant's latest 20,000 messages in this time those of this sender count; `since` is when the oldest was due.
    """
    now = ctx.door.clock()
    async with ctx.transaction() as con:
        sender = await get_sender(ctx)
        row: Any = await con.fetchrow(
            STATS, ctx.tenant, sender.id, now - timedelta(hours=ctx.query.hours), now + CLOCKS_DIFFER
        )
    messages, since, *stages = row
    sent, delivered, read = (_percentiles(*stages[place : place + 2]) for place in (0, 2, 4))
    return SenderStats(hours=ctx.query.hours, messages=messages, since=since, sent=sent, delivered=delivered, read=read)


def _percentiles(count: int, seconds: Sequence[float] | None) -> Percentiles | None:
    if seconds is None:
        return None
    p50, p95, p99 = (max(0.0, round(one, 3)) for one in seconds)
    return Percentiles(count=count, p50_s=p50, p95_s=p95, p99_s=p99)
