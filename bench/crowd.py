"""What the measurements of many numbers share: senders straight into the table, work straight into the queue."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from uuid import UUID

import aiohttp

from bench.stack import SECRET_KEY, Running
from harkara.actors.ticker import WAKE_SEND
from harkara.bus.connection import Bus, connect
from harkara.bus.messages import Outgoing
from harkara.ids import uuid7
from harkara.schemas.commands import Lane
from harkara.schemas.content import Content
from harkara.schemas.work import Send
from harkara.vault import Vault

#: Messages published at once.
CHUNK = 2_000

_SENDERS = """
insert into senders (id, tenant_id, name, provider, phone_number_id, verify_token, mps, "window", status, access_token)
select i.id, $2, 'n', 'sandbox', '9' || left(replace(i.id::text, '-', ''), 20), 'v', $3, 'ignore', 'active', $4
from unnest($1::uuid[]) as i (id)
"""

_CONTACT = """
insert into contacts (id, tenant_id, name, phone, opted_in_at) values ($1, $2, 'Asha', '+919876543210', now())
"""


async def unlimited(run: Running) -> None:
    """Have the gateway take whatever comes, as fast as it comes, and report nothing."""
    async with aiohttp.ClientSession(run.gateway) as client:
        for what, body in (("policy", {"throughput": False}), ("pace", {"sent_ms": 3_600_000})):
            async with client.put(f"/sandbox/{what}", json=body) as answer:
                answer.raise_for_status()


async def tenant(run: Running, name: str, numbers: int, mps: int) -> tuple[list[UUID], UUID]:
    """A tenant with so many numbers and one contact who consents: their ids."""
    senders, contact = [uuid7() for _ in range(numbers)], uuid7()
    await run.sql("insert into tenants (id, name) values ($1::text, $1::text)", name)
    await run.sql(_SENDERS, senders, name, mps, Vault(SECRET_KEY).seal("token"))
    await run.sql(_CONTACT, contact, name)
    return senders, contact


def work(name: str, sender: UUID, contact: UUID, lane: Lane) -> Outgoing:
    """One message to that contact, due now."""
    id_ = str(uuid7())
    send = Send(
        message_id=id_,
        sender_id=str(sender),
        lane=lane,
        contact_id=str(contact),
        to="+919876543210",
        due_at=datetime.now(UTC),
        content=Content(body="Hello"),
    )
    return Outgoing(send, name, id_, id_)


async def publish(bus: Bus, outs: Sequence[Outgoing]) -> None:
    """Store all of these and wake their numbers; raises what the broker says of the first that it doesn't take."""
    for first in range(0, len(outs), CHUNK):
        for result in await bus.publisher.publish_many(outs[first : first + CHUNK]):
            if isinstance(result, Exception):
                raise result
    for key in {(out.tenant, out.message.sender_id, out.message.lane) for out in outs if isinstance(out.message, Send)}:
        bus.publisher.wake(WAKE_SEND, " ".join(key).encode())


async def open_bus(run: Running, stack: AsyncExitStack) -> Bus:
    """A connection of our own."""
    return await stack.enter_async_context(await connect(run.urls.nats))


async def arrivals(run: Running, senders: Sequence[UUID]) -> dict[str, float]:
    """When the gateway accepted the messages of these numbers, by our ids."""
    seen: dict[str, float] = {}
    async with aiohttp.ClientSession(run.gateway) as client:
        for sender in senders:
            number = "9" + sender.hex[:20]
            async with client.get("/sandbox/messages", params={"from": number, "limit": "100000"}) as answer:
                answer.raise_for_status()
                for item in (await answer.json())["items"]:
                    seen[item["biz_opaque_callback_data"]] = datetime.fromisoformat(item["accepted_at"]).timestamp()
    return seen
