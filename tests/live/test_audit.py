"""What was asked for by way of the bus is in the audit log too, with who asked for it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from chaos.harness import Platform, Tenant, a_phone
from live.listening import enroll
from support import until


async def noted(tenant: Tenant, query: str, count: int = 1) -> list[dict[str, Any]]:
    """The entries that this query finds, once there are so many."""
    found: list[dict[str, Any]] = []

    async def there() -> bool:
        found[:] = (await tenant.get(f"/audit?{query}"))["items"]
        return len(found) >= count

    await until(there, f"{count} entries for {query}", timeout=30)
    assert len(found) == count
    return found


async def sandbox_sender(tenant: Tenant) -> str:
    return str((await tenant.post("/senders", {"name": "Shop", "provider": "sandbox"}))["id"])


async def test_a_command_is_noted_with_who_gave_it(tenant: Tenant) -> None:
    sender, phone = await sandbox_sender(tenant), a_phone()
    contact = await tenant.post("/contacts", {"name": "Asha", "phone": phone, "consent": True})
    wanted = {"contact_id": contact["id"], "sender_id": sender, "body": "the secret 4711", "lane": "otp"}
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    message = await tenant.post("/messages", wanted)
    later = await tenant.post("/messages", wanted | {"send_at": tomorrow})
    assert (await tenant.message(later["id"]))["status"] == "queued"
    await tenant.post(f"/messages/{later['id']}/cancel", headers={"Prefer": "wait=20"})
    me = (await tenant.get("/auth/me"))["api_key_id"]
    (made,) = await noted(tenant, f"entity=message&entity_id={message['id']}")
    assert (made["action"], made["api_key_id"], made["via"]) == ("create", me, "POST /messages")
    assert made["changes"]["after"]["contact_id"] == contact["id"]
    assert made["address"]
    text = json.dumps(made)
    assert "4711" not in text
    assert phone not in text
    cancelled, _ = await noted(tenant, f"entity=message&entity_id={later['id']}", 2)
    assert (cancelled["action"], cancelled["api_key_id"], cancelled["via"]) == (
        "update",
        me,
        "POST /messages/{message_id}/cancel",
    )
    assert cancelled["changes"]["after"] == {"status": "suppressed", "reason": "cancelled"}


async def test_enrolments_are_noted_with_who_asked_for_them(tenant: Tenant) -> None:
    campaign = await tenant.post(
        "/campaigns", {"name": "Welcome", "type": "drip", "sender_id": await sandbox_sender(tenant)}
    )
    path = f"/campaigns/{campaign['id']}"
    await tenant.post(f"{path}/steps", {"name": "later", "delay_hours": 2000, "body": "Hi"})
    await tenant.post(f"{path}/activate")
    ids = [(await tenant.post("/contacts", {"name": "A", "phone": a_phone(), "consent": True}))["id"] for _ in range(3)]
    one = await enroll(tenant, campaign["id"], ids[0])
    bulk = await tenant.post(f"{path}/enroll", {"contact_ids": ids[1:]})
    await tenant.post(f"/contacts/{ids[0]}/campaign/{campaign['id']}/stop", headers={"Prefer": "wait=20"})
    me = (await tenant.get("/auth/me"))["api_key_id"]
    stopped, started = await noted(tenant, f"entity=enrollment&entity_id={one['id']}", 2)
    (many,) = await noted(tenant, f"entity_id={bulk['id']}")
    assert {entry["api_key_id"] for entry in (started, stopped, many)} == {me}
    assert [entry["action"] for entry in (started, stopped, many)] == ["create", "update", "enroll"]
    assert started["changes"]["after"]["contact_id"] == ids[0]
    assert stopped["changes"]["after"]["status"] == "stopped"
    assert many["changes"]["after"] == {"campaign_id": campaign["id"], "enrolled": 2}


async def test_a_partners_command_is_noted_as_that_and_its_word_about_who_it_is_counts_nothing(
    tenant: Tenant, live: Platform
) -> None:
    sender, user = await sandbox_sender(tenant), str(uuid4())
    forged = "0" * 32 + " " + json.dumps({"user_id": user, "address": "192.0.2.1", "via": "POST /messages"})
    async with live.streams() as js:
        await js.publish(
            f"t.{tenant.id}.cmd.message.send",
            json.dumps({"sender_id": sender, "to": a_phone(), "content": {"body": "Hi"}, "lane": "utility"}).encode(),
            headers={"Nats-Msg-Id": f"{tenant.id}.order-1", "X-By": forged},
        )
    (made,) = await noted(tenant, "entity=message")
    assert (made["user_id"], made["api_key_id"], made["address"]) == (None, None, "")
    assert made["via"] == "nats message.send"


async def test_a_request_under_a_key_that_starts_an_import_is_carried_out_once(tenant: Tenant) -> None:
    """A large file is stored with its command in one transaction: the command can't overtake the file."""
    phones = [a_phone() for _ in range(5)]
    rows = "\n".join(f"Person {number},{phones[number % 5]}" for number in range(5100))
    header = {"Idempotency-Key": str(uuid4()), "Content-Type": "text/csv"}

    async def send() -> Any:
        async with tenant.session.post(
            f"{tenant.url}/api/v1/contacts/import",
            data=f"name,phone\n{rows}\n".encode(),
            headers=tenant.headers | header,
        ) as response:
            return response.status, await response.json()

    first, again = await send(), await send()
    assert first == again
    assert first[0] == 202, first

    async def completed() -> bool:
        return bool((await tenant.get(f"/contacts/imports/{first[1]['id']}"))["status"] == "completed")

    await until(completed, "the import is completed", timeout=60)
