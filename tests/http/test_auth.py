"""Accounts: signing up, logging in, tokens that are used once, and several tenants."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta
from uuid import UUID, uuid4

import asyncpg
import jwt
import pytest
from door_client import PASSWORD, Account, Api
from support import Database

from harkara.http.auth import SIGN_UP
from harkara.http.identity import Tokens, utc_now
from harkara.http.passwords import Passwords
from harkara.ids import uuid7
from harkara.storage.storage import Storage, StorageError
from harkara.tenants import create


async def test_signing_up_makes_a_tenant_with_its_owner_who_is_logged_in(acme: Account) -> None:
    assert acme.tokens["expires_in"] == 900
    assert acme.tokens["tenant"] == {"id": acme.tenant, "name": acme.tenant.upper()}
    me = await acme.get("/auth/me")
    assert me["user"]["email"] == acme.email
    assert me["tenant"]["id"] == acme.tenant
    assert me["role"] == "owner"


async def test_a_tenant_id_that_is_taken_is_refused_and_nothing_is_stored(acme: Account, api: Api) -> None:
    email = f"{uuid4().hex}@example.com"
    wanted = {"tenant": {"id": acme.tenant, "name": "Mine"}, "email": email, "password": PASSWORD}
    answer = await api.call("POST", "/auth/signup", body=wanted)
    assert "tenant.id" in answer.is_problem(409).faults()
    (await api.call("POST", "/auth/login", body={"email": email, "password": PASSWORD})).is_problem(401)


async def test_an_email_that_is_taken_is_refused_and_nothing_is_stored(acme: Account, api: Api) -> None:
    wanted = {"tenant": {"id": "never-made-1", "name": "X"}, "email": acme.email.upper(), "password": PASSWORD}
    answer = await api.call("POST", "/auth/signup", body=wanted)
    assert "email" in answer.is_problem(409).faults()
    again = wanted | {"email": f"{uuid4().hex}@example.com", "tenant": {"id": f"t-{uuid4().hex[:9]}", "name": "X"}}
    assert (await api.call("POST", "/auth/signup", body=again)).status == 201


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"email": "nobody"}, "email"),
        ({"email": "me@chai"}, "email"),
        ({"email": "me@chai."}, "email"),
        ({"email": "me@.example"}, "email"),
        ({"password": "short"}, "password"),
        ({"tenant": {"id": "Acme", "name": "x"}}, "tenant.id"),
        ({"tenant": {"id": "acme\n", "name": "x"}}, "tenant.id"),
        ({"tenant": {"id": "a", "name": "x"}}, "tenant.id"),
        ({"tenant": {"id": "acme-1", "name": "  "}}, "tenant.name"),
        ({"plan": "gold"}, "plan"),
    ],
)
async def test_a_sign_up_that_is_wrong_is_refused_by_name(api: Api, change: dict[str, object], path: str) -> None:
    wanted = {"tenant": {"id": f"t-{uuid4().hex[:9]}", "name": "X"}, "email": "a@b.example", "password": PASSWORD}
    answer = await api.call("POST", "/auth/signup", body=wanted | change)
    assert path in answer.is_problem(422).faults()


async def test_logging_in_gives_a_pair_that_works(acme: Account, api: Api) -> None:
    answer = await api.call("POST", "/auth/login", body={"email": f" {acme.email.upper()}", "password": PASSWORD})
    assert answer.status == 200
    assert answer.body["tenant"]["id"] == acme.tenant
    assert answer.body["tenants"] == [{"id": acme.tenant, "name": acme.tenant.upper(), "role": "owner"}]
    headers = {"Authorization": f"Bearer {answer.body['access_token']}"}
    assert (await api.call("GET", "/tenant", headers=headers)).body["id"] == acme.tenant


async def test_the_command_line_takes_no_other_addresses(storage: Storage) -> None:
    with pytest.raises(StorageError, match="'me@chai': is not an email address"):
        await create(storage, "never-made-2", "X", "me@chai", PASSWORD)


async def test_the_command_line_takes_no_shorter_passwords(storage: Storage) -> None:
    with pytest.raises(StorageError, match=r"^password: must have at least 8 characters"):
        await create(storage, "never-made-3", "X", "me@chai.example", "short")


async def test_who_has_an_address_that_is_taken_no_more_still_logs_in(api: Api, storage: Storage) -> None:
    email, hashed = f"{uuid4().hex}@chai", await Passwords().hash(PASSWORD)
    async with storage.anonymous() as con:
        await con.execute(SIGN_UP, f"t-{uuid4().hex[:9]}", "X", uuid4(), email, hashed, uuid4())
    assert (await api.call("POST", "/auth/login", body={"email": email, "password": PASSWORD})).status == 200


async def test_a_wrong_password_and_an_unknown_account_read_the_same(acme: Account, api: Api) -> None:
    answers = [
        await api.call("POST", "/auth/login", body={"email": email, "password": "wrong password"})
        for email in (acme.email, "nobody@example.com")
    ]
    assert len({answer.is_problem(401).text for answer in answers}) == 1


async def test_a_password_of_nobody_takes_as_long_to_refuse() -> None:
    passwords = Passwords()
    stored = await passwords.hash(PASSWORD)
    assert await passwords.verify(stored, PASSWORD)

    async def cost(account: str | None) -> float:
        """In time of the processor: that of the clock depends on what else the machine does."""
        begin = time.process_time()
        assert not await passwords.verify(account, "wrong password")
        return time.process_time() - begin

    # In turns, and the least of each: whatever comes between can only add something.
    turns = [(await cost(None), await cost(stored)) for _ in range(5)]
    of_nobody, of_somebody = map(min, zip(*turns, strict=True))
    assert of_nobody > of_somebody / 3


async def test_a_refresh_token_is_good_once_and_using_it_twice_ends_the_login(acme: Account, api: Api) -> None:
    first = {"refresh_token": acme.tokens["refresh_token"]}
    second = await api.call("POST", "/auth/refresh", body=first)
    assert second.status == 200
    assert second.body["refresh_token"] != first["refresh_token"]
    (await api.call("POST", "/auth/refresh", body=first)).is_problem(401)
    (await api.call("POST", "/auth/refresh", body={"refresh_token": second.body["refresh_token"]})).is_problem(401)


async def test_of_many_uses_of_one_refresh_token_at_once_one_at_most_succeeds(acme: Account, api: Api) -> None:
    body = {"refresh_token": acme.tokens["refresh_token"]}
    answers = await asyncio.gather(*(api.call("POST", "/auth/refresh", body=body) for _ in range(6)))
    assert [answer.status for answer in answers].count(200) == 1


async def test_an_access_token_is_no_refresh_token_and_the_other_way_round(acme: Account, api: Api) -> None:
    (await api.call("POST", "/auth/refresh", body={"refresh_token": acme.tokens["access_token"]})).is_problem(401)
    headers = {"Authorization": f"Bearer {acme.tokens['refresh_token']}"}
    (await api.call("GET", "/tenant", headers=headers)).is_problem(401)


async def test_a_refresh_token_that_is_replayed_under_a_key_ends_the_login_all_the_same(
    acme: Account, api: Api
) -> None:
    used = {"refresh_token": acme.tokens["refresh_token"]}
    second = await api.call("POST", "/auth/refresh", body=used)
    headers = {"Idempotency-Key": uuid4().hex}
    (await api.call("POST", "/auth/refresh", body=used, headers=headers)).is_problem(401)
    (await api.call("POST", "/auth/refresh", body={"refresh_token": second.body["refresh_token"]})).is_problem(401)


@pytest.mark.parametrize("by", ["refresh token", "access token"])
async def test_logging_out_ends_the_login(acme: Account, api: Api, by: str) -> None:
    body = {"refresh_token": acme.tokens["refresh_token"]}
    if by == "refresh token":
        answer = await api.call("POST", "/auth/logout", body=body)
    else:
        answer = await acme.call("POST", "/auth/logout")
    assert answer.status == 204
    (await api.call("POST", "/auth/refresh", body=body)).is_problem(401)


async def test_nobody_is_let_in_without_or_with_a_bad_token(acme: Account, api: Api) -> None:
    user = UUID(jwt.decode(acme.tokens["access_token"], options={"verify_signature": False})["sub"])
    now = utc_now()
    ours = Tokens(api.door.settings.secret_key)
    unsigned = jwt.encode({"sub": str(user), "aud": "harkara", "iss": "harkara"}, "", algorithm="none")
    bad = {
        "nothing": None,
        "nonsense": "Bearer abc",
        "basic": "Basic YTpi",
        "other secret": f"Bearer {Tokens('another secret of thirty-two bytes!!').access(user, uuid4(), now)}",
        "expired": f"Bearer {ours.access(user, uuid4(), now - timedelta(hours=1))}",
        "unsigned": f"Bearer {unsigned}",
        "unknown user": f"Bearer {ours.access(uuid4(), uuid4(), now)}",
    }
    for name, header in bad.items():
        answer = await api.call("GET", "/tenant", headers={"Authorization": header} if header else {})
        assert "WWW-Authenticate" in answer.is_problem(401).headers, name


async def join(storage: Storage, tenant: str, account: Account, role: str) -> None:
    """Make an account a member of a tenant."""
    user = (await account.get("/auth/me"))["user"]["id"]
    async with storage.tenant(tenant) as con:
        await con.execute(
            "insert into tenant_users (id, user_id, role, is_active) values ($1, $2, $3, true)",
            uuid7(),
            UUID(user),
            role,
        )
    account.api.door.keyring.forget()


async def test_a_member_of_several_tenants_names_one(acme: Account, other: Account, api: Api, storage: Storage) -> None:
    await join(storage, other.tenant, acme, "viewer")
    answer = (await acme.call("GET", "/tenant")).is_problem(400)
    assert acme.tenant in answer.body["detail"]
    assert other.tenant in answer.body["detail"]
    for tenant in (acme.tenant, other.tenant):
        assert (await acme.call("GET", "/tenant", headers={"X-Tenant-ID": tenant})).body["id"] == tenant
    me = await acme.get("/auth/me")
    assert me["tenant"] is None
    assert [one["id"] for one in me["tenants"]] == sorted([acme.tenant, other.tenant])


async def test_a_tenant_one_has_no_part_in_is_as_unknown_as_one_that_does_not_exist(
    acme: Account, other: Account
) -> None:
    theirs = (await acme.call("GET", "/tenant", headers={"X-Tenant-ID": other.tenant})).is_problem(404)
    nobodys = (await acme.call("GET", "/tenant", headers={"X-Tenant-ID": "no-such-tenant"})).is_problem(404)
    assert theirs.text == nobodys.text


async def test_a_role_limits_what_one_may_do_and_losing_it_ends_it(
    acme: Account, other: Account, api: Api, storage: Storage
) -> None:
    await join(storage, other.tenant, acme, "viewer")
    at = {"X-Tenant-ID": other.tenant}
    contact = {"name": "A", "phone": "+919876543210"}
    assert (await acme.call("GET", "/contacts", headers=at)).status == 200
    (await acme.call("POST", "/contacts", headers=at, body=contact)).is_problem(403)
    (await acme.call("GET", "/api-keys", headers=at)).is_problem(403)
    async with storage.tenant(other.tenant) as con:
        await con.execute("update tenant_users set is_active = false where role = 'viewer'")
    api.door.keyring.forget()
    (await acme.call("GET", "/contacts", headers=at)).is_problem(404)


async def test_two_sign_ups_at_once_for_one_tenant_give_it_to_one(api: Api) -> None:
    tenant = f"t-{uuid4().hex[:12]}"
    bodies = [
        {"tenant": {"id": tenant, "name": "X"}, "email": f"{uuid4().hex}@x.example", "password": PASSWORD}
        for _ in range(4)
    ]
    answers = await asyncio.gather(*(api.call("POST", "/auth/signup", body=body) for body in bodies))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409]


async def test_passwords_and_tokens_are_not_stored_as_they_are(acme: Account, database: Database) -> None:
    con = await asyncpg.connect(database.owner_url)
    try:
        stored = await con.fetchval("select password_hash from users where email = $1", acme.email)
    finally:
        await con.close()
    assert stored.startswith("$argon2id$")
    assert PASSWORD not in stored
