"""Whole journeys of campaigns that are edited, launched, tried in variants, held, and reach their goal."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from chaos.harness import Platform, Tenant, a_phone
from live.conftest import DAY_S
from live.listening import enroll, enrollment, instant, listening, until_accepted
from support import until

#: Hours after which a step is due ten seconds later: on any machine something else is done before.
LATER = 80


async def test_whoever_is_moved_goes_on_with_the_new_steps_and_whoever_is_not_with_theirs(
    live: Platform, tenant: Tenant
) -> None:
    sender = await tenant.sender()
    campaign = await tenant.campaign(sender["id"], 0, LATER)
    contact = await tenant.contact(name="Asha")
    await enroll(tenant, campaign, contact["id"])
    await until_accepted(live.gateway, sender["phone_number_id"], 1)
    _, second = (await tenant.get(f"/campaigns/{campaign}/steps"))["items"]
    path = f"/campaigns/{campaign}"
    status, changed = await tenant.ask("PATCH", f"{path}/steps/{second['id']}", {"body": "mended for {{ name }}"})
    assert (status, changed["running_on_earlier"]) == (200, 1)
    opened = await tenant.post(f"{path}/activate")
    assert (opened["version"], opened["running_on_earlier"]) == (2, 1)
    current = (await tenant.get(f"{path}/versions"))["items"][0]["id"]
    async with listening(tenant) as ear:
        moved = await tenant.post(f"{path}/versions/{current}/move")
        await ear.until_heard("enrollment.moved", moved["id"])
        await ear.until_heard("enrollment.completed", (await enrollment(tenant, campaign, contact["id"]))["id"])
    accepted = await until_accepted(live.gateway, sender["phone_number_id"], 2)
    assert [one["body"] for one in accepted] == ["step 0 for Asha", "mended for Asha"]
    began = instant((await enrollment(tenant, campaign, contact["id"]))["started_at"])
    assert instant(accepted[1]["accepted_at"]) - began >= timedelta(seconds=LATER / 24 * DAY_S, milliseconds=-1)
    funnel = await tenant.get(f"{path}/funnel")
    assert (funnel["enrolled"], funnel["totals"]["sent"]) == (1, 2)


async def test_a_broadcast_goes_to_its_segment_at_its_time(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    meant = [await tenant.contact(tags=["vip"], phone=a_phone()) for _ in range(2)]
    await tenant.contact(phone=a_phone())
    segment = await tenant.post("/segments", {"name": "VIPs", "condition": {"type": "tag", "tag": "vip"}})
    at = datetime.now(UTC) + timedelta(seconds=8)
    wanted = {
        "name": "Sale", "type": "broadcast", "sender_id": sender["id"], "scheduled_at": at.isoformat(),
        "audience": {"segment_id": segment["id"]},
    }  # fmt: skip
    campaign = (await tenant.post("/campaigns", wanted))["id"]
    await tenant.post(f"/campaigns/{campaign}/steps", {"delay_hours": 0, "body": "Sale!"})
    await tenant.post(f"/campaigns/{campaign}/activate")
    accepted = await until_accepted(live.gateway, sender["phone_number_id"], 2)
    assert {one["to"] for one in accepted} == {contact["phone"] for contact in meant}
    assert min(instant(one["accepted_at"]) for one in accepted) > at - timedelta(milliseconds=50)
    assert (await tenant.get(f"/campaigns/{campaign}"))["launched_at"]
    await tenant.ask("POST", f"/campaigns/{campaign}/activate")
    assert (await tenant.get(f"/campaigns/{campaign}/funnel"))["enrolled"] == 2


async def test_a_reply_reaches_the_goal_and_the_funnel_tells_by_which_variant(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    wanted = {"name": "Ask", "sender_id": sender["id"], "goal": {"type": "replied"}, "reentry": "after_completion"}
    campaign = (await tenant.post("/campaigns", wanted))["id"]
    variants = [{"name": "short", "body": "Short?"}, {"name": "long", "body": "A long one?"}]
    await tenant.post(f"/campaigns/{campaign}/steps", {"delay_hours": 0, "variants": variants})
    await tenant.post(f"/campaigns/{campaign}/steps", {"delay_hours": 240, "body": "later"})
    await tenant.post(f"/campaigns/{campaign}/activate")
    contact = await tenant.contact()
    step = (await tenant.get(f"/campaigns/{campaign}/steps"))["items"][0]["id"]
    preview = await tenant.post(f"/campaigns/{campaign}/steps/{step}/preview", {"contact_id": contact["id"]})
    id_ = (await enroll(tenant, campaign, contact["id"]))["id"]
    (accepted,) = await until_accepted(live.gateway, sender["phone_number_id"], 1)
    assert accepted["body"] == preview["content"]["body"], "a preview is what is sent"
    async with listening(tenant) as ear:
        await live.gateway.write(contact["phone"], sender["phone_number_id"], "Yes")
        await ear.until_heard("enrollment.goal_reached", id_)
        await ear.until_heard("enrollment.stopped", id_)
    ended = await enrollment(tenant, campaign, contact["id"])
    assert (ended["status"], ended["stopped_reason"]) == ("stopped", "goal_reached")
    funnel = await tenant.get(f"/campaigns/{campaign}/funnel")
    assert (funnel["goal"], funnel["stopped_by"], funnel["totals"]["replied"]) == (1, {"goal_reached": 1}, 1)
    counted = {one["name"]: (one["sent"], one["replied"], one["goal"]) for one in funnel["steps"][0]["variants"]}
    other = {"short": "long", "long": "short"}[preview["variant"]]
    assert counted == {preview["variant"]: (1, 1, 1), other: (0, 0, 0)}
    # Once more, as the campaign allows.
    await tenant.post(f"/contacts/{contact['id']}/campaign/{campaign}/enroll")
    again = await until_accepted(live.gateway, sender["phone_number_id"], 2)
    assert again[1]["body"] == accepted["body"], "a contact keeps its variant"


async def test_one_contact_is_held_and_goes_on(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    campaign = await tenant.campaign(sender["id"], 0, LATER)
    held, other = await tenant.contact(phone=a_phone()), await tenant.contact(phone=a_phone())
    for contact in (held, other):
        await enroll(tenant, campaign, contact["id"])
    await until_accepted(live.gateway, sender["phone_number_id"], 2)
    path = f"/contacts/{held['id']}/campaign/{campaign}"
    assert (await tenant.post(f"{path}/pause"))["status"] == "paused"
    assert (await tenant.ask("POST", f"{path}/pause"))[0] == 409

    async def gone_on() -> bool:
        return bool((await enrollment(tenant, campaign, other["id"]))["status"] == "completed")

    await until(gone_on, "the other has gone on")
    assert len(await live.gateway.accepted(sender["phone_number_id"])) == 3
    await tenant.post(f"{path}/resume")
    accepted = await until_accepted(live.gateway, sender["phone_number_id"], 4)
    assert accepted[3]["to"] == held["phone"]
    assert accepted[3]["body"].startswith("step 1")
