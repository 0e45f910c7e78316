"""A campaign's versions: who runs on which, moving them to the current one, and giving up a draft."""

from __future__ import annotations

from typing import Any

import msgspec

from harkara.http.accepting import Expected, accept
from harkara.http.campaign_rows import get_campaign, running_on_earlier
from harkara.http.context import Answer, Context
from harkara.http.lists import newest, page
from harkara.http.problems import conflict, not_found
from harkara.http.route import PREFIX
from harkara.http.rows import amend
from harkara.schemas.api import BulkAccepted, Outcome, Page, Paging
from harkara.schemas.campaigns import VersionShown
from harkara.schemas.commands import MoveEnrollments
from harkara.storage.models import Campaign, CampaignVersion

COUNTS = """
select version_id, count(*) as enrolled,
       count(*) filter (where status = 'active') as active,
       count(*) filter (where status = 'paused') as paused,
       count(*) filter (where status = 'completed') as completed,
       count(*) filter (where status = 'stopped') as stopped,
       count(*) filter (where status = 'failed') as failed
from contact_campaign_progress where campaign_id = $1 group by 1
"""

STEPS = "select version_id, count(*) as steps from campaign_steps where version_id = any ($1) group by 1"

NONE: dict[str, int] = {
    "enrolled": 0, "active": 0, "paused": 0, "completed": 0, "stopped": 0, "failed": 0, "steps": 0
}  # fmt: skip


async def index(ctx: Context[None, Paging]) -> Page[VersionShown]:
    """A campaign's versions, newest first, with how many were enrolled in each and how they fare."""
    async with ctx.transaction() as con:
        campaign = await get_campaign(ctx)
        found = await newest(CampaignVersion.filter(campaign_id=campaign.id), ctx.tenant, ctx.query)
        counts: dict[Any, dict[str, int]] = {}
        for rows in (
            await con.fetch(COUNTS, campaign.id),
            await con.fetch(STEPS, [version.id for version in found]),
        ):
            for row in rows:
                counts[row["version_id"]] = counts.get(row["version_id"], NONE) | dict(row)
    return page([_shown(campaign, version, counts.get(version.id, NONE)) for version in found], ctx.query)


def _shown(campaign: Campaign, version: CampaignVersion, counts: dict[str, int]) -> VersionShown:
    states = {campaign.draft_version_id: "draft", campaign.version_id: "current"}
    state = "draft" if version.frozen_at is None else states.get(version.id, "earlier")
    own = {"id": version.id, "number": version.number, "frozen_at": version.frozen_at, "created_at": version.created_at}
    return msgspec.convert(counts | own | {"state": state}, VersionShown)


async def move(ctx: Context[None, None]) -> Answer[BulkAccepted | Outcome]:
    """Have those who run on other versions go on with this, the current one.

    They keep their place: what they were sent is never sent again, and times still count from their enrolment. A step
    that is new comes unless its time has passed.
    """
    async with ctx.transaction() as con:
        campaign, version = await _get(ctx)
        if campaign.status not in ("active", "paused") or version.id != campaign.version_id:
            raise conflict("enrolments can be moved only to the current version of a live campaign: activate it first")
        count = await running_on_earlier(con, campaign.id, version.id)
    id_ = ctx.new_id()
    command = MoveEnrollments(campaign_id=str(campaign.id))
    location = f"{PREFIX}/campaigns/{campaign.id}/versions"
    expected = Expected(frozenset({"enrollment.moved"}), id_)
    return await accept(ctx, command, BulkAccepted(id=id_, count=count), location, expected)


async def discard(ctx: Context[None, None]) -> None:
    """Give up the draft beside a live campaign: its steps stay as they are. 409 for any other version."""
    async with ctx.transaction():
        campaign, version = await _get(ctx, lock=True)
        if version.id != campaign.draft_version_id:
            raise conflict("only the draft beside a live campaign can be given up: others were, or are, enrolled in")
        await amend(campaign, {"draft_version_id": None})
        await version.delete()


async def _get(ctx: Context[None, None], *, lock: bool = False) -> tuple[Campaign, CampaignVersion]:
    campaign = await get_campaign(ctx, lock=lock)
    version = await CampaignVersion.get_or_none(id=ctx.id("version_id"), campaign_id=campaign.id)
    if version is None:
        raise not_found("version")
    return campaign, version
