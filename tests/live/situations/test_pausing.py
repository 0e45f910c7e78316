"""What operators pause rests, whoever restarts, and goes on when it is resumed; all of it is noted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from chaos.harness import Platform, Tenant, a_phone
from live.listening import enroll, enrollment, until_accepted
from live.situations.telling import now_of, sent, status_of, until_it_says, until_told
from live.terminal import ops, told
from support import quiet_now, until


async def journal(live: Platform) -> list[tuple[str, Any]]:
    return [(one["action"], one["detail"].get("actor")) for one in await told(live, "journal")]


async def test_a_paused_sender_sends_nothing_through_numbers_old_and_new(live: Platform, tenant: Tenant) -> None:
    known = await tenant.sender()
    await status_of(tenant, await sent(tenant, known), "sent", "delivered", "read")
    assert (await told(live, "pause", "actor", "send", "--yes"))["actor"] == "sender"  # as dead letters name it
    try:
        new = await tenant.sender(name="New")
        waiting = [await sent(tenant, known), await sent(tenant, new)]
        for id_ in waiting:
            now = await until_it_says(live, id_, "actor_paused")
            assert "the actor sender, which is paused until somebody resumes it" in now["text"]
        for sender in (known, new):
            accepted = await live.gateway.accepted(sender["phone_number_id"])
            assert len(accepted) == (1 if sender is known else 0)
        assert any("the actor sender is paused" in line for line in (await told(live, "status"))["trouble"])
    finally:
        await told(live, "resume", "actor", "all")
    for id_ in waiting:
        await status_of(tenant, id_, "sent", "delivered", "read")
    assert [one for one in await journal(live) if one[1] in ("sender", "all")][-2:] == [
        ("pause", "sender"),
        ("resume", "all"),
    ]
    assert await ops(live, "journal", "--since", "0s") == (0, "nothing was noted since then\n", "")


async def test_what_was_put_off_before_is_no_longer_why(live: Platform, tenant: Tenant) -> None:
    """Quiet hours are lifted while the sender is paused: it is the pause that is waited for then."""
    campaign, contact = await tenant.campaign((await tenant.sender())["id"], 0), await tenant.contact()
    await tenant.call("PATCH", "/tenant", {"quiet_hours": quiet_now()})
    await tenant.post(f"/contacts/{contact['id']}/campaign/{campaign}/enroll")
    deferred: list[Any] = []

    async def is_deferred() -> bool:
        deferred[:] = (await tenant.get(f"/messages?contact_id={contact['id']}"))["items"]
        return bool(deferred)

    await until(is_deferred, "the step is put off")
    id_ = deferred[0]["id"]
    assert (await until_it_says(live, id_, "quiet_hours"))["todo"]
    await told(live, "pause", "actor", "sender", "--yes")
    try:
        await tenant.call("PATCH", "/tenant", {"quiet_hours": None})
        assert "the actor sender, which is paused" in (await until_it_says(live, id_, "actor_paused"))["text"]
    finally:
        await told(live, "resume", "actor", "sender", "--yes")
    await status_of(tenant, id_, "sent", "delivered", "read")


async def test_what_can_t_be_paused_says_what_can(live: Platform) -> None:
    for name, instead in (("ticker", "pause the sender"), ("nobody", "choose from attendant, dispatcher")):
        status, _, err = await ops(live, "pause", "actor", name, "--yes")
        assert status == 2
        assert instead in err
    status, _, err = await ops(live, "pause", "actor", "dispatcher")
    assert (status, "pause the actor dispatcher" in err) == (1, True), "it must ask"


async def test_a_tenants_numbers_rest_with_it_and_those_that_rested_before_stay_so(
    live: Platform, tenant: Tenant, other: Tenant
) -> None:
    one, two = await tenant.sender(), await tenant.sender(name="Second")
    await told(live, "pause", "sender", two["id"], "--why", "its contract ended", "--yes")
    id_ = await sent(tenant, one)
    await status_of(tenant, id_, "sent", "delivered", "read")
    await told(live, "pause", "tenant", tenant.id, "--why", "unpaid", "--yes")
    held = {sender["id"]: sender["status_reason"] for sender in await tenant.every("/senders")}
    assert held[one["id"]] == "the operator has paused this tenant: unpaid"
    assert held[two["id"]] == "paused by the operator: its contract ended"
    await status_of(other, await sent(other, await other.sender()), "sent", "delivered", "read")
    resume = f"`harkara ops resume tenant {tenant.id}`"
    try:
        assert (await tenant.ask("POST", f"/senders/{one['id']}/resume"))[0] == 409
        assert any(resume in line for line in (await told(live, "status", "--max-age", "3600"))["trouble"])
        looked = [entry for entry in await told(live, "doctor") if not entry["well"] and tenant.id in str(entry)]
        assert [entry["todo"] for entry in looked if resume in entry["todo"]] == [resume]
        assert not [entry for entry in looked if one["id"] in entry["todo"]]
    finally:
        await told(live, "resume", "tenant", tenant.id, "--yes")
    found = {sender["id"]: sender["status"] for sender in await tenant.every("/senders")}
    assert found == {one["id"]: "active", two["id"]: "paused"}
    via = [entry["via"] for entry in await tenant.every("/audit?entity=sender&action=update")]
    assert sorted(via) == ["harkara ops pause sender", "harkara ops pause tenant", "harkara ops resume tenant"]


async def test_a_paused_campaign_says_so_and_goes_on(live: Platform, tenant: Tenant) -> None:
    campaign = await tenant.campaign((await tenant.sender())["id"], 0)
    await told(live, "pause", "campaign", campaign, "--why", "complaints", "--yes")
    status, refused = await tenant.ask("POST", f"/campaigns/{campaign}/resume")
    assert (status, "paused by the operator: complaints; ask" in refused["detail"]) == (409, True)
    contact = await tenant.contact()
    status, refused = await tenant.ask("POST", f"/contacts/{contact['id']}/campaign/{campaign}/enroll")
    assert (status, "paused" in refused["detail"]) == (409, True)
    resume = f"`harkara ops resume campaign {campaign}`"
    [trouble] = [line for line in (await told(live, "status", "--max-age", "3600"))["trouble"] if campaign in line]
    assert trouble.endswith(f"is paused (paused by the operator: complaints): {resume}")
    assert resume in [entry["todo"] for entry in await told(live, "doctor") if entry["check"] == "campaign"]
    assert (await told(live, "trace", campaign))["standing"][0].endswith(
        "is paused (paused by the operator: complaints)"
    )
    assert (await told(live, "resume", "campaign", campaign, "--yes"))["done"].endswith("goes on")
    enrollment = (await tenant.post(f"/contacts/{contact['id']}/campaign/{campaign}/enroll"))["id"]
    story = await told(live, "trace", enrollment)
    assert story["tenant"] == tenant.id
    status, out, _ = await ops(live, "pause", "campaign", contact["id"], "--yes")
    assert status == 2, out


async def test_a_broadcast_that_an_operator_has_paused_goes_once_it_is_resumed_if_its_time_has_come(
    live: Platform, tenant: Tenant
) -> None:
    sender, contact = await tenant.sender(), await tenant.contact(phone=a_phone())
    wanted = {
        "name": "Sale", "type": "broadcast", "sender_id": sender["id"], "audience": {"all": True},
        "scheduled_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
    }  # fmt: skip
    campaign = (await tenant.post("/campaigns", wanted))["id"]
    await tenant.post(f"/campaigns/{campaign}/steps", {"delay_hours": 0, "body": "Sale!"})
    await tenant.post(f"/campaigns/{campaign}/activate")
    await told(live, "pause", "campaign", campaign, "--yes")
    await tenant.call("PATCH", f"/campaigns/{campaign}", {"scheduled_at": None})
    assert (await tenant.get(f"/campaigns/{campaign}"))["launched_at"] is None
    await told(live, "resume", "campaign", campaign, "--yes")
    [accepted] = await until_accepted(live.gateway, sender["phone_number_id"], 1)
    assert accepted["to"] == contact["phone"]
    enrolled = await enrollment(tenant, campaign, contact["id"])
    [noted] = await tenant.every(f"/audit?entity=enrollment&entity_id={campaign}")
    assert (noted["via"], enrolled["status"]) == ("harkara ops resume campaign", "completed")


async def test_a_step_that_is_not_due_says_when_it_is(live: Platform, tenant: Tenant) -> None:
    campaign, contact = await tenant.campaign((await tenant.sender())["id"], 24), await tenant.contact()
    await enroll(tenant, campaign, contact["id"])
    [now] = (await told(live, "trace", contact["id"]))["now"]
    assert (now["code"], now["kind"]) == ("not_due", "step 0 (s0)")
    # The id that its message is going to have leads there too.
    [again] = (await told(live, "trace", now["id"]))["now"]
    assert again == now | {"waits_for": again["waits_for"]}
    await tenant.post(f"/campaigns/{campaign}/pause")
    [now] = (await told(live, "trace", contact["id"]))["now"]
    assert now["code"] == "campaign_paused"
    assert now["todo"] == f"`harkara ops resume campaign {campaign}`"


async def test_a_request_and_a_dead_letter_lead_to_their_messages(live: Platform, tenant: Tenant) -> None:
    id_ = await sent(tenant, await tenant.sender())
    await until_told(live, tenant, "message.read", id_)
    story = (await now_of(live, id_))["story"]
    cause = next(moment["id"] for moment in story["timeline"] if moment["where"] == "request")
    found = await told(live, "trace", cause)
    assert (found["kind"], [one["id"] for one in found["now"]]) == ("cause", [id_])
    told_of = [moment["what"] for moment in found["timeline"] if moment["where"] == "stream EVENTS"]
    assert sorted(told_of) == [f"told: message.{what}" for what in ("delivered", "queued", "read", "sent")]
    status, _, err = await ops(live, "trace", "01a216f5-0000-7000-8000-000000000000")
    assert (status, "--tenant" in err) == (1, True)
