"""Of what many messages hang on, a campaign or a number: how it stands, before any one of them is told of."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg

from harkara.ops.terminal import age, at
from harkara.ops.trace.rows import Row, Rows
from harkara.schemas.reasons import words
from harkara.storage.idling import NOTHING, Passing, Standstill, standstill
from harkara.storage.storage import Storage

#: That a number sends nothing, by the codes of HELD_BACK.
_STILL = {
    "number_stopped": "{it} is {status}",
    "number_disconnected": "no phone is linked to {it}",
    "number_rests": "{it} rests until {until}",
    "gateway_away": "the gateway of {it} does not answer",
}

#: Kinds of ids that name a crowd.
CROWDS = ("campaign", "sender")

#: As much is told of a crowd's timeline, and of those of it that wait: the newest.
MOST_MOMENTS = 20
MOST_WAITING = 5

#: So many reasons are named of why messages went no further: the most frequent.
MOST_REASONS = 10

#: Of a number the messages of the last day count.
LATELY = timedelta(days=1)

#: Counting reads all messages of a campaign: not for longer than this.
PATIENCE_MS = 10_000

_CAMPAIGN = """
select c.name, c.status, c.status_reason, t.paused_reason, c.sender_id, now() as now,
       (select min(p.next_step_scheduled_at) from contact_campaign_progress p
        where p.campaign_id = c.id and p.status = 'active') as next_at
from campaigns c join tenants t on t.id = c.tenant_id where c.id = $1
"""

_SENDER = """
select s.name, s.status, s.status_reason, s.mps, t.paused_reason, s.id as sender_id, now() as now
from senders s join tenants t on t.id = s.tenant_id where s.id = $1
"""

_ENROLLED = "select status, count(*) from contact_campaign_progress where campaign_id = $1 group by 1 order by 2 desc"

_MESSAGES = """
select status, case when status <> 'queued' or deferred_until is not null then reason end as reason, error_code,
       count(*) as messages
from messages where {} = $1 and id >= app.uuid7_floor($2) group by 1, 2, 3 order by 4 desc, 1, 2
"""


async def standing(
    storage: Storage, rows: Rows, id_: UUID, since: datetime, passes: Mapping[UUID, Passing]
) -> list[str]:
    """How a campaign or number stands, in a few lines; empty for anything else.

    `since` is from when on there may be messages of it. Raises what the driver raises if the database is away.
    """
    kind = rows.kind
    if kind not in CROWDS:
        return []
    async with storage.tenant(rows.tenant) as con:
        await con.execute(f"set local statement_timeout = {PATIENCE_MS}")
        row: Any = await con.fetchrow(_CAMPAIGN if kind == "campaign" else _SENDER, id_)
        if row is None:
            return []
        number = rows.senders[row["sender_id"]]
        still = standstill(number, passes.get(row["sender_id"], NOTHING), row["now"])
        lines = [*_status(kind, row, number, still)]
        try:
            if kind == "campaign":
                lines += _enrolled(await con.fetch(_ENROLLED, id_), row)
            else:
                since = row["now"] - LATELY
            lines += _messages(await con.fetch(_MESSAGES.format(f"{kind}_id"), id_, since), kind)
        except asyncpg.QueryCanceledError:
            lines.append(f"its messages are too many to be counted in {PATIENCE_MS / 1000:.0f} s")
    return lines


def _status(kind: str, row: Any, number: Row, still: Standstill | None) -> Iterator[str]:
    rate = f", {row['mps']} messages a second" if kind == "sender" else ""
    yield f"{row['name']} is {row['status']}{_because(row['status_reason'])}{rate}"
    if row["paused_reason"]:
        yield f"its tenant is paused{_because(row['paused_reason'])}"
    if still is None or (still.code == "number_stopped" and (kind == "sender" or row["paused_reason"])):
        return  # which was said already
    it = "it" if kind == "sender" else f"its number {number['name']}"
    until = at(still.until) if still.until else ""
    yield _STILL[still.code].format(it=it, status=number["status"], until=until) + _because(still.reason)


def _because(why: str | None) -> str:
    return f" ({why})" if why else ""


def _enrolled(rows: Any, campaign: Any) -> Iterator[str]:
    if not rows:
        yield "nobody is enrolled"
        return
    yield f"enrolled: {', '.join(f'{count:,} {status}' for status, count in rows)}"
    if (next_at := campaign["next_at"]) is not None:
        left = (next_at - campaign["now"]).total_seconds()
        yield f"next step due {at(next_at)}, " + (f"in {age(left)}" if left > 0 else f"{age(-left)} ago")


def _messages(rows: Any, kind: str) -> Iterator[str]:
    which = "messages" if kind == "campaign" else "messages of the last day"
    of: Counter[str] = Counter()
    held_back: Counter[str] = Counter()
    for status, reason, error_code, count in rows:
        of[status] += count
        if (said := words(status, reason, error_code)) is not None:
            held_back[f"{status}: {said[1].text}"] += count
    yield f"{which}: {', '.join(f'{count:,} {status}' for status, count in of.most_common()) or 'none'}"
    for why, count in held_back.most_common(MOST_REASONS):
        yield f"{count:,} {why}"
