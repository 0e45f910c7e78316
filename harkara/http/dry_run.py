"""A dry run: who would get what when, and who would not and why, before anybody gets anything.

Who may be enrolled is said by the very expression that decides when it comes to it, conditions by the same SQL, texts
and variants by the same code. Everybody is counted by the database; contacts are listed page by page.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from harkara.http.campaign_rows import (
    content_of,
    get_campaign,
    steps_of,
    version_by_number,
    what_may_hold_back,
    what_stands_in_the_way,
)
from harkara.http.checks import Faults
from harkara.http.context import Context
from harkara.http.dry_texts import Trial
from harkara.http.enrollments import check_meant, meant
from harkara.http.lists import LAST, cursor
from harkara.http.lists import before as place_of
from harkara.http.previews import Lengths, lengths_of, say, variant_for
from harkara.policy import quiet_hours
from harkara.schemas.api import FaultShown, Paging
from harkara.schemas.campaigns import DryContact, DryFault, DryMessage, DryRun, DryStep, NewDryRun
from harkara.schemas.conditions import Condition
from harkara.storage import segments
from harkara.storage.enrolling import LAST_RUN, REFUSAL
from harkara.storage.models import Campaign, CampaignStep, Contact, Sender, Template, Tenant

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Contacts `k` who are meant, with the reason for which they would get nothing.
MEANT = f"""
select k.id, case when ({REFUSAL}) is not null then ({REFUSAL})
                  when {{goal}} then 'goal_reached' when {{exit}} then 'exit_condition' end as reason
