"""Rate limits: exact over several doors, told in headers, by plan, and open within bounds when Redis is away."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import pytest
from aiohttp import ClientSession
from door_client import Account, Api, make_account
from gate import gate, target_of
from loguru import logger
from msgspec import structs
from redis.asyncio import Redis

from harkara.http import limits as module
from harkara.http.door import Door
from harkara.http.limiting import EXEMPT, allowance
from harkara.http.limits import Bucket, Limits
from harkara.http.plans import ANYBODY, PLANS, STANDARD, Limit, Plan
from harkara.http.routes import ROUTES
from harkara.http.server import listening
from harkara.settings import Settings

#: Longer than any pause of a busy machine: these tests are about counting, not about haste.
PATIENT = 60.0

SMALL = Limit(per_s=50, burst=100)


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as made:
        yield made


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Redis' own time goes on while this one stands still, and a bucket would be forgotten in the middle of a test."""
    later = module._TAKE.replace("/ 1000) + 1000", "/ 1000) + 3600000")
    assert later != module._TAKE
    monkeypatch.setattr(module, "_TAKE", later)
    return Clock()


def one_of(limits: Limits, name: str, limit: Limit = SMALL) -> Bucket:
    return limits.bucket("key", name, limit)


async def granted(limits: Limits, bucket: Bucket, wanted: int) -> int:
    decisions = await asyncio.gather(*(limits.take((bucket,)) for _ in range(wanted)))
    return sum(not decision.wait_s for decision in decisions)


async def test_a_burst_is_granted_and_then_the_rate_and_never_more(redis: Redis, clock: Clock) -> None:
    limits, name = Limits(redis, clock, PATIENT), uuid4().hex
    assert await granted(limits, one_of(limits, name), 300) == SMALL.burst
    decision = await limits.take((one_of(limits, name),))
    assert decision.wait_s == pytest.approx(1 / SMALL.per_s, rel=0.01)
    clock.now += 2
    assert await granted(limits, one_of(limits, name), 300) == SMALL.burst
    clock.now += 0.5
    assert await granted(limits, one_of(limits, name), 300) == 25


async def test_several_doors_together_grant_exactly_what_one_would(redis: Redis, clock: Clock) -> None:
    doors, name = [Limits(redis, clock, PATIENT) for _ in range(4)], uuid4().hex
    limit = Limit(per_s=400, burst=1000)
    for seconds, expected in ((0, 1000), (0.25, 100), (1, 400)):
        clock.now += seconds
        counts = await asyncio.gather(*(granted(door, one_of(door, name, limit), 500) for door in doors))
        held = sum(one_of(door, name, limit).held for door in doors)
        assert sum(counts) + held == expected
        for door in doors:  # what is held is used up, not kept for the next round
            await granted(door, one_of(door, name, limit), one_of(door, name, limit).held)
    assert doors[0].doors >= 4


async def test_a_busy_bucket_asks_seldom_and_a_quiet_one_wastes_nothing(redis: Redis, clock: Clock) -> None:
    limits, limit = Limits(redis, clock, PATIENT), Limit(per_s=1000, burst=10_000)
    busy = one_of(limits, uuid4().hex, limit)
    for _ in range(2000):
        assert not (await limits.take((busy,))).wait_s
    assert limits.asked < 2000 / 40
    quiet, asked = one_of(limits, uuid4().hex, limit), limits.asked
    for _ in range(5):
        decision = await limits.take((quiet,))
        assert decision.remaining == limit.burst - 1
        clock.now += 3
    assert limits.asked == asked + 5


async def test_a_slice_that_is_not_used_in_time_is_forfeit(redis: Redis, clock: Clock) -> None:
    limits, name = Limits(redis, clock, PATIENT), uuid4().hex
    bucket = one_of(limits, name, Limit(per_s=1000, burst=1000))
    await granted(limits, bucket, 20)
    bucket.held = 7
    clock.now += module.LEASE_S + 0.001
    asked = limits.asked
    await limits.take((bucket,))
    assert limits.asked == asked + 1
    assert bucket.held == bucket.granted - 1


async def test_one_empty_bucket_refuses_without_taking_from_the_others(redis: Redis, clock: Clock) -> None:
    limits, name = Limits(redis, clock, PATIENT), uuid4().hex
    wide, narrow = one_of(limits, name), one_of(limits, f"{name}-narrow", Limit(per_s=1, burst=3))
    decisions = [await limits.take((wide, narrow)) for _ in range(10)]
    assert sum(not decision.wait_s for decision in decisions) == 3
    assert decisions[-1].bucket is narrow
    assert await granted(limits, wide, 200) == SMALL.burst - 3


