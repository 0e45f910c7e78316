"""Guessing is slowed down, by account and by address; who knows the password is not, and nobody learns who exists."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import pytest
from door_client import PASSWORD, Account, Answer, Api
from gate import Gate, gate, target_of
from redis.asyncio import Redis

from harkara.http.plans import Limit
from harkara.http.problems import Problem
from harkara.http.throttle import PATIENCE_S, PRODUCTION, Allowance, Throttle

STRICT = Allowance(login=Limit(1 / 30, 3), account=Limit(1 / 60, 5), address=Limit(1 / 6, 8), signup=Limit(1 / 60, 2))


@dataclass
class Guessing:
    """A throttle whose time stands still until the test moves it."""

    redis: Redis
    now: float = 1_800_000_000.0
    #: Redis is there however busy the machine is, except where a test takes it away.
    patience_s: float = 30.0

    def throttle(self, allowance: Allowance = STRICT) -> Throttle:
        return Throttle(self.redis, allowance, lambda: self.now, self.patience_s)


@pytest.fixture
async def guessing(redis_url: str) -> AsyncIterator[Guessing]:
    redis = Redis.from_url(redis_url)
    yield Guessing(redis)
    await redis.aclose()


def somebody() -> tuple[str, str]:
    """An account and an address that no other test has."""
    return f"{uuid4().hex}@x.example", f"2001:db8:{uuid4().hex[:4]}:{uuid4().hex[:4]}::/64"


async def wait_of(throttle: Throttle, email: str, address: str) -> int:
    """The seconds that a failure has to wait; 0 if it was let through."""
    try:
        await throttle.login(email, address)
    except Problem as problem:
        return int(problem.headers["Retry-After"]) if problem.status == 429 else -1
    return 0


async def test_failures_at_one_account_from_one_address_are_slowed_down_and_time_forgives(guessing: Guessing) -> None:
    (email, address), throttle = somebody(), guessing.throttle()
    assert [await wait_of(throttle, email, address) for _ in range(5)] == [0, 0, 0, 30, 30]
    assert await wait_of(throttle, email.upper(), address) == 30, "an address in other letters is the same account"
    guessing.now += 12
    assert await wait_of(throttle, email, address) == 18
    guessing.now += 18
    assert [await wait_of(throttle, email, address) for _ in range(2)] == [0, 30]


async def test_many_guesses_at_once_are_no_way_around(guessing: Guessing) -> None:
    (email, address), throttles = somebody(), [guessing.throttle() for _ in range(3)]
    waits = await asyncio.gather(*(wait_of(one, email, address) for _ in range(10) for one in throttles))
    assert waits.count(0) == 3


async def test_guesses_at_many_accounts_from_one_address_are_slowed_down(guessing: Guessing) -> None:
    _, address = somebody()
    throttle = guessing.throttle()
    waits = [await wait_of(throttle, somebody()[0], address) for _ in range(9)]
    assert waits == [0] * 8 + [6]


async def test_guesses_from_many_addresses_do_not_keep_out_who_is_known_at_theirs(guessing: Guessing) -> None:
    (email, home), throttle = somebody(), guessing.throttle()
    await throttle.succeeded(await throttle.login(email, home))
    waits = [await wait_of(throttle, email, somebody()[1]) for _ in range(7)]
    assert waits == [0] * 5 + [60, 60]
    attempt = await throttle.login(email, home)
    await throttle.succeeded(attempt)
    assert await wait_of(throttle, email, somebody()[1]) == 0, "a success starts the account afresh"


async def test_who_knows_the_password_may_log_in_as_often_as_they_like(guessing: Guessing) -> None:
    (email, address), throttle = somebody(), guessing.throttle()
    for _ in range(20):
        await throttle.succeeded(await throttle.login(email, address))


async def test_a_success_forgives_the_account_but_not_the_address(guessing: Guessing) -> None:
    (own, address), throttle = somebody(), guessing.throttle()
    for _ in range(8):
        assert await wait_of(throttle, somebody()[0], address) == 0
        guessing.now += 0.001
    assert await wait_of(throttle, own, address) == 6
    guessing.now += 6
    await throttle.succeeded(await throttle.login(own, address))
    assert await wait_of(throttle, somebody()[0], address) == 0
    assert await wait_of(throttle, somebody()[0], address) == 6


async def test_one_address_makes_few_accounts(guessing: Guessing) -> None:
    _, address = somebody()
    throttle = guessing.throttle()
    for _ in range(2):
        await throttle.signup(address)
    with pytest.raises(Problem) as refused:
        await throttle.signup(address)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "60")
    await throttle.signup(somebody()[1])


@pytest.fixture
async def to_redis(redis_url: str) -> AsyncIterator[Gate]:
    async with gate(target_of(redis_url)) as made:
        yield made


@pytest.mark.parametrize("how", ["closed", "stalled"])
async def test_without_redis_each_front_door_counts_alone(to_redis: Gate, how: str) -> None:
    redis = Redis.from_url(f"redis://127.0.0.1:{to_redis.port}")
    guessing = Guessing(redis, patience_s=PATIENCE_S)
    if how == "closed":
        await to_redis.close()
    else:
        to_redis.stall()
    (email, address), one, two = somebody(), guessing.throttle(), guessing.throttle()
    assert [await wait_of(one, email, address) for _ in range(5)] == [0, 0, 0, 30, 30]
    assert [await wait_of(two, email, address) for _ in range(4)] == [0, 0, 0, 30], "another door, another count"
    guessing.now += 30
    await one.succeeded(await one.login(email, address))
    assert [await wait_of(one, email, address) for _ in range(4)] == [0, 0, 0, 30]
    for _ in range(2):
        await one.signup(address)
    with pytest.raises(Problem):
        await one.signup(address)
    await redis.aclose()


# Over HTTP


@pytest.fixture
def strict(api: Api) -> Iterator[Api]:
    """The front door, as strict as in production: with one address for all these tests, so only by account.

    Its time stands still, so that nothing is forgiven meanwhile; and it waits for Redis, as `Guessing` does.
    """
    with pytest.MonkeyPatch.context() as patch:
        allowance, now = replace(PRODUCTION, address=Limit(100, 10_000), signup=Limit(100, 10_000)), time.time()
        patch.setattr(api.door, "throttle", Throttle(api.door.redis, allowance, lambda: now, 30.0))
        yield api


async def guessed(api: Api, email: str, password: str) -> Answer:
    return await api.call("POST", "/auth/login", body={"email": email, "password": password})


async def test_a_log_in_that_fails_too_often_waits_and_says_how_long(strict: Api, acme: Account) -> None:
    answers = [await guessed(strict, acme.email, "wrong password") for _ in range(11)]
    assert [answer.status for answer in answers] == [401] * 10 + [429]
    refused = answers[-1].is_problem(429)
    assert 0 < int(refused.headers["Retry-After"]) <= 30
    limit = [refused.headers[f"RateLimit-{name}"] for name in ("Limit", "Remaining", "Policy")]
    assert limit == ["10", "0", "10;w=300"], "the limit that refused, not that of requests"
    (await guessed(strict, acme.email, PASSWORD)).is_problem(429)
    assert (await acme.call("GET", "/tenant")).status == 200, "who is logged in already notices nothing"


async def test_an_account_that_does_not_exist_is_throttled_as_one_that_does(strict: Api, acme: Account) -> None:
    told: list[list[tuple[int, Any]]] = []
    for email in (acme.email, somebody()[0]):
        answers = [await guessed(strict, email, "wrong password") for _ in range(12)]
        told.append([(answer.status, answer.body) for answer in answers])
    assert told[0] == told[1]


async def test_guessing_the_current_password_of_an_open_session_is_slowed_down_too(strict: Api, acme: Account) -> None:
    body = {"password": "a better password", "current_password": "wrong password"}
    answers = [await acme.call("PATCH", "/auth/me", body=body) for _ in range(11)]
    assert [answer.status for answer in answers] == [422] * 10 + [429]


async def test_a_refusal_of_a_refresh_token_tells_nothing_of_the_account(api: Api, acme: Account) -> None:
    used = {"refresh_token": acme.tokens["refresh_token"]}
    await api.call("POST", "/auth/logout", body=used)
    of_nobody = api.door.tokens.refresh(uuid4(), uuid4(), api.door.clock())
    texts = {
        (await api.call("POST", "/auth/refresh", body=body)).is_problem(401).text
        for body in (used, {"refresh_token": of_nobody})
    }
    assert len(texts) == 1
