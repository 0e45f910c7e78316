"""Two copies of every role on three brokers, and processes that sleep: work is shared, caught up with, done once.

Any of them is killed, replaced or put to sleep meanwhile.
"""

from __future__ import annotations

import asyncio
import io
import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import asyncpg
import pytest
from chaos.books import Books, Campaign, begin
from chaos.deployment import (
    Deployment,
    Kill,
    Part,
    check_budget,
    check_order,
    deployed,
    instants,
    until_more,
    with_customers,
)
from chaos.harness import Platform, Tenant, new_tenant
from chaos.roles import Roles
from live.conftest import DAY_S
from live.listening import instant, listening, until_accepted
from support import Tell, until

CONTACTS = 400


@pytest.fixture(scope="module")
async def deployment() -> AsyncIterator[Deployment]:
    """Two copies of every role, on three brokers."""
    async with deployed(24 * 3600 / DAY_S) as made:
        yield made


@pytest.fixture
def cluster(deployment: Deployment) -> Roles:
    """The roles."""
    return deployment.roles


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
    await _until_completed(tenant, campaign, 120)
    accepted = await live.gateway.accepted(number)
    tell(f"{asleep} sent before and {len(accepted) - asleep} after {3 * DAY_S:g} s asleep, {_doubled(accepted)} twice")
    assert asleep < 2 * CONTACTS
    assert (len(accepted), _doubled(accepted)) == (3 * CONTACTS, 0)


async def test_two_processes_share_the_work(cluster: Roles, tell: Tell) -> None:
    tenant = await new_tenant(cluster.session, cluster.url)
    campaign, number = await _begin(tenant, mps=200)
    funnel = await _until_completed(tenant, campaign, 120)
    accepted = await cluster.gateway.accepted(number)
    assert (len(accepted), _doubled(accepted)) == (3 * CONTACTS, 0)
    assert [step["sent"] for step in funnel["steps"]] == [CONTACTS] * 3
    took = instant(accepted[-1]["accepted_at"]) - instant(accepted[0]["accepted_at"])
    tell(f"{len(accepted)} messages in {took.total_seconds():.1f} s by two processes, none twice")