from contacts k join campaigns c on c.id = $1
{LAST_RUN}
where k.tenant_id = $2 and ($3::uuid[] is null or k.id = any ($3)) and {{meant}}
"""  # noqa: S608 - our own words

COUNT = "select reason, count(*) as contacts from ({meant}) m group by 1"
PAGE = "select id, reason from ({meant} and k.id > {after} order by k.id limit {limit}) m order by id"


async def run(ctx: Context[NewDryRun, Paging]) -> DryRun:
    """Who would get what when, and who would not and why, if they were enrolled now or at a time."""
    wanted, faults = ctx.body, Faults()
    at = check(ctx, faults)
    faults.refuse()
    async with ctx.transaction() as con:
        campaign = await get_campaign(ctx)
        version = await version_by_number(campaign, None, campaign.version_id)
        steps = await steps_of(version.id)
        sql, values = _meant(campaign, ctx.tenant, wanted, await meant(con, ctx.tenant, wanted))
        counts = {row["reason"]: row["contacts"] for row in await con.fetch(COUNT.format(meant=sql), *values)}
        people, last = await _people(con, sql, values, ctx.query)
        lengths = lengths_of(await Template.filter(sender_id=campaign.sender_id))
        trial = Trial(steps, lengths)
        tried = await trial.people(con, sql, values)
        blockers = await what_stands_in_the_way(campaign, version.id, ctx.came_at)
        warnings = await what_may_hold_back(campaign, version.id)
        sender = await Sender.get(id=campaign.sender_id)
        tenant = await Tenant.get(id=ctx.tenant)
    if campaign.status == "archived":
        blockers.add("status", "is archived: nobody can be enrolled any more")
    plan = Plan(campaign, steps, at, ctx.door.settings.speed, tenant, lengths)
    enrolled = counts.pop(None, 0)
    unsaid = await trial.faults(tried)
    return DryRun(
        campaign_id=campaign.id,
        version=version.number,
        at=at,
        audience=enrolled + sum(counts.values()),
        enrolled=enrolled,
        tried=len(tried) if trial.varies else enrolled,
        refused=counts,
        blockers=[FaultShown(path=path, message=message) for path, message in blockers],
        warnings=[FaultShown(path=path, message=message) for path, message in warnings],
        seconds_a_step=enrolled / sender.mps,
        steps=[plan.step(step, enrolled, faults.shown()) for step, faults in zip(steps, unsaid, strict=True)],
        items=[plan.contact(contact, reason) for contact, reason in people],
        next=None if last is None else cursor(last),
    )


def check(ctx: Context[NewDryRun, Paging], faults: Faults, _region: str | None = None) -> datetime:
    """When they would be enrolled."""
    check_meant(ctx, faults)
    return ctx.door.clock() if ctx.body.at is None else faults.instant("at", ctx.body.at)


def _meant(campaign: Campaign, tenant: str, wanted: NewDryRun, condition: Condition | None) -> tuple[str, list[Any]]:
    """The statement of those who are meant, and its values."""
    row: Any = campaign
    values: list[Any] = [campaign.id, tenant, wanted.contact_ids]
    where, more = segments.compiled(condition, taken=len(values))
    values += more
    pieces: dict[str, str] = {}
    for name in ("goal", "exit"):
        # Nobody who would be enrolled only now has done anything since.
        to = segments.Compiler(len(values), since="now()")
        stored = getattr(row, name)
        pieces[name] = to.compile(segments.read(stored)) if stored is not None else "false"
        values += to.values
    return MEANT.replace("{goal}", pieces["goal"]).replace("{exit}", pieces["exit"]).replace("{meant}", where), values


async def _people(
    con: Connection, sql: str, values: Sequence[Any], query: Paging
) -> tuple[list[tuple[Contact, str | None]], Any]:
    """The contacts of a page with the reason for which they get nothing, and the last one if there are more."""
    after = place_of(query)
    paged = PAGE.format(meant=sql, after=f"${len(values) + 1}::uuid", limit=f"${len(values) + 2}")
    first = "00000000-0000-0000-0000-000000000000"
    rows = await con.fetch(paged, *values, first if after == LAST else after, query.limit + 1)
    more = rows[query.limit - 1]["id"] if len(rows) > query.limit else None
    found = (
        {contact.id: contact for contact in await Contact.filter(id__in=[row["id"] for row in rows])} if rows else {}
    )
    return [(found[row["id"]], row["reason"]) for row in rows[: query.limit] if row["id"] in found], more


class Plan:
    """When each step of a campaign would leave, and what it would say."""

    def __init__(
        self,
        campaign: Campaign,
        steps: Sequence[CampaignStep],
        at: datetime,
        speed: float,
        tenant: Tenant,
        lengths: Lengths,
    ) -> None:
        of_campaign: Any = campaign
        of_tenant: Any = tenant
        quiet = of_campaign.quiet_hours or of_tenant.quiet_hours
        self._steps, self._at, self._speed, self._timezone = steps, at, speed, tenant.timezone
        self._lengths = lengths
        self._quiet = quiet_hours.read(msgspec.json.encode(quiet).decode()) if quiet else None

    def _due(self, step: CampaignStep) -> datetime:
        return self._at + timedelta(hours=step.delay_hours / self._speed)

    def step(self, step: CampaignStep, contacts: int, faults: list[DryFault]) -> DryStep:
        """A step for all of them."""
        return DryStep(
            step=step.position,
            name=step.name,
            delay_hours=step.delay_hours,
            at=self._due(step),
            contacts=contacts - sum(fault.contacts for fault in faults),
            faults=faults,
        )

    def contact(self, contact: Contact, reason: str | None) -> DryContact:
        """What would become of one contact."""
        messages = [self._message(step, contact) for step in self._steps] if reason is None else []
        return DryContact(contact_id=contact.id, name=contact.name, reason=reason, messages=messages)

    def _message(self, step: CampaignStep, contact: Contact) -> DryMessage:
        variant = variant_for(step, contact.id)
        _, faults = say(variant.content() if variant else content_of(step), contact, self._lengths)
        at = self._due(step)
        until = self._quiet_until(at, contact)
        return DryMessage(
            step=step.position,
            at=at,
            variant=variant.name if variant else None,
            in_quiet_hours=until is not None,
            deferred_until=until,
            fault=f"{faults[0][0]}: {faults[0][1]}" if faults else None,
        )

    def _quiet_until(self, at: datetime, contact: Contact) -> datetime | None:
        if self._quiet is None:
            return None
        zone = quiet_hours.zone_of(contact.timezone, contact.phone or "", self._timezone)
        return quiet_hours.quiet_until(at, self._quiet, zone)
