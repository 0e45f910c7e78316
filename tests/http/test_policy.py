"""What the gate is told: quiet hours, caps, times after which it is too late, and templates, over HTTP."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from door_client import Account

from harkara.storage import sending, templates
from harkara.storage.storage import Storage
from harkara.storage.templates import Found

QUIET = {"start": "21:00", "end": "09:00"}
CAPS = [{"max": 2, "per_hours": 24.0}, {"max": 5, "per_hours": 168.0}]


async def test_a_tenants_quiet_hours_and_caps_are_set_and_cleared(acme: Account) -> None:
    before = await acme.get("/tenant")
    assert (before["quiet_hours"], before["frequency_caps"]) == (None, None)
    changed = await acme.call("PATCH", "/tenant", body={"quiet_hours": QUIET, "frequency_caps": CAPS})
    assert (changed.body["quiet_hours"], changed.body["frequency_caps"]) == (QUIET, CAPS)
    assert (await acme.get("/tenant"))["frequency_caps"] == CAPS
    await acme.call("PATCH", "/tenant", body={"name": "New"})
    assert (await acme.get("/tenant"))["quiet_hours"] == QUIET
    cleared = await acme.call("PATCH", "/tenant", body={"quiet_hours": None, "frequency_caps": []})
    assert (cleared.body["quiet_hours"], cleared.body["frequency_caps"]) == (None, None)


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"quiet_hours": {"start": "24:00", "end": "09:00"}}, "quiet_hours.start"),
        ({"quiet_hours": {"start": "21:00"}}, "quiet_hours.end"),
        ({"frequency_caps": [{"max": 0, "per_hours": 24}]}, "frequency_caps[0].max"),
        ({"frequency_caps": [{"max": 1, "per_hours": 0}]}, "frequency_caps[0].per_hours"),
        ({"frequency_caps": [{"max": 1, "per_hours": 721}]}, "frequency_caps[0].per_hours"),
        ({"frequency_caps": [{"max": 1}]}, "frequency_caps[0].per_hours"),
    ],
)
async def test_what_is_wrong_with_them_is_told_by_name(acme: Account, wrong: dict[str, Any], path: str) -> None:
    answer = (await acme.call("PATCH", "/tenant", body=wrong)).is_problem(422)
    assert [fault["path"] for fault in answer.body["errors"]] == [path]


async def test_a_step_may_expire_and_its_copies_do_too(acme: Account) -> None:
    campaign = await acme.campaign({"delay_hours": 0, "body": "a", "expires_after_hours": 2})
    path = f"/campaigns/{campaign}/steps"
    [step] = (await acme.get(path))["items"]
    assert step["expires_after_hours"] == 2
    changed = await acme.call("PATCH", f"{path}/{step['id']}", body={"body": "b"})
    assert changed.body["expires_after_hours"] == 2
    cleared = await acme.call("PATCH", f"{path}/{step['id']}", body={"expires_after_hours": None})
    assert "expires_after_hours" not in cleared.body
    (await acme.call("POST", path, body={"delay_hours": 0, "body": "a", "expires_after_hours": 0})).is_problem(422)


async def test_a_step_may_have_a_delivery_of_its_own(acme: Account) -> None:
    campaign = await acme.campaign(
        {"delay_hours": 0, "body": "a", "delivery": "at_least_once"}, {"delay_hours": 1, "body": "b"}
    )
    path = f"/campaigns/{campaign}/steps"
    own, other = (await acme.call("GET", path)).body["items"]
    assert (own["delivery"], other.get("delivery")) == ("at_least_once", None)
    # The draft beside a live campaign takes it over.
    added = await acme.call("POST", path, body={"delay_hours": 2, "body": "c"})
    assert added.status == 201
    assert (await acme.call("GET", path)).body["items"][0]["delivery"] == "at_least_once"
    cleared = await acme.call("PATCH", f"{path}/{own['id']}", body={"delivery": None})
    assert "delivery" not in cleared.body
    (await acme.call("PATCH", f"{path}/{own['id']}", body={"delivery": "twice"})).is_problem(422)


async def test_a_message_expires_after_it_is_to_leave(acme: Account) -> None:
    sender, now = await acme.sender(), datetime.now(UTC)
    wanted = {"sender_id": sender, "to": "+919876543210", "body": "Hi"}
    for more in (
        {"expires_at": (now - timedelta(seconds=1)).isoformat()},
        {
            "send_at": (now + timedelta(hours=2)).isoformat(),
            "expires_at": (now + timedelta(hours=1)).isoformat(),
        },
    ):
        answer = (await acme.call("POST", "/messages", body=wanted | more)).is_problem(422)
        assert [fault["path"] for fault in answer.body["errors"]] == ["expires_at"]
    later = {"expires_at": (now + timedelta(hours=1)).isoformat()}
    await acme.post("/messages", wanted | later, status=202)


async def test_templates_are_listed_and_asked_for(acme: Account, other: Account, storage: Storage) -> None:
    sender = await acme.sender(waba_id="77")
    path = f"/senders/{sender}/templates"
    assert (await acme.get(path))["items"] == []
    found = Found("offer", "en", "marketing", "approved", None, "green", '[{"type":"BODY","text":"Hi"}]')
    async with storage.batch((acme.tenant,)) as con:
        await templates.replace(con, acme.tenant, UUID(sender), [found], datetime.now(UTC))
        await templates.pause(con, acme.tenant, UUID(sender), "offer", "en", "132015")
    [shown] = (await acme.get(path))["items"]
    assert (shown["name"], shown["status"], shown["reason"], shown["quality"]) == ("offer", "paused", "132015", "green")
    assert shown["components"] == [{"type": "BODY", "text": "Hi"}]
    assert (await acme.post(f"{path}/sync", status=202))["status"] == "accepted"
    (await other.call("GET", path)).is_problem(404)
    (await other.call("POST", f"{path}/sync")).is_problem(404)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"provider": "cloud", "app_secret": "s", "window": "enforce"}, "waba_id"),
        ({"provider": "waha", "waba_id": "77"}, "knows no templates"),
    ],
)
async def test_who_has_no_templates_is_told_so(acme: Account, more: dict[str, Any], why: str) -> None:
    body = {"name": "S", "phone_number_id": "1055", "access_token": "t"} | more
    sender = (await acme.post("/senders", body))["id"]
    assert why in (await acme.call("POST", f"/senders/{sender}/templates/sync")).is_problem(409).text


async def test_a_paused_template_of_a_sender_without_an_account_may_be_tried_again(
    acme: Account, storage: Storage
) -> None:
    sender = await acme.sender()
    path = f"/senders/{sender}/templates/sync"
    (await acme.call("POST", path)).is_problem(409)
    async with storage.batch((acme.tenant,)) as con:
        await templates.pause(con, acme.tenant, UUID(sender), "offer", "en", "132015")
    await acme.post(path, status=202)


async def test_a_sender_with_an_account_has_its_templates_read(acme: Account, admin: asyncpg.Connection) -> None:
    asked = "select count(*) from outbox where tenant_id = $1 and subject like '%cmd.template.sync'"
    sender = await acme.sender()
    assert await admin.fetchval(asked, acme.tenant) == 0
    await acme.call("PATCH", f"/senders/{sender}", body={"waba_id": "77"})
    assert await admin.fetchval(asked, acme.tenant) == 1
    await acme.call("PATCH", f"/senders/{sender}", body={"name": "New"})
    await acme.sender(waba_id="78")
    assert await admin.fetchval(asked, acme.tenant) == 2


async def test_what_waits_for_room_is_judged_again_when_the_limit_is_another(
    acme: Account, admin: asyncpg.Connection
) -> None:
    asked = "select body::jsonb -> 'sender_ids' ->> 0 from outbox where tenant_id = $1 and subject like '%.release'"
    sender = await acme.sender(daily_limit=1)
    await acme.call("PATCH", f"/senders/{sender}", body={"name": "New"})
    assert await admin.fetchval(asked, acme.tenant) is None
    await acme.call("PATCH", f"/senders/{sender}", body={"daily_limit": 100})
    assert await admin.fetchval(asked, acme.tenant) == sender


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        ({"name": "New", "default_region": "DE"}, None),
        ({"frequency_caps": None}, ["frequency_cap"]),
        ({"quiet_hours": None, "timezone": "Asia/Kolkata"}, ["quiet_hours"]),
        ({"quiet_hours": QUIET, "frequency_caps": CAPS}, ["frequency_cap", "quiet_hours"]),
    ],
)
async def test_what_a_tenants_settings_hold_back_is_judged_again_when_they_change(
    acme: Account, admin: asyncpg.Connection, change: dict[str, Any], reasons: list[str] | None
) -> None:
    senders = sorted([await acme.sender(), await acme.sender()])
    await acme.call("PATCH", "/tenant", body=change)
    told = await admin.fetch("select body from outbox where tenant_id = $1 and subject like '%.release'", acme.tenant)
    works = [json.loads(row[0]) for row in told]
    assert works == ([] if reasons is None else [{"sender_ids": senders, "reasons": reasons}])


async def test_all_numbers_of_a_portfolio_use_up_its_limit_whichever_names_it(
    acme: Account, admin: asyncpg.Connection, storage: Storage
) -> None:
    named = await acme.sender(daily_limit=250, portfolio_id="p")
    silent, larger = await acme.sender(waba_id="p"), await acme.sender(portfolio_id="p", daily_limit=2000)
    alone = await acme.sender()

    async def limits() -> list[tuple[int | None, str]]:
        async with storage.batch((acme.tenant,)) as con:
            rows = [await sending.sender(con, acme.tenant, UUID(id_)) for id_ in (named, silent, larger, alone)]
        return [(row[6], row[7]) for row in rows]

    assert await limits() == [(250, "p"), (250, "p"), (2000, "p"), (None, alone)]
    await acme.call("PATCH", f"/senders/{named}", body={"daily_limit": 1000})
    assert await limits() == [(1000, "p"), (1000, "p"), (2000, "p"), (None, alone)]
    asked = "select body::jsonb -> 'sender_ids' from outbox where tenant_id = $1 and subject like '%.release'"
    assert set(json.loads(await admin.fetchval(asked, acme.tenant))) == {named, silent, larger}