async def test_one_that_falls_asleep_is_stood_in_for_and_does_nothing_twice(cluster: Roles, tell: Tell) -> None:
    """It sleeps longer than the broker waits for an answer: what it had in hand goes to the other."""
    tenant = await new_tenant(cluster.session, cluster.url)
    campaign, number = await _begin(tenant, mps=100)
    await until_accepted(cluster.gateway, number, CONTACTS // 4)
    cluster.actors[0].signal(signal.SIGSTOP)
    try:
        await asyncio.sleep(13)
    finally:
        cluster.actors[0].signal(signal.SIGCONT)
    funnel = await _until_completed(tenant, campaign, 120)
    accepted = await cluster.gateway.accepted(number)
    unknown = sum(step["unknown"] for step in funnel["steps"])
    tell(f"{len(accepted)} accepted, {_doubled(accepted)} twice, {unknown} unknown")
    assert _doubled(accepted) == 0
    assert len(accepted) >= 3 * CONTACTS - unknown


async def test_one_that_is_killed_is_stood_in_for(cluster: Roles, tell: Tell) -> None:
    tenant = await new_tenant(cluster.session, cluster.url)
    campaign, number = await _begin(tenant, mps=100)
    await until_accepted(cluster.gateway, number, CONTACTS // 4)
    await cluster.actors[1].kill()
    try:
        funnel = await _until_completed(tenant, campaign, 120)
    finally:
        await cluster.actors[1].spawn()
    accepted = await cluster.gateway.accepted(number)
    unknown = sum(step["unknown"] for step in funnel["steps"])
    tell(f"{len(accepted)} accepted, {_doubled(accepted)} twice, {unknown} unknown")
    assert _doubled(accepted) == 0
    assert len(accepted) >= 3 * CONTACTS - unknown
    assert not [step for step in funnel["steps"] if step["sending"] or step["queued"]]


@dataclass(frozen=True)
class Size:
    """A campaign that lasts as long as something is broken, at `mps`; then it may go as fast as it can."""

    contacts: int
    steps: int
    mps: int


_SIZES = [
    pytest.param(Size(300, 2, 4), id="600-messages"),
    pytest.param(Size(5000, 4, 80), marks=[pytest.mark.long, pytest.mark.timeout(1800)], id="20000-messages"),
]


async def _under_way(cluster: Roles, size: Size) -> tuple[Campaign, dict[str, Any]]:
    """A campaign with everybody enrolled, and its number."""
    campaign = await begin(cluster, size.contacts, mps=size.mps, steps=size.steps)
    await campaign.tenant.post(f"/campaigns/{campaign.id}/enroll", {"all": True})
    [sender] = (await campaign.tenant.get("/senders"))["items"]
    return campaign, sender


async def _closed(campaign: Campaign, sender: dict[str, Any], size: Size) -> Books:
    """The books, once the rest went out as fast as it could; until then the copies kept to one budget together."""
    assert not await campaign.ended(), "the campaign was over too soon: nothing was shown"
    slow = await campaign.platform.gateway.accepted(campaign.phone_number_id)
    check_budget(slow, size.mps)
    await campaign.tenant.call("PATCH", f"/senders/{sender['id']}", {"mps": 1000})
    books = await campaign.until_closed(60 + size.contacts * size.steps / 50)
    campaign.check(books)
    campaign.check_that_all_completed(books)
    check_order(books)
    return books


@pytest.mark.parametrize("size", _SIZES)
async def test_whichever_broker_is_killed_all_that_was_accepted_is_sent_once(
    deployment: Deployment, size: Size, tell: Tell
) -> None:
    """Each comes back before the next one goes. Whoever listens meanwhile hears of everything, once and in order."""
    campaign, sender = await _under_way(deployment.roles, size)
    parts: list[Part] = ["leader", "connected"] if size.mps < 10 else ["leader", "follower", "connected"] * 2
    kills: list[Kill] = []
    async with listening(campaign.tenant) as ear:
        async with with_customers(campaign, deployment.roles) as customers:
            for part in parts:
                await until_more(campaign, 2 * size.mps)
                kills.append(await deployment.kill(part))
                await until_more(campaign, size.mps)
                await deployment.nodes.start(kills[-1].node)
            await until_more(campaign, size.mps)
        books = await _closed(campaign, sender, size)
        events = [seq for seq, _, _ in await deployment.roles.events(campaign.tenant.id)]
        await until(lambda: len(ear.heard) >= len(events), "the feed has told everything", 60)
        # Receipts of the codes go on coming: what is told after the count is more of the same.
        assert [told["seq"] for told in ear.heard][: len(events)] == events
    for kill in kills:
        tell(kill.gaps(customers.at, instants(books.accepted), deployment.elections))
    tell(f"{len(kills)} kills: {books.line()}; {len(customers.answered)} codes were promised and sent once")


async def test_operators_ask_and_erase_while_a_broker_is_down(deployment: Deployment) -> None:
    roles = deployment.roles
    tenant = await new_tenant(roles.session, roles.url)
    sender = await tenant.sender()
    id_ = (await tenant.post("/messages", {"to": "+919876543210", "sender_id": sender["id"], "body": "Hello"}))["id"]

    async def arrived() -> bool:
        return (await tenant.message(id_))["status"] in ("delivered", "read")

    await until(arrived, "the message has arrived", 60)
    kill = await deployment.kill("follower")
    try:
        port = deployment.nodes.nodes[kill.node].port
        down = f"broker 127.0.0.1:{port} does not answer: "

        async def whole() -> Any:
            return (found := await _ops(roles, "status")) and found["streams"] and found

        async def traced() -> Any:
            return (story := await _ops(roles, "trace", id_)) and not story["unasked"] and story

        # Until the others have elected who leads instead, nobody says how the streams are.
        found = await until(whole, "the streams are told of", 60, every=0.5)
        assert [one for one in found["trouble"] if one.startswith(down)], found["trouble"]
        [now] = (await until(traced, "the message is traced", 60, every=0.5))["now"]
        assert now["code"] in ("delivered", "read")
        erased = await _ops(roles, "erase", "tenant", tenant.id, "--yes", "--settle", "5")
        assert erased, "the tenant could not be erased"
        assert sum(one["found"] for one in erased["places"]) > 5
        assert not [one for one in erased["places"] if one["left"]]
    finally:
        await deployment.nodes.start(kill.node)


async def _ops(roles: Roles, *arguments: str) -> Any:
    """What a command of operators says to machines; None if it could not find out."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harkara", "ops", *arguments, "--json"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=roles.environ,
    )
    out, err = await process.communicate()
    if process.returncode == 2:
        print(err.decode())
        return None
    assert process.returncode in (0, 1), err.decode()
    return json.loads(out)


@pytest.mark.long  # a minute: each of the processes takes its time to stop and to start
@pytest.mark.parametrize("size", _SIZES)
async def test_every_copy_is_replaced_during_a_campaign(deployment: Deployment, size: Size, tell: Tell) -> None:
    """As a deployment does it: they stop when asked, so nothing comes into doubt."""
    campaign, sender = await _under_way(deployment.roles, size)
    async with with_customers(campaign, deployment.roles) as customers:
        await until_more(campaign, 2 * size.mps)
        await deployment.roles.replace_one_by_one()
        await until_more(campaign, size.mps)
    books = await _closed(campaign, sender, size)
    assert books.in_doubt == 0
    tell(f"all were replaced: {books.line()}; {len(customers.answered)} codes were promised and sent once")


async def _stored_by_another(cluster: Roles, tenant: Tenant, phone: str) -> Any:
    """A connection, on which this contact is about to be stored: until it is closed, whoever stores it too waits."""
    connection = await asyncpg.connect(cluster.database_url("postgres"))
    await connection.execute("begin")
    new = "insert into contacts (id, tenant_id, name, phone) values (app.uuid7(), $1, 'Somebody', $2)"
    await connection.execute(new, tenant.id, phone)
    return connection


STORED = """
select count(*) as contacts, count(distinct attributes ->> 'n') as numbers,
  (select count(*) from audit_log where tenant_id = $1 and entity = 'contact' and action = 'create') as noted,
  (select count(*) from import_chunks where tenant_id = $1) as left_over
from contacts where tenant_id = $1
"""


@pytest.mark.parametrize(
    ("rows", "killed_at"),
    [(6000, [1]), pytest.param(30_000, [1, 10_000, 20_000], marks=[pytest.mark.long, pytest.mark.timeout(900)])],
    ids=["once", "thrice"],
)
async def test_a_large_file_is_stored_once_whoever_is_killed_meanwhile(
    cluster: Roles, rows: int, killed_at: list[int], tell: Tell
) -> None:
    """All actors die in the same moment, again and again, while rows of the file are stored."""
    tenant = await new_tenant(cluster.session, cluster.url)
    people = b"".join(b"Person %d,+9197%08d,yes,%d\n" % (n, n, n) for n in range(rows - 2))
    file = b"name,phone,consent,n\n" + people + b"Again,+919700000000,yes,0\nNobody,12,yes,x\n"

    async def done(at_least: int) -> bool:
        return bool((await tenant.get(f"/contacts/imports/{job['id']}"))["rows_done"] >= at_least)

    async with AsyncExitStack() as stack:
        # Whoever stores the file waits for these, and dies there: however slow we are, it is not over before the kill.
        others = [await _stored_by_another(cluster, tenant, f"+9197{n + 2500:08d}") for n in killed_at]
        for other in others:
            stack.push_async_callback(other.close)
        job = await tenant.post(
            "/contacts/import", data=io.BytesIO(file), headers=tenant.headers | {"Content-Type": "text/csv"}
        )
        for at_least, other in zip(killed_at, others, strict=True):
            await until(partial(done, at_least), f"{at_least} rows are stored", 300, every=0.05)
            await asyncio.gather(*(one.kill() for one in cluster.actors))
            before = await tenant.get(f"/contacts/imports/{job['id']}")
            assert before["status"] == "running", f"it was over before the kill: {before}"
            await other.close()
            await asyncio.gather(*(one.spawn() for one in cluster.actors))
    await until(lambda: done(rows), "every row is stored", 300, every=0.1)

    report = await tenant.get(f"/contacts/imports/{job['id']}")
    counts = [report[name] for name in ("status", "rows", "created", "updated", "duplicates", "errors")]
    assert counts == ["completed", rows, rows - 2, 0, 1, 1]
    [error] = (await tenant.get(f"/contacts/imports/{job['id']}/errors"))["items"]
    assert (error["row"], error["path"]) == (rows + 1, "phone")
    connection = await asyncpg.connect(cluster.database_url("postgres"))
    stored = dict(await connection.fetchrow(STORED, tenant.id) or {})
    await connection.close()
    # A contact that was stored twice would have been made once and changed once, and noted so.
    assert stored == {"contacts": rows - 2, "numbers": rows - 2, "noted": rows - 2, "left_over": 0}
    tell(f"{rows} rows stored once; all actors killed {len(killed_at)} times meanwhile")
