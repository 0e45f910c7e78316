"""Campaigns: what a draft may still change, what stands in the way of activation, and how far one has come."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast
from uuid import UUID

import msgspec
import pytest
from door_client import Account, in_order
from support import until

from harkara.bus.connection import Bus
from harkara.http import funnel
from harkara.http.campaign_rows import version_by_number
from harkara.ids import uuid7
from harkara.schemas.work import StopPage
from harkara.storage import opting, pausing, templates
from harkara.storage.models import Conversation, Message, Reply
from harkara.storage.opting import Word
from harkara.storage.storage import Storage
from harkara.storage.templates import Found


async def test_a_campaign_goes_from_draft_to_archived(acme: Account) -> None:
    campaign = await acme.campaign(active=False)
    path = f"/campaigns/{campaign}"
    assert (await acme.get(path))["status"] == "draft"
    for action, status in (("activate", "active"), ("pause", "paused"), ("resume", "active"), ("archive", "archived")):
        done = await acme.post(f"{path}/{action}", status=200)
        assert done["status"] == status
        assert done["activated_at"] is not None
    for action in ("activate", "pause", "resume", "archive"):
        answer = await acme.call("POST", f"{path}/{action}")
        assert "archived" in answer.is_problem(409).body["detail"]
    (await acme.call("DELETE", path)).is_problem(409)


async def test_a_draft_is_changed_and_deleted(acme: Account) -> None:
    sender, another = await acme.sender(), await acme.sender()
    made = await acme.post(
        "/campaigns",
        {"name": "Diwali", "sender_id": sender, "type": "broadcast", "quiet_hours": {"start": "21:00", "end": "09:00"}},
    )
    assert made["quiet_hours"] == {"start": "21:00", "end": "09:00"}
    path = f"/campaigns/{made['id']}"
    change = {"name": "Holi", "sender_id": another, "quiet_hours": None, "stop_on_reply": False}
    changed = await acme.call("PATCH", path, body=change)
    assert {name: changed.body[name] for name in change} == change
    assert await acme.get(path) == changed.body
    assert (await acme.call("DELETE", path)).status == 204
    (await acme.call("GET", path)).is_problem(404)


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"name": " "}, "name"),
        ({"type": "drop"}, "type"),
        ({"sender_id": "x"}, "sender_id"),
        ({"quiet_hours": {"start": "9pm", "end": "09:00"}}, "quiet_hours.start"),
        ({"quiet_hours": {"start": "21:00"}}, "quiet_hours.end"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_what_is_wrong_with_a_campaign_is_named(acme: Account, change: dict[str, Any], path: str) -> None:
    body = {"name": "X", "sender_id": await acme.sender()} | change
    assert path in (await acme.call("POST", "/campaigns", body=body)).is_problem(422).faults()


async def test_a_sender_that_is_not_there_is_named(acme: Account) -> None:
    body = {"name": "X", "sender_id": str(uuid7())}
    assert "sender_id" in (await acme.call("POST", "/campaigns", body=body)).is_problem(404).faults()


async def test_steps_stand_in_the_order_of_their_delays_whatever_is_done_to_them(acme: Account) -> None:
    steps = [{"name": name, "delay_hours": delay, "body": name} for name, delay in (("c", 48), ("a", 0), ("b", 24))]
    campaign = await acme.campaign(*steps, active=False)
    path = f"/campaigns/{campaign}/steps"

    async def order() -> list[tuple[str, int]]:
        return [(step["name"], step["position"]) for step in (await acme.get(path))["items"]]

    assert await order() == [("a", 0), ("b", 1), ("c", 2)]
    first = (await acme.get(path))["items"][0]["id"]
    moved = await acme.call("PATCH", f"{path}/{first}", body={"delay_hours": 30.5})
    assert (moved.body["position"], moved.body["delay_hours"]) == (1, 30.5)
    assert await order() == [("b", 0), ("a", 1), ("c", 2)]
    await acme.post(path, {"name": "same", "delay_hours": 24, "body": "x"})
    assert await order() == [("b", 0), ("same", 1), ("a", 2), ("c", 3)]
    assert (await acme.call("DELETE", f"{path}/{first}")).status == 204
    assert await order() == [("b", 0), ("same", 1), ("c", 2)]


async def test_steps_made_at_once_all_get_a_place(acme: Account) -> None:
    campaign = await acme.campaign(active=False)
    path = f"/campaigns/{campaign}/steps"
    bodies = [{"name": str(hours), "delay_hours": hours, "body": "x"} for hours in (3, 1, 2, 5, 4)]
    answers = await asyncio.gather(*(acme.call("POST", path, body=body) for body in bodies))
    assert [answer.status for answer in answers] == [201] * 5
    assert [step["position"] for step in (await acme.get(path))["items"]] == list(range(6))


async def test_a_step_may_be_any_content_and_a_change_replaces_it_whole(acme: Account) -> None:
    campaign = await acme.campaign(active=False)
    path = f"/campaigns/{campaign}/steps"
    template = {"name": "order_update", "language": "hi", "parameters": ["{{ first_name }}", "7"]}
    step = await acme.post(path, {"delay_hours": 1, "template": template})
    assert step["template"]["parameters"] == ["{{ first_name }}", "7"]
    assert "body" not in step
    changed = await acme.call("PATCH", f"{path}/{step['id']}", body={"body": "Hello"})
    assert changed.body["body"] == "Hello"
    assert "template" not in changed.body


@pytest.mark.parametrize(
    ("step", "path"),
    [
        ({"delay_hours": 0}, "body"),
        ({"delay_hours": 0, "body": "x", "template": {"name": "t"}}, "body"),
        ({"delay_hours": -1, "body": "x"}, "delay_hours"),
        ({"delay_hours": 1e300, "body": "x"}, "delay_hours"),
        ({"body": "x"}, "delay_hours"),
        ({"delay_hours": 0, "body": "Hi {{ nmae }}"}, "body"),
        ({"delay_hours": 0, "body": "Hi {{ name"}, "body"),
        ({"delay_hours": 0, "body": "x" * 4097}, "body"),
        ({"delay_hours": 0, "template": {"name": "t", "parameters": ["ok", "{{ city }}"]}}, "template.parameters[1]"),
        ({"delay_hours": 0, "template": {"name": "T!"}}, "template.name"),
        ({"delay_hours": 0, "body": "x", "when": "now"}, "when"),
    ],
)
async def test_what_is_wrong_with_a_step_is_named(acme: Account, step: dict[str, Any], path: str) -> None:
    campaign = await acme.campaign(active=False)
    answer = await acme.call("POST", f"/campaigns/{campaign}/steps", body=step)
    assert path in answer.is_problem(422).faults(), answer.text
    assert len((await acme.get(f"/campaigns/{campaign}/steps"))["items"]) == 1


async def test_activation_lists_all_that_stands_in_the_way(acme: Account) -> None:
    campaign = await acme.campaign(
        {"delay_hours": 24, "body": "Hi {{ attributes.city }}"},
        {"delay_hours": 0, "body": "Hi {{ attributes.city | default('there') }}"},
        {"delay_hours": 48, "template": {"name": "t", "parameters": ["{{ attributes.plan }}"]}},
        active=False,
    )
    sender = (await acme.get(f"/campaigns/{campaign}"))["sender_id"]
    await acme.call("PATCH", f"/senders/{sender}", body={"status": "paused"})
    faults = (await acme.call("POST", f"/campaigns/{campaign}/activate")).is_problem(422).faults()
    assert set(faults) == {"sender_id", "steps[1].body", "steps[2].template.parameters[0]"}
    assert "default" in faults["steps[1].body"]
    assert (await acme.get(f"/campaigns/{campaign}"))["status"] == "draft"


async def test_a_campaign_without_steps_is_not_activated(acme: Account) -> None:
    made = await acme.post("/campaigns", {"name": "X", "sender_id": await acme.sender()})
    assert "steps" in (await acme.call("POST", f"/campaigns/{made['id']}/activate")).is_problem(422).faults()


async def test_the_sender_of_a_live_campaign_stands_still(acme: Account) -> None:
    campaign = await acme.campaign()
    answer = await acme.call("PATCH", f"/campaigns/{campaign}", body={"sender_id": await acme.sender()})
    assert "new campaign" in answer.is_problem(409).body["detail"]


async def progress(storage: Storage, tenant: str, campaign: str, contact: str, **more: Any) -> UUID:
    """An enrolment as the actors would write it."""
    columns: dict[str, Any] = {
        "id": uuid7(),
        "campaign_id": UUID(campaign),
        "contact_id": UUID(contact),
        "status": "active",
        "started_at": datetime.now(UTC),
        "next_step_scheduled_at": datetime.now(UTC) + timedelta(hours=1),
    } | more
    names = ", ".join(columns)
    places = ", ".join(f"${number + 2}" for number in range(len(columns)))
    async with storage.tenant(tenant) as con:
        await con.execute(
            f"insert into contact_campaign_progress (version_id, {names})"
            f" values ((select version_id from campaigns where id = $1), {places})",
            UUID(campaign),
            *columns.values(),
        )
    return UUID(str(columns["id"]))


async def message(storage: Storage, tenant: str, campaign: str, step: int, status: str) -> None:
    async with storage.tenant(tenant) as con:
        await con.execute(
            'insert into messages (id, tenant_id, sender_id, campaign_id, step, lane, "to", content, status, due_at)'
            " select $1, tenant_id, sender_id, id, $3, 'marketing', '+919876543210', '{}', $4, now()"
            " from campaigns where id = $2",
            uuid7(),
            UUID(campaign),
            step,
            status,
        )


async def test_resuming_takes_up_what_was_set_aside_and_wakes_the_ticker(
    acme: Account, storage: Storage, live_bus: Bus
) -> None:
    nudges: list[bytes] = []
    stop = await live_bus.publisher.subscribe_wake("sys.wake.due", nudges.append)
    campaign = await acme.campaign()
    enrollment = await progress(storage, acme.tenant, campaign, await acme.contact())
    await acme.post(f"/campaigns/{campaign}/pause", status=200)
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update contact_campaign_progress set next_claim_at = 'infinity' where id = $1", enrollment)
    await acme.post(f"/campaigns/{campaign}/resume", status=200)
    async with storage.tenant(acme.tenant) as con:
        again = await con.fetchval(
            "select next_claim_at = next_step_scheduled_at from contact_campaign_progress where id = $1", enrollment
        )
    assert again
    await until(lambda: nudges, "the ticker is woken")
    await stop()


async def test_what_an_operator_has_paused_goes_on_with_it_alone(acme: Account, storage: Storage) -> None:
    one, by_hand = await acme.campaign(), await acme.campaign()
    await acme.post(f"/campaigns/{by_hand}/pause", status=200)
    async with storage.tenant(acme.tenant) as con:
        for campaign in (one, by_hand):
            assert await pausing.pause_campaign(con, UUID(campaign), "complaints")
            assert not await pausing.pause_campaign(con, UUID(campaign), "complaints")
    reason = "paused by the operator: complaints"
    for campaign in (one, by_hand):
        for path in (f"/campaigns/{campaign}/pause", f"/campaigns/{campaign}/resume"):
            assert (await acme.call("POST", path)).status == 409
        said = (await acme.call("POST", f"/campaigns/{campaign}/resume")).is_problem(409).body["detail"]
        assert said == f"{reason}; ask the operator, who alone can have it go on"
        shown = await acme.get(f"/campaigns/{campaign}")
        assert (shown["status"], shown["status_reason"]) == ("paused", reason)
    async with storage.tenant(acme.tenant) as con:
        assert await pausing.resume_campaign(con, acme.tenant, UUID(one))
        assert not await pausing.resume_campaign(con, acme.tenant, UUID(one))
    shown = await acme.get(f"/campaigns/{one}")
    assert (shown["status"], shown["status_reason"]) == ("active", None)
    for action in ("pause", "resume"):  # what its tenant pauses, its tenant has go on
        await acme.post(f"/campaigns/{one}/{action}", status=200)
    archived = await acme.post(f"/campaigns/{by_hand}/archive", status=200)
    assert (archived["status"], archived["status_reason"]) == ("archived", None)


async def test_archiving_has_what_still_runs_stopped_whatever_happens_to_us_then(
    acme: Account, storage: Storage
) -> None:
    campaign = await acme.campaign()
    assert (await acme.post(f"/campaigns/{campaign}/archive", status=200))["status"] == "archived"
    async with storage.tenant(acme.tenant) as con:
        [row] = await con.fetch("select subject, body, name from outbox")
    assert (row["subject"], row["name"]) == (f"t.{acme.tenant}.work.enrollment.stop", f"{campaign}.stop")
    work = msgspec.json.decode(row["body"], type=StopPage)
    assert (work.campaign_id, work.after) == (campaign, None)
    assert "user" in work.said


async def test_the_funnel_counts_read_as_delivered_and_delivered_as_sent(acme: Account, storage: Storage) -> None:
    campaign = await acme.campaign(
        {"name": "hello", "delay_hours": 0, "body": "a"}, {"name": "later", "delay_hours": 24, "body": "b"}
    )
    empty = await acme.get(f"/campaigns/{campaign}/funnel")
    assert (empty["enrolled"], [step["sent"] for step in empty["steps"]]) == (0, [0, 0])
    ago = datetime.now(UTC) - timedelta(seconds=1)
    later = UUID((await acme.get(f"/campaigns/{campaign}/steps"))["items"][1]["id"])
    for status, more in (
        ("active", {"current_step": 1, "next_step_id": later, "next_step_scheduled_at": ago}),
        ("active", {"current_step": 1}),
        ("completed", {}),
        ("stopped", {}),
        ("failed", {}),
        ("paused", {}),
    ):
        await progress(storage, acme.tenant, campaign, await acme.contact(), status=status, **more)
    for status in ("queued", "sending", "sent", "delivered", "read", "read", "failed", "suppressed", "unknown"):
        await message(storage, acme.tenant, campaign, 0, status)
    async with storage.tenant(acme.tenant):
        rows = Message.filter(campaign_id=campaign)
        await rows.filter(status="suppressed").update(reason="opted_out")
        await rows.filter(status="queued").update(reason="quiet_hours", deferred_until=ago)
    counted = await acme.get(f"/campaigns/{campaign}/funnel")
    [first, second] = counted.pop("steps")
    reasons = {"suppressed_by": {"opted_out": 1}, "deferred_by": {"quiet_hours": 1}}
    totals = {"sent": 4, "delivered": 3, "read": 2, "failed": 1, "suppressed": 1, "unknown": 1} | reasons
    totals |= {"replied": 0, "opted_out": 0}
    assert counted == {
        "campaign_id": campaign, "version": 1, "enrolled": 6, "active": 2, "completed": 1, "stopped": 1, "failed": 1,
        "paused": 1, "goal": 0, "stopped_by": {"unknown": 1}, "totals": totals,
    }  # fmt: skip
    assert first == {
        "step": 0, "name": "hello", "delay_hours": 0.0, "due": 0, "queued": 1, "sending": 1, "sent": 4,
        "delivered": 3, "read": 2, "failed": 1, "suppressed": 1, "unknown": 1, "replied": 0, "opted_out": 0,
        "variants": [], **reasons,
    }  # fmt: skip
    assert (second["name"], second["delay_hours"], second["due"], second["sent"]) == ("later", 24.0, 1, 0)


async def test_who_opts_out_has_not_answered_and_a_variant_that_drives_people_off_does_not_win(
    acme: Account, storage: Storage
) -> None:
    variants = [{"name": name, "body": name} for name in ("kind", "rude", "new")]
    campaign = UUID(await acme.campaign({"delay_hours": 0, "variants": variants}))
    at = datetime(2026, 3, 1, 12, tzinfo=UTC)
    said = [("kind", "Yes", None), ("rude", "STOP", "all"), ("rude", "No more offers", "marketing")]
    for variant, text, category in said:
        contact = UUID(await acme.contact())
        async with storage.tenant(acme.tenant) as con:
            step = await con.fetchval("select id from campaign_steps")
            sender = await con.fetchval("select sender_id from campaigns where id = $1", campaign)
            talk = uuid7()
            await Conversation.create(id=talk, contact_id=contact, sender_id=sender)
            await Reply.create(
                conversation_id=talk, contact_id=contact, sender_id=sender, wamid=text, type="text", text=text,
                payload={}, received_at=at, campaign_id=campaign, step=0, step_id=step, variant=variant,
            )  # fmt: skip
            if category is not None:
                await opting.hear(con, acme.tenant, contact, Word(cast("Any", category), True, at, "asked", text))
    counted = await acme.get(f"/campaigns/{campaign}/funnel")
    [step] = counted["steps"]
    assert [(one["replied"], one["opted_out"]) for one in (counted["totals"], step)] == [(1, 2)] * 2
    told = {one["name"]: (one["replied"], one["opted_out"]) for one in step["variants"]}
    assert told == {"kind": (1, 0), "new": (0, 0), "rude": (0, 2)}


async def test_all_figures_of_a_funnel_are_of_one_moment(
    acme: Account, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = await acme.campaign()
    await message(storage, acme.tenant, campaign, 0, "queued")

    async def suppress() -> None:
        async with storage.tenant(acme.tenant):
            await Message.filter(campaign_id=campaign).update(status="suppressed", reason="opted_out")

    async def meanwhile(*args: Any) -> Any:
        await asyncio.create_task(suppress())
        return await version_by_number(*args)

    monkeypatch.setattr(funnel, "version_by_number", meanwhile)
    [step] = (await acme.get(f"/campaigns/{campaign}/funnel"))["steps"]
    assert (step["queued"], step["suppressed"], step["suppressed_by"]) == (1, 0, {})
    [step] = (await acme.get(f"/campaigns/{campaign}/funnel"))["steps"]
    assert (step["queued"], step["suppressed"], step["suppressed_by"]) == (0, 1, {"opted_out": 1})


async def test_enrolments_are_listed_by_contact_and_status(acme: Account, storage: Storage) -> None:
    campaign = await acme.campaign()
    people = [await acme.contact() for _ in range(3)]
    made = in_order(3)
    for id_, contact, status in zip(made, people, ("active", "stopped", "active"), strict=True):
        await progress(storage, acme.tenant, campaign, contact, id=id_, status=status)
    path = f"/campaigns/{campaign}/enrollments"
    assert [one["id"] for one in (await acme.get(path))["items"]] == [str(id_) for id_ in made[::-1]]
    assert [one["id"] for one in (await acme.get(f"{path}?contact_id={people[1]}"))["items"]] == [str(made[1])]
    assert len((await acme.get(f"{path}?status=active"))["items"]) == 2
    assert "status" in (await acme.call("GET", f"{path}?status=lost")).is_problem(422).faults()


async def test_what_a_template_does_not_take_stands_in_the_way(acme: Account, storage: Storage) -> None:
    """As far as it is known: a template that WhatsApp has told nothing about is left to it."""
    button = {"type": "url", "value": "{{ attributes.order | default('all') }}"}
    given = {"name": "order", "language": "en_US", "parameters": ["{{ name }}"], "buttons": [button]}
    campaign = await acme.campaign({"delay_hours": 0, "template": given}, active=False)
    sender = (await acme.get(f"/campaigns/{campaign}"))["sender_id"]
    parts = [
        {"type": "BODY", "text": "{{1}}, your order {{2}} is on its way"},
        {"type": "BUTTONS", "buttons": [{"type": "URL", "url": "https://shop.example/{{1}}"}]},
    ]
    async with storage.tenant(acme.tenant) as con:
        told = Found("order", "en_US", "utility", "approved", None, None, msgspec.json.encode(parts).decode())
        await templates.replace(con, acme.tenant, UUID(sender), [told], datetime.now(UTC))
    path = f"/campaigns/{campaign}"
    assert [one["path"] for one in (await acme.post(f"{path}/dry-run", {"all": True}, status=200))["blockers"]] == [
        "steps[0].template.parameters"
    ]
    refused = (await acme.call("POST", f"{path}/activate")).is_problem(422).faults()
    assert refused == {"steps[0].template.parameters": "this template takes 2 parameters, not 1"}
    step = (await acme.get(f"{path}/steps"))["items"][0]["id"]
    mended = {"template": given | {"parameters": ["{{ name }}", "{{ attributes.order | default('-') }}"]}}
    assert (await acme.call("PATCH", f"{path}/steps/{step}", body=mended)).status == 200
    assert (await acme.call("POST", f"{path}/activate")).status == 200


async def test_a_default_that_breaks_a_limit_stands_in_the_way(acme: Account) -> None:
    """Seen when the campaign is activated: before, the default may be replaced."""
    buttons = [{"id": "1", "title": "{{ attributes.city | default('a town with a long name') }}"}]
    empty = {"type": "image", "id": "1", "caption": "{{ attributes.city | default('') }}"}
    steps = ({"delay_hours": 0, "interactive": {"body": "x", "buttons": buttons}}, {"delay_hours": 1, "media": empty})
    campaign = await acme.campaign(*steps, active=False)
    refused = (await acme.call("POST", f"/campaigns/{campaign}/activate")).is_problem(422).faults()
    assert refused == {
        "steps[0].interactive.buttons[0].title": "must have at most 20 characters (has 23)",
        "steps[1].media.caption": "must not be empty",
    }
    long = {"delay_hours": 0, "body": "x" * 4097 + "{{ name }}"}
    assert set((await acme.call("POST", f"/campaigns/{campaign}/steps", body=long)).is_problem(422).faults()) == {
        "body"
    }
