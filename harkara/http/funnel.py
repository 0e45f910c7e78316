"""How far a campaign has come: its enrolments, the messages of each step, and what came back, version by version."""

from __future__ import annotations

from collections import defaultdict
from typing import Any, TypeVar
from uuid import UUID

from msgspec import Struct

from harkara.http.campaign_rows import get_campaign, version_by_number
from harkara.http.context import Context
from harkara.schemas.api import Funnel, FunnelStep, FunnelTotals, FunnelVariant, VersionQuery

#: All figures are of one moment, or they would disagree while messages leave. It takes no locks, and nothing waits.
ONE_MOMENT = "set transaction isolation level repeatable read, read only"

ENROLLED = """
select count(*) as enrolled,
       count(*) filter (where status = 'active') as active,
       count(*) filter (where status = 'completed') as completed,
       count(*) filter (where status = 'stopped') as stopped,
       count(*) filter (where status = 'failed') as failed,
       count(*) filter (where status = 'paused') as paused,
       count(*) filter (where goal_at is not null) as goal
from contact_campaign_progress where campaign_id = $1 and ($2::uuid is null or version_id = $2)
"""

STOPPED_BY = """
select coalesce(stopped_reason, 'unknown') as reason, count(*) as stopped from contact_campaign_progress
where campaign_id = $1 and ($2::uuid is null or version_id = $2) and status = 'stopped' group by 1 order by 1
"""

STEPS = """
select s.id, s.position as step, s.name, s.delay_hours,
       array(select v ->> 'name' from jsonb_array_elements(s.variants) v) as variants
from campaign_steps s where s.version_id = $1 order by s.position
"""

DUE = """
select next_step_id as id, count(*) as due from contact_campaign_progress
where campaign_id = $1 and status = 'active' and next_step_scheduled_at <= now() group by 1
"""

#: Read messages count as delivered and sent too, as in a funnel. Messages from before versions could change name no
#: step: they are the first version's.
MESSAGES = """
select coalesce(m.step_id, (select f.id from campaign_steps f join campaign_versions v on v.id = f.version_id
                            where v.campaign_id = $1 and v.number = 1 and f.position = m.step)) as id, m.variant,
       count(*) filter (where m.status = 'queued') as queued,
       count(*) filter (where m.status = 'sending') as sending,
       count(*) filter (where m.status in ('sent', 'delivered', 'read')) as sent,
       count(*) filter (where m.status in ('delivered', 'read')) as delivered,
       count(*) filter (where m.status = 'read') as read,
       count(*) filter (where m.status = 'failed') as failed,
       count(*) filter (where m.status = 'suppressed') as suppressed,
       count(*) filter (where m.status = 'unknown') as unknown
from messages m where m.campaign_id = $1 group by 1, 2
"""

#: Why messages did not leave, or not yet.
HELD_BACK = """
select coalesce(m.step_id, (select f.id from campaign_steps f join campaign_versions v on v.id = f.version_id
                            where v.campaign_id = $1 and v.number = 1 and f.position = m.step)) as id,
       case m.status when 'suppressed' then 'suppressed_by' else 'deferred_by' end as kind, m.reason,
       count(*) as messages
from messages m where m.campaign_id = $1 and m.reason is not null
  and (m.status = 'suppressed' or m.status = 'queued' and m.deferred_until is not null)
group by 1, 2, 3 order by 3
"""

#: What a contact opts out by is no answer, as long as it stands.
REPLIED = """
select r.step_id as id, r.variant, count(distinct r.contact_id) filter (where o.out is null) as replied,
       count(distinct r.contact_id) filter (where o.out) as opted_out
from replies r
left join lateral (
  select true as out from contacts k, jsonb_each(k.opt_outs) said
  where k.id = r.contact_id and k.tenant_id || '' = r.tenant_id and said.value ->> 'by' = r.wamid limit 1) o on true
where r.campaign_id = $1 group by 1, 2
"""

