"""What campaigns, their versions and steps share: finding them, their order, and how users see them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from tortoise.expressions import Q

from harkara.http.checks import Faults, somebodys
from harkara.http.context import Context
from harkara.http.held_back import by_number, stopped
from harkara.http.problems import Fault, not_found
from harkara.policy.fits import refused
from harkara.policy.templates import ENDED, HELD
from harkara.schemas.api import AgainWhen, CampaignShown, Reentry, Why
from harkara.schemas.content import Content
from harkara.schemas.reasons import POLICY as REASONS
from harkara.schemas.variants import Variant
from harkara.storage.idling import NOTHING
from harkara.storage.models import Campaign, CampaignStep, CampaignVersion, Sender, Template

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Positions are unique at every moment of a statement, so they first move out of the way.
MAKE_ROOM = "update campaign_steps set position = -1 - position where version_id = $1"

#: Equal delays keep the order in which their steps were made.
RENUMBER = """
update campaign_steps s set position = o.position - 1
from (select id, row_number() over (order by delay_hours, id) as position
      from campaign_steps where version_id = $1) o
where s.id = o.id
"""

#: Those who still run on another version than this.
ON_EARLIER = """
select count(*) from contact_campaign_progress
where campaign_id = $1 and version_id <> $2 and status in ('active', 'paused')
"""


async def get_campaign(ctx: Context[Any, Any], *, lock: bool = False) -> Campaign:
    """The campaign of this path. Raises Problem 404."""
    rows = Campaign.select_for_update() if lock else Campaign.all()
    campaign = await rows.get_or_none(id=ctx.id("campaign_id"))
    if campaign is None:
        raise not_found("campaign")
    return campaign


async def shown_campaigns(rows: Sequence[Campaign]) -> list[CampaignShown]:
    """Campaigns as users see them, held back by what the row of their number says."""
    ids = {id_ for row in rows for id_ in (row.version_id, row.draft_version_id) if id_ is not None}
    versions = {row.id: row.number for row in await CampaignVersion.filter(id__in=list(ids))} if ids else {}
    active = {row.sender_id for row in rows if row.status == "active"}
    senders = await Sender.filter(id__in=list(active)) if active else []
    now = datetime.now(UTC)
    held_back = {sender.id: by_number(sender, NOTHING, now) for sender in senders}
    return [_shown(row, versions, held_back.get(row.sender_id)) for row in rows]


async def shown_campaign(row: Campaign) -> CampaignShown:
    """One campaign as users see it."""
    return (await shown_campaigns([row]))[0]


def _shown(row: Any, versions: dict[UUID, int], held_back_by: Why | None) -> CampaignShown:
    own: dict[str, Any] = {name: getattr(row, name) for name in CampaignShown.__struct_fields__ if hasattr(row, name)}
    numbers: dict[str, Any] = {"version": versions[row.version_id], "draft_version": versions.get(row.draft_version_id)}
    held_back_by = held_back_by if row.status == "active" else None
    return CampaignShown(**own, **numbers, held_back_by=held_back_by, reentry=_again(row.reentry_days))


def _again(days: float | None) -> AgainWhen:
    if days is None:
        return "never"
    return Reentry(after_days=days) if days else "after_completion"


async def steps_of(version_id: UUID) -> list[CampaignStep]:
    """The steps of a version, in order."""
    return await CampaignStep.filter(version_id=version_id).order_by("position")


async def same_step(campaign: Campaign, version_id: UUID, step_id: UUID) -> CampaignStep:
    """A step as it is in this version, by its id there or in any other version. Raises Problem 404."""
    step = await CampaignStep.get_or_none(id=step_id, campaign_id=campaign.id)
    if step is not None and step.version_id != version_id:
        origin = step.origin or step.id
        step = await CampaignStep.filter(Q(id=origin) | Q(origin=origin), version_id=version_id).first()
    if step is None:
        raise not_found("step")
    return step


async def version_by_number(campaign: Campaign, number: int | None, otherwise: UUID) -> CampaignVersion:
    """A version of a campaign by its number, or another one if none is given. Raises Problem 404."""
    found = await (
        CampaignVersion.get_or_none(id=otherwise)
        if number is None
        else CampaignVersion.get_or_none(campaign_id=campaign.id, number=number)
    )
    if found is None:
        raise not_found("version")
    return found


async def running_on_earlier(con: Connection, campaign_id: UUID, version_id: UUID) -> int:
    """How many run on other versions than this one."""
    count: int = await con.fetchval(ON_EARLIER, campaign_id, version_id)
    return count


async def renumber(con: Connection, version_id: UUID) -> None:
    """Positions from 0 in the order of the delays."""
    await con.execute(MAKE_ROOM, version_id)
    await con.execute(RENUMBER, version_id)


def content_of(step: CampaignStep) -> Content:
    """What a step says."""
    row: Any = step
    return msgspec.convert(row.content, Content)


def variants_of(step: CampaignStep) -> list[Variant]:
    """The variants of a step; none if it says one thing."""
    row: Any = step
    return msgspec.convert(row.variants or [], list[Variant])


def check_said(faults: Faults, step: CampaignStep, provider: str, *, prefix: str) -> None:
    """Whether everything that a step may say is complete, and the sender's provider can send it."""
    variants = variants_of(step)
    for index, variant in enumerate(variants):
        faults.content(variant.content(), complete=True, prefix=f"{prefix}variants[{index}].", provider=provider)
    if not variants:
        faults.content(content_of(step), complete=True, prefix=prefix, provider=provider)


