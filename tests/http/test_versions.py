"""Editing a live campaign makes a new version: who runs goes on with theirs, until somebody moves them."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest
from door_client import Account

from harkara.bus.connection import Bus
from harkara.ids import uuid7
from harkara.storage.storage import Storage


async def running(storage: Storage, acme: Account, campaign: str, count: int = 1) -> list[UUID]:
    """So many contacts that run in the campaign's current version."""
    made = [uuid7() for _ in range(count)]
    async with storage.tenant(acme.tenant) as con:
        for id_ in made:
            await con.execute(
                "insert into contact_campaign_progress"
                " (id, campaign_id, version_id, contact_id, started_at, next_step_id)"
                " select $1, c.id, c.version_id, $3, now(), s.id from campaigns c"
                " join campaign_steps s on s.version_id = c.version_id and s.position = 0 where c.id = $2",
                id_, UUID(campaign), UUID(await acme.contact()),
            )  # fmt: skip
    return made


async def bodies(acme: Account, campaign: str, query: str = "") -> list[str]:
    return [step["body"] for step in (await acme.get(f"/campaigns/{campaign}/steps{query}"))["items"]]


async def test_a_live_campaign_is_edited_in_a_draft_that_activating_puts_in_place(
    acme: Account, storage: Storage
) -> None:
    campaign = await acme.campaign({"delay_hours": 0, "body": "a"}, {"delay_hours": 24, "body": "b"})
    path = f"/campaigns/{campaign}"
    await running(storage, acme, campaign, 2)
    first, second = (await acme.get(f"{path}/steps"))["items"]
    changed = (await acme.call("PATCH", f"{path}/steps/{first['id']}", body={"body": "a2"})).body
    assert (changed["version"], changed["body"], changed["running_on_earlier"]) == (2, "a2", 2)
    still = "is a draft: version 1 is what is sent until POST /campaigns/{id}/activate puts this one in place"
    assert changed["warnings"] == [{"path": "version", "message": still}]
    added = await acme.post(f"{path}/steps", {"delay_hours": 48, "body": "c"})
    assert (added["version"], added["position"], len(added["warnings"])) == (2, 2, 1)
    # The id of any version names the step, and the draft's own works too.
    assert (await acme.call("PATCH", f"{path}/steps/{changed['id']}", body={"body": "a3"})).status == 200
    assert (await acme.call("DELETE", f"{path}/steps/{second['id']}")).status == 204
    assert await bodies(acme, campaign) == ["a3", "c"]
    assert await bodies(acme, campaign, "?version=1") == ["a", "b"]
    shown = await acme.get(path)
    assert (shown["version"], shown["draft_version"]) == (1, 2)

    opened = await acme.post(f"{path}/activate", status=200)
    assert (opened["status"], opened["version"], opened["draft_version"]) == ("active", 2, None)
    assert opened["running_on_earlier"] == 2
    assert await bodies(acme, campaign) == ["a3", "c"]
    current, earlier = (await acme.get(f"{path}/versions"))["items"]
    assert (current["number"], current["state"], current["steps"], current["enrolled"]) == (2, "current", 2, 0)
    assert (earlier["number"], earlier["state"], earlier["steps"], earlier["active"]) == (1, "earlier", 2, 2)
    (await acme.call("POST", f"{path}/activate")).is_problem(409)


async def test_a_half_edited_draft_reaches_nobody_and_a_paused_campaign_stays_paused(
    acme: Account, storage: Storage
) -> None:
    campaign = await acme.campaign({"delay_hours": 0, "body": "a"})
    path = f"/campaigns/{campaign}"
    await acme.post(f"{path}/pause", status=200)
    await acme.post(f"{path}/steps", {"delay_hours": 1, "body": "Hi {{ attributes.city }}"})
    async with storage.tenant(acme.tenant) as con:
        enrolled_in = "select number from campaigns c join campaign_versions v on v.id = c.version_id where c.id = $1"
        assert await con.fetchval(enrolled_in, UUID(campaign)) == 1
    assert "steps[1].body" in (await acme.call("POST", f"{path}/activate")).is_problem(422).faults()
    step = (await acme.get(f"{path}/steps"))["items"][1]["id"]
    await acme.call("PATCH", f"{path}/steps/{step}", body={"body": "Hi"})
    opened = await acme.post(f"{path}/activate", status=200)
    assert (opened["status"], opened["version"]) == ("paused", 2)


async def test_a_draft_can_be_given_up(acme: Account) -> None:
    campaign = await acme.campaign({"delay_hours": 0, "body": "a"})
    path = f"/campaigns/{campaign}"
    await acme.post(f"{path}/steps", {"delay_hours": 1, "body": "b"})
    draft, current = (await acme.get(f"{path}/versions"))["items"]
    (await acme.call("DELETE", f"{path}/versions/{current['id']}")).is_problem(409)
    assert (await acme.call("DELETE", f"{path}/versions/{draft['id']}")).status == 204
    assert await bodies(acme, campaign) == ["a"]
    assert (await acme.get(path))["draft_version"] is None
    (await acme.call("GET", f"{path}/steps?version=2")).is_problem(404)


