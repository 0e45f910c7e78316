"""A campaign's settings as they are sent, checked, and as columns."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from msgspec import UNSET

from harkara.http.checks import Faults
from harkara.http.problems import Problem
from harkara.schemas.api import AgainWhen, NewCampaign, PatchCampaign, Reentry
from harkara.schemas.audience import Audience
from harkara.schemas.conditions import Condition, faults
from harkara.storage.models import Segment, Sender

#: Settings that are conditions.
CONDITIONS = ("goal", "exit")


def columns(body: NewCampaign | PatchCampaign, found: Faults, now: datetime) -> dict[str, Any]:
    """The columns that a body of `now` gives, and on the way what is wrong with it."""
    given = {name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET}
    if "name" in given:
        given["name"] = found.filled("name", given["name"])
    if "quiet_hours" in given:
        given["quiet_hours"] = msgspec.to_builtins(given["quiet_hours"])
    if "reentry" in given:
        given["reentry_days"] = _days(given.pop("reentry"))
    for name in CONDITIONS:
        if name in given:
            given[name] = condition(name, given[name], found)
    if given.get("audience") is not None:
        given["audience"] = _audience(given["audience"], found)
    if given.get("scheduled_at") is not None:
        found.not_past("scheduled_at", given["scheduled_at"], now, "give a later time, or null to go when activated")
        given["scheduled_at"] = found.instant("scheduled_at", given["scheduled_at"])
    return given


def _days(reentry: AgainWhen) -> float | None:
    if isinstance(reentry, Reentry):
        return reentry.after_days
    return 0.0 if reentry == "after_completion" else None


def condition(path: str, given: Condition | None, found: Faults) -> Any:
    """A condition as its column, and on the way what is wrong with it."""
    for inner, message in faults(given) if given is not None else ():
        found.add(f"{path}.{inner}" if inner else path, message)
    return msgspec.to_builtins(given)


def _audience(audience: Audience, found: Faults) -> Any:
    if [audience.segment_id is not None, audience.tag is not None, audience.all].count(True) != 1:
        found.add("audience", "give exactly one of segment_id, tag and all: true")
    return msgspec.to_builtins(audience)


def check_launch(type_: str, audience: Any, scheduled_at: datetime | None, found: Faults) -> None:
    """What must hold of a campaign's launch as a whole."""
    if type_ != "broadcast" and audience is not None:
        found.add("audience", "is possible only for a broadcast: a drip campaign is enrolled in")
    if scheduled_at is not None and audience is None:
        found.add("scheduled_at", "needs an audience, which is enrolled then")


async def need_sender(sender_id: UUID) -> None:
    """Raise Problem 404 if there is no such sender."""
    if not await Sender.filter(id=sender_id).exists():
        raise Problem(404, "there is no such sender: check sender_id", errors=[("sender_id", "is no sender")])


async def need_segment(segment_id: object, path: str = "segment_id") -> None:
    """Raise Problem 404 if there is no such segment."""
    if segment_id is not None and not await Segment.filter(id=segment_id).exists():
        raise Problem(404, f"there is no such segment: check {path}", errors=[(path, "is no segment")])
