"""Every route of the table, today's and tomorrow's, against everybody who has no business there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import cast
from uuid import UUID, uuid4

import asyncpg
import pytest
from door_client import PASSWORD, Account, Api, make_account
from support import Database

from harkara.http.access import EVERYTHING, ROLES, SCOPES, Access, Public, role_suffices
from harkara.http.access import Account as AnyAccount
from harkara.http.door import Door, build
from harkara.http.identity import Tokens, new_key, utc_now
from harkara.http.plans import ANYBODY, Limit
from harkara.http.route import PREFIX, Route
from harkara.http.routes import ROUTES
from harkara.ids import uuid7

#: Routes that let anybody in, each with what it trusts instead. A new one has to be justified here.
OPEN_TO_ALL = {
    ("GET", "//healthz"): "tells that the process lives, and nothing of anybody",
    ("GET", "//readyz"): "tells which server is away, and nothing of anybody",
    ("GET", "//metrics"): "counts and times, and nothing of anybody",
    ("GET", "//openapi.json"): "describes the API, which is the same for all",
    ("GET", "//docs"): "shows that description",
    ("GET", "//docs/{version}/{file}"): "files of the package",
    ("POST", "/auth/signup"): "makes the account",
    ("POST", "/auth/login"): "email and password",
    ("POST", "/auth/refresh"): "the refresh token",
    ("POST", "/auth/logout"): "the token that is ended",
    ("GET", "/feed"): "a ticket, or the headers that every route takes; tests/http/test_feed.py",
    ("GET", "/webhooks/whatsapp/{sender_id}"): "the sender's verify token",
    ("POST", "/webhooks/whatsapp/{sender_id}"): "the sender's signature",
    ("POST", "/webhooks/evolution/{sender_id}"): "the sender's secret, or a token made with it",
    ("POST", "/webhooks/waha/{sender_id}"): "the sender's signature",
}

#: What a viewer may do that is no GET, and why that changes nothing of the tenant's.
VIEWERS_MAY = {
    ("PATCH", "/auth/me"): "one's own account",
    ("POST", "/feed/ticket"): "only opens what a viewer may read anyway",
}

#: What only somebody's own account is needed for.
ACCOUNTS_ALONE = {("GET", "/auth/me"), ("PATCH", "/auth/me")}

GUARDED = [route for route in ROUTES if not isinstance(route.access, Public)]


def name_of(route: Route) -> tuple[str, str]:
    inside = route.path.startswith(PREFIX)
    return route.method, route.path.removeprefix(PREFIX) if inside else f"/{route.path}"


def path_of(route: Route) -> str:
    """With ids that nobody has: who asks is known before they matter."""
    return re.sub(r"\{\w+\}", lambda _: str(uuid7()), name_of(route)[1])


@dataclass
class Callers:
    """Everybody who has no business there, by what is wrong with them."""

    api: Api
    owner: Account
    strangers: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    people: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    keys: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])

    async def person(self, name: str, role: str) -> str:
        """Somebody new of this tenant, logged in; their id."""
        email = f"{name}@{self.owner.tenant}.example"
        made = await self.owner.post("/users", {"email": email, "role": role, "password": PASSWORD})
        answer = await self.api.call("POST", "/auth/login", body={"email": email, "password": PASSWORD})
        self.people[name] = {"Authorization": f"Bearer {answer.body['access_token']}"}
        return str(made["id"])

    async def key(self, name: str, scopes: set[str]) -> str:
        """A new key; its id."""
        made = await self.owner.post("/api-keys", {"scopes": sorted(scopes)})
        self.keys[name] = {"X-API-Key": made["key"]}
        return str(made["id"])


@pytest.fixture(scope="module")
def unlimited() -> Iterator[None]:
    """One address is refused more often here than anybody's may be."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(cast("dict[str, Limit]", ANYBODY), "refused", Limit(1e6, 10**6))
        yield


@pytest.fixture(scope="module")
async def callers(api: Api, database: Database, unlimited: None) -> AsyncIterator[Callers]:
    owner, foreign = await make_account(api), await make_account(api)
    made = Callers(api, owner)
    con = await asyncpg.connect(database.owner_url)
    try:
        await _strangers(made, foreign)
        await _people(made, con)
        await _keys(made)
        yield made
    finally:
        await con.close()


async def _strangers(made: Callers, foreign: Account) -> None:
    now, tokens = utc_now(), made.api.door.tokens
    user = UUID((await made.owner.get("/auth/me"))["user"]["id"])
    bearer = {
        "a word": "nonsense",
        "another's signature": Tokens("another secret of thirty-two bytes!!").access(user, None, now),
        "a token that has expired": tokens.access(user, None, now - timedelta(hours=1)),
        "a token of a login that never was": tokens.access(user, uuid4(), now),
        "a token of nobody": tokens.access(uuid4(), None, now),
        "a refresh token": made.owner.tokens["refresh_token"],
        "a key in its place": new_key(made.owner.tenant),
    }
    made.strangers = {name: {"Authorization": f"Bearer {token}"} for name, token in bearer.items()}
    made.strangers |= {
        "nothing": {},
        "Basic": {"Authorization": "Basic YTpi"},
        "a key that never was": {"X-API-Key": new_key(made.owner.tenant)},
        "a key of no tenant": {"X-API-Key": new_key("no-such-tenant")},
        "a word as key": {"X-API-Key": "nonsense"},
        "an empty key beside a good token": {**made.owner.headers, "X-API-Key": ""},
    }
    made.people["somebody of another tenant"] = foreign.headers | {"X-Tenant-ID": made.owner.tenant}
    made.people["somebody in no tenant"] = made.owner.headers | {"X-Tenant-ID": "no-such-tenant"}
    foreign_key = (await foreign.post("/api-keys", {}))["key"]
    made.keys["a key of another tenant"] = {"X-API-Key": foreign_key, "X-Tenant-ID": made.owner.tenant}


