"""Campaigns: from draft to active, paused, resumed and archived, and how far they have come."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import UUID

import msgspec
from msgspec import UNSET

from harkara.http.campaign_rows import content_of, get_campaign, renumber, steps_of
from harkara.http.checks import Faults
from harkara.http.context import Context
from harkara.http.lists import newest, page
from harkara.http.problems import Problem, conflict, not_found
from harkara.http.rows import amend, shown
from harkara.ids import uuid7
from harkara.schemas.api import CampaignShown, Funnel, FunnelStep, NewCampaign, Page, Paging, PatchCampaign
from harkara.storage.models import Campaign, CampaignVersion, Sender

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Nudges the ticker: something became due.
WAKE_DUE = "sys.wake.due"

#: Steps that were set aside while the campaign was paused come back, as late as they are by now.
TAKE_UP_AGAIN = """
update contact_campaign_progress set next_claim_at = next_step_scheduled_at
where campaign_id = $1 and status = 'active' and next_claim_at = 'infinity'
"""

STOP_ALL = """
update contact_campaign_progress
set status = 'stopped', stopped_reason = 'campaign_archived', finished_at = now(), next_claim_at = null,
    updated_at = now()
where campaign_id = $1 and status in ('active', 'paused')
"""

ENROLLED = """
select count(*) as enrolled,
       count(*) filter (where status = 'active') as active,
       count(*) filter (where status = 'completed') as completed,
       count(*) filter (where status = 'stopped') as stopped,
       count(*) filter (where status = 'failed') as failed,
       count(*) filter (where status = 'paused') as paused
from contact_campaign_progress where campaign_id = $1
"""

#: Read messages count as delivered and sent too, as in a funnel.
BY_STEP = """
select s.position as step, s.name, s.delay_hours, coalesce(d.due, 0) as due,
       coalesce(m.queued, 0) as queued, coalesce(m.sending, 0) as sending, coalesce(m.sent, 0) as sent,
       coalesce(m.delivered, 0) as delivered, coalesce(m.read, 0) as read, coalesce(m.failed, 0) as failed,
       coalesce(m.suppressed, 0) as suppressed, coalesce(m.unknown, 0) as unknown
from campaign_steps s
left join (
  select step,
         count(*) filter (where status = 'queued') as queued,
         count(*) filter (where status = 'sending') as sending,
         count(*) filter (where status in ('sent', 'delivered', 'read')) as sent,
         count(*) filter (where status in ('delivered', 'read')) as delivered,
         count(*) filter (where status = 'read') as read,
         count(*) filter (where status = 'failed') as failed,
         count(*) filter (where status = 'suppressed') as suppressed,
         count(*) filter (where status = 'unknown') as unknown
  from messages where campaign_id = $1 group by step) m on m.step = s.position
left join (
  select current_step, count(*) as due from contact_campaign_progress
  where campaign_id = $1 and status = 'active' and next_step_scheduled_at <= now() group by current_step
  ) d on d.current_step = s.position
