"""Answers that get lost on the way, on a running platform: accepted or not, heard of later or never."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from chaos.harness import Platform, Tenant, a_phone, new_tenant, running
from support import quick_directory, until

#: How long a message in doubt waits here before it may be sent once more: longer than receipts take on a busy machine.
WAIT_S = 6.0

LOST: dict[str, Any] = {"kind": "webhook_lost", "text": "one"}


@pytest.fixture(scope="module")
async def platform() -> AsyncIterator[Platform]:
    """`harkara up`, where doubts are short."""
    with quick_directory() as directory:
        async with running(directory, UNKNOWN_WAIT_S=str(WAIT_S)) as platform:
            await platform.gateway.put("pace", {"sent_ms": 20, "delivered_ms": 50, "read_rate": 0.0})
            yield platform


@dataclass
class Shop:
    """A tenant with one number, and the faults that happen to it."""

    platform: Platform
    tenant: Tenant
    sender: dict[str, Any]

    async def send(self, *faults: dict[str, Any], **more: Any) -> str:
        """Send a message while these faults are in force; its id."""
        number = self.sender["phone_number_id"]
        await self.platform.gateway.put("faults", [{"phone_number_id": number} | fault for fault in faults])
        wanted = {"to": a_phone(), "sender_id": self.sender["id"], "body": "one"} | more
        return str((await self.tenant.post("/messages", wanted))["id"])

    async def until(self, id_: str, *statuses: str, **more: Any) -> dict[str, Any]:
        """The message, once it has one of these statuses and is otherwise as told."""
        found: dict[str, Any] = {}

        async def there() -> bool:
            found.update(await self.tenant.message(id_))
            return found["status"] in statuses and all(found[name] == value for name, value in more.items())

        await until(there, f"{id_} is {statuses} and {more}", 60, every=0.1)
        return found

    async def accepted(self) -> int:
        """How many messages WhatsApp has of this number."""
        return len(await self.platform.gateway.accepted(self.sender["phone_number_id"]))


@pytest.fixture
async def shop(platform: Platform) -> Shop:
    tenant = await new_tenant(platform.session, platform.url)
    return Shop(platform, tenant, await tenant.sender())


@pytest.mark.parametrize("kind", ["drop", "http_5xx"])
async def test_what_was_not_taken_is_sent_once_more(shop: Shop, kind: str) -> None:
    id_ = await shop.send({"kind": kind, "count": 1, "accept": False})
    doubted = await shop.until(id_, "unknown")
    assert doubted["resend_at"]
    message = await shop.until(id_, "delivered")
    assert (message["resent"], message["attempts"], await shop.accepted()) == (True, 2, 1)
    told: list[str] = []

    async def delivered() -> bool:  # it is told after it is written
        told[:] = [type_ for _, type_, about in await shop.platform.events(shop.tenant.id) if about == id_]
        return "message.delivered" in told and "message.sent" in told

    await until(delivered, "its arrival is told")
    # Who was answered and who has the receipt tell of it side by side.
    assert sorted(told[:3]) == ["message.queued", "message.resent", "message.unknown"]
    assert told.index("message.unknown") < told.index("message.resent")
    assert sorted(told[3:]) == ["message.delivered", "message.sent"]


async def test_what_was_taken_is_settled_by_its_receipt(shop: Shop) -> None:
    id_ = await shop.send({"kind": "drop", "count": 1})
    message = await shop.until(id_, "delivered")
    assert (message["resent"], message["attempts"], await shop.accepted()) == (False, 1, 1)


async def test_what_was_taken_unheard_arrives_twice_and_a_late_receipt_makes_no_third(shop: Shop) -> None:
    late = {"kind": "webhook_reordered", "delay_ms": int(WAIT_S * 2000), "count": 2}
    id_ = await shop.send({"kind": "drop", "count": 1}, late)
    await shop.until(id_, "delivered", resent=True)

    async def all_told() -> bool:
        faults = (await shop.platform.gateway.get("faults"))["faults"]
        return all(fault.get("fired") == fault["count"] for fault in faults)

    await until(all_told, "the late receipts are on their way")
    assert (await shop.until(id_, "delivered"))["attempts"] == 2
    assert await shop.accepted() == 2


async def test_what_may_not_arrive_twice_is_left_in_doubt(shop: Shop) -> None:
    id_ = await shop.send({"kind": "drop", "count": 1}, LOST, delivery="at_most_once")
    message = await shop.until(id_, "unknown")
    assert (message["resend_at"], message["delivery"]) == (None, "at_most_once")
    # Another of the same number, in doubt later, is sent again: so the first's time would have come too. Meanwhile all
    # that would be told of the first gets lost, whenever it is told.
    other = await shop.send({"kind": "drop", "count": 1, "accept": False}, LOST, body="another")
    await shop.until(other, "delivered", resent=True)
    assert (await shop.until(id_, "unknown"))["attempts"] == 1


async def test_a_crash_between_request_and_answer_is_a_doubt(shop: Shop) -> None:
    id_ = await shop.send({"kind": "hang", "count": 1, "accept": True}, LOST | {"count": 3})
    await shop.until(id_, "sending")
    await until(shop.accepted, "the gateway has it")
    await shop.platform.kill()
    await shop.platform.start()
    await shop.platform.gateway.put("faults", [])
    message = await shop.until(id_, "delivered", resent=True)
    assert (message["attempts"], await shop.accepted()) == (2, 2)


async def test_an_orderly_stop_leaves_no_doubt(shop: Shop) -> None:
    """However much waits for its number's turn, and however slow the gateway: what waits is left for the next start."""
    platform, number = shop.platform, await shop.tenant.sender(mps=1)
    slow = {"kind": "slow", "delay_ms": 3000, "rate": 1.0, "phone_number_id": number["phone_number_id"]}
    await platform.gateway.put("faults", [slow])
    for _ in range(25):
        await shop.tenant.post("/messages", {"to": a_phone(), "sender_id": number["id"], "body": "one"})
    await until(lambda: platform.gateway.accepted(number["phone_number_id"]), "the first has arrived")
    assert await platform.process.stop() == 0
    await platform.start()
    async with platform.database() as con:
        left = await con.fetch(
            "select status, attempted_at from messages where sender_id = $1 and status in ('sending', 'unknown')"
            " and attempted_at < pg_postmaster_start_time()",
            UUID(number["id"]),
        )
    assert not left, f"cut off in their requests: {left}"
