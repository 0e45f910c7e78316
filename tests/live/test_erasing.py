"""A contact is erased while a campaign runs: nothing more is sent to them, nothing is left, and the others go on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from chaos.harness import Platform, Tenant, a_phone
from live.listening import enrollment, until_accepted
from nats.js.errors import NotFoundError
from support import Tell, until

from harkara.bus import topology

OTHERS = 12

OF_TENANTS = """
select c.relname::text as name from pg_class c
where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
and exists (select from pg_attribute a where a.attrelid = c.oid and a.attname = 'tenant_id' and not a.attisdropped)
"""


async def in_rows(live: Platform, tenant: Tenant, *needles: str) -> list[tuple[str, str]]:
    """Every row of the tenant's that has one of these anywhere."""
    found: list[tuple[str, str]] = []
    async with live.database() as con:
        for (table,) in await con.fetch(OF_TENANTS):
            rows = await con.fetch(f"select t::text as text from {table} t where tenant_id = $1", tenant.id)
            found += [(table, row["text"]) for row in rows if any(needle in row["text"] for needle in needles)]
    return found


STREAMS = tuple(one.name for one in topology.load().streams)


async def in_streams(
    live: Platform, tenant: Tenant, *needles: str, streams: Sequence[str] = STREAMS
) -> list[tuple[str, str]]:
    """Every message of the tenant's in these streams that has one of these in its body, headers or subject."""
    found: list[tuple[str, str]] = []
    async with live.streams() as js:
        for stream in streams:
            seq = 0
            while True:
                try:
                    message = await js.get_msg(stream, seq + 1, next=True, subject=f"t.{tenant.id}.>")
                except NotFoundError:
                    break
                seq = message.seq or 0
                text = f"{message.subject} {message.headers} {(message.data or b'').decode()}"
                found += [(stream, text)] if any(needle in text for needle in needles) else []
    return found


async def died(live: Platform, tenant: Tenant, body: str) -> None:
    """A dead letter with this text."""
    async with live.streams() as js:
        await js.publish(f"t.{tenant.id}.dead.send", body.encode())


async def test_who_is_erased_while_a_campaign_runs_gets_nothing_more(
    live: Platform, tenant: Tenant, tell: Tell
) -> None:
    name, phone = f"Zarathustra{uuid4().hex[:6]}", a_phone()
    needles = (name, phone[1:])
    sender = await tenant.sender(mps=20)
    number = sender["phone_number_id"]
    # Their first message is accepted and its answer comes late: it is under way while they are erased.
    slow = {"kind": "slow", "delay_ms": 9000, "to": phone, "phone_number_id": number}
    await live.gateway.put("faults", slow)
    contact = (await tenant.contact(name=name, phone=phone))["id"]
    await tenant.contacts(OTHERS)
    # Its second step is due after twenty seconds, by when they have been erased on any machine.
    campaign = await tenant.campaign(sender["id"], 0, 160, 184)
    later = {
        "sender_id": sender["id"],
        "body": "later",
        "send_at": (datetime.now(UTC) + timedelta(seconds=20)).isoformat(),
    }
    await tenant.post("/messages", later | {"contact_id": contact})
    bystander = a_phone()
    await tenant.post("/messages", later | {"to": bystander})
    await died(live, tenant, f'{{"to": "{phone}"}}')
    await tenant.post(f"/campaigns/{campaign}/enroll", {"all": True})

    await until(lambda: live.gateway.accepted(number, to=phone), "their message is under way")
    lies = [stream for stream, _ in await in_streams(live, tenant, contact, *needles, streams=("SEND", "DEAD"))]
    assert (lies.count("SEND"), lies.count("DEAD")) == (2, 1)  # the one under way and the one for later; the dead
    assert (await enrollment(tenant, campaign, contact))["status"] == "active"
    status, _ = await tenant.ask("DELETE", f"/contacts/{contact}?erase=true")
    assert status == 202

    async def erased() -> bool:
        return "contact.erased" in [type_ for _, type_, id_ in await live.events(tenant.id) if id_ == contact]

    async def completed() -> bool:
        return bool((await tenant.get(f"/campaigns/{campaign}/funnel"))["completed"] == OTHERS)

    await until(erased, "they are erased", 90, every=0.2)
    await until(completed, "the campaign is over for the others", 90, every=0.2)
    await until_accepted(live.gateway, number, 3 * OTHERS + 2, 90)  # and theirs, and the one that was to leave later
    accepted = await live.gateway.accepted(number)
    to_them = [one["body"] for one in accepted if one["to"] == phone]
    assert to_them == [f"step 0 for {name}"]
    assert len([one for one in accepted if one["to"] == bystander]) == 1
    assert await in_rows(live, tenant, *needles) == []

    async def nothing_left() -> bool:  # the command itself goes with its ack
        return not await in_streams(live, tenant, *needles)

    await until(nothing_left, "nothing is left in the streams", 30)
    assert {stream for stream, _ in await in_streams(live, tenant, contact)} == {"EVENTS"}  # that they were erased
    tell(f"{len(accepted)} accepted by the gateway, one of them to the erased contact, under way when it began")