where s.version_id = $2 order by s.position
"""


async def index(ctx: Context[None, Paging]) -> Page[CampaignShown]:
    """Campaigns, newest first."""
    async with ctx.transaction():
        rows = await newest(Campaign.all(), ctx.tenant, ctx.query)
    return page([shown(row, CampaignShown) for row in rows], ctx.query)


async def show(ctx: Context[None, None]) -> CampaignShown:
    """One campaign."""
    async with ctx.transaction():
        return shown(await get_campaign(ctx), CampaignShown)


async def create(ctx: Context[NewCampaign, None]) -> CampaignShown:
    """A new draft with its first version, which has no steps yet."""
    wanted, faults = ctx.body, Faults()
    name = faults.filled("name", wanted.name)
    faults.refuse()
    version = uuid7()
    async with ctx.transaction():
        await _need_sender(wanted.sender_id)
        campaign = await Campaign.create(
            name=name,
            type=wanted.type,
            sender_id=wanted.sender_id,
            stop_on_reply=wanted.stop_on_reply,
            quiet_hours=msgspec.to_builtins(wanted.quiet_hours),
            version_id=version,
        )
        await CampaignVersion.create(id=version, campaign_id=campaign.id, number=1)
    return shown(campaign, CampaignShown)


async def _need_sender(sender_id: UUID) -> None:
    if not await Sender.filter(id=sender_id).exists():
        raise Problem(404, "there is no such sender: check sender_id", errors=[("sender_id", "is no sender")])


async def change(ctx: Context[PatchCampaign, None]) -> CampaignShown:
    """Change what is given. 409 for the sender or the type of a campaign that is no draft any more."""
    body, faults = ctx.body, Faults()
    changes = {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET}
    if body.name is not UNSET:
        changes["name"] = faults.filled("name", body.name)
    if body.quiet_hours is not UNSET:
        changes["quiet_hours"] = msgspec.to_builtins(body.quiet_hours)
    faults.refuse()
    async with ctx.transaction():
        campaign = await get_campaign(ctx, lock=True)
        fixed = [name for name in ("sender_id", "type") if name in changes and campaign.status != "draft"]
        if fixed:
            raise conflict(f"{' and '.join(fixed)} can change only in a draft: make a new campaign for that")
        if body.sender_id is not UNSET:
            await _need_sender(body.sender_id)
        await amend(campaign, changes)
        return shown(campaign, CampaignShown)


async def delete(ctx: Context[None, None]) -> None:
    """Delete a draft; 409 for any other, which is archived instead."""
    async with ctx.transaction():
        campaign = await get_campaign(ctx, lock=True)
        if campaign.status != "draft":
            raise conflict(f"this campaign is {campaign.status}: only a draft can be deleted, archive it instead")
        await campaign.delete()


async def activate(ctx: Context[None, None]) -> CampaignShown:
    """Freeze the steps and open the campaign for enrolments. 422 lists all that still stands in the way."""
    async with ctx.transaction() as con:
        campaign = await get_campaign(ctx, lock=True)
        _must_be(campaign, "activated", "draft")
        await _check(campaign)
        await renumber(con, campaign.version_id)
        now = ctx.door.clock()
        await CampaignVersion.filter(id=campaign.version_id).update(frozen_at=now)
        await amend(campaign, {"status": "active", "activated_at": now})
    return shown(campaign, CampaignShown)


async def _check(campaign: Campaign) -> None:
    faults = Faults()
    sender = await Sender.get(id=campaign.sender_id)
    if sender.status != "active":
        faults.add("sender_id", f"the sender is {sender.status}: make it active first")
    found = await steps_of(campaign.version_id)
    if not found:
        faults.add("steps", "there is none: add one with POST /campaigns/{id}/steps")
    for index, step in enumerate(found):
        faults.content(content_of(step), complete=True, prefix=f"steps[{index}].")
    faults.refuse()


def _must_be(campaign: Campaign, done: str, *statuses: str) -> None:
    if campaign.status not in statuses:
        raise conflict(f"this campaign is {campaign.status}: only one that is {' or '.join(statuses)} can be {done}")


async def pause(ctx: Context[None, None]) -> CampaignShown:
    """Hold everything back: nothing of this campaign leaves until it is resumed."""
    async with ctx.transaction():
        campaign = await get_campaign(ctx, lock=True)
        _must_be(campaign, "paused", "active")
        await amend(campaign, {"status": "paused"})
    return shown(campaign, CampaignShown)


async def resume(ctx: Context[None, None]) -> CampaignShown:
    """Go on: what became due in the meantime leaves now."""
    async with ctx.transaction() as con:
        campaign = await get_campaign(ctx, lock=True)
        _must_be(campaign, "resumed", "paused")
        await amend(campaign, {"status": "active"})
        await con.execute(TAKE_UP_AGAIN, campaign.id)
    ctx.door.publisher.wake(WAKE_DUE)
    return shown(campaign, CampaignShown)


async def archive(ctx: Context[None, None]) -> CampaignShown:
    """End a campaign for good: enrolments that still run are stopped."""
    async with ctx.transaction() as con:
        campaign = await get_campaign(ctx, lock=True)
        _must_be(campaign, "archived", "draft", "active", "paused")
        await amend(campaign, {"status": "archived"})
        await con.execute(STOP_ALL, campaign.id)
    return shown(campaign, CampaignShown)


async def funnel(ctx: Context[None, None]) -> Funnel:
    """How many are enrolled, and how far the messages of each step have come."""
    campaign_id = ctx.id("campaign_id")
    async with ctx.transaction() as con:
        version: UUID | None = await con.fetchval("select version_id from campaigns where id = $1", campaign_id)
        if version is None:
            raise not_found("campaign")
        people = await _enrolled(con, campaign_id)
        rows = await con.fetch(BY_STEP, campaign_id, version)
    found = [msgspec.convert(dict(row), FunnelStep) for row in rows]
    return Funnel(campaign_id=campaign_id, steps=found, **people)


async def _enrolled(con: Connection, campaign_id: UUID) -> dict[str, int]:
    row = await con.fetchrow(ENROLLED, campaign_id)
    return dict(row) if row else {}
