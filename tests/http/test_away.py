"""Servers that go away and come back: 503 that says so, a process that survives, and no restart needed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from argon2 import PasswordHasher
from door_client import SECRET, Account, Api, make_account
from gate import Gate, gate, target_of
from redis.asyncio import Redis
from support import Database, until

from harkara.bus.connection import connect
from harkara.bus.topology import apply
from harkara.http import context
from harkara.http.door import Door, build
from harkara.http.passwords import Passwords
from harkara.settings import Settings
from harkara.storage.storage import Storage


@dataclass
class Fragile:
    """A front door whose servers can be taken away."""

    account: Account
    gates: dict[str, Gate]
    contact: str
    sender: str

    async def ready(self) -> bool:
        return (await self.account.api.call("GET", "//readyz")).status == 200

    async def message(self) -> Any:
        body = {"contact_id": self.contact, "sender_id": self.sender, "body": "Hi"}
        return await self.account.call("POST", "/messages", body=body)


def socket_of(database_url: str) -> str:
    parts = urlsplit(database_url)
    query = parse_qs(parts.query)
    return f"{query['host'][0]}/.s.PGSQL.{query.get('port', ['5432'])[0]}"


@asynccontextmanager
async def _opened(database: Database, nats_url: str, redis_url: str) -> AsyncGenerator[Fragile]:
    async with (
        gate(socket_of(database.app_url)) as to_database,
        gate(target_of(nats_url)) as to_broker,
        gate(target_of(redis_url)) as to_redis,
    ):
        parts = urlsplit(database.app_url)
        storage = Storage(f"postgres://{parts.username}@127.0.0.1:{to_database.port}{parts.path}", pool=4)
        await storage.open()
        broker = re.sub(r"@[^/]+", f"@127.0.0.1:{to_broker.port}", nats_url)
        redis = Redis.from_url(f"redis://127.0.0.1:{to_redis.port}")
        async with await connect(broker, patience=timedelta(seconds=1)) as bus:
            await apply(bus.js)
            door = Door(
                settings=Settings(secret_key=SECRET, environment="development"),
                storage=storage,
                publisher=bus.publisher,
                redis=redis,
                bus=bus,
                passwords=Passwords(PasswordHasher(time_cost=1, memory_cost=64)),
            )
            async with TestServer(build(door)) as server, ClientSession() as session:
                account = await make_account(Api(str(server.make_url("")).rstrip("/"), session, door))
                gates = {"database": to_database, "broker": to_broker, "redis": to_redis}
                yield Fragile(account, gates, await account.contact(), await account.sender())
        await redis.aclose()
        await storage.close()


@pytest.fixture
async def fragile(database: Database, nats_url: str, redis_url: str) -> AsyncIterator[Fragile]:
    async with _opened(database, nats_url, redis_url) as made:
        yield made


@pytest.mark.parametrize("name", ["database", "broker", "redis"])
async def test_readiness_names_who_is_away_and_comes_back(fragile: Fragile, name: str) -> None:
    assert await fragile.ready()
    await fragile.gates[name].close()
    answer = (await fragile.account.api.call("GET", "//readyz")).is_problem(503)
    assert set(answer.faults()) == {name}
    assert "Retry-After" in answer.headers
    assert (await fragile.account.api.call("GET", "//healthz")).status == 200
    await fragile.gates[name].open()
    await until(fragile.ready, f"ready again once the {name} is back", timeout=15)


async def test_readiness_tells_a_server_that_takes_but_does_not_answer(fragile: Fragile) -> None:
    fragile.gates["redis"].stall()
    answer = (await fragile.account.api.call("GET", "//readyz")).is_problem(503)
    assert set(answer.faults()) == {"redis"}
    fragile.gates["redis"].flow()
    await until(fragile.ready, "ready again", timeout=15)


async def test_without_the_database_every_route_answers_503_and_goes_on_when_it_is_back(fragile: Fragile) -> None:
    await fragile.gates["database"].close()
    fragile.account.api.door.keyring.forget()
    for _ in range(6):  # more often than the pool has connections
        for method, path in (("GET", "/contacts"), ("GET", "/campaigns"), ("GET", "/messages"), ("GET", "/auth/me")):
            answer = (await fragile.account.call(method, path)).is_problem(503)
            assert "database" in answer.body["detail"]
            assert "Retry-After" in answer.headers
    wanted = {"tenant": {"id": "never", "name": "x"}, "email": "a@b.example", "password": "long enough"}
    (await fragile.account.api.call("POST", "/auth/signup", body=wanted)).is_problem(503)
    await fragile.gates["database"].open()

    async def works() -> bool:
        return (await fragile.account.call("GET", "/contacts")).status == 200

    await until(works, "the database is used again", timeout=15)
    assert (await fragile.message()).status == 202


async def test_a_database_that_goes_away_between_a_request_and_the_next_is_noticed(fragile: Fragile) -> None:
    assert (await fragile.account.call("GET", "/contacts")).status == 200
    await fragile.gates["database"].close()
    (await fragile.account.call("GET", "/contacts")).is_problem(503)
    await fragile.gates["database"].open()

    async def works() -> bool:
        return (await fragile.account.call("GET", "/contacts")).status == 200

    await until(works, "the database is used again", timeout=15)


async def test_without_the_broker_commands_answer_503_reading_works_and_nothing_is_lost(fragile: Fragile) -> None:
    await fragile.gates["broker"].close()
    answer = (await fragile.message()).is_problem(503)
    assert "Retry-After" in answer.headers
    assert (await fragile.account.call("GET", "/contacts")).status == 200
    await fragile.gates["broker"].open()

    async def works() -> bool:
        return bool((await fragile.message()).status == 202)

    await until(works, "commands are taken again", timeout=15)


async def test_without_redis_the_api_works_on(fragile: Fragile) -> None:
    await fragile.gates["redis"].close()
    assert (await fragile.account.call("GET", "/contacts")).status == 200
    assert (await fragile.message()).status == 202
    await fragile.gates["redis"].open()


async def test_a_database_that_takes_but_does_not_answer_holds_no_request_for_long(
    fragile: Fragile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "PATIENCE", timedelta(seconds=1))
    fragile.gates["database"].stall()
    paths = ("/contacts", "/campaigns", "/messages", "/conversations", "/tenant", "/senders", "/auth/me")
    async with asyncio.timeout(15):
        answers = await asyncio.gather(*(fragile.account.call("GET", path) for path in paths))
    for answer in answers:
        assert "database" in answer.is_problem(503).body["detail"]
    fragile.gates["database"].flow()

    async def works() -> bool:
        return (await fragile.account.call("GET", "/contacts")).status == 200

    await until(works, "the database is used again", timeout=15)
