"""A campaign's steps. Those of a live campaign stand still: a change goes to a copy, the draft of its next version."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from msgspec import UNSET

from harkara.http.campaign_rows import (
    get_campaign,
    renumber,
    running_on_earlier,
    same_step,
    steps_of,
    version_by_number,
)
from harkara.http.checks import Faults
from harkara.http.context import Context
from harkara.http.problems import conflict
from harkara.http.rows import amend
from harkara.ids import uuid7
from harkara.schemas.api import FaultShown, NewStep, Page, PatchStep, StepQuery, StepShown
from harkara.schemas.content import Content
from harkara.schemas.variants import Variant
from harkara.storage.models import Campaign, CampaignStep, CampaignVersion

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

KINDS = ("body", "template", "media", "interactive")

#: Steps a campaign can have: a list of them is one page.
MOST = 200


@dataclass(frozen=True, slots=True)
class Editing:
    """The version that a change goes to; `live` says that others run on earlier ones."""

    campaign: Campaign
    version: UUID
    number: int
    live: bool


async def index(ctx: Context[None, StepQuery]) -> Page[StepShown]:
    """All steps in the order in which they go out; always one page."""
    async with ctx.transaction():
        campaign = await get_campaign(ctx)
        edited = campaign.draft_version_id or campaign.version_id
        version = await version_by_number(campaign, ctx.query.version, edited)
        found = await steps_of(version.id)
    return Page(items=[_shown(step, version.number) for step in found], next=None)


async def create(ctx: Context[NewStep, None]) -> StepShown:
    """A new step. An unknown variable, or more than WhatsApp takes, is refused here already.

    Of a live campaign it is one of the draft, which activating the campaign again puts in place for new enrolments.
    """
    wanted, faults = ctx.body, Faults()
    said = check_new(ctx, faults)
    faults.refuse()
    async with ctx.transaction() as con:
        editing = await _edit(ctx)
        count = await CampaignStep.filter(version_id=editing.version).count()
        if count >= MOST:
            raise conflict(f"a campaign has at most {MOST} steps: delete one, or make another campaign")
        step = await CampaignStep.create(
            campaign_id=editing.campaign.id,
            version_id=editing.version,
            position=count,
            name=wanted.name.strip(),
            delay_hours=wanted.delay_hours,
            expires_after_hours=wanted.expires_after_hours,
            delivery=wanted.delivery,
            **said,
        )
        return await _changed(con, editing, step)


def check_new(ctx: Context[NewStep, None], faults: Faults, _region: str | None = None) -> dict[str, Any]:
    """What a new step says, as columns."""
    given: dict[str, Any] = {kind: value for kind in KINDS if (value := getattr(ctx.body, kind)) is not None}
    return _said(given, ctx.body.variants, faults)


def check_changes(ctx: Context[PatchStep, None], faults: Faults, _region: str | None = None) -> dict[str, Any]:
    """What a changed step says, as columns; none if that stays."""
    given = {kind: value for kind in KINDS if (value := getattr(ctx.body, kind)) is not UNSET}
    variants = ctx.body.variants
    if not given and variants is UNSET:
        return {}
    return _said(given, None if variants is UNSET else variants, faults)


def _said(given: dict[str, Any], variants: list[Variant] | None, faults: Faults) -> dict[str, Any]:
    """What a step says, as columns: one content, or variants of it."""
    if variants is None:
        content = Content(**given)
        faults.content(content, complete=False)
        return {"content": msgspec.to_builtins(content), "variants": None}
    for kind in given:
        faults.add(kind, "can't be given beside variants: each of them says what it says")
    for index, variant in enumerate(variants):
        faults.content(variant.content(), complete=False, prefix=f"variants[{index}].")
        if not variant.name.strip() or variant.name in [one.name for one in variants[:index]]:
            faults.add(f"variants[{index}].name", "must not be empty, and be no other's name")
    return {"content": {}, "variants": msgspec.to_builtins(variants)}


async def change(ctx: Context[PatchStep, None]) -> StepShown:
    """Change what is given; a new content replaces the old one whole.

    Of a live campaign it is the draft's step that changes, whichever version's id names it.
    """
    body, faults = ctx.body, Faults()
    changes: dict[str, Any] = {}
    if body.name is not UNSET:
        changes["name"] = body.name.strip()
    if body.delay_hours is not UNSET:
        changes["delay_hours"] = body.delay_hours
    if body.expires_after_hours is not UNSET:
        changes["expires_after_hours"] = body.expires_after_hours
    if body.delivery is not UNSET:
        changes["delivery"] = body.delivery
    changes |= check_changes(ctx, faults)
    faults.refuse()
    async with ctx.transaction() as con:
        editing = await _edit(ctx)
        step = await same_step(editing.campaign, editing.version, ctx.id("step_id"))
        await amend(step, changes)
        return await _changed(con, editing, step)


async def delete(ctx: Context[None, None]) -> None:
    """Take a step out: of a live campaign, out of its draft."""
    async with ctx.transaction() as con:
        editing = await _edit(ctx)
        await (await same_step(editing.campaign, editing.version, ctx.id("step_id"))).delete()
        await renumber(con, editing.version)


async def _changed(con: Connection, editing: Editing, step: CampaignStep) -> StepShown:
    await renumber(con, editing.version)
    await step.refresh_from_db()
    if not editing.live:
        return _shown(step, editing.number)
    running = await running_on_earlier(con, editing.campaign.id, editing.version)
    current = (await CampaignVersion.get(id=editing.campaign.version_id)).number
    still = (
        f"is a draft: version {current} is what is sent until POST /campaigns/{{id}}/activate puts this one in place"
    )
    warnings = [FaultShown(path="version", message=still)]
    return msgspec.structs.replace(_shown(step, editing.number), running_on_earlier=running, warnings=warnings)


async def _edit(ctx: Context[Any, Any]) -> Editing:
    """The version that may be changed: a draft's only one, or the draft beside a live one, made if there is none."""
    campaign = await get_campaign(ctx, lock=True)
    if campaign.status == "archived":
        raise conflict("this campaign is archived, and stays as it was: make a new campaign with the changed steps")
    live = campaign.status != "draft"
    if live and campaign.draft_version_id is None:
        if ctx.route.method != "POST":  # a step that isn't there changes nothing
            await same_step(campaign, campaign.version_id, ctx.id("step_id"))
        await amend(campaign, {"draft_version_id": await _copy(campaign)})
    version = (campaign.draft_version_id or campaign.version_id) if live else campaign.version_id
    number = (await CampaignVersion.get(id=version)).number
    return Editing(campaign, version, number, live)


async def _copy(campaign: Campaign) -> UUID:
    """A new version with the current one's steps."""
    last = await CampaignVersion.filter(campaign_id=campaign.id).order_by("-number").first()
    number = last.number + 1 if last else 1
    version = await CampaignVersion.create(id=uuid7(), campaign_id=campaign.id, number=number)
    for step in await steps_of(campaign.version_id):
        row: Any = step
        await CampaignStep.create(
            campaign_id=campaign.id,
            version_id=version.id,
            position=row.position,
            name=row.name,
            delay_hours=row.delay_hours,
            expires_after_hours=row.expires_after_hours,
            delivery=row.delivery,
            content=row.content,
            variants=row.variants,
            origin=row.origin or row.id,
        )
    return version.id


def _shown(step: CampaignStep, version: int) -> StepShown:
    row: Any = step
    said: dict[str, Any] = row.content if row.variants is None else {"variants": row.variants}
    return StepShown(
        id=row.id,
        campaign_id=row.campaign_id,
        version=version,
        position=row.position,
        name=row.name,
        delay_hours=row.delay_hours,
        expires_after_hours=row.expires_after_hours,
        delivery=row.delivery,
        **said,
    )
