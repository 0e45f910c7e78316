"""Access that is withdrawn in one front door ends in all of them: on word from the bus, and without it soon enough."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import ClientSession, WSServerHandshakeError
from aiohttp.test_utils import TestServer
from argon2 import PasswordHasher
from door_client import PASSWORD, SECRET, Account, Answer, Api
from loguru import logger
from redis.asyncio import Redis
from support import until

from harkara.bus.connection import connect
from harkara.http.door import Door, build
from harkara.http.feed import Feed
from harkara.http.keyring import TRUSTED_FOR
from harkara.http.passwords import Passwords
from harkara.settings import Settings
from harkara.storage.storage import Storage


@dataclass
class Elsewhere:
    """Another front door, with a connection to the broker of its own."""

    api: Api
    feed: Feed

    async def call(self, method: str, path: str, headers: dict[str, str]) -> Answer:
        return await self.api.call(method, path, headers=headers)

    def believes_for_ever(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From now on only the bus can tell it anything."""
        for believed in (self.api.door.keyring._keys, self.api.door.keyring._people):
            monkeypatch.setattr(believed, "_trust_s", 3600.0)


async def opened(stack: AsyncExitStack, nats_url: str, redis_url: str, storage: Storage, *, hears: bool) -> Elsewhere:
    bus = await stack.enter_async_context(await connect(nats_url))
    redis = Redis.from_url(redis_url)
    stack.push_async_callback(redis.aclose)
    feed = Feed(bus, redis, storage)
    await feed.start()
    door = Door(
        settings=Settings(secret_key=SECRET, environment="development"),
        storage=storage,
        publisher=bus.publisher,
        redis=redis,
        bus=bus,
        feed=feed,
        passwords=Passwords(PasswordHasher(time_cost=1, memory_cost=64)),
    )
    if hears:
        await stack.enter_async_context(door.listening())
    server = await stack.enter_async_context(TestServer(build(door)))
    session = await stack.enter_async_context(ClientSession())
    stack.push_async_callback(feed.stop)
    return Elsewhere(Api(str(server.make_url("")).rstrip("/"), session, door), feed)


@pytest.fixture(scope="module")
async def elsewhere(door: Door, nats_url: str, redis_url: str, storage: Storage) -> AsyncIterator[Elsewhere]:
    """A front door that hears what others change."""
    async with AsyncExitStack() as stack:
        yield await opened(stack, nats_url, redis_url, storage, hears=True)


@pytest.fixture(scope="module")
async def deaf(door: Door, nats_url: str, redis_url: str, storage: Storage) -> AsyncIterator[Elsewhere]:
    """A front door that hears nothing."""
    async with AsyncExitStack() as stack:
        yield await opened(stack, nats_url, redis_url, storage, hears=False)


@dataclass
class Case:
    """Somebody with access, and what withdraws it."""

    headers: dict[str, str]
    withdraw: Callable[[], Awaitable[Any]]
    refused: int


async def of_a_key(acme: Account) -> Case:
    made = await acme.post("/api-keys", {})
    return Case({"X-API-Key": made["key"]}, lambda: acme.call("DELETE", f"/api-keys/{made['id']}"), 401)


async def member(acme: Account, role: str = "admin") -> tuple[str, dict[str, Any], dict[str, str]]:
    email = f"{role}@{acme.tenant}.example"
    made = await acme.post("/users", {"email": email, "role": role, "password": PASSWORD})
    tokens = (await acme.api.call("POST", "/auth/login", body={"email": email, "password": PASSWORD})).body
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert (await acme.api.call("GET", "/tenant", headers=headers)).status == 200
    return made["id"], tokens, headers


async def of_a_member_put_out(acme: Account) -> Case:
    id_, _, headers = await member(acme)
    return Case(headers, lambda: acme.call("DELETE", f"/users/{id_}"), 403)


async def of_a_member_deactivated(acme: Account) -> Case:
    id_, _, headers = await member(acme)
    return Case(headers, lambda: acme.call("PATCH", f"/users/{id_}", body={"is_active": False}), 403)


async def of_a_member_demoted(acme: Account) -> Case:
    id_, _, headers = await member(acme)
    return Case(headers, lambda: acme.call("PATCH", f"/users/{id_}", body={"role": "agent"}), 403)


async def of_one_who_logs_out(acme: Account) -> Case:
    _, tokens, headers = await member(acme)
    body = {"refresh_token": tokens["refresh_token"]}
    return Case(headers, lambda: acme.api.call("POST", "/auth/logout", body=body), 401)


async def of_a_login_whose_refresh_token_is_replayed(acme: Account) -> Case:
    _, tokens, headers = await member(acme)
    body = {"refresh_token": tokens["refresh_token"]}
    await acme.api.call("POST", "/auth/refresh", body=body)
    return Case(headers, lambda: acme.api.call("POST", "/auth/refresh", body=body), 401)


async def of_a_login_when_the_password_is_changed_elsewhere(acme: Account) -> Case:
    _, _, headers = await member(acme)
    login = {"email": f"admin@{acme.tenant}.example", "password": PASSWORD}
    other = (await acme.api.call("POST", "/auth/login", body=login)).body
    there = {"Authorization": f"Bearer {other['access_token']}"}
    body = {"password": "a better password", "current_password": PASSWORD}
    return Case(headers, lambda: acme.api.call("PATCH", "/auth/me", body=body, headers=there), 401)


