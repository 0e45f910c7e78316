"""A campaign's steps: they can change while it is a draft, and stand still from then on."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET

from harkara.http.campaign_rows import get_campaign, renumber, steps_of
from harkara.http.checks import Faults
from harkara.http.context import Context
from harkara.http.problems import conflict, not_found
from harkara.http.rows import amend
from harkara.schemas.api import NewStep, Page, Paging, PatchStep, StepShown
from harkara.schemas.content import Content
from harkara.storage.models import Campaign, CampaignStep

KINDS = ("body", "template", "media", "interactive")

#: Steps a campaign can have: a list of them is one page.
MOST = 200


async def index(ctx: Context[None, Paging]) -> Page[StepShown]:
    """All steps in the order in which they go out; always one page."""
    async with ctx.transaction():
        campaign = await get_campaign(ctx)
        found = await steps_of(campaign.version_id)
    return Page(items=[_shown(step) for step in found], next=None)


async def create(ctx: Context[NewStep, None]) -> StepShown:
    """A new step. An unknown variable, or more than WhatsApp takes, is refused here already."""
    wanted, faults = ctx.body, Faults()
    content = Content(body=wanted.body, template=wanted.template, media=wanted.media, interactive=wanted.interactive)
    faults.content(content, complete=False)
    faults.refuse()
    async with ctx.transaction() as con:
        campaign = await _draft(ctx)
        count = await CampaignStep.filter(version_id=campaign.version_id).count()
        if count >= MOST:
            raise conflict(f"a campaign has at most {MOST} steps: delete one, or make another campaign")
        step = await CampaignStep.create(
            campaign_id=campaign.id,
            version_id=campaign.version_id,
            position=count,
            name=wanted.name.strip(),
            delay_hours=wanted.delay_hours,
            content=msgspec.to_builtins(content),
        )
        await renumber(con, campaign.version_id)
        await step.refresh_from_db()
    return _shown(step)


async def change(ctx: Context[PatchStep, None]) -> StepShown:
    """Change what is given; a new content replaces the old one whole."""
    body, faults = ctx.body, Faults()
    changes: dict[str, Any] = {}
    if body.name is not UNSET:
        changes["name"] = body.name.strip()
    if body.delay_hours is not UNSET:
        changes["delay_hours"] = body.delay_hours
    said = {kind: value for kind in KINDS if (value := getattr(body, kind)) is not UNSET}
    if said:
        content = Content(**said)
        faults.content(content, complete=False)
        changes["content"] = msgspec.to_builtins(content)
    faults.refuse()
    async with ctx.transaction() as con:
        campaign = await _draft(ctx)
        step = await _get(ctx, campaign)
        await amend(step, changes)
        await renumber(con, campaign.version_id)
        await step.refresh_from_db()
    return _shown(step)


async def delete(ctx: Context[None, None]) -> None:
    """Take a step out of a draft."""
    async with ctx.transaction() as con:
        campaign = await _draft(ctx)
        await (await _get(ctx, campaign)).delete()
        await renumber(con, campaign.version_id)


async def _draft(ctx: Context[Any, Any]) -> Campaign:
    campaign = await get_campaign(ctx, lock=True)
    if campaign.status != "draft":
        raise conflict(
            f"this campaign is {campaign.status} and its steps are frozen: make a new campaign with the changed steps,"
            " then archive this one"
        )
    return campaign


async def _get(ctx: Context[Any, Any], campaign: Campaign) -> CampaignStep:
    step = await CampaignStep.get_or_none(id=ctx.id("step_id"), version_id=campaign.version_id)
    if step is None:
        raise not_found("step")
    return step


def _shown(step: CampaignStep) -> StepShown:
    row: Any = step
    said: dict[str, Any] = row.content
    return StepShown(
        id=row.id,
        campaign_id=row.campaign_id,
        position=row.position,
        name=row.name,
        delay_hours=row.delay_hours,
        **said,
    )
