"""Leads: stages, scores, and who changed them; what the door tells, an actor publishes."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from door_client import Account

from harkara.actors.herald import Herald
from harkara.bus.connection import Bus
from harkara.bus.errors import Unavailable
from harkara.storage.storage import Storage


async def test_a_lead_is_made_moved_and_remembers_who_moved_it(acme: Account) -> None:
    contact = await acme.contact()
    lead = await acme.post("/leads", {"contact_id": contact, "score": 10, "source": "fair"})
    assert (lead["stage"], lead["score"], lead["source"], lead["contact_id"]) == ("new", 10, "fair", contact)
    path = f"/leads/{lead['id']}"
    moved = await acme.call("PATCH", path, body={"stage": "qualified", "score": 10})
    assert moved.body == lead | {"stage": "qualified", "updated_at": moved.body["updated_at"]}
    key = (await acme.post("/api-keys", {}))["key"]
    by_key = await acme.api.call("PATCH", path, body={"score": 90, "source": None}, headers={"X-API-Key": key})
    assert by_key.body["score"] == 90
    assert (await acme.call("PATCH", path, body={"score": 90})).status == 200
    history = (await acme.get(f"{path}/history"))["items"]
    assert [one["changes"] for one in history] == [
        {"before": {"score": 10, "source": "fair"}, "after": {"score": 90, "source": None}},
        {"before": {"stage": "new"}, "after": {"stage": "qualified"}},
        {"before": None, "after": {"stage": "new", "score": 10, "source": "fair"}},
    ]
    assert [one["user_id"] is None for one in history] == [True, False, False]
    assert history[0]["api_key_id"] is not None
    assert await acme.get(path) == by_key.body


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"stage": "hopeful"}, "stage"),
        ({"score": 101}, "score"),
        ({"score": -1}, "score"),
        ({"source": "x" * 201}, "source"),
        ({"contact_id": "nobody"}, "contact_id"),
        ({"owner": "me"}, "owner"),
    ],
)
async def test_what_is_wrong_with_a_lead_is_named(acme: Account, body: dict[str, Any], path: str) -> None:
    contact = await acme.contact()
    answer = await acme.call("POST", "/leads", body={"contact_id": contact} | body)
    assert path in answer.is_problem(422).faults()
    (await acme.call("POST", "/leads", body={"contact_id": str(uuid4())})).is_problem(404)


async def test_leads_are_found_by_contact_stage_score_and_source(
    acme: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.http.lists.LOOKED_AT", 3)
    asha, ravi = await acme.contact(), await acme.contact()
    made: list[str] = []
    for number in range(6):
        body = {"contact_id": asha if number % 2 else ravi, "score": 20 * number, "source": "ab"[number // 3]}
        made.append((await acme.post("/leads", body | {"stage": "won" if number == 1 else "new"}))["id"])

    async def ids(query: str) -> list[str]:
        found: list[str] = []
        page: dict[str, Any] = {"next": ""}
        while page["next"] is not None:
            page = await acme.get(f"/leads?limit=2&{query}" + (f"&cursor={page['next']}" if page["next"] else ""))
            found += [one["id"] for one in page["items"]]
        return found[::-1]

    assert await ids("") == made
    assert await ids(f"contact_id={asha}") == made[1::2]
    assert await ids("stage=won") == [made[1]]
    assert await ids("min_score=60") == made[3:]
    assert await ids("source=a") == made[:3]
    assert await ids(f"source=a&min_score=20&contact_id={asha}") == [made[1]]
    assert (await acme.call("DELETE", f"/contacts/{asha}")).status == 204
    assert await ids("") == made[::2]


async def waiting(storage: Storage, tenant: str) -> list[Any]:
    """What lies in the tenant's outbox."""
    async with storage.tenant(tenant) as con:
        return list(await con.fetch("select subject, body, name from outbox order by id"))


async def test_what_the_door_tells_waits_until_it_is_stored(acme: Account, storage: Storage, live_bus: Bus) -> None:
    async def away(packets: Any) -> Any:
        return [Unavailable("away") for _ in packets]

    lead = await acme.post("/leads", {"contact_id": await acme.contact()})
    await acme.call("PATCH", f"/leads/{lead['id']}", body={"stage": "won"})
    kept = await waiting(storage, acme.tenant)
    assert [row["subject"].partition(".evt.")[2] for row in kept] == ["lead.created", "lead.updated"]
    with pytest.raises(Unavailable):
        await Herald(storage, live_bus.publisher, away).publish()
    assert await waiting(storage, acme.tenant) == kept
    while await Herald(storage, live_bus.publisher, live_bus.publisher.send).publish():
        pass
    assert await waiting(storage, acme.tenant) == []
    event = await live_bus.js.get_last_msg("EVENTS", f"t.{acme.tenant}.evt.lead.updated")
    told = json.loads(event.data or b"")
    assert (told["id"], told["stage"], told["stage_before"]) == (lead["id"], "won", "new")
    assert UUID((event.headers or {})["X-Cause"])


async def test_what_was_undone_is_not_told(acme: Account, storage: Storage) -> None:
    (await acme.call("POST", "/leads", body={"contact_id": str(uuid4())})).is_problem(404)
    assert await waiting(storage, acme.tenant) == []