async def test_edits_at_once_all_go_to_one_draft(acme: Account) -> None:
    campaign = await acme.campaign({"delay_hours": 0, "body": "a"})
    path = f"/campaigns/{campaign}/steps"
    answers = await asyncio.gather(
        *(acme.call("POST", path, body={"delay_hours": hours, "body": str(hours)}) for hours in range(1, 6))
    )
    assert [answer.body["version"] for answer in answers] == [2] * 5
    assert await bodies(acme, campaign) == ["a", "1", "2", "3", "4", "5"]


async def test_only_to_the_current_version_can_anybody_be_moved(acme: Account, storage: Storage, live_bus: Bus) -> None:
    campaign = await acme.campaign({"delay_hours": 0, "body": "a"})
    path = f"/campaigns/{campaign}"
    await running(storage, acme, campaign)
    await acme.post(f"{path}/steps", {"delay_hours": 1, "body": "b"})
    draft, current = (await acme.get(f"{path}/versions"))["items"]
    (await acme.call("POST", f"{path}/versions/{draft['id']}/move")).is_problem(409)
    assert (await acme.post(f"{path}/versions/{current['id']}/move", status=202))["count"] == 0
    await acme.post(f"{path}/activate", status=200)
    assert (await acme.post(f"{path}/versions/{draft['id']}/move", status=202))["count"] == 1
    stored = await live_bus.js.get_last_msg("COMMANDS", f"t.{acme.tenant}.cmd.enrollment.move")
    assert campaign.encode() in (stored.data or b"")


async def test_the_funnel_stays_right_over_versions(acme: Account, storage: Storage) -> None:
    campaign = await acme.campaign({"delay_hours": 0, "body": "a"})
    path = f"/campaigns/{campaign}"
    await running(storage, acme, campaign, 3)
    await sent(storage, acme, campaign, "read", "delivered")
    await acme.post(f"{path}/steps", {"delay_hours": 1, "body": "b"})
    await acme.post(f"{path}/activate", status=200)
    await running(storage, acme, campaign)
    await sent(storage, acme, campaign, "sent")
    both = await acme.get(f"{path}/funnel")
    assert (both["version"], both["enrolled"], both["totals"]["sent"], both["totals"]["read"]) == (2, 4, 3, 1)
    assert [step["sent"] for step in both["steps"]] == [1, 0]
    first = await acme.get(f"{path}/funnel?version=1")
    assert (first["version"], first["enrolled"], first["totals"]["sent"]) == (1, 3, 2)
    assert [(step["sent"], step["delivered"]) for step in first["steps"]] == [(2, 2)]
    (await acme.call("GET", f"{path}/funnel?version=3")).is_problem(404)


async def sent(storage: Storage, acme: Account, campaign: str, *statuses: str, **more: Any) -> None:
    """Messages of the current version's first step."""
    async with storage.tenant(acme.tenant) as con:
        for status in statuses:
            await con.execute(
                'insert into messages (id, sender_id, campaign_id, step, step_id, lane, "to", content, status, due_at,'
                " variant)"
                " select $1, c.sender_id, c.id, 0, s.id, 'marketing', '+1', '{}', $3, now(), $4 from campaigns c"
                " join campaign_steps s on s.version_id = c.version_id and s.position = 0 where c.id = $2",
                uuid7(), UUID(campaign), status, more.get("variant"),
            )  # fmt: skip


async def test_the_funnel_shows_each_variant(acme: Account, storage: Storage) -> None:
    variants = [{"name": "short", "body": "a"}, {"name": "long", "body": "aaa", "weight": 2}]
    campaign = await acme.campaign({"delay_hours": 0, "variants": variants})
    await sent(storage, acme, campaign, "read", "failed", variant="short")
    await sent(storage, acme, campaign, "sent", variant="long")
    [step] = (await acme.get(f"/campaigns/{campaign}/funnel"))["steps"]
    assert (step["sent"], step["failed"]) == (2, 1)
    assert [(one["name"], one["sent"], one["read"], one["failed"]) for one in step["variants"]] == [
        ("long", 1, 0, 0), ("short", 1, 1, 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("step", "path"),
    [
        ({"body": "x", "variants": [{"name": "a", "body": "x"}, {"name": "b", "body": "y"}]}, "body"),
        ({"variants": [{"name": "a", "body": "x"}]}, "variants"),
        ({"variants": [{"name": "a", "body": "x"}, {"name": "a", "body": "y"}]}, "variants[1].name"),
        ({"variants": [{"name": "a", "body": "x"}, {"name": "b", "body": "{{ nmae }}"}]}, "variants[1].body"),
        ({"variants": [{"name": "a", "body": "x"}, {"name": "b"}]}, "variants[1].body"),
        ({"variants": [{"name": "a", "body": "x"}, {"name": "b", "body": "y", "weight": 0}]}, "variants[1].weight"),
    ],
)
async def test_what_is_wrong_with_variants_is_named(acme: Account, step: dict[str, Any], path: str) -> None:
    campaign = await acme.campaign(active=False)
    answer = await acme.call("POST", f"/campaigns/{campaign}/steps", body={"delay_hours": 1} | step)
    assert path in answer.is_problem(422).faults(), answer.text
