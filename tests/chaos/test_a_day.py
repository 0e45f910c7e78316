"""A day of many tenants in compressed time, with faults in every part: all that was accepted is accounted for.

Accepted is sent, failed, suppressed, unknown or waiting: in the database, on the broker, in the gateway's own record.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from chaos.books import TAKEN
from chaos.harness import CHILDREN, Platform, Tenant, a_phone, new_tenant, running
from chaos.observed import once_it_answers
from support import Tell, quick_directory, until

_ROWS = "select id::text, status, wamid, reason, resent from messages where tenant_id = $1"

_RUNNING = "select count(*) from contact_campaign_progress where tenant_id = any($1) and status in ('active', 'paused')"

_WAITING = "select count(*) from messages where tenant_id = any($1) and status in ('queued', 'sending')"

_OPEN = (
    "select 'message' what, m.* from messages m where tenant_id = any($1) and status in ('queued', 'sending') limit 20",
    "select 'enrolment' what, p.* from contact_campaign_progress p where tenant_id = any($1)"
    " and status in ('active', 'paused') limit 20",
    "select 'hold' what, h.* from contact_holds h where tenant_id = any($1) limit 20",
    "select 'number' what, id, status, status_reason, held_until from senders where tenant_id = any($1)",
)


@dataclass
class Firm:
    """One tenant: its number, its campaign, what it was promised."""

    tenant: Tenant
    sender: dict[str, Any]
    campaign: str
    phones: list[str]
    promised: list[str] = field(default_factory=list)

    async def send(self, lane: str, to: str) -> None:
        """Ask for one message, through every outage, and note its id; who has opted out by then gets none."""
        wanted = {"sender_id": self.sender["id"], "to": to, "body": f"a {lane} message", "lane": lane}
        status, answer = await self.tenant.patiently("POST", "/messages", wanted)
        assert status == 202 or (status == 409 and "opted out" in answer["detail"]), answer
        if status == 202:
            self.promised.append(answer["id"])


async def found(platform: Platform, contacts: int) -> Firm:
    """A tenant with a number and people, and a campaign over the whole day."""
    tenant = await new_tenant(platform.session, platform.url)
    sender = await tenant.sender(mps=80)
    await tenant.contacts(contacts)
    phones = [one["phone"] for one in await tenant.every("/contacts")]
    campaign = await tenant.campaign(sender["id"], 0, 8, 22, stop_on_reply=True)
    return Firm(tenant, sender, campaign, phones)


async def live(firm: Firm, platform: Platform, dice: random.Random, day_s: float, busy: int) -> None:
    """Its day: everybody is enrolled at some hour, codes and notices are asked for, people answer and opt out."""
    await asyncio.sleep(dice.uniform(0, day_s / 4))
    status, answer = await firm.tenant.patiently("POST", f"/campaigns/{firm.campaign}/enroll", {"all": True})
    assert status == 202, answer
    for _ in range(busy):
        await asyncio.sleep(dice.uniform(0, 1.5 * day_s / busy))
        match dice.choice(("otp", "utility", "marketing", "hello", "STOP")):
            case "hello" | "STOP" as said:
                await patiently_write(platform, dice.choice(firm.phones), firm.sender["phone_number_id"], said)
            case "otp":
                await firm.send("otp", a_phone())
            case lane:
                await firm.send(lane, dice.choice(firm.phones))


async def patiently_write(platform: Platform, phone: str, number: str, text: str) -> None:
    """Somebody writes, as soon as the sandbox listens."""
    await once_it_listens(lambda: platform.gateway.write(phone, number, text))


async def once_it_listens(ask: Callable[[], Awaitable[Any]]) -> None:
    """Ask the sandbox for something, as soon as it listens."""

    async def answered() -> bool:
        await ask()
        return True

    await until(lambda: once_it_answers(answered), "the sandbox listens", 120, every=0.2)


async def break_things(platform: Platform, dice: random.Random, kills: int, over_s: float, tell: Tell) -> None:
    """kill -9 of every server and of everything in turn, at moments spread over the day."""
    names = ["everything", *CHILDREN]
    for number in range(kills):
        await asyncio.sleep(dice.uniform(0, 2 * over_s / kills))
        name = names[number % len(names)]
        if name == "everything":
            await platform.kill(all_at_once=dice.random() < 0.5)
            await platform.start()
        else:
            await platform.kill_server(name)
        tell(f"kill {number + 1}: {name}")


async def settled(platform: Platform, firms: Sequence[Firm]) -> None:
    """Wait until no enrolment runs, nothing waits, the broker is empty, and the gateway tells what it has."""
    tenants = [firm.tenant.id for firm in firms]

    async def over() -> bool:
        async with platform.database() as database:
            return not await database.fetchval(_RUNNING, tenants) and not await database.fetchval(_WAITING, tenants)

    async def idle() -> bool:
        return not await platform.left_in_streams()

    try:
        await until(lambda: once_it_answers(over), "every enrolment has ended and no message waits", 240, every=0.5)
        await until(lambda: once_it_answers(idle), "nothing is left on the broker", 90, every=0.5)
    except AssertionError:
        print("\n".join(["still open:", *await still_open(platform, tenants)]))
        raise
    await once_it_listens(lambda: platform.gateway.get("faults"))


async def still_open(platform: Platform, tenants: Sequence[str]) -> list[str]:
    """What keeps the day from ending, line by line."""
    async with platform.database() as database:
        found = [row for query in _OPEN for row in await database.fetch(query, tenants)]
    return [
        *(str({name: value for name, value in row.items() if value is not None}) for row in found),
        f"left: {await platform.left_in_streams()}",
        *(f"parked: {one}" for one in await platform.parked()),
        *platform.complaints(),
    ]


async def check(platform: Platform, firm: Firm) -> Counter[str]:
    """Fail unless one tenant's books balance; how many messages came to what."""
    async with platform.database() as database:
        rows = {row["id"]: row for row in await database.fetch(_ROWS, firm.tenant.id)}
    accepted = await platform.gateway.accepted(firm.sender["phone_number_id"])
    sums = Counter(row["status"] for row in rows.values())
    assert set(firm.promised) <= rows.keys(), "a message was promised and there is none"
    assert sums.keys() <= {*TAKEN, "failed", "suppressed", "unknown"}, sums
    times = Counter(one["biz_opaque_callback_data"] for one in accepted)
    assert times.keys() <= rows.keys(), "the gateway has a message of somebody else"
    twice = [rows[id_] for id_, count in times.items() if count > 1 + rows[id_]["resent"]]
    assert not twice, f"{len(twice)} were sent twice, and not because nobody knew: {dict(twice[0])}"
    ids = {one["id"] for one in accepted}
    for one in accepted:
        row = rows[one["biz_opaque_callback_data"]]
        assert row["wamid"] is None or row["wamid"] in ids, f"another message was taken for it: {dict(row)}"
        assert row["resent"] or row["wamid"] in (one["id"], None), f"another was taken for it: {dict(row)}"
        assert row["status"] in {*TAKEN, "failed", "unknown"}, f"it was sent: {dict(row)}"
    missing = [row for id_, row in rows.items() if row["status"] in TAKEN and id_ not in times]
    assert not missing, f"the gateway never had {len(missing)}: {dict(missing[0])}"
    told = {(type_, id_) for _, type_, id_ in await platform.events(firm.tenant.id)}
    for id_, row in rows.items():
        wanted = "sent" if row["status"] in TAKEN else row["status"]
        assert (f"message.{wanted}", id_) in told, f"never told: {dict(row)}"
    return sums