async def what_stands_in_the_way(campaign: Campaign, version_id: UUID, now: datetime) -> Faults:
    """All that keeps this version of a campaign from being sent."""
    faults = Faults()
    if campaign.status == "draft" and campaign.scheduled_at is not None:  # what is live goes, however late
        instead = "PATCH the campaign with a later time, or with null to go at once"
        faults.not_past("scheduled_at", campaign.scheduled_at, now, instead)
    sender = await Sender.get(id=campaign.sender_id)
    if sender.status != "active":
        faults.add("sender_id", f"the sender is {stopped(sender.id, sender.status, sender.status_reason)}")
    found = await steps_of(version_id)
    if not found:
        faults.add("steps", "there is none: add one with POST /campaigns/{id}/steps")
    if campaign.type == "broadcast" and len(found) > 1:
        faults.add("steps", f"there are {len(found)}: a broadcast has one, a drip campaign may have more")
    for index, step in enumerate(found):
        if campaign.type == "broadcast" and step.delay_hours:
            faults.add(f"steps[{index}].delay_hours", "must be 0 in a broadcast: scheduled_at says when it leaves")
        check_said(faults, step, sender.provider, prefix=f"steps[{index}].")
    faults.extend(await _misfits(sender, found))
    return faults


async def _misfits(sender: Sender, steps: Sequence[CampaignStep]) -> list[Fault]:
    """What steps give their templates and those don't take, as far as WhatsApp has told what they are."""
    using = [
        (f"{path}.", said)
        for index, step in enumerate(steps)
        for path, said in _said(step, f"steps[{index}]")
        if said.template is not None
    ]
    if not using:
        return []
    known = {(one.name, one.language): one for one in await Template.filter(sender_id=sender.id)}
    found: list[Fault] = []
    for path, content in using:
        template = somebodys(content).template
        told = known.get((template.name, template.language)) if template is not None else None
        if template is not None and told is not None:
            faults = refused(template, told.components, told.category)
            found += [(path + where, message) for where, message in faults]
    return found


async def what_may_hold_back(campaign: Campaign, version_id: UUID) -> Faults:
    """What keeps a version's steps from leaving as things stand, and may be mended before their time comes."""
    faults, sender = Faults(), await Sender.get(id=campaign.sender_id)
    known = {
        (template.name, template.language): template.status
        for template in await Template.filter(sender_id=sender.id).only("name", "language", "status")
    }
    for index, step in enumerate(await steps_of(version_id)):
        for path, said in _said(step, f"steps[{index}]"):
            if said.template is None:
                if sender.window == "enforce":
                    faults.add(path, f"is no template: {REASONS['outside_window'].text}")
                continue
            status = known.get((said.template.name, said.template.language))
            reason = "template_missing" if status is None else ENDED.get(status) or HELD.get(status)
            if reason is not None and (status is not None or sender.templates_synced_at is not None):
                faults.add(f"{path}.template", f"{REASONS[reason].text}: {REASONS[reason].todo}")
    return faults


def _said(step: CampaignStep, path: str) -> list[tuple[str, Content]]:
    """All that a step may say."""
    variants = variants_of(step)
    if not variants:
        return [(path, content_of(step))]
    return [(f"{path}.variants[{index}]", variant.content()) for index, variant in enumerate(variants)]
