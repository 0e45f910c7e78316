"""Broadcasts: at what time one goes, and what is refused because it would go at another."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from door_client import Account

from harkara.storage.models import Campaign
from harkara.storage.storage import Storage


def in_hours(hours: float) -> str:
    return (datetime.now(UTC) + timedelta(hours=hours)).isoformat()


async def a_broadcast(acme: Account, **more: Any) -> str:
    """A draft for everybody, with its one step; `more` are further settings."""
    settings = {"name": "Sale", "sender_id": await acme.sender(), "type": "broadcast", "audience": {"all": True}}
    path = f"/campaigns/{(await acme.post('/campaigns', settings | more))['id']}"
    await acme.post(f"{path}/steps", {"delay_hours": 0, "body": "Sale!"})
    return path


async def launches(storage: Storage, acme: Account) -> int:
    """How often a launch of a broadcast of this tenant was asked for: it lies in the outbox, with who asks."""
    async with storage.tenant(acme.tenant) as con:
        rows = await con.fetch("select body, cause from outbox where subject like '%.work.enrollment.launch'")
    for row in rows:
        said = msgspec.json.decode(msgspec.json.decode(row["body"])["said"])
        assert said["request_id"] == row["cause"]
    return len(rows)


PAST = "lies more than 5 minutes in the past: "


async def test_a_broadcast_for_a_time_long_past_is_refused(acme: Account) -> None:
    body = {"name": "Sale", "sender_id": await acme.sender(), "type": "broadcast", "audience": {"all": True}}
    refused = await acme.call("POST", "/campaigns", body=body | {"scheduled_at": "2020-01-01T00:00:00Z"})
    assert refused.is_problem(422).faults() == {
        "scheduled_at": f"{PAST}give a later time, or null to go when activated"
    }
    path = await a_broadcast(acme, scheduled_at=in_hours(-0.05))  # clocks differ
    await acme.post(f"{path}/activate", status=200)


async def test_a_broadcast_that_waits_is_not_launched_by_a_past_time_or_by_none(
    acme: Account, storage: Storage
) -> None:
    path = await a_broadcast(acme, scheduled_at=in_hours(1))
    await acme.post(f"{path}/activate", status=200)
    assert await launches(storage, acme) == 1
    past = await acme.call("PATCH", path, body={"scheduled_at": in_hours(-1)})
    assert "scheduled_at" in past.is_problem(422).faults()
    null = await acme.call("PATCH", path, body={"scheduled_at": None})
    assert "pause the campaign" in null.is_problem(409).body["detail"]
    assert (await acme.get(path))["scheduled_at"] is not None
    assert await launches(storage, acme) == 1
    assert (await acme.call("PATCH", path, body={"scheduled_at": in_hours(2)})).status == 200
    # Nobody is enrolled by it any more, so it may have no time either.
    both = {"scheduled_at": None, "audience": None}
    assert (await acme.call("PATCH", path, body=both)).status == 200


async def test_a_broadcast_without_a_time_goes_once_it_is_resumed(acme: Account, storage: Storage) -> None:
    path = await a_broadcast(acme, scheduled_at=in_hours(1))
    await acme.post(f"{path}/activate", status=200)
    await acme.post(f"{path}/pause", status=200)
    assert (await acme.call("PATCH", path, body={"scheduled_at": None})).status == 200
    assert await launches(storage, acme) == 1
    await acme.post(f"{path}/resume", status=200)
    assert await launches(storage, acme) == 2


async def test_a_draft_whose_time_has_passed_says_so_before_it_is_activated(acme: Account, storage: Storage) -> None:
    path = await a_broadcast(acme, scheduled_at=in_hours(1))
    async with storage.tenant(acme.tenant):
        await Campaign.all().update(scheduled_at=datetime.now(UTC) - timedelta(hours=1))
    blocked = {"scheduled_at": f"{PAST}PATCH the campaign with a later time, or with null to go at once"}
    assert (await acme.call("POST", f"{path}/activate")).is_problem(422).faults() == blocked
    dry = await acme.post(f"{path}/dry-run", {"all": True}, status=200)
    assert {one["path"]: one["message"] for one in dry["blockers"]} == blocked
    assert await launches(storage, acme) == 0
    assert (await acme.call("PATCH", path, body={"scheduled_at": None})).status == 200
    await acme.post(f"{path}/activate", status=200)
    assert await launches(storage, acme) == 1


async def test_a_live_broadcast_is_activated_again_however_long_ago_its_time_was(
    acme: Account, storage: Storage
) -> None:
    path = await a_broadcast(acme, scheduled_at=in_hours(1))
    await acme.post(f"{path}/activate", status=200)
    [step] = (await acme.get(f"{path}/steps"))["items"]
    async with storage.tenant(acme.tenant):
        await Campaign.all().update(scheduled_at=datetime.now(UTC) - timedelta(hours=1))
    await acme.post(f"{path}/activate", status=200)  # its launch is late
    await acme.call("PATCH", f"{path}/steps/{step['id']}", body={"body": "Sale!!"})
    opened = await acme.post(f"{path}/activate", status=200)
    assert (opened["version"], opened["draft_version"]) == (2, None)


async def test_of_two_steps_of_a_broadcast_the_late_one_is_named(acme: Account) -> None:
    path = await a_broadcast(acme)
    await acme.post(f"{path}/steps", {"delay_hours": 1, "body": "Again!"})
    faults = (await acme.call("POST", f"{path}/activate")).is_problem(422).faults()
    assert set(faults) == {"steps", "steps[1].delay_hours"}