@pytest.mark.parametrize(
    ("tenants", "contacts", "busy", "kills", "day_s"),
    [
        pytest.param(6, 10, 12, 5, 12.0, marks=pytest.mark.timeout(600), id="6-tenants"),
        pytest.param(50, 40, 60, 20, 90.0, marks=[pytest.mark.long, pytest.mark.timeout(1500)], id="50-tenants"),
    ],
)
async def test_the_books_of_a_day_balance_to_the_message(
    weather: list[dict[str, Any]],
    dice: random.Random,
    tell: Tell,
    tenants: int,
    contacts: int,
    busy: int,
    kills: int,
    day_s: float,
) -> None:
    with quick_directory() as directory:
        async with running(directory, speed=24 * 3600 / day_s, UNKNOWN_WAIT_S="5") as platform:
            firms = [await found(platform, contacts) for _ in range(tenants)]
            await platform.gateway.put("faults", weather)
            lives = [live(firm, platform, random.Random(dice.random()), day_s, busy) for firm in firms]
            await asyncio.gather(break_things(platform, dice, kills, day_s, tell), *lives)
            await settled(platform, firms)
            sums: Counter[str] = Counter()
            for firm in firms:
                sums += await check(platform, firm)
            promised = sum(len(firm.promised) for firm in firms)
            tell(
                f"{tenants} tenants, {kills} kills: {promised} promised one by one; {sum(sums.values())} in all: {sums}"
            )
