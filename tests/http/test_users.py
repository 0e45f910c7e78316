"""The people of a tenant: who may change whom, and that somebody always owns it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from door_client import PASSWORD, Account, Answer, Api
from msgspec import UNSET

from harkara.storage.storage import Storage


def an_email() -> str:
    return f"{uuid4().hex}@people.example"


async def added(to: Account, role: str = "agent", email: str | None = None) -> Account:
    """A new member of this tenant, logged in there."""
    email = email or an_email()
    made = await to.post("/users", {"email": email, "name": "Asha", "role": role, "password": PASSWORD})
    return await logged_in(to.api, to.tenant, email, made["id"])


async def logged_in(api: Api, tenant: str, email: str, id_: str = "", password: str = PASSWORD) -> Account:
    answer = await api.call("POST", "/auth/login", body={"email": email, "password": password})
    assert answer.status == 200, answer.text
    headers = {"Authorization": f"Bearer {answer.body['access_token']}", "X-Tenant-ID": tenant}
    return Account(api, tenant, email, answer.body | {"id": id_}, headers)


async def role_of(account: Account) -> str | None:
    role: str | None = (await account.get("/auth/me"))["role"]
    return role


async def me(account: Account) -> str:
    return str((await account.get("/auth/me"))["user"]["id"])


async def test_a_person_is_added_logs_in_and_is_listed(acme: Account, api: Api) -> None:
    email = an_email()
    wanted = {"email": f" {email.upper()}", "name": " Asha  Rao ", "role": "agent", "password": PASSWORD}
    made = await acme.post("/users", wanted)
    assert (made["email"], made["name"], made["role"], made["is_active"]) == (email, "Asha Rao", "agent", True)
    assert made["accepted_at"] is None
    assert made["password"] is None
    answer = await api.call("POST", "/auth/login", body={"email": email, "password": PASSWORD})
    assert answer.body["tenant"]["id"] == acme.tenant
    agent = Account(api, acme.tenant, email, answer.body, {"Authorization": f"Bearer {answer.body['access_token']}"})
    assert await role_of(agent) == "agent"
    (await agent.call("POST", "/users", body=wanted)).is_problem(403)
    listed = (await agent.get("/users"))["items"]
    assert [one["email"] for one in listed] == [email, acme.email]
    assert listed[0]["accepted_at"] is not None
    assert set(listed[0]) == set(made) - {"password"}
    first = await acme.get("/users?limit=1")
    second = await acme.get(f"/users?limit=1&cursor={first['next']}")
    assert [first["items"][0]["email"], second["items"][0]["email"], second["next"]] == [email, acme.email, None]


async def test_a_password_that_was_made_up_is_shown_once_and_works(acme: Account, api: Api) -> None:
    made = await acme.post("/users", {"email": an_email(), "role": "viewer"})
    assert await role_of(await logged_in(api, acme.tenant, made["email"], password=made["password"])) == "viewer"
    assert made["password"] not in str(await acme.get("/users"))


async def test_an_account_of_another_tenant_joins_with_its_own_password_and_nobody_can_tell(
    acme: Account, other: Account, api: Api
) -> None:
    attempt = {"role": "viewer", "name": "Colleague", "password": "another password"}
    theirs = await acme.post("/users", {**attempt, "email": other.email})
    new = await acme.post("/users", {**attempt, "email": an_email()})
    differ = {name for name in theirs if theirs[name] != new[name]}
    assert differ <= {"id", "email", "created_at", "updated_at"}
    noted = [one for one in (await acme.get("/audit"))["items"] if one["action"] == "create"]
    assert [one["entity"] for one in noted[:2]] == ["member", "member"]
    assert "user" not in {one["entity"] for one in noted}, "the log would tell which account is new"
    wrong = {"email": other.email, "password": "another password"}
    (await api.call("POST", "/auth/login", body=wrong)).is_problem(401)
    both = await logged_in(api, acme.tenant, other.email)
    assert {one["id"] for one in both.tokens["tenants"]} == {acme.tenant, other.tenant}
    assert await role_of(both) == "viewer"


async def test_whoever_was_added_elsewhere_goes_on_as_before_until_they_first_name_that_tenant(
    acme: Account, other: Account
) -> None:
    await acme.post("/users", {"email": other.email, "role": "admin"})
    assert (await other.call("GET", "/tenant")).body["id"] == other.tenant
    at = {"X-Tenant-ID": acme.tenant}
    assert (await other.call("GET", "/tenant", headers=at)).body["id"] == acme.tenant
    (await other.call("GET", "/tenant")).is_problem(400)
    [them] = [one for one in (await acme.get("/users"))["items"] if one["email"] == other.email]
    assert them["accepted_at"] is not None


async def test_a_person_who_is_added_twice_under_one_key_is_added_once_and_may_come_at_once(
    acme: Account, other: Account
) -> None:
    at = {"X-Tenant-ID": acme.tenant}
    (await other.call("GET", "/tenant", headers=at)).is_problem(404)
    body, key = {"email": other.email, "role": "viewer"}, {"Idempotency-Key": uuid4().hex}
    answers = [await acme.call("POST", "/users", body=body, headers=key) for _ in range(2)]
    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].body == answers[1].body
    assert (await other.call("GET", "/tenant", headers=at)).status == 200


async def test_a_member_is_added_once(acme: Account) -> None:
    body = {"email": an_email(), "role": "viewer"}
    answers = await asyncio.gather(*(acme.call("POST", "/users", body=body) for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409]
    again = (await acme.call("POST", "/users", body=body)).is_problem(409)
    assert again.body["user_id"] in {one["id"] for one in (await acme.get("/users"))["items"]}
    assert "email" in again.faults()


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"email": "nobody", "role": "agent"}, "email"),
        ({"email": "me@chai", "role": "agent"}, "email"),
        ({"email": "a@b.example", "role": "king"}, "role"),
        ({"email": "a@b.example"}, "role"),
        ({"email": "a@b.example", "role": "agent", "password": "short"}, "password"),
        ({"email": "a@b.example", "role": "agent", "is_active": False}, "is_active"),
        ({"email": "a\u0000@b.example", "role": "agent"}, "email"),
    ],
)
async def test_a_member_that_is_wrong_is_refused_by_name(acme: Account, body: dict[str, Any], path: str) -> None:
    assert path in (await acme.call("POST", "/users", body=body)).is_problem(422).faults()


async def test_only_owners_make_owners_and_change_them(acme: Account) -> None:
    admin, agent, owner = await added(acme, "admin"), await added(acme, "agent"), await me(acme)
    (await admin.call("POST", "/users", body={"email": an_email(), "role": "owner"})).is_problem(403)
    for target in (admin.tokens["id"], agent.tokens["id"]):
        (await admin.call("PATCH", f"/users/{target}", body={"role": "owner"})).is_problem(403)
    for body in ({"role": "viewer"}, {"is_active": False}, {"name": "X"}):
        (await admin.call("PATCH", f"/users/{owner}", body=body)).is_problem(403)
    (await admin.call("DELETE", f"/users/{owner}")).is_problem(403)
    (await agent.call("PATCH", f"/users/{agent.tokens['id']}", body={"role": "admin"})).is_problem(403)
    answer = await admin.call("PATCH", f"/users/{agent.tokens['id']}", body={"role": "admin", "name": "Boss"})
    assert (answer.body["role"], answer.body["name"]) == ("admin", "Boss")
    assert await role_of(agent) == "admin"
    answer = await acme.call("PATCH", f"/users/{admin.tokens['id']}", body={"role": "owner"})
    assert answer.body["role"] == "owner"


async def test_a_key_gives_no_more_than_it_has(acme: Account, api: Api) -> None:
    agent = await added(acme)
    all_ = {"X-API-Key": (await acme.post("/api-keys", {}))["key"]}
    some = {"X-API-Key": (await acme.post("/api-keys", {"scopes": ["tenant:write", "contacts:write"]}))["key"]}
    path = f"/users/{agent.tokens['id']}"

    async def tried(headers: dict[str, str], method: str, path: str, body: Any = UNSET) -> Answer:
        return await api.call(method, path, body=body, headers=headers)

    (await tried(all_, "POST", "/users", {"email": an_email(), "role": "owner"})).is_problem(403)
    (await tried(all_, "PATCH", path, {"role": "owner"})).is_problem(403)
    (await tried(all_, "DELETE", f"/users/{await me(acme)}")).is_problem(403)
    for body in ({"role": "admin"}, {"is_active": True}):
        (await tried(some, "PATCH", path, body)).is_problem(403)
    (await tried(some, "POST", "/users", {"email": an_email(), "role": "viewer"})).is_problem(403)
    assert (await tried(all_, "POST", "/users", {"email": an_email(), "role": "admin"})).status == 201
    assert (await tried(some, "PATCH", path, {"is_active": False})).body["is_active"] is False
    assert (await tried(some, "DELETE", path)).status == 204
    (await tried(some, "PATCH", "/auth/me", {"name": "Robot"})).is_problem(403)


@pytest.mark.parametrize(
    ("method", "body"), [("PATCH", {"role": "admin"}), ("PATCH", {"is_active": False}), ("DELETE", UNSET)]
)
async def test_the_last_active_owner_stays(acme: Account, method: str, body: Any) -> None:
    owner = await me(acme)
    second = await added(acme, "owner")
    assert (await acme.call("PATCH", f"/users/{second.tokens['id']}", body={"is_active": False})).status == 200
    answer = (await acme.call(method, f"/users/{owner}", body=body)).is_problem(409)
    assert "owner" in answer.body["detail"]
    assert await role_of(acme) == "owner"
    assert (await acme.call("PATCH", f"/users/{second.tokens['id']}", body={"is_active": True})).status == 200
    assert (await acme.call(method, f"/users/{owner}", body=body)).status in (200, 204)


@pytest.mark.parametrize(("method", "body"), [("PATCH", {"role": "viewer"}), ("DELETE", UNSET)])
async def test_of_two_owners_who_put_each_other_down_at_once_one_stays(
    acme: Account, storage: Storage, method: str, body: Any
) -> None:
    for _ in range(5):
        second = await added(acme, "owner")
        first = await me(acme)
        answers = await asyncio.gather(
            acme.call(method, f"/users/{second.tokens['id']}", body=body),
            second.call(method, f"/users/{first}", body=body),
        )
        good = [answer.status for answer in answers if answer.status < 300]
        assert len(good) == 1, [answer.text for answer in answers]
        async with storage.tenant(acme.tenant) as con:
            assert await con.fetchval("select count(*) from tenant_users where role = 'owner'") == 1
        if (await acme.call("GET", "/users")).status != 200:
            acme = second


async def test_whoever_was_put_out_is_out_with_the_next_request_and_may_come_again(acme: Account) -> None:
    for method, body in (("PATCH", {"is_active": False}), ("DELETE", UNSET)):
        agent = await added(acme)
        path = f"/users/{agent.tokens['id']}"
        assert (await agent.call("GET", "/contacts")).status == 200
        assert (await acme.call(method, path, body=body)).status < 300
        (await agent.call("GET", "/contacts")).is_problem(404)
        login = {"email": agent.email, "password": PASSWORD}
        assert (await agent.api.call("POST", "/auth/login", body=login)).body["tenants"] == []
        if method == "DELETE":
            (await acme.call("PATCH", path, body={"role": "agent"})).is_problem(404)
            again = await acme.post(
                "/users", {"email": agent.email, "role": "viewer", "password": "not their password"}
            )
            assert again["id"] == agent.tokens["id"]
        else:
            assert (await acme.call("PATCH", path, body={"is_active": True})).status == 200
        assert (await agent.call("GET", "/contacts")).status == 200


async def test_one_tenants_people_are_nobody_elses(acme: Account, other: Account) -> None:
    agent = await added(acme)
    for method, body in (("PATCH", {"role": "viewer"}), ("DELETE", UNSET)):
        (await other.call(method, f"/users/{agent.tokens['id']}", body=body)).is_problem(404)
    assert agent.email not in str(await other.get("/users"))
    await other.post("/users", {"email": agent.email, "role": "viewer"})
    assert (await other.call("DELETE", f"/users/{agent.tokens['id']}")).status == 204
    assert await role_of(agent) == "agent"


# One's own account


async def test_a_name_is_ones_own_and_the_tenants_name_for_one_stays(acme: Account) -> None:
    changed = (await acme.call("PATCH", "/auth/me", body={"name": " New  name "})).body
    assert changed["user"]["name"] == "New name"
    assert changed == await acme.get("/auth/me")
    [listed] = (await acme.get("/users"))["items"]
    assert listed["name"] == "New name"
    assert (await acme.call("PATCH", f"/users/{listed['id']}", body={"name": "The boss"})).body["name"] == "The boss"
    assert (await acme.get("/auth/me"))["user"]["name"] == "New name"


async def test_another_password_needs_the_one_before_and_ends_all_other_logins(acme: Account, api: Api) -> None:
    elsewhere = await logged_in(api, acme.tenant, acme.email)
    wanted = {"password": "a better password", "current_password": PASSWORD}
    for body, path in (
        ({"password": "a better password"}, "current_password"),
        ({**wanted, "current_password": "wrong password"}, "current_password"),
        ({**wanted, "password": "short"}, "password"),
        ({"email": "new@example.com"}, "email"),
    ):
        assert path in (await acme.call("PATCH", "/auth/me", body=body)).is_problem(422).faults()
    assert (await elsewhere.call("GET", "/tenant")).status == 200
    assert (await acme.call("PATCH", "/auth/me", body=wanted)).status == 200
    (await elsewhere.call("GET", "/tenant")).is_problem(401)
    used = {"refresh_token": elsewhere.tokens["refresh_token"]}
    (await api.call("POST", "/auth/refresh", body=used)).is_problem(401)
    assert (await acme.call("GET", "/tenant")).status == 200
    kept = {"refresh_token": acme.tokens["refresh_token"]}
    assert (await api.call("POST", "/auth/refresh", body=kept)).status == 200
    (await api.call("POST", "/auth/login", body={"email": acme.email, "password": PASSWORD})).is_problem(401)
    await logged_in(api, acme.tenant, acme.email, password="a better password")


async def test_of_two_password_changes_at_once_one_counts(acme: Account, api: Api) -> None:
    words = [f"a new password {number}" for number in range(3)]
    answers = await asyncio.gather(
        *(acme.call("PATCH", "/auth/me", body={"password": word, "current_password": PASSWORD}) for word in words)
    )
    good = [word for word, answer in zip(words, answers, strict=True) if answer.status == 200]
    assert len(good) == 1
    await logged_in(api, acme.tenant, acme.email, password=good[0])


async def test_a_member_of_no_tenant_still_sees_and_changes_their_account(acme: Account) -> None:
    agent = await added(acme)
    assert (await acme.call("DELETE", f"/users/{agent.tokens['id']}")).status == 204
    del agent.headers["X-Tenant-ID"]
    me_ = await agent.get("/auth/me")
    assert (me_["user"]["email"], me_["tenant"], me_["tenants"]) == (agent.email, None, [])
    assert (await agent.call("PATCH", "/auth/me", body={"name": "Me"})).body["user"]["name"] == "Me"
    (await agent.call("GET", "/contacts")).is_problem(403)