CASES = [
    of_a_key,
    of_a_member_put_out,
    of_a_member_deactivated,
    of_a_member_demoted,
    of_one_who_logs_out,
    of_a_login_whose_refresh_token_is_replayed,
    of_a_login_when_the_password_is_changed_elsewhere,
]


@pytest.mark.parametrize("case", CASES)
async def test_access_that_is_withdrawn_in_one_front_door_ends_in_the_other_on_word_from_the_bus(
    acme: Account,
    elsewhere: Elsewhere,
    case: Callable[[Account], Awaitable[Case]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made = await case(acme)
    elsewhere.believes_for_ever(monkeypatch)
    assert (await elsewhere.call("GET", "/api-keys", made.headers)).status == 200
    await made.withdraw()
    begin = time.perf_counter()

    async def refused() -> bool:
        return (await elsewhere.call("GET", "/api-keys", made.headers)).status == made.refused

    await until(refused, "the other front door has heard of it", every=0.001)
    logger.info("the other front door refused after {:.1f} ms", (time.perf_counter() - begin) * 1e3)


@pytest.mark.parametrize("case", CASES[:2])
async def test_a_front_door_that_hears_nothing_believes_what_it_knew_for_less_than_a_second(
    acme: Account, deaf: Elsewhere, case: Callable[[Account], Awaitable[Case]], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert timedelta(seconds=1) > TRUSTED_FOR
    made, now = await case(acme), time.monotonic()
    for believed in (deaf.api.door.keyring._keys, deaf.api.door.keyring._people):
        monkeypatch.setattr(believed, "_clock", lambda: now)
        believed.forget()
    assert (await deaf.call("GET", "/api-keys", made.headers)).status == 200
    await made.withdraw()
    assert (await deaf.call("GET", "/api-keys", made.headers)).status == 200, "or else this test shows nothing"
    now += TRUSTED_FOR.total_seconds() + 0.001  # of a large number, less than all of it may be left
    (await deaf.call("GET", "/api-keys", made.headers)).is_problem(made.refused)


async def test_a_tenant_that_is_closed_by_hand_is_closed_to_all_within_a_second(
    acme: Account, api: Api, elsewhere: Elsewhere, storage: Storage
) -> None:
    key = {"X-API-Key": (await acme.post("/api-keys", {}))["key"]}
    for headers in (key, acme.headers):
        assert (await elsewhere.call("GET", "/tenant", headers)).status == 200
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update tenants set is_active = false")
    for headers, status in ((key, 401), (acme.headers, 403)):
        for there in (api, elsewhere):

            async def refused(there: Any = there, headers: Any = headers, status: int = status) -> bool:
                return bool((await there.call("GET", "/tenant", headers=headers)).status == status)

            await until(refused, "the tenant is closed")
    answer = await api.call("POST", "/auth/login", body={"email": acme.email, "password": PASSWORD})
    assert answer.body["tenants"] == []


@pytest.mark.parametrize("case", CASES[:3] + CASES[4:])
async def test_a_feed_elsewhere_is_closed_at_once(
    acme: Account,
    elsewhere: Elsewhere,
    case: Callable[[Account], Awaitable[Case]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("harkara.http.feed.RECHECK_EVERY", timedelta(hours=1))
    elsewhere.feed.recheck_soon()  # what is being waited for now is from before the patch
    made = await case(acme)
    url = f"{elsewhere.api.url}/api/v1/feed"
    async with elsewhere.api.session.ws_connect(url, headers=made.headers) as ws:
        await until(lambda: elsewhere.feed.serves(acme.tenant), "it listens")
        await made.withdraw()
        told = await ws.receive_json(timeout=30)
        assert (told["type"], "withdrawn" in told["data"]["reason"]) == ("feed.closed", True)


async def test_a_ticket_dies_with_the_login_it_was_issued_to(acme: Account, elsewhere: Elsewhere) -> None:
    ticket = (await acme.post("/feed/ticket"))["ticket"]
    url = f"{elsewhere.api.url}/api/v1/feed?ticket={ticket}"
    unused = (await acme.post("/feed/ticket"))["ticket"]
    async with elsewhere.api.session.ws_connect(url) as ws:
        await until(lambda: elsewhere.feed.serves(acme.tenant), "it listens")
        await acme.call("POST", "/auth/logout", body={"refresh_token": acme.tokens["refresh_token"]})
        assert (await ws.receive_json(timeout=30))["type"] == "feed.closed"
    with pytest.raises(WSServerHandshakeError) as refused:
        await elsewhere.api.session.ws_connect(f"{elsewhere.api.url}/api/v1/feed?ticket={unused}")
    assert refused.value.status == 401


async def test_what_cannot_be_read_makes_a_front_door_ask_for_everything_again(
    acme: Account, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere.believes_for_ever(monkeypatch)
    key = {"X-API-Key": (await acme.post("/api-keys", {}))["key"]}
    assert (await elsewhere.call("GET", "/tenant", key)).status == 200
    elsewhere.api.door._heard_of_access(b"\xff{")
    assert elsewhere.api.door.keyring._keys._known == {}
