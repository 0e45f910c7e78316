"""What waits on a schedule to be tried again: why, for how long yet, and whether the broker brings it back."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from harkara.bus import headers
from harkara.bus.api import Api, ApiError
from harkara.bus.topology import Topology

#: So many of an actor's are looked at, those that were parked first: there may be a million whose time has not come.
LOOKED_AT = 20


class Parked(msgspec.Struct, frozen=True, kw_only=True):
    """What one actor has parked: of those looked at, the one that failed most often, and then the oldest.

    It was first stored `age_s` ago, has failed `failed` times (none if it only waits for its time, or for what was
    away) and comes back at `due_at`. `overdue_s` is for how long any of them should have been back.
    """

    actor: str
    tenant: str
    failed: int
    reason: str
    age_s: float
    due_at: datetime
    overdue_s: float


async def parked(api: Api, topology: Topology) -> list[Parked]:
    """What each actor has parked, if anything. Raises Unavailable."""
    places = [
        (stream.name, subject)
        for stream in topology.streams
        for subject in stream.subjects
        if subject.split(".")[2:3] == ["at"]
    ]
    found = await asyncio.gather(*(_first(api, *place) for place in places))
    now = datetime.now(UTC)
    return [
        _told(subject.split(".")[3], messages, now)
        for (_, subject), messages in zip(places, found, strict=True)
        if messages
    ]


async def _first(api: Api, stream: str, subject: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    while len(found) < LOOKED_AT:
        after = found[-1]["seq"] if found else 0
        try:
            answer = await api.call(f"STREAM.MSG.GET.{stream}", {"seq": after + 1, "next_by_subj": subject})
        except ApiError:  # there are no more
            break
        found.append(answer["message"])
    return found


def _told(actor: str, messages: Sequence[dict[str, Any]], now: datetime) -> Parked:
    seen = [_seen(actor, message, now) for message in messages]
    worst = max(seen, key=lambda one: (one.failed, one.age_s))
    return msgspec.structs.replace(worst, overdue_s=max(one.overdue_s for one in seen))


def _seen(actor: str, message: dict[str, Any], now: datetime) -> Parked:
    named = headers.read(b64decode(message.get("hdrs", "")))
    first = msgspec.convert(named.get(headers.AT) or message["time"], datetime)
    due = datetime.fromisoformat(named[headers.SCHEDULE].removeprefix("@at "))
    failed = named.get(headers.ATTEMPT, "")
    return Parked(
        actor=actor,
        tenant=message["subject"].split(".")[1],
        failed=int(failed) if failed.isdecimal() else 0,
        reason=named.get(headers.REASON, ""),
        age_s=(now - first).total_seconds(),
        due_at=due,
        overdue_s=max((now - due).total_seconds(), 0.0),
    )