async def _people(made: Callers, con: asyncpg.Connection) -> None:
    for role in ROLES[:-1]:
        await made.person(role, role)
    inactive, gone = await made.person("inactive", "admin"), await made.person("gone", "admin")
    assert (await made.owner.call("PATCH", f"/users/{inactive}", body={"is_active": False})).status == 200
    assert (await made.owner.call("DELETE", f"/users/{gone}")).status == 204
    closed = await made.person("closed", "admin")
    await con.execute("update users set is_active = false where id = $1", UUID(closed))
    made.api.door.keyring.forget()
    made.strangers["a closed account"] = made.people.pop("closed")


async def _keys(made: Callers) -> None:
    expired, revoked = await made.key("expired", {EVERYTHING}), await made.key("revoked", {EVERYTHING})
    async with made.api.door.storage.tenant(made.owner.tenant) as con:
        await con.execute("update api_keys set expires_at = now() where id = $1", UUID(expired))
    assert (await made.owner.call("DELETE", f"/api-keys/{revoked}")).status == 204
    for name in ("expired", "revoked"):
        made.strangers[f"a key that is {name}"] = made.keys.pop(name)
    for needed in sorted({route.access.scope for route in GUARDED if isinstance(route.access, Access)}):
        area = needed.partition(":")[0]
        await made.key(needed, set(SCOPES) - {EVERYTHING, needed, f"{area}:write"})


async def refused(callers: Callers, route: Route, headers: dict[str, str], who: str, *statuses: int) -> None:
    answer = await callers.api.call(route.method, path_of(route), headers=headers)
    assert answer.status in statuses, f"{route.method} {route.path} for {who}: {answer.status} {answer.text[:300]}"
    answer.is_problem(answer.status)
    for secret in (callers.owner.email, callers.owner.tenant.upper()):
        assert secret not in answer.text, f"{route.method} {route.path} for {who}"


def test_only_routes_that_say_why_let_anybody_in() -> None:
    assert {name_of(route) for route in ROUTES if isinstance(route.access, Public)} == set(OPEN_TO_ALL)
    assert {name_of(route) for route in ROUTES if isinstance(route.access, AnyAccount)} == ACCOUNTS_ALONE


def test_every_way_into_the_application_is_in_the_table(door: Door) -> None:
    known = {(route.method, route.path) for route in ROUTES}
    for way in build(door).router.routes():
        path = way.resource.canonical if way.resource else ""
        method = "GET" if way.method == "HEAD" else way.method
        assert (method, path) in known, "a way in that is in no table is under no rule"


def test_a_viewer_changes_nothing_unless_it_says_why() -> None:
    may = {
        name_of(route)
        for route in GUARDED
        if route.method != "GET"
        and (not isinstance(route.access, Access) or role_suffices("viewer", route.access.role))
    }
    assert may == set(VIEWERS_MAY)


def test_every_scope_that_a_route_needs_can_be_given() -> None:
    for route in GUARDED:
        if isinstance(route.access, Access):
            verb = "read" if route.method == "GET" else "write"
            read_only = name_of(route) in VIEWERS_MAY
            assert route.access.scope in SCOPES, route.path
            assert route.access.scope.endswith(f":{'read' if read_only else verb}"), f"{route.method} {route.path}"


async def test_nobody_gets_in_without_something_good(callers: Callers) -> None:
    for route in GUARDED:
        for who, headers in callers.strangers.items():
            await refused(callers, route, headers, who, 401)


async def test_nobody_gets_into_a_tenant_that_is_not_theirs(callers: Callers) -> None:
    foreign = {**callers.people, **callers.keys}
    for who in ("somebody of another tenant", "somebody in no tenant", "a key of another tenant"):
        for route in GUARDED:
            await refused(callers, route, foreign[who], who, 404)


async def test_nobody_gets_in_who_was_put_out_or_deactivated(callers: Callers) -> None:
    for who in ("inactive", "gone"):
        headers = callers.people[who]
        for route in GUARDED:
            if isinstance(route.access, Access):
                await refused(callers, route, headers, who, 403)
                await refused(callers, route, headers | {"X-Tenant-ID": callers.owner.tenant}, who, 404)


async def test_nobody_does_what_their_role_is_too_small_for(callers: Callers) -> None:
    for route in GUARDED:
        for role in ROLES[:-1]:
            if isinstance(route.access, Access) and not role_suffices(role, route.access.role):
                await refused(callers, route, callers.people[role], role, 403)


async def test_a_viewer_is_refused_whatever_changes_something(callers: Callers) -> None:
    for route in GUARDED:
        if route.method != "GET" and name_of(route) not in VIEWERS_MAY:
            await refused(callers, route, callers.people["viewer"], "a viewer", 403)


async def test_no_key_does_what_it_has_no_scope_for(callers: Callers) -> None:
    for route in GUARDED:
        if isinstance(route.access, Access):
            needed = route.access.scope
            await refused(callers, route, callers.keys[needed], f"a key without {needed}", 403)


async def test_those_who_may_are_let_in_so_that_a_refusal_means_something(callers: Callers) -> None:
    for route in GUARDED:
        if route.method == "GET" and isinstance(route.access, Access) and "{" not in route.path:
            answer = await callers.api.call("GET", path_of(route), headers=callers.people[route.access.role])
            assert answer.status == 200, f"{route.path}: {answer.text[:300]}"
