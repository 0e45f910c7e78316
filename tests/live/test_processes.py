"""Roles as processes of their own, and processes that sleep: work is shared, caught up with, and never done twice."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from chaos.harness import Platform, Process, Sandbox, Tenant, answers, environment, free_ports, new_tenant
from live.conftest import DAY_S, Tell
from live.listening import instant, until_accepted
from support import quick_directory, until

from harkara.embedded.stack import Stack, Urls
from harkara.storage.migrate import bootstrap

CONTACTS = 400


class Cluster:
    """A front door, a gateway and two processes with all actors, on servers that a URL names."""

    def __init__(self, directory: Path, urls: Urls, session: ClientSession) -> None:
        door, gateway = free_ports(2)
        self.session = session
        self.url, self.sandbox = f"http://127.0.0.1:{door}", Sandbox(session, f"http://127.0.0.1:{gateway}")
        environ = environment(
            DATABASE_URL=urls.database("harkara_app", "harkara"),
            DATABASE_DIRECT_URL=urls.database("harkara_owner", "harkara"),
            NATS_URL=urls.nats,
            REDIS_URL=urls.redis,
            WHATSAPP_GATEWAY_URL=self.sandbox.url,
            PUBLIC_URL=self.url,
            SECRET_KEY="a secret of thirty-two bytes, or more",
            CONNECTION_POOL="10",
            SPEED=str(24 * 3600 / DAY_S),
        )

        def process(name: str, *arguments: str) -> Process:
            return Process(list(arguments), directory / f"{name}.log", environ)

        self.door = process("door", "http", "--port", str(door))
        self.gateway = process("gateway", "gateway", "--port", str(gateway), "--data", str(directory / "gateway"))
        self.actors = [process(f"actors{number}", "actor", "all") for number in range(2)]
        self.setting_up = [process("migrate", "migrate"), process("topology", "topology", "apply")]
        self.processes = [self.door, self.gateway, *self.actors]

    async def start(self) -> None:
        """Set the servers up by the commands made for that, and start every role."""
        for one in self.setting_up:
            await one.spawn()
            assert await one.ended(30) == 0, one.output()
        for one in self.processes:
            await one.spawn()
        await until(lambda: answers(self.session, f"{self.url}/readyz"), "the front door is ready", 30)
        await until(lambda: answers(self.session, f"{self.sandbox.url}/healthz"), "the gateway is ready", 30)
        for one in self.actors:
            await until(lambda one=one: "at work" in one.output(), "the actors are at work", 30)

    async def close(self) -> None:
        for one in self.processes:
            if one.running:
                one.signal(signal.SIGCONT)
                await one.kill()


@pytest.fixture(scope="module")
async def cluster() -> AsyncIterator[Cluster]:
    """Every role running."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(quick_directory())
        urls = await stack.enter_async_context(Stack(directory / "data"))
        await bootstrap(urls.database_admin, database="harkara", owner="harkara_owner", app="harkara_app")
        session = await stack.enter_async_context(ClientSession())
        cluster = Cluster(directory, urls, session)
        stack.push_async_callback(cluster.close)
        await cluster.start()
        await cluster.sandbox.put("policy", {"throughput": 10_000})
        yield cluster


async def _begin(tenant: Tenant, mps: int) -> tuple[str, str]:
    """A three-step campaign with everybody enrolled; its id and its number's."""
    sender = await tenant.sender(mps=mps)
    await tenant.contacts(CONTACTS)
    campaign = await tenant.campaign(sender["id"], 0, 24, 48)
    await tenant.post(f"/campaigns/{campaign}/enroll", {"all": True})
    return campaign, sender["phone_number_id"]


async def _until_completed(tenant: Tenant, campaign: str, within_s: float) -> dict[str, Any]:
    async def completed() -> bool:
        return bool((await tenant.get(f"/campaigns/{campaign}/funnel"))["completed"] == CONTACTS)

    await until(completed, "every enrolment is completed", within_s, every=0.2)
    return dict(await tenant.get(f"/campaigns/{campaign}/funnel"))


def _doubled(accepted: list[dict[str, Any]]) -> int:
    return sum(count - 1 for count in Counter((one["to"], one["body"]) for one in accepted).values())


async def test_a_sleeping_process_catches_up(live: Platform, tenant: Tenant, tell: Tell) -> None:
    campaign, number = await _begin(tenant, mps=200)
    await until_accepted(live.gateway, number, CONTACTS // 2)
    live.process.signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(3 * DAY_S)  # all steps fall due meanwhile
        asleep = len(await live.gateway.accepted(number))
    finally:
        live.process.signal(signal.SIGCONT)
    await _until_completed(tenant, campaign, 60)
    accepted = await live.gateway.accepted(number)
    tell(f"{asleep} sent before and {len(accepted) - asleep} after {3 * DAY_S:g} s asleep, {_doubled(accepted)} twice")
    assert asleep < 2 * CONTACTS
    assert (len(accepted), _doubled(accepted)) == (3 * CONTACTS, 0)


async def test_two_processes_share_the_work(cluster: Cluster, tell: Tell) -> None:
    tenant = await new_tenant(cluster.session, cluster.url)
    campaign, number = await _begin(tenant, mps=200)
    funnel = await _until_completed(tenant, campaign, 60)
    accepted = await cluster.sandbox.accepted(number)
    assert (len(accepted), _doubled(accepted)) == (3 * CONTACTS, 0)
    assert [step["sent"] for step in funnel["steps"]] == [CONTACTS] * 3
    took = instant(accepted[-1]["accepted_at"]) - instant(accepted[0]["accepted_at"])
    tell(f"{len(accepted)} messages in {took.total_seconds():.1f} s by two processes, none twice")


async def test_one_that_falls_asleep_is_stood_in_for_and_does_nothing_twice(cluster: Cluster, tell: Tell) -> None:
    """It sleeps longer than the broker waits for an answer: what it had in hand goes to the other."""
    tenant = await new_tenant(cluster.session, cluster.url)
    campaign, number = await _begin(tenant, mps=100)
    await until_accepted(cluster.sandbox, number, CONTACTS // 4)
    cluster.actors[0].signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(13)
    finally:
        cluster.actors[0].signal(signal.SIGCONT)
    funnel = await _until_completed(tenant, campaign, 60)
    accepted = await cluster.sandbox.accepted(number)
    unknown = sum(step["unknown"] for step in funnel["steps"])
    tell(f"{len(accepted)} accepted, {_doubled(accepted)} twice, {unknown} unknown")
    assert _doubled(accepted) == 0
    assert len(accepted) >= 3 * CONTACTS - unknown


async def test_one_that_is_killed_is_stood_in_for(cluster: Cluster, tell: Tell) -> None:
    tenant = await new_tenant(cluster.session, cluster.url)
    campaign, number = await _begin(tenant, mps=100)
    await until_accepted(cluster.sandbox, number, CONTACTS // 4)
    await cluster.actors[1].kill()
    try:
        funnel = await _until_completed(tenant, campaign, 60)
    finally:
        await cluster.actors[1].spawn()
    accepted = await cluster.sandbox.accepted(number)
    unknown = sum(step["unknown"] for step in funnel["steps"])
    tell(f"{len(accepted)} accepted, {_doubled(accepted)} twice, {unknown} unknown")
    assert _doubled(accepted) == 0
    assert len(accepted) >= 3 * CONTACTS - unknown
    assert not [step for step in funnel["steps"] if step["sending"] or step["queued"]]
