"""GET /audit: everything that is done by way of the front door is there, with who did it."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from door_client import Account, Api

from harkara.http.access import Access
from harkara.http.context import Context
from harkara.http.identity import Identity
from harkara.http.route import Route
from harkara.http.trail import audit


async def entries(account: Account, query: str = "") -> list[dict[str, Any]]:
    """All entries, newest first."""
    return list((await account.get(f"/audit?limit=200{query}"))["items"])


async def test_a_change_is_told_with_who_when_where_and_what(acme: Account) -> None:
    contact = await acme.contact(name="Asha")
    answer = await acme.call("PATCH", f"/contacts/{contact}", body={"name": "Asha Rao", "tags": ["vip"]})
    assert answer.status == 200
    changed, made = await entries(acme, f"&entity_id={contact}")
    me = await acme.get("/auth/me")
    assert (made["action"], changed["action"]) == ("create", "update")
    assert {(one["entity"], one["entity_id"], one["user_id"], one["api_key_id"]) for one in (made, changed)} == {
        ("contact", contact, me["user"]["id"], None)
    }
    assert made["changes"]["before"] is None
    assert made["changes"]["after"]["name"] == "Asha"
    assert changed["changes"] == {
        "before": {"name": "Asha", "tags": []},
        "after": {"name": "Asha Rao", "tags": ["vip"]},
    }
    assert changed["request_id"] == answer.headers["X-Request-Id"]
    assert changed["address"] in {"127.0.0.1", "::1"}
    assert changed["via"] == "PATCH /contacts/{contact_id}"
    assert abs(datetime.fromisoformat(changed["at"]) - datetime.now(UTC)) < timedelta(minutes=1)


async def test_a_key_is_told_by_its_id(acme: Account) -> None:
    key = await acme.post("/api-keys", {"scopes": ["contacts:write"]})
    made = await acme.call(
        "POST", "/contacts", body={"name": "A", "phone": "+919876543210"}, headers={"X-API-Key": key["key"]}
    )
    assert made.status == 201
    about_key = (await entries(acme, f"&entity_id={key['id']}"))[0]
    assert about_key["changes"]["after"]["key_hash"] == "…"
    assert [one["entity"] for one in await entries(acme, f"&api_key_id={key['id']}")] == ["contact"]


async def test_signing_up_is_where_it_begins(acme: Account) -> None:
    begun = [one for one in await entries(acme) if one["via"] == "POST /auth/signup"]
    assert {(one["entity"], one["action"]) for one in begun} == {("tenant", "create"), ("member", "create")}


async def test_what_was_refused_or_undone_is_not_there(acme: Account) -> None:
    before = await entries(acme)
    (await acme.call("POST", "/contacts", body={"name": "", "phone": "1"})).is_problem(422)
    contact = await acme.contact(phone="+919876543210")
    (await acme.call("POST", "/contacts", body={"name": "B", "phone": "+919876543210"})).is_problem(409)
    assert [one["entity_id"] for one in await entries(acme)] == [contact, *[one["entity_id"] for one in before]]


async def test_filters_find_what_they_name_and_pages_follow_each_other(acme: Account) -> None:
    contact, campaign = await acme.contact(), await acme.campaign()
    await acme.call("PATCH", f"/contacts/{contact}", body={"name": "B"})
    await acme.call("DELETE", f"/contacts/{contact}")
    everything = await entries(acme)
    me = (await acme.get("/auth/me"))["user"]["id"]
    for query, wanted in (
        ("entity=contact", lambda one: one["entity"] == "contact"),
        (f"entity_id={campaign}", lambda one: one["entity_id"] == campaign),
        ("action=update", lambda one: one["action"] == "update"),
        ("action=delete&entity=contact", lambda one: (one["action"], one["entity"]) == ("delete", "contact")),
        (f"user_id={me}", lambda one: one["user_id"] == me),
        (f"user_id={contact}", lambda one: False),
        (f"request_id={everything[0]['request_id']}", lambda one: one["request_id"] == everything[0]["request_id"]),
    ):
        assert await entries(acme, f"&{query}") == [one for one in everything if wanted(one)], query
    middle = everything[len(everything) // 2]["at"].replace("+00:00", "Z")
    assert [*await entries(acme, f"&since={middle}"), *await entries(acme, f"&until={middle}")] == everything
    paged: list[dict[str, Any]] = []
    page = await acme.get("/audit?limit=3")
    while True:
        paged += page["items"]
        if page["next"] is None:
            break
        page = await acme.get(f"/audit?limit=3&cursor={page['next']}")
    assert paged == everything


async def test_only_who_answers_for_the_tenant_reads_it(acme: Account, other: Account, api: Api) -> None:
    contact = await acme.contact()
    assert await entries(other, f"&entity_id={contact}") == []
    for scopes, status in ((["contacts:read"], 403), (["audit:read"], 200), (["*"], 200)):
        key = (await acme.post("/api-keys", {"scopes": scopes}))["key"]
        answer = await api.call("GET", "/audit", headers={"X-API-Key": key})
        assert answer.status == status, scopes


async def test_reading_in_bulk_is_noted(acme: Account, api: Api, door: Any) -> None:
    """What exports call, in the shape in which they call it."""
    me = (await acme.get("/auth/me"))["user"]["id"]

    class Asked:
        headers: ClassVar[dict[str, str]] = {}
        remote = "192.0.2.9"

    async def handler(ctx: Any) -> None:
        """Exports."""

    route = Route(
        method="GET", path="/api/v1/contacts/export", handler=handler, access=Access("admin", "x"), summary="Exports"
    )
    who = Identity(acme.tenant, user_id=me)
    ctx: Context[Any, Any] = Context(door, Asked(), route, "a-request", None, None, who)  # type: ignore[arg-type]
    await audit(ctx, "export", "contact", {"tag": "vip", "rows": 12})
    (noted,) = await entries(acme, "&action=export")
    assert (noted["entity"], noted["entity_id"], noted["user_id"], noted["address"]) == (
        "contact",
        None,
        me,
        "192.0.2.9",
    )
    assert noted["via"] == "GET /contacts/export"
    assert noted["changes"] == {"before": None, "after": {"tag": "vip", "rows": 12}}


async def test_no_secret_is_in_it(acme: Account) -> None:
    sender = await acme.sender(access_token="hunter2hunter2", app_secret="sesame-open")
    await acme.call("PATCH", f"/senders/{sender}", body={"access_token": "a-new-token-1"})
    key = (await acme.post("/api-keys", {}))["key"]
    text = (await acme.call("GET", "/audit?limit=200")).text
    for secret in ("hunter2hunter2", "sesame-open", "a-new-token-1", key, key.removeprefix(f"hk_{acme.tenant}_")):
        assert secret not in text
    assert not re.search(r"argon2|gAAAA", text), "not even encrypted"


@pytest.mark.parametrize(
    "query", ["since=0001-01-01T00:00:00%2B14:00", "cursor=nonsense", "user_id=x", "limit=0", "action=%00"]
)
async def test_an_odd_filter_is_refused_by_name(acme: Account, query: str) -> None:
    name = query.partition("=")[0]
    assert name in (await acme.call("GET", f"/audit?{query}")).is_problem(422).faults()
