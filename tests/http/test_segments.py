"""Segments: who is in one, by what they are and what they did; what is wrong with a condition is named."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from door_client import Account

from harkara.ids import uuid7
from harkara.storage.storage import Storage

TAG = {"type": "tag", "tag": "vip"}


async def segment(acme: Account, condition: dict[str, Any]) -> str:
    return str((await acme.post("/segments", {"name": "S", "condition": condition}))["id"])


async def members(acme: Account, condition: dict[str, Any]) -> set[str]:
    """The names of a segment's contacts, which its count must agree with."""
    id_ = await segment(acme, condition)
    found = [contact["name"] for contact in (await acme.get(f"/segments/{id_}/contacts"))["items"]]
    assert len(found) == len(set(found)) == (await acme.get(f"/segments/{id_}/count"))["contacts"]
    return set(found)


@pytest.fixture
async def people(acme: Account, storage: Storage) -> dict[str, str]:
    """Three contacts who differ in everything that can be asked."""
    made = {
        "Asha": await acme.contact(
            name="Asha", tags=["vip", "new"], attributes={"city": "Pune", "age": 41, "vat": True, "since": "2026-01-31"}
        ),
        "Ravi": await acme.contact(name="Ravi", tags=["new"], attributes={"city": "Delhi", "age": "9"}, locale="hi"),
        "Zoë": await acme.contact(name="Zoë", consent=None, attributes={"city": ""}),
    }
    async with storage.tenant(acme.tenant) as con:
        await con.execute(
            "update contacts set created_at = now() - interval '10 days' where id = $1", UUID(made["Zoë"])
        )
    return made


def attribute(name: str, op: str = "eq", **more: Any) -> dict[str, Any]:
    return {"type": "attribute", "name": name, "op": op, **more}


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        (TAG, {"Asha"}),
        ({"type": "not", "of": TAG}, {"Ravi", "Zoë"}),
        ({"type": "any", "of": [TAG, attribute("city", value="Delhi")]}, {"Asha", "Ravi"}),
        ({"type": "all", "of": [{"type": "tag", "tag": "new"}, {"type": "not", "of": TAG}]}, {"Ravi"}),
        (attribute("city", value="Pune"), {"Asha"}),
        (attribute("city", "ne", value="Pune"), {"Ravi", "Zoë"}),
        (attribute("city", "contains", value="UN"), {"Asha"}),
        (attribute("city", "exists"), {"Asha", "Ravi"}),
        (attribute("nothing", "exists"), set()),
        (attribute("nothing", "ne", value=1), {"Asha", "Ravi", "Zoë"}),
        (attribute("age", "gt", value=9), {"Asha"}),
        (attribute("age", "ge", value=9), {"Asha", "Ravi"}),
        (attribute("age", "lt", value=9.5), {"Ravi"}),
        (attribute("age", value=9), {"Ravi"}),
        (attribute("city", "lt", value=5), set()),
        (attribute("since", "ge", value="2026-01-01"), {"Asha"}),
        (attribute("vat", value=True), {"Asha"}),
        (attribute("city' or true --", value="' or true --"), set()),
        ({"type": "field", "name": "locale", "op": "eq", "value": "hi"}, {"Ravi"}),
        ({"type": "field", "name": "phone", "op": "contains", "value": "+91"}, {"Asha", "Ravi", "Zoë"}),
        ({"type": "consent"}, {"Asha", "Ravi"}),
        ({"type": "created", "within_days": 3}, {"Asha", "Ravi"}),
        ({"type": "created", "before": "2026-01-01T00:00:00Z"}, set()),
    ],
)
async def test_a_segment_is_those_of_whom_its_condition_holds(
    acme: Account, people: dict[str, str], condition: dict[str, Any], names: set[str]
) -> None:
    assert await members(acme, condition) == names


