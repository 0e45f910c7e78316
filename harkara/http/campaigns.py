"""Campaigns: from draft to active, paused, resumed and archived; a live one is edited in a draft beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from harkara.http.campaign_fields import check_launch, columns, need_segment, need_sender
from harkara.http.campaign_rows import (
    get_campaign,
    renumber,
    running_on_earlier,
    shown_campaign,
    shown_campaigns,
    what_may_hold_back,
    what_stands_in_the_way,
)
from harkara.http.checks import Faults
from harkara.http.context import Context
from harkara.http.held_back import by_operator, by_what_passes, passing
from harkara.http.lists import listed, picked
from harkara.http.problems import conflict, operators
from harkara.http.rows import amend
from harkara.ids import uuid7
from harkara.schemas.api import (
    CampaignActivated,
    CampaignQuery,
    CampaignShown,
    FaultShown,
    NewCampaign,
    Page,
    PatchCampaign,
)
from harkara.schemas.work import StopPage
from harkara.storage import deferring, enrolling, pausing
from harkara.storage.models import Campaign, CampaignVersion

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Nudges the ticker: something became due.
WAKE_DUE = "sys.wake.due"


async def index(ctx: Context[None, CampaignQuery]) -> Page[CampaignShown]:
    """Campaigns, newest first."""
    query = ctx.query
    wanted = {"status": query.status, "type": query.type, "sender_id": query.sender_id, "name__icontains": query.q}
    async with ctx.transaction():
        rows, last = await picked(Campaign.all(), ctx.tenant, query, wanted)
        shown = await shown_campaigns(rows)
    return listed(await _held_back(ctx, shown), last)


async def show(ctx: Context[None, None]) -> CampaignShown:
    """One campaign."""
    async with ctx.transaction():
        shown = await shown_campaign(await get_campaign(ctx))
    return (await _held_back(ctx, [shown]))[0]


async def _held_back(ctx: Context[None, Any], shown: list[CampaignShown]) -> list[CampaignShown]:
    """The same, with what passes of their numbers, and what an operator has paused for everybody.

    Redis and the broker are asked, so not in a transaction.
    """
    runs = {one.id: one.sender_id for one in shown if one.status == "active" and one.held_back_by is None}
    if not runs:
        return shown
    passes, now = await passing(ctx.door.redis, set(runs.values())), ctx.door.clock()
    why = {id_: by_what_passes(sender, passes[sender], now) for id_, sender in runs.items()}
    paused = None if all(why.values()) else await by_operator(ctx.door.bus, "sender", "enrollment")
    return [msgspec.structs.replace(one, held_back_by=why[one.id] or paused) if one.id in why else one for one in shown]


async def create(ctx: Context[NewCampaign, None]) -> CampaignShown:
    """A new draft with its first version, which has no steps yet."""
    faults = Faults()
    given = check_new(ctx, faults)
    faults.refuse()
    version = uuid7()
    async with ctx.transaction():
        await need_sender(given["sender_id"])
        await _need_audience(given["audience"])
        campaign = await Campaign.create(**given, version_id=version)
        await CampaignVersion.create(id=version, campaign_id=campaign.id, number=1)
        return await shown_campaign(campaign)


def check_new(ctx: Context[NewCampaign, None], faults: Faults, _region: str | None = None) -> dict[str, Any]:
    """The columns of a new campaign."""
    given = columns(ctx.body, faults, ctx.came_at)
    check_launch(given["type"], given["audience"], given["scheduled_at"], faults)
    return given


def check_changes(ctx: Context[PatchCampaign, None], faults: Faults, _region: str | None = None) -> dict[str, Any]:
    """The columns that a change gives."""
    return columns(ctx.body, faults, ctx.came_at)


async def _need_audience(audience: dict[str, object] | None) -> None:
    if audience is not None:
        await need_segment(audience.get("segment_id"), "audience.segment_id")


async def change(ctx: Context[PatchCampaign, None]) -> CampaignShown:
    """Change what is given. 409 for what is fixed: the sender and type of a live one, a launch that has happened."""
    faults = Faults()
    changes = check_changes(ctx, faults)
    faults.refuse()
    async with ctx.transaction() as con:
        campaign = await get_campaign(ctx, lock=True)
        fixed = [name for name in ("sender_id", "type") if name in changes and campaign.status != "draft"]
        if fixed:
            raise conflict(f"{' and '.join(fixed)} can change only in a draft: make a new campaign for that")
        late = [name for name in ("audience", "scheduled_at") if name in changes and campaign.launched_at is not None]
        if late:
            raise conflict(f"this broadcast was launched: {' and '.join(late)} can't change, make a new campaign")
        waited = campaign.scheduled_at is not None and _waits_for_launch(campaign)
        if "sender_id" in changes:
            await need_sender(changes["sender_id"])
        await _need_audience(changes.get("audience"))
        await amend(campaign, changes)
        if waited and campaign.scheduled_at is None and _waits_for_launch(campaign):
            raise conflict(
                "this broadcast waits for its time, and without one it would go at once: give scheduled_at another time"
                " (for at once, what the clock says), or pause the campaign first, which holds everything back"
            )
        if "quiet_hours" in changes:
            await deferring.look_again(con, ctx.tenant, campaign.id)
        check_launch(campaign.type, campaign.audience, campaign.scheduled_at, faults)
        faults.refuse()
        if {"audience", "scheduled_at"} & changes.keys():
            await _launch(ctx, con, campaign)
        shown = await shown_campaign(campaign)
    if "quiet_hours" in changes:
        ctx.when_committed(lambda: ctx.door.publisher.wake(WAKE_DUE))
    return shown


async def delete(ctx: Context[None, None]) -> None:
    """Delete a draft; 409 for any other, which is archived instead."""
    async with ctx.transaction():
        campaign = await get_campaign(ctx, lock=True)
        if campaign.status != "draft":
            instead = "leave it" if campaign.status == "archived" else "archive it instead"
            raise conflict(f"this campaign is {campaign.status}: only a draft can be deleted, {instead}")
        await campaign.delete()


async def activate(ctx: Context[None, None]) -> CampaignActivated:
    """Freeze the draft's steps and open the campaign with them. 422 lists all that still stands in the way.

    Of a live campaign this is for new enrolments; those on earlier versions finish theirs unless they are moved. A
    broadcast with an audience is launched. Doing it again does no harm.
    """
    async with ctx.transaction() as con:
        campaign = await get_campaign(ctx, lock=True)
        version = campaign.version_id if campaign.status == "draft" else campaign.draft_version_id
        if campaign.status == "archived" or (version is None and not _waits_for_launch(campaign)):
            raise conflict(
                f"this campaign is {campaign.status}"
                f"{'' if campaign.status == 'archived' else ', and its steps are as they were: change one first'}"
            )
        if version is not None:
            (await what_stands_in_the_way(campaign, version, ctx.came_at)).refuse()
            await renumber(con, version)
            now = ctx.door.clock()
            await CampaignVersion.filter(id=version).update(frozen_at=now)
            opened = {"version_id": version, "draft_version_id": None}
            first = {"status": "active", "activated_at": now} if campaign.status == "draft" else {}
            await amend(campaign, opened | first)
        shown = await shown_campaign(campaign)
        earlier = await running_on_earlier(con, campaign.id, campaign.version_id)
        warnings = await what_may_hold_back(campaign, campaign.version_id)
        await _launch(ctx, con, campaign)
    return CampaignActivated(
        **msgspec.structs.asdict(shown),
        running_on_earlier=earlier,
        warnings=[FaultShown(path=path, message=message) for path, message in warnings],
    )


def _waits_for_launch(campaign: Campaign) -> bool:
    return campaign.status == "active" and campaign.audience is not None and campaign.launched_at is None


async def _launch(ctx: Context[None, None] | Context[PatchCampaign, None], con: Connection, campaign: Campaign) -> None:
    """Have a broadcast's audience enrolled, if it isn't: at its time, or now. Asked for twice, it is done once."""
    if _waits_for_launch(campaign):
        await enrolling.have_launched(con, ctx.tenant, campaign.id)
        ctx.telling = True


def _must_be(campaign: Campaign, done: str, *statuses: str) -> None:
    if campaign.status not in statuses:
        raise conflict(f"this campaign is {campaign.status}: only one that is {' or '.join(statuses)} can be {done}")


async def pause(ctx: Context[None, None]) -> CampaignShown:
    """Hold everything back: nothing of this campaign leaves until it is resumed."""
    async with ctx.transaction():
        campaign = await get_campaign(ctx, lock=True)
        _must_be(campaign, "paused", "active")
        await amend(campaign, {"status": "paused", "status_reason": None})
        return await shown_campaign(campaign)


async def resume(ctx: Context[None, None]) -> CampaignShown:
    """Go on where it stopped: what became due in the meantime leaves now.

    So does a broadcast whose time came in the meantime: it is launched now. To send it later, PATCH its `scheduled_at`
    first. 409 for one that an operator has paused: only operators have it go on.
    """
    async with ctx.transaction() as con:
        campaign = await get_campaign(ctx, lock=True)
        _must_be(campaign, "resumed", "paused")
        if pausing.by_operator(campaign.status_reason):
            raise operators(str(campaign.status_reason))
        await pausing.resume_campaign(con, ctx.tenant, campaign.id)
        ctx.telling = True  # it may have a launch ahead
        shown = await shown_campaign(await get_campaign(ctx))
    ctx.when_committed(lambda: ctx.door.publisher.wake(WAKE_DUE))
    return shown


async def archive(ctx: Context[None, None]) -> CampaignShown:
    """End a campaign for good: nothing of it leaves any more.

    Enrolments that still run are stopped after that, thousands in a moment, and each is told: `enrollment.stopped`.
    """
    async with ctx.transaction() as con:
        campaign = await get_campaign(ctx, lock=True)
        _must_be(campaign, "archived", "draft", "active", "paused")
        await amend(campaign, {"status": "archived", "status_reason": None})
        await ctx.tell(con, StopPage(campaign_id=str(campaign.id), said=ctx.acting), f"{campaign.id}.stop")
        return await shown_campaign(campaign)