async def test_a_limit_that_is_spent_costs_redis_nothing_until_there_is_room(redis: Redis, clock: Clock) -> None:
    limits = Limits(redis, clock, PATIENT)
    bucket = one_of(limits, uuid4().hex, Limit(per_s=1, burst=1))
    await limits.take((bucket,))
    await limits.take((bucket,))
    asked = limits.asked
    assert await granted(limits, bucket, 50) == 0
    assert limits.asked == asked
    clock.now += 1
    assert await granted(limits, bucket, 50) == 1


@pytest.fixture
def asked_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has found Redis away believes it for longer than any pause of a busy machine."""
    monkeypatch.setattr(module, "ASK_AGAIN_S", 3600.0)


@pytest.mark.usefixtures("asked_no_more")
async def test_without_redis_each_door_counts_its_share_and_says_so_once(redis_url: str, clock: Clock) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level="WARNING", format="{message}")
    async with gate(target_of(redis_url)) as to_redis, Redis.from_url(f"redis://127.0.0.1:{to_redis.port}") as redis:
        limits, name = Limits(redis, clock), uuid4().hex
        await to_redis.close()
        limits.doors = 4
        assert await granted(limits, one_of(limits, name), 300) == SMALL.burst / 4
        clock.now += 1
        assert await granted(limits, one_of(limits, name), 300) == pytest.approx(SMALL.per_s / 4, abs=1)
        assert limits.away
        assert limits.alone >= 300
    logger.remove(sink)
    assert len([line for line in lines if "1 in 4" in line]) == 1


@pytest.mark.usefixtures("asked_no_more")
async def test_a_redis_that_takes_and_does_not_answer_holds_a_request_for_a_moment_only(redis_url: str) -> None:
    async with gate(target_of(redis_url)) as to_redis, Redis.from_url(f"redis://127.0.0.1:{to_redis.port}") as redis:
        limits = Limits(redis)
        to_redis.stall()
        async with asyncio.timeout(30):  # Redis' own time-out would be none at all
            assert await granted(limits, one_of(limits, uuid4().hex), 50) == 50
        assert limits.failed == 1
        to_redis.flow()


async def test_buckets_nobody_uses_are_forgotten(redis: Redis, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 100)
    limits = Limits(redis, clock, PATIENT)
    for number in range(1000):
        one_of(limits, f"{number}")
        clock.now += 1
    assert len(limits._buckets) <= 100


def test_every_public_route_has_an_allowance_but_those_that_watch_over_us() -> None:
    assert {route.path for route in ROUTES if allowance(route) is None} == EXEMPT
    assert {allowance(route) for route in ROUTES} - {None} <= set(ANYBODY)
    assert allowance(next(route for route in ROUTES if "/webhooks/whatsapp" in route.path)) == "webhooks"
    assert allowance(next(route for route in ROUTES if route.path.endswith("/auth/login"))) == "account"


def test_no_plan_lets_a_key_do_more_than_its_tenant() -> None:
    assert STANDARD in PLANS
    for plan in PLANS.values():
        assert plan.key.per_s <= plan.tenant.per_s
        assert plan.key.burst <= plan.tenant.burst


TINY = Plan(key=Limit(0.01, 5), tenant=Limit(0.01, 8), address=Limit(0.01, 100))
NARROW = Plan(key=Limit(1, 50), tenant=Limit(1, 50), address=Limit(0.01, 2))


@asynccontextmanager
async def limited(door: Door, **plans: Plan) -> AsyncIterator[Api]:
    """Another front door, with these plans."""
    made = replace(door, plans=dict(PLANS) | plans)
    made.counting.limits._patience_s = PATIENT
    async with listening(made, "127.0.0.1", 0) as port, ClientSession() as session:
        yield Api(f"http://127.0.0.1:{port}", session, made)


async def on_plan(api: Api, plan: str) -> Account:
    """A tenant with a plan of its own."""
    account = await make_account(api)
    async with api.door.storage.tenant(account.tenant) as con:
        await con.execute("update tenants set plan = $1", plan)
    return account


async def test_a_key_gets_what_its_plan_allows_and_is_told_what_is_left(door: Door) -> None:
    async with limited(door, tiny=TINY) as api:
        account = await on_plan(api, "tiny")
        answers = [await account.call("GET", "/tenant") for _ in range(7)]
        assert [answer.status for answer in answers] == [200] * 5 + [429] * 2
        assert [answer.headers["RateLimit-Remaining"] for answer in answers] == ["4", "3", "2", "1", "0", "0", "0"]
        for answer in answers:
            assert answer.headers["RateLimit-Limit"] == "5"
            assert answer.headers["RateLimit-Policy"] == "5;w=500"
            assert 0 < int(answer.headers["RateLimit-Reset"]) <= 500
        refused = answers[-1].is_problem(429)
        assert 0 < int(refused.headers["Retry-After"]) <= 100
        assert "this key or user" in refused.body["detail"]
        assert "X-Request-Id" in refused.headers


async def test_all_keys_of_a_tenant_share_its_limit_and_nobody_elses(door: Door) -> None:
    async with limited(door, tiny=TINY) as api:
        account, other = await on_plan(api, "tiny"), await on_plan(api, "tiny")
        key = (await account.post("/api-keys", {"scopes": ["*"]}))["key"]
        by_key = replace(account, headers={"X-API-Key": key})
        statuses = [(await by_key.call("GET", "/contacts")).status for _ in range(5)]
        assert statuses == [200] * 5
        statuses = [(await account.call("GET", "/contacts")).status for _ in range(4)]
        assert statuses == [200, 200, 429, 429]
        assert "this tenant" in (await account.call("GET", "/contacts")).is_problem(429).body["detail"]
        assert (await other.call("GET", "/contacts")).status == 200


async def test_one_address_of_a_tenant_does_not_use_up_what_the_others_have(door: Door) -> None:
    settled = replace(door, settings=replace_setting(door, trusted_proxies="1"))
    async with limited(settled, narrow=NARROW) as api:
        account = await on_plan(api, "narrow")

        async def status(address: str) -> int:
            return (await account.call("GET", "/tenant", headers={"X-Forwarded-For": address})).status

        assert [await status("203.0.113.7") for _ in range(3)] == [200, 200, 429]
        assert await status("203.0.113.8") == 200
        assert await status("6.6.6.6, 203.0.113.7") == 429  # what the client adds itself changes nothing


async def test_who_is_turned_away_again_and_again_is_not_even_asked(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ANYBODY, "refused", Limit(0.01, 3))
    settled = replace(door, settings=replace_setting(door, trusted_proxies="1"))
    address = {"X-Forwarded-For": f"2001:db8:{uuid4().hex[:4]}::1"}
    async with limited(settled) as api:
        account = await make_account(api)
        wrong = {"X-API-Key": f"hk_{account.tenant}_{'x' * 40}", **address}
        statuses = [(await api.call("GET", "/tenant", headers=wrong)).status for _ in range(6)]
        assert statuses == [401, 401, 401, 429, 429, 429]
        same_network = {**wrong, "X-Forwarded-For": address["X-Forwarded-For"][:-1] + "2"}
        assert (await api.call("GET", "/tenant", headers=same_network)).status == 429
        assert (await account.call("GET", "/tenant")).status == 200


async def test_public_routes_are_limited_by_address_and_health_is_not(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ANYBODY, "account", Limit(0.01, 2))
    settled = replace(door, settings=replace_setting(door, trusted_proxies="1"))
    address = {"X-Forwarded-For": f"2001:db8:{uuid4().hex[:4]}::1"}
    async with limited(settled) as api:
        body = {"email": "nobody@example.com", "password": "wrong password"}
        answers = [await api.call("POST", "/auth/login", body=body, headers=address) for _ in range(4)]
        assert [answer.status for answer in answers] == [401, 401, 429, 429]
        assert "this address" in answers[-1].is_problem(429).body["detail"]
        for path in EXEMPT:
            answer = await api.call("GET", f"/{path}", headers=address)
            assert answer.status == 200
            assert "RateLimit-Limit" not in answer.headers


@pytest.mark.usefixtures("asked_no_more")
async def test_metrics_tell_whose_limit_it_was_and_that_redis_is_away(door: Door, redis_url: str) -> None:
    async with (
        gate(target_of(redis_url)) as to_redis,
        Redis.from_url(f"redis://127.0.0.1:{to_redis.port}") as redis,
        limited(replace(door, redis=redis), tiny=TINY) as api,
    ):
        account = await on_plan(api, "tiny")
        for _ in range(7):
            await account.call("GET", "/tenant")
        await to_redis.close()
        free = await make_account(api)
        assert (await free.call("GET", "/tenant")).status == 200
        page = (await api.call("GET", "//metrics")).text
    assert 'harkara_rate_limit_refused_total{limit="key"} 2.0' in page
    assert "harkara_rate_limit_failing_open 1.0" in page
    alone = re.search(r"^harkara_rate_limit_alone_total (\S+)$", page, re.MULTILINE)
    assert alone is not None
    assert float(alone[1]) >= 1


def replace_setting(door: Door, **values: str) -> Settings:
    return structs.replace(door.settings, **values)
