"""Why not sent: each reason as users see it, on the message, on the feed, in the funnel and before it happens."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

from chaos.harness import Platform, Tenant
from live.conftest import DAY_S
from live.listening import Ear, enroll, enrollment, instant, listening, until_accepted
from support import quiet_now, until

from harkara.schemas.reasons import POLICY


async def held_back(ear: Ear, tenant: Tenant, id_: str, reason: str, status: str = "suppressed") -> dict[str, Any]:
    """The message, once it is told of; fails unless it says why."""
    await ear.until_heard(f"message.{'deferred' if status == 'queued' else status}", id_)
    message = dict(await tenant.get(f"/messages/{id_}"))
    assert (message["status"], message["reason"]) == (status, reason)
    assert (message["why"]["code"], message["why"]["text"]) == (reason, POLICY[reason].text)
    assert (message["deferred_until"] is not None) == (status == "queued")
    [told] = [one["data"] for one in ear.heard if one["data"].get("id") == id_ and "reason" in one["data"]]
    assert told["reason"] == reason
    return message


async def test_outside_the_window_a_text_does_not_leave_and_a_template_does(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(window="enforce"), await tenant.contact()
    wanted = {"sender_id": sender["id"], "contact_id": contact["id"]}
    async with listening(tenant) as ear:
        await held_back(ear, tenant, (await tenant.post("/messages", wanted | {"body": "Hi"}))["id"], "outside_window")
        # Its enrolment goes on with the next step, which is a template.
        campaign = (await tenant.post("/campaigns", {"name": "W", "sender_id": sender["id"]}))["id"]
        await tenant.post(f"/campaigns/{campaign}/steps", {"delay_hours": 0, "body": "Hello"})
        await tenant.post(f"/campaigns/{campaign}/steps", {"delay_hours": 1, "template": {"name": "hello"}})
        opened = await tenant.post(f"/campaigns/{campaign}/activate")
        assert [warning["path"] for warning in opened["warnings"]] == ["steps[0]"]
        await enroll(tenant, campaign, contact["id"])
        [accepted] = await until_accepted(live.gateway, sender["phone_number_id"], 1)
        assert accepted["type"] == "template"
        funnel = await tenant.get(f"/campaigns/{campaign}/funnel")
        assert [step["suppressed_by"] for step in funnel["steps"]] == [{"outside_window": 1}, {}]
        # Whoever writes is answered.
        await live.gateway.write(contact["phone"], sender["phone_number_id"], "Hello?")
        await until(lambda: [one for one in ear.heard if one["type"] == "reply.received"], "the contact was heard")
        answered = (await tenant.post("/messages", wanted | {"body": "Yes?"}))["id"]
        await ear.until_heard("message.sent", answered)


async def test_in_quiet_hours_marketing_waits_and_leaves_when_they_are_over(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    contact = await tenant.contact(phone=f"+9198{uuid4().int % 10**8:08d}")
    wanted = {"sender_id": sender["id"], "contact_id": contact["id"], "body": "Hi"}
    campaign = await tenant.campaign(sender["id"], 0, quiet_hours=quiet_now())
    dry = await tenant.post(f"/campaigns/{campaign}/dry-run", {"contact_ids": [contact["id"]]})
    [planned] = dry["items"][0]["messages"]
    async with listening(tenant) as ear:
        await enroll(tenant, campaign, contact["id"])
        await until(lambda: [one for one in ear.heard if one["type"] == "message.deferred"], "the step is deferred")
        [told] = [one["data"] for one in ear.heard if one["type"] == "message.deferred"]
        assert told["deferred_until"] == planned["deferred_until"]
        message = await held_back(ear, tenant, told["id"], "quiet_hours", "queued")
        assert message["content"] == {"body": f"step 0 for {contact['name']}"}
        funnel = await tenant.get(f"/campaigns/{campaign}/funnel")
        assert (funnel["steps"][0]["queued"], funnel["steps"][0]["deferred_by"]) == (1, {"quiet_hours": 1})
        await tenant.call("PATCH", "/tenant", {"quiet_hours": quiet_now()})
        loose = (await tenant.post("/messages", wanted | {"lane": "marketing"}))["id"]
        await held_back(ear, tenant, loose, "quiet_hours", "queued")
        late = {"lane": "marketing", "expires_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat()}
        await held_back(ear, tenant, (await tenant.post("/messages", wanted | late))["id"], "expired")
        await ear.until_heard("message.sent", (await tenant.post("/messages", wanted))["id"])
        await ear.until_heard("message.sent", (await tenant.post("/messages", wanted | {"lane": "otp"}))["id"])
        # They end sooner than was said.
        await tenant.call("PATCH", f"/campaigns/{campaign}", {"quiet_hours": {"start": "00:00", "end": "00:00"}})
        await ear.until_heard("message.sent", told["id"])
        await ear.until_heard("enrollment.completed", (await enrollment(tenant, campaign, contact["id"]))["id"])
        await _has_no_reason(ear, tenant, told["id"])
        # What was taken back waits for nothing any more.
        await tenant.post(f"/messages/{loose}/cancel")
        await ear.until_heard("message.suppressed", loose)
        taken_back = await tenant.get(f"/messages/{loose}")
    assert (taken_back["reason"], taken_back["deferred_until"]) == ("cancelled", None)


async def _has_no_reason(ear: Ear, tenant: Tenant, id_: str) -> None:
    """A message that was sent has none: alone, in the list, or in what is told of it afterwards."""
    [listed] = [one for one in await tenant.every("/messages") if one["id"] == id_]
    for shown in (listed, await tenant.get(f"/messages/{id_}")):
        assert (shown["reason"], shown["error_code"], shown["deferred_until"]) == (None, None, None)
    [sent] = [one["data"] for one in ear.heard if one["type"] == "message.sent" and one["data"]["id"] == id_]
    assert sent.get("reason") is None
    assert id_ not in [one["id"] for one in await tenant.every("/messages?reason=quiet_hours")]


async def test_a_contact_who_has_had_enough_gets_no_more(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(), await tenant.contact()
    caps = [{"max": 1, "per_hours": 12}, {"max": 2, "per_hours": 720}]
    assert (await tenant.call("PATCH", "/tenant", {"frequency_caps": caps}))["frequency_caps"] == caps
    wanted = {"sender_id": sender["id"], "contact_id": contact["id"], "body": "Sale", "lane": "marketing"}
    async with listening(tenant) as ear:
        first = (await tenant.post("/messages", wanted))["id"]
        await ear.until_heard("message.sent", first)
        second = (await tenant.post("/messages", wanted))["id"]
        await held_back(ear, tenant, second, "frequency_cap", "queued")
        async with live.database() as con:
            await con.execute("update messages set attempted_at = attempted_at - interval '13 h' where id = $1", first)
        third = (await tenant.post("/messages", wanted))["id"]
        await ear.until_heard("message.sent", third)
        await held_back(ear, tenant, (await tenant.post("/messages", wanted))["id"], "frequency_cap")
        # It is about marketing.
        await ear.until_heard("message.sent", (await tenant.post("/messages", wanted | {"lane": "utility"}))["id"])
        # What waits does not wait for what holds no more.
        await tenant.call("PATCH", "/tenant", {"frequency_caps": None})
        await ear.until_heard("message.sent", second)


async def test_who_gets_no_more_marketing_from_whatsapp_rests_for_a_day(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(), await tenant.contact()
    number = {"phone_number_id": sender["phone_number_id"]}
    await live.gateway.put("faults", [number | {"kind": "failed", "code": 131049, "count": 1}])
    wanted = {"sender_id": sender["id"], "contact_id": contact["id"], "body": "Sale", "lane": "marketing"}
    campaign = await tenant.campaign(sender["id"], 0)
    async with listening(tenant) as ear:
        refused = (await tenant.post("/messages", wanted))["id"]
        await ear.until_heard("message.failed", refused)
        rests_until = instant((await tenant.get(f"/contacts/{contact['id']}"))["marketing_rests_until"])
        [failed] = [one["at"] for one in (await tenant.message(refused))["timeline"] if one["status"] == "failed"]
        # WhatsApp tells whole seconds; the timeline does not go back for that.
        assert rests_until - instant(failed).replace(microsecond=0) == timedelta(seconds=DAY_S)
        async with live.database() as con:  # longer than anything here takes on a busy machine
            longer = "update contacts set marketing_rests_until = now() + interval '12 s' where id = $1"
            await con.execute(longer, contact["id"])
        # Nothing of the kind is tried before that is over; then it leaves.
        held = (await tenant.post("/messages", wanted))["id"]
        await enroll(tenant, campaign, contact["id"])
        await ear.until_heard("message.sent", (await tenant.post("/messages", wanted | {"lane": "utility"}))["id"])
        await held_back(ear, tenant, held, "contact_rests", "queued")
        await ear.until_heard("message.sent", held)
        await until(lambda: ear.of_type("enrollment.completed"), "its campaign goes on")
        # Where all takes long, the campaign's step falls due only after that.
        assert {one["data"]["reason"] for one in ear.of_type("message.deferred")} == {"contact_rests"}
    accepted = await live.gateway.accepted(sender["phone_number_id"])
    assert sorted(one["error"] for one in accepted if one["status"] == "failed") == [131049]


def _told_of(ear: Ear, status: str) -> list[Any]:
    """That a template has got this status."""
    return [one for one in ear.heard if one["type"] == "template.updated" and one["data"]["status"] == status]


async def test_what_waits_for_a_template_leaves_as_soon_as_it_may_be_used(live: Platform, tenant: Tenant) -> None:
    waba = str(uuid4().int % 10**15)
    offer = {"waba_id": waba, "name": "offer", "language": "en"}
    async with live.session.post(
        f"{live.gateway.url}/v26.0/{waba}/message_templates",
        json={"name": "offer", "language": "en", "category": "MARKETING"},
        headers={"Authorization": "Bearer t"},
    ) as answer:
        assert answer.status == 200
    sender, contact = await tenant.sender(waba_id=waba), await tenant.contact()
    number = {"phone_number_id": sender["phone_number_id"]}
    wanted = {"sender_id": sender["id"], "contact_id": contact["id"], "template": {"name": "offer"}}
    campaign = (await tenant.post("/campaigns", {"name": "W", "sender_id": sender["id"]}))["id"]
    await tenant.post(f"/campaigns/{campaign}/steps", {"delay_hours": 0, "template": {"name": "offer"}})
    await tenant.post(f"/campaigns/{campaign}/activate")
    await live.gateway.put("faults", [number | {"kind": "error", "code": 132015, "count": 1}])
    async with listening(tenant) as ear:
        await ear.until_heard("template.synced", sender["id"])
        # WhatsApp refuses one, which says that the template is paused: what comes next waits for an hour.
        refused = (await tenant.post("/messages", wanted))["id"]
        await until(lambda: ear.of_type("alert.raised"), "it is told")
        held = (await tenant.post("/messages", wanted))["id"]
        await held_back(ear, tenant, held, "template_paused", "queued")
        await enroll(tenant, campaign, contact["id"])
        await until(lambda: len(ear.of_type("message.deferred")) == 2, "the step waits too")
        await live.gateway.template(offer | {"status": "approved"})
        for id_ in (refused, held):
            await ear.until_heard("message.sent", id_)
        await until(lambda: ear.of_type("enrollment.completed"), "the campaign goes on")
        await until(lambda: ear.of_type("alert.resolved"), "that it may be used again is told")
        [raised], [resolved] = ear.of_type("alert.raised"), ear.of_type("alert.resolved")
        assert resolved["data"]["id"] == raised["data"]["id"]
        assert resolved["data"]["template"] == raised["data"]["template"] == "offer/en"
    assert len(await live.gateway.accepted(sender["phone_number_id"])) == 3


async def test_a_template_is_used_as_long_as_whatsapp_lets_it_be(live: Platform, tenant: Tenant) -> None:
    waba = str(uuid4().int % 10**15)
    async with live.session.post(
        f"{live.gateway.url}/v26.0/{waba}/message_templates",
        json={"name": "offer", "language": "en", "category": "MARKETING"},
        headers={"Authorization": "Bearer t"},
    ) as answer:
        assert answer.status == 200
    sender, contact = await tenant.sender(waba_id=waba), await tenant.contact()
    path = f"/senders/{sender['id']}/templates"
    offer = {"waba_id": waba, "name": "offer", "language": "en"}
    wanted = {"sender_id": sender["id"], "contact_id": contact["id"]}
    async with listening(tenant) as ear:
        # Made with an account, it is read by itself; and when somebody asks.
        await ear.until_heard("template.synced", sender["id"])
        outcome = await tenant.post(f"{path}/sync", headers={"Prefer": "wait=30"})
        assert (outcome["type"], outcome["data"]["templates"]) == ("template.synced", 1)
        [listed] = (await tenant.get(path))["items"]
        assert (listed["name"], listed["status"], listed["category"]) == ("offer", "approved", "marketing")
        sent = (await tenant.post("/messages", wanted | {"template": {"name": "offer"}}))["id"]
        await ear.until_heard("message.sent", sent)
        missing = (await tenant.post("/messages", wanted | {"template": {"name": "ofer"}}))["id"]
        await held_back(ear, tenant, missing, "template_missing")
        for status, reason, becomes in (
            ("paused", "template_paused", "queued"),
            ("in_appeal", "template_pending", "queued"),
            ("rejected", "template_rejected", "suppressed"),
            ("disabled", "template_disabled", "suppressed"),
        ):
            await live.gateway.template(offer | {"status": status})
            await until(partial(_told_of, ear, status), f"{status} is told")
            held = (await tenant.post("/messages", wanted | {"template": {"name": "offer"}}))["id"]
            await held_back(ear, tenant, held, reason, becomes)
        campaign = (await tenant.post("/campaigns", {"name": "W", "sender_id": sender["id"]}))["id"]
        await tenant.post(f"/campaigns/{campaign}/steps", {"delay_hours": 0, "template": {"name": "offer"}})
        [warning] = (await tenant.post(f"/campaigns/{campaign}/activate"))["warnings"]
        assert warning["message"].startswith(POLICY["template_disabled"].text)
        dry = await tenant.post(f"/campaigns/{campaign}/dry-run", {"contact_ids": [contact["id"]]})
        assert dry["warnings"] == [warning]
        # A code doesn't wait for a template.
        # The reason makes it another webhook: the same one twice within a second is one that is told again.
        again = offer | {"status": "paused", "reason": "low quality"}
        await live.gateway.template(again)
        await until(lambda: len(_told_of(ear, "paused")) == 2, "it is told")
        code = wanted | {"template": {"name": "offer"}, "lane": "otp"}
        await held_back(ear, tenant, (await tenant.post("/messages", code))["id"], "template_paused")


async def test_a_plan_that_is_used_up_keeps_all_but_codes_back(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(), await tenant.contact()
    wanted = {"sender_id": sender["id"], "contact_id": contact["id"], "body": "Hi"}
    async with listening(tenant) as ear:
        await ear.until_heard("message.sent", (await tenant.post("/messages", wanted))["id"])
        async with live.database() as con:
            await con.execute("update tenants set plan = 'trial' where id = $1", tenant.id)
            await con.execute("update monthly_usage set messages = messages + 999 where tenant_id = $1", tenant.id)
        for _ in range(2):
            await held_back(ear, tenant, (await tenant.post("/messages", wanted))["id"], "plan_exhausted")
        await ear.until_heard("message.sent", (await tenant.post("/messages", wanted | {"lane": "otp"}))["id"])
        await ear.until_heard("plan.exhausted", tenant.id)
        assert ear.of(tenant.id) == ["plan.exhausted"]
