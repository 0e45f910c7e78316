"""Nobody feels what others send or suffer: counted, not timed."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Any

from chaos.harness import Platform, Tenant, a_phone, new_tenant
from support import until

#: A number so slow that its messages wait for a long time, and how many do.
SLOW, WAITING = 5, 200

#: How many may pass before what comes after them, though it is another's or goes first: the platform needs a moment.
MOMENT = 60


async def crowd(tenant: Tenant, sender: dict[str, Any], count: int = WAITING) -> None:
    """Have so many marketing messages wait for a number; none more is accepted once it is paused."""
    contact = await tenant.contact()
    body = {"contact_id": contact["id"], "sender_id": sender["id"], "body": "Sale", "lane": "marketing"}
    answers = await asyncio.gather(*(tenant.ask("POST", "/messages", body) for _ in range(count)))
    assert {status for status, _ in answers} <= {202, 409}


async def arrival(live: Platform, number: str, id_: str) -> datetime:
    """When the gateway had this message."""
    found: list[datetime] = []

    async def there() -> bool:
        for item in await live.gateway.accepted(number):
            if item["biz_opaque_callback_data"] == id_:
                found.append(datetime.fromisoformat(item["accepted_at"]))
        return bool(found)

    await until(there, f"{id_} has arrived", 60, every=0.1)
    return found[0]


async def passed(live: Platform, number: str, since: datetime, until_: datetime) -> int:
    """How many messages of a number arrived between these times."""
    times = [datetime.fromisoformat(item["accepted_at"]) for item in await live.gateway.accepted(number)]
    return sum(since <= at < until_ for at in times)


async def single(tenant: Tenant, sender: dict[str, Any], **more: Any) -> tuple[datetime, str]:
    """Send one message: since when it is known, and its id."""
    made = await tenant.post("/messages", {"to": a_phone(), "sender_id": sender["id"], "body": "Hello"} | more)
    message = await tenant.message(made["id"])
    return datetime.fromisoformat(message["timeline"][0]["at"]), made["id"]


async def test_a_crowd_holds_up_neither_others_nor_a_code(live: Platform, tenant: Tenant, other: Tenant) -> None:
    sender, theirs = await tenant.sender(mps=SLOW), await other.sender()
    number = sender["phone_number_id"]
    await crowd(tenant, sender)
    for who, through, lane in ((other, theirs, "utility"), (tenant, sender, "otp"), (tenant, sender, "utility")):
        since, id_ = await single(who, through, lane=lane)
        at = await arrival(live, through["phone_number_id"], id_)
        assert await passed(live, number, since, at) <= MOMENT, (who.id, lane)
    # All that was shown while most of the crowd was still waiting.
    assert len(await live.gateway.accepted(number)) < WAITING


async def test_what_happens_to_others_holds_nobody_up(live: Platform, tenant: Tenant) -> None:
    unlucky = [await new_tenant(live.session, live.url) for _ in range(2)]
    dead, refused = [await one.sender(mps=1000) for one in unlucky]
    await live.gateway.put(
        "faults",
        [
            {"kind": "hang", "accept": False, "phone_number_id": dead["phone_number_id"]},
            {"kind": "error", "code": 190, "phone_number_id": refused["phone_number_id"]},
        ],
    )
    try:
        for one, number in zip(unlucky, (dead, refused), strict=True):
            await crowd(one, number, MOMENT)

        async def stopped() -> bool:
            return bool((await unlucky[1].get(f"/senders/{refused['id']}"))["status"] == "paused")

        await until(stopped, "the number whose token is refused is paused", 30)
        sender = await tenant.sender()
        _, id_ = await single(tenant, sender)
        await arrival(live, sender["phone_number_id"], id_)
        # Nobody knows what became of the dead number's messages, and none of the refused number's was given up.
        assert {message["status"] for message in await unlucky[0].every("/messages")} <= {
            "queued",
            "sending",
            "unknown",
        }

        async def all_wait() -> bool:  # those that were under way are refused after the first one, too
            return {message["status"] for message in await unlucky[1].every("/messages")} == {"queued"}

        await until(all_wait, "all of the refused number's messages wait")
    finally:
        await live.gateway.put("faults", [])
