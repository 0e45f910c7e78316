"""Enrolling: what is refused at the door, and that what is accepted lies in the stream."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from door_client import Account, is_uuid7
from nats.js.errors import NotFoundError

from harkara.bus.connection import Bus
from harkara.ids import uuid7
from harkara.storage.storage import Storage


async def last(bus: Bus, tenant: str, command: str) -> tuple[dict[str, Any], dict[str, str]]:
    """The newest command of a tenant in the stream, and its headers."""
    stored = await bus.js.get_last_msg("COMMANDS", f"t.{tenant}.cmd.{command}")
    return json.loads(stored.data or b""), stored.headers or {}


async def nothing(bus: Bus, tenant: str) -> None:
    """Fail if this tenant has commanded anything."""
    with pytest.raises(NotFoundError):
        await bus.js.get_last_msg("COMMANDS", f"t.{tenant}.cmd.>")


async def test_enrolling_stores_a_command_under_the_id_that_is_answered(acme: Account, live_bus: Bus) -> None:
    campaign, contact = await acme.campaign(), await acme.contact()
    answer = await acme.call("POST", f"/contacts/{contact}/campaign/{campaign}/enroll")
    assert answer.status == 202
    assert answer.body["status"] == "accepted"
    assert is_uuid7(answer.body["id"])
    assert answer.headers["Location"] == f"/api/v1/campaigns/{campaign}/enrollments?contact_id={contact}"
    body, headers = await last(live_bus, acme.tenant, "enrollment.start")
    assert body == {"campaign_id": campaign, "contact_id": contact}
    assert headers["X-Msg-Id"] == answer.body["id"]
    assert headers["Nats-Msg-Id"] == f"{acme.tenant}.{answer.body['id']}"
    assert headers["X-Cause"] == answer.headers["X-Request-Id"]
    assert (await acme.call("GET", answer.headers["Location"].removeprefix("/api/v1"))).status == 200


async def test_what_is_known_to_stand_in_the_way_is_told_at_once(
    acme: Account, live_bus: Bus, storage: Storage
) -> None:
    draft, live = await acme.campaign(active=False), await acme.campaign()
    willing, silent, gone = await acme.contact(), await acme.contact(consent=None), await acme.contact()
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update contacts set opted_out_at = now() where id = $1", UUID(gone))
    nobody = uuid7()
    for contact, campaign, status, word in (
        (willing, draft, 409, "activate"),
        (silent, live, 409, "consent"),
        (gone, live, 409, "opted out"),
        (nobody, live, 404, "contact"),
        (willing, nobody, 404, "campaign"),
    ):
        answer = await acme.call("POST", f"/contacts/{contact}/campaign/{campaign}/enroll")
        assert word in answer.is_problem(status).body["detail"]
    await nothing(live_bus, acme.tenant)


async def test_somebody_who_is_enrolled_is_not_enrolled_again(acme: Account, storage: Storage) -> None:
    campaign, contact, id_ = await acme.campaign(), await acme.contact(), uuid7()
    async with storage.tenant(acme.tenant) as con:
        await con.execute(
            "insert into contact_campaign_progress (id, campaign_id, version_id, contact_id, started_at)"
            " select $1, id, version_id, $3, now() from campaigns where id = $2",
            id_,
            UUID(campaign),
            UUID(contact),
        )
    answer = await acme.call("POST", f"/contacts/{contact}/campaign/{campaign}/enroll")
    assert answer.is_problem(409).body["enrollment_id"] == str(id_)
    # What it says is true of the campaign, and of the enrolment.
    assert "has no `reentry`" in answer.body["detail"]
    path = f"/contacts/{contact}/campaign/{campaign}/enroll"
    await acme.call("PATCH", f"/campaigns/{campaign}", body={"reentry": "after_completion"})
    answer = (await acme.call("POST", path)).is_problem(409)
    assert "still runs" in answer.body["detail"]
    assert "no `reentry`" not in answer.body["detail"]
    await acme.call("PATCH", f"/campaigns/{campaign}", body={"reentry": "never"})
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update contact_campaign_progress set status = 'completed', finished_at = now()")
    assert "it is completed" not in (await acme.call("POST", path)).is_problem(409).body["detail"]
    assert "is completed" in (await acme.call("POST", path)).is_problem(409).body["detail"]


async def test_stopping_is_a_command_too(acme: Account, live_bus: Bus) -> None:
    campaign, contact = await acme.campaign(), await acme.contact()
    answer = await acme.call("POST", f"/contacts/{contact}/campaign/{campaign}/stop")
    assert answer.status == 202
    body, headers = await last(live_bus, acme.tenant, "enrollment.stop")
    assert (body["campaign_id"], body["contact_id"]) == (campaign, contact)
    assert headers["X-Msg-Id"] == answer.body["id"]


async def test_many_are_enrolled_by_id_by_tag_or_all(acme: Account, live_bus: Bus, storage: Storage) -> None:
    campaign = await acme.campaign()
    people = [await acme.contact(tags=["vip"] if number < 2 else []) for number in range(4)]
    silent = await acme.contact(consent=None, tags=["vip"])
    path = f"/campaigns/{campaign}/enroll"
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update contacts set opted_out_at = now() where id = $1", UUID(people[3]))
    ways: list[tuple[dict[str, Any], int, dict[str, int]]] = [
        ({"contact_ids": [*people[:3], people[0], silent]}, 3, {"no_consent": 1}),
        ({"contact_ids": people[:2]}, 2, {}),
        ({"tag": "vip"}, 2, {"no_consent": 1}),
        ({"all": True}, 3, {"no_consent": 1, "opted_out": 1}),
    ]
    for wanted, count, refused in ways:
        done = await acme.post(path, wanted, status=202)
        assert (done["status"], done["count"], done["refused"]) == ("accepted", count, refused)
        body, headers = await last(live_bus, acme.tenant, "enrollment.bulk")
        assert headers["X-Msg-Id"] == done["id"]
        assert body["campaign_id"] == campaign
        named = wanted.get("contact_ids")
        assert body | (wanted if named is None else {"contact_ids": list(dict.fromkeys(named))}) == body


@pytest.mark.parametrize(
    ("wanted", "status", "path"),
    [
        ({}, 422, ""),
        ({"tag": "x", "all": True}, 422, ""),
        ({"all": False}, 422, ""),
        ({"contact_ids": []}, 422, "contact_ids"),
        ({"contact_ids": ["x"]}, 422, "contact_ids[0]"),
        ({"everyone": True}, 422, "everyone"),
        ({"contact_ids": ["01906d5e-0000-7000-8000-000000000000"]}, 404, "contact_ids[0]"),
    ],
)
async def test_what_is_wrong_with_a_bulk_is_named_and_nothing_is_published(
    acme: Account, live_bus: Bus, wanted: dict[str, Any], status: int, path: str
) -> None:
    campaign = await acme.campaign()
    answer = await acme.call("POST", f"/campaigns/{campaign}/enroll", body=wanted)
    assert path in answer.is_problem(status).faults()
    await nothing(live_bus, acme.tenant)


async def test_ten_thousand_contacts_fit_into_one_command(acme: Account, live_bus: Bus, storage: Storage) -> None:
    campaign = await acme.campaign()
    async with storage.tenant(acme.tenant) as con:
        rows = await con.fetch(
            "insert into contacts (id, name, phone, opted_in_at)"
            " select app.uuid7_floor(now() - n * interval '1 ms'), 'A', '+9188' || (10000000 + n), now()"
            " from generate_series(1, 10000) n returning id"
        )
    done = await acme.post(f"/campaigns/{campaign}/enroll", {"contact_ids": [str(r[0]) for r in rows]}, status=202)
    assert done["count"] == 10_000
    body, _ = await last(live_bus, acme.tenant, "enrollment.bulk")
    assert len(body["contact_ids"]) == 10_000