#: Whoever was sent a variant and reached the goal, whichever step brought them there.
REACHED = """
select m.step_id as id, m.variant, count(*) as goal
from contact_campaign_progress p
join messages m on m.campaign_id = p.campaign_id and m.contact_id = p.contact_id and m.enrollment_id = p.id
where p.campaign_id = $1 and p.goal_at is not null and m.campaign_id = $1 and m.variant is not null
  and m.status in ('sent', 'delivered', 'read')
group by 1, 2
"""

Counts = dict[str, int]

S = TypeVar("S", bound=Struct)


async def show(ctx: Context[None, VersionQuery]) -> Funnel:
    """How many are enrolled, and how far the messages of each step have come."""
    async with ctx.transaction() as con:
        await con.execute(ONE_MOMENT)
        campaign = await get_campaign(ctx)
        version = await version_by_number(campaign, ctx.query.version, campaign.version_id)
        only = version.id if ctx.query.version is not None else None
        people: Any = await con.fetchrow(ENROLLED, campaign.id, only)
        stopped = await con.fetch(STOPPED_BY, campaign.id, only)
        steps = await con.fetch(STEPS, version.id)
        held_back = await con.fetch(HELD_BACK, campaign.id)
        counted = [await con.fetch(sql, campaign.id) for sql in (MESSAGES, REPLIED, DUE)]
        if any(step["variants"] for step in steps):
            counted.append(await con.fetch(REACHED, campaign.id))
    by_variant = _counts(counted)
    by_step = _by_step(by_variant)
    shown = {step["id"] for step in steps}
    of_totals = [counts for id_, counts in by_step.items() if only is None or id_ in shown]
    totals = _reasons([row for row in held_back if only is None or row["id"] in shown])
    return Funnel(
        campaign_id=campaign.id,
        version=version.number,
        stopped_by={row["reason"]: row["stopped"] for row in stopped},
        totals=_filled(FunnelTotals, _sum(of_totals), **totals),
        steps=[_step(step, by_step, by_variant, held_back) for step in steps],
        **dict(people),
    )


def _counts(results: list[Any]) -> dict[tuple[UUID, str | None], Counts]:
    """All that was counted, by step and variant."""
    found: dict[tuple[UUID, str | None], Counts] = defaultdict(dict)
    for rows in results:
        for row in rows:
            columns = dict(row)
            found[columns.pop("id"), columns.pop("variant", None)] |= columns
    return found


def _by_step(counts: dict[tuple[UUID, str | None], Counts]) -> dict[UUID, Counts]:
    grouped: dict[UUID, list[Counts]] = defaultdict(list)
    for (id_, _), one in counts.items():
        grouped[id_].append(one)
    return {id_: _sum(ones) for id_, ones in grouped.items()}


def _sum(many: list[Counts]) -> Counts:
    total: Counts = defaultdict(int)
    for one in many:
        for name, count in one.items():
            total[name] += count
    return total


def _reasons(rows: list[Any]) -> dict[str, Counts]:
    """What was suppressed and what is deferred, by reason."""
    found: dict[str, Counts] = {"suppressed_by": defaultdict(int), "deferred_by": defaultdict(int)}
    for row in rows:
        found[row["kind"]][row["reason"]] += row["messages"]
    return found


def _step(
    step: Any,
    by_step: dict[UUID, Counts],
    by_variant: dict[tuple[UUID, str | None], Counts],
    held_back: list[Any],
) -> FunnelStep:
    names = {name for id_, name in by_variant if id_ == step["id"] and name is not None}.union(step["variants"])
    variants = [_filled(FunnelVariant, by_variant.get((step["id"], name), {}), name=name) for name in sorted(names)]
    own = {name: step[name] for name in ("step", "name", "delay_hours")}
    reasons = _reasons([row for row in held_back if row["id"] == step["id"]])
    return _filled(FunnelStep, by_step.get(step["id"], {}), variants=variants, **reasons, **own)


def _filled(type_: type[S], counts: Counts, **more: Any) -> S:
    """What was counted; what was not is none."""
    names = [name for name in type_.__struct_fields__ if name not in more]
    return type_(**more, **{name: counts.get(name, 0) for name in names})