async def test_what_contacts_did_counts(acme: Account, people: dict[str, str], storage: Storage) -> None:
    campaign = await acme.campaign()
    sender = UUID((await acme.get(f"/campaigns/{campaign}"))["sender_id"])
    await acme.post("/leads", {"contact_id": people["Zoë"], "stage": "new", "score": 70})
    async with storage.tenant(acme.tenant) as con:
        for name, step, status in (("Asha", 0, "read"), ("Asha", 1, "failed"), ("Ravi", 0, "sent")):
            await con.execute(
                'insert into messages (id, contact_id, sender_id, campaign_id, step, lane, "to", content, status,'
                " due_at) values ($1, $2, $3, $4, $5, 'marketing', '+1', '{}', $6, now() - interval '2 days')",
                uuid7(), UUID(people[name]), sender, UUID(campaign), step, status,
            )  # fmt: skip
        talk, reply = uuid7(), uuid7()
        await con.execute(
            "insert into conversations (id, contact_id, sender_id) values ($1, $2, $3)",
            talk,
            UUID(people["Ravi"]),
            sender,
        )
        await con.execute(
            "insert into replies (id, conversation_id, contact_id, sender_id, wamid, type, payload, received_at,"
            " created_at, campaign_id, step) select $1, $2, $3, $4, 'w', 'text', '{}', at, at, $5, 0"
            " from (select now() - interval '5 days' as at) long_ago",
            reply, talk, UUID(people["Ravi"]), sender, UUID(campaign),
        )  # fmt: skip
        await con.execute(
            "insert into contact_campaign_progress (id, campaign_id, version_id, contact_id, started_at, status)"
            " select $1, id, version_id, $3, now(), 'completed' from campaigns where id = $2",
            uuid7(), UUID(campaign), UUID(people["Asha"]),
        )  # fmt: skip
    for condition, names in (
        ({"type": "message", "did": "sent"}, {"Asha", "Ravi"}),
        ({"type": "message", "did": "read", "campaign_id": campaign}, {"Asha"}),
        ({"type": "message", "did": "failed", "campaign_id": campaign, "step": 0}, set()),
        ({"type": "message", "did": "failed", "campaign_id": campaign, "step": 1}, {"Asha"}),
        ({"type": "message", "did": "sent", "within_days": 1}, set()),
        ({"type": "replied"}, {"Ravi"}),
        ({"type": "replied", "campaign_id": campaign, "step": 0}, {"Ravi"}),
        ({"type": "replied", "campaign_id": campaign, "step": 1}, set()),
        ({"type": "not", "of": {"type": "replied", "within_days": 4}}, {"Asha", "Ravi", "Zoë"}),
        ({"type": "not", "of": {"type": "replied", "within_days": 6}}, {"Asha", "Zoë"}),
        ({"type": "campaign", "campaign_id": campaign}, {"Asha"}),
        ({"type": "campaign", "campaign_id": campaign, "status": "active"}, set()),
        ({"type": "lead", "min_score": 70}, {"Zoë"}),
        ({"type": "lead", "stage": "new", "min_score": 71}, set()),
    ):
        assert await members(acme, condition) == names, condition


@pytest.mark.parametrize(
    ("condition", "path"),
    [
        ({"type": "tag"}, "condition.tag"),
        ({"type": "tag", "tag": ""}, "condition.tag"),
        ({"type": "tag", "tag": "x", "more": 1}, "condition.more"),
        ({"type": "nothing"}, "condition.type"),
        ({"type": "all", "of": []}, "condition.of"),
        (
            {"type": "all", "of": [TAG, {"type": "attribute", "name": "x", "op": "like", "value": "y"}]},
            "condition.of[1].op",
        ),
        ({"type": "attribute", "name": "x"}, "condition.value"),
        ({"type": "not", "of": {"type": "attribute", "name": "x", "op": "exists", "value": 1}}, "condition.of.value"),
        ({"type": "attribute", "name": "x", "op": "contains", "value": 1}, "condition.value"),
        ({"type": "created"}, "condition.within_days"),
        ({"type": "message", "did": "read", "step": 1}, "condition.campaign_id"),
        ({"type": "any", "of": [{"type": "any", "of": [TAG] * 30}] * 2}, "condition"),
    ],
)
async def test_what_is_wrong_with_a_condition_is_named(acme: Account, condition: dict[str, Any], path: str) -> None:
    answer = await acme.call("POST", "/segments", body={"name": "S", "condition": condition})
    assert path in answer.is_problem(422).faults(), answer.text


async def test_a_condition_can_be_nested_only_so_deep(acme: Account) -> None:
    deep: dict[str, Any] = TAG
    for _ in range(7):
        deep = {"type": "not", "of": deep}
    assert "deep" in (await acme.call("POST", "/segments", body={"name": "S", "condition": deep})).is_problem(422).text


async def test_a_segment_is_changed_and_deleted_unless_a_broadcast_waits_for_it(acme: Account) -> None:
    id_ = await segment(acme, TAG)
    changed = await acme.call("PATCH", f"/segments/{id_}", body={"condition": {"type": "consent"}})
    assert changed.body["condition"] == {"type": "consent"}
    sender = await acme.sender()
    wanted = {"name": "Sale", "sender_id": sender, "type": "broadcast", "audience": {"segment_id": id_}}
    broadcast = (await acme.post("/campaigns", wanted))["id"]
    assert "Sale" in (await acme.call("DELETE", f"/segments/{id_}")).is_problem(409).body["detail"]
    assert (await acme.call("DELETE", f"/campaigns/{broadcast}")).status == 204
    assert (await acme.call("DELETE", f"/segments/{id_}")).status == 204
    (await acme.call("GET", f"/segments/{id_}")).is_problem(404)


async def test_pages_of_a_segment_tell_everybody_once(acme: Account) -> None:
    people = {await acme.contact(tags=["vip"]) for _ in range(5)}
    await acme.contact()
    id_, seen, cursor = await segment(acme, TAG), list[str](), ""
    while True:
        page = await acme.get(f"/segments/{id_}/contacts?limit=2{cursor}")
        seen += [contact["id"] for contact in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert len(seen) == 5
    assert set(seen) == people
