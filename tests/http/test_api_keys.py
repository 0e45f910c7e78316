"""API keys: shown once, limited by scopes and time, revoked at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from door_client import Account, Answer, Api
from support import Database, one_row, until

from harkara.http.door import Door
from harkara.http.identity import hash_of, new_key, tenant_of_key
from harkara.storage.storage import Storage


async def by_key(api: Api, key: str, method: str = "GET", path: str = "/contacts", **more: Any) -> Answer:
    return await api.call(method, path, headers={"X-API-Key": key} | more.pop("headers", {}), **more)


async def test_a_key_names_its_tenant_and_is_stored_as_a_hash_only(
    acme: Account, api: Api, storage: Storage, door: Door
) -> None:
    made = await acme.post("/api-keys", {"name": "shop"})
    key = made["key"]
    assert key.startswith(f"hk_{acme.tenant}_")
    assert (made["scopes"], made["hint"]) == (["*"], f"…{key[-4:]}")
    [listed] = (await acme.get("/api-keys"))["items"]
    assert "key" not in listed
    async with storage.tenant(acme.tenant) as con:
        stored = await one_row(con, "select * from api_keys")
    assert stored["key_hash"] == hash_of(key)
    assert key not in str(dict(stored))
    assert (await by_key(api, key, path="/tenant")).body["id"] == acme.tenant
    bearer = await api.call("GET", "/tenant", headers={"Authorization": f"Bearer {key}"})
    assert bearer.body["id"] == acme.tenant
    me = (await by_key(api, key, path="/auth/me")).body
    assert (me["api_key_id"], me["user"], me["tenant"]["id"]) == (made["id"], None, acme.tenant)
    door.keyring.forget()
    await by_key(api, key)
    assert (await acme.get("/api-keys"))["items"][0]["last_used_at"] is not None


async def test_a_revoked_key_says_so(acme: Account, api: Api) -> None:
    made = await acme.post("/api-keys", {})
    assert (await by_key(api, made["key"])).status == 200
    assert (await acme.call("DELETE", f"/api-keys/{made['id']}")).status == 204
    assert "revoked" in (await by_key(api, made["key"])).is_problem(401).body["detail"]
    assert (await acme.get("/api-keys"))["items"][0]["revoked_at"] is not None
    (await acme.call("DELETE", f"/api-keys/{made['id'][:-1]}0")).is_problem(404)


async def test_an_expired_key_says_so_even_if_it_was_good_a_moment_ago(
    acme: Account, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    until_then = datetime.now(UTC) + timedelta(hours=1)
    made = await acme.post("/api-keys", {"expires_at": until_then.isoformat()})
    assert (await by_key(api, made["key"])).status == 200
    monkeypatch.setattr(api.door, "clock", lambda: until_then)
    assert "expired" in (await by_key(api, made["key"])).is_problem(401).body["detail"]


async def test_a_key_revoked_elsewhere_is_refused_within_moments(acme: Account, api: Api, storage: Storage) -> None:
    made = await acme.post("/api-keys", {})
    assert (await by_key(api, made["key"])).status == 200
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update api_keys set revoked_at = now()")

    async def refused() -> bool:
        return (await by_key(api, made["key"])).status == 401

    await until(refused, "what another process did is seen")


@pytest.mark.parametrize("key", ["hk_", "hk_acme_short", "nonsense", "", "hk_no-such-tenant_" + "x" * 43])
async def test_an_unknown_key_is_refused(api: Api, key: str) -> None:
    (await by_key(api, key)).is_problem(401)


async def test_a_key_cannot_be_used_for_another_tenant(acme: Account, other: Account, api: Api) -> None:
    made = await acme.post("/api-keys", {})
    forged = made["key"].replace(acme.tenant, other.tenant)
    (await by_key(api, forged)).is_problem(401)
    (await by_key(api, made["key"], headers={"X-Tenant-ID": other.tenant})).is_problem(404)
    assert (await by_key(api, made["key"], headers={"X-Tenant-ID": acme.tenant})).status == 200


async def test_scopes_limit_what_a_key_may_do(acme: Account, api: Api) -> None:
    reader = (await acme.post("/api-keys", {"scopes": ["contacts:read"]}))["key"]
    writer = (await acme.post("/api-keys", {"scopes": ["contacts:write"]}))["key"]
    contact = {"name": "A", "phone": "+919876543210"}
    assert (await by_key(api, reader)).status == 200
    refused = await by_key(api, reader, "POST", body=contact)
    assert "contacts:write" in refused.is_problem(403).body["detail"]
    assert (await by_key(api, writer, "POST", body=contact)).status == 201
    assert (await by_key(api, writer)).status == 200
    (await by_key(api, writer, path="/campaigns")).is_problem(403)


async def test_a_key_gives_no_more_than_it_has(acme: Account, api: Api) -> None:
    limited = (await acme.post("/api-keys", {"scopes": ["tenant:write", "contacts:read"]}))["key"]
    made = await by_key(api, limited, "POST", "/api-keys", body={"scopes": ["contacts:read"]})
    assert made.status == 201
    same = await by_key(api, limited, "POST", "/api-keys", body={})
    assert same.body["scopes"] == ["contacts:read", "tenant:write"]
    for beyond in (["*"], ["contacts:write"], ["messages:read"]):
        (await by_key(api, limited, "POST", "/api-keys", body={"scopes": beyond})).is_problem(403)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"scopes": ["contacts"]}, "scopes[0]"),
        ({"scopes": []}, "scopes"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"expires_at": "9999-12-31T23:59:59-14:00"}, "expires_at"),
        ({"expires_at": "2126-01-01T00:00:00"}, "expires_at"),
        ({"role": "owner"}, "role"),
    ],
)
async def test_what_is_wrong_with_a_key_is_named(acme: Account, body: dict[str, Any], path: str) -> None:
    assert path in (await acme.call("POST", "/api-keys", body=body)).is_problem(422).faults()
    assert (await acme.get("/api-keys"))["items"] == []


async def test_the_key_of_a_tenant_that_was_closed_is_refused(acme: Account, api: Api, storage: Storage) -> None:
    made = await acme.post("/api-keys", {})
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update tenants set is_active = false")
    api.door.keyring.forget()
    (await by_key(api, made["key"])).is_problem(401)
    (await acme.call("GET", "/contacts")).is_problem(403)


async def test_the_tenant_changes_its_settings(acme: Account, database: Database) -> None:
    change = {"name": " New ", "timezone": "asia/kolkata", "default_region": "in"}
    changed = (await acme.call("PATCH", "/tenant", body=change)).body
    assert (changed["name"], changed["timezone"], changed["default_region"]) == ("New", "Asia/Kolkata", "IN")
    assert await acme.get("/tenant") == changed
    wrong = {"name": " ", "timezone": "Mars", "default_region": "XX", "plan": "gold"}
    answer = await acme.call("PATCH", "/tenant", body=wrong)
    assert set(answer.is_problem(422).faults()) == {"plan", "name", "timezone", "default_region"}


def test_a_key_is_read_for_its_tenant_only_if_it_looks_like_one() -> None:
    assert tenant_of_key(new_key("acme-1")) == "acme-1"
    for text in (
        "",
        "hk_acme",
        "hk_Acme_" + "x" * 43,
        "hk_a'b_" + "x" * 43,
        new_key("acme") + "\n",
        "xhk_acme_" + "x" * 43,
    ):
        assert tenant_of_key(text) is None
