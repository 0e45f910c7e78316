"""What campaigns and steps share: finding a campaign, and the order of its steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from harkara.http.context import Context
from harkara.http.problems import not_found
from harkara.schemas.content import Content
from harkara.storage.models import Campaign, CampaignStep

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


async def get_campaign(ctx: Context[Any, Any], *, lock: bool = False) -> Campaign:
    """The campaign of this path. Raises Problem 404."""
    rows = Campaign.select_for_update() if lock else Campaign.all()
    campaign = await rows.get_or_none(id=ctx.id("campaign_id"))
    if campaign is None:
        raise not_found("campaign")
    return campaign


async def steps_of(version_id: UUID) -> list[CampaignStep]:
    """The steps of a version, in order."""
    return await CampaignStep.filter(version_id=version_id).order_by("position")


async def renumber(con: Connection, version_id: UUID) -> None:
    """Positions from 0 in the order of the delays."""
    await con.execute(MAKE_ROOM, version_id)
    await con.execute(RENUMBER, version_id)


def content_of(step: CampaignStep) -> Content:
    """What a step says."""
    row: Any = step
    return msgspec.convert(row.content, Content)
