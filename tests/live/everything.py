"""A tenant that has something of every kind."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from chaos.harness import Platform, Tenant
from live.letters import a_dead_letter
from live.listening import enroll
from support import an_invoice, until


async def _stored(tenant: Tenant) -> dict[str, Any] | None:
    """The tenant's one file, once it is fetched."""
    return next((one["media"] for one in await tenant.every("/replies") if one["media"]["status"] == "stored"), None)


async def make_everything(live: Platform, tenant: Tenant) -> dict[str, str]:
    """A tenant's rows of every kind, by the name that paths give their ids; nothing more happens to them by itself."""
    sender = await tenant.sender()
    contact = await tenant.contact()
    campaign = await tenant.campaign(sender["id"], 0, 24 * 365)
    await enroll(tenant, campaign, contact["id"])
    await live.gateway.tell(contact["phone"], sender["phone_number_id"], type="image", image={"caption": "Hello"})
    media = await until(lambda: _stored(tenant), "the file that came with the reply is kept")
    await until(lambda: tenant.ids("/messages?status=read"), "the message is read")
    return {
        "sender_id": sender["id"],
        "contact_id": contact["id"],
        "campaign_id": campaign,
        "step_id": (await tenant.ids(f"/campaigns/{campaign}/steps"))[0],
        "version_id": (await tenant.ids(f"/campaigns/{campaign}/versions"))[0],
        "media_id": media["id"],
        "message_id": (await tenant.ids("/messages"))[0],
        "conversation_id": (await tenant.ids("/conversations"))[0],
        "key_id": (await tenant.ids("/api-keys"))[0],
        "phone_id": (await tenant.post(f"/contacts/{contact['id']}/phone-numbers", {"phone": "+12025550142"}))["id"],
        "lead_id": (await tenant.post("/leads", {"contact_id": contact["id"]}))["id"],
        "invoice_id": (await tenant.post("/invoices", an_invoice(contact["id"])))["id"],
        "import_id": (await tenant.post("/leads", {"contact_id": contact["id"]}))["id"],
        "user_id": (await tenant.post("/users", {"email": f"agent@{uuid4().hex}.example", "role": "agent"}))["id"],
        "segment_id": (await tenant.post("/segments", {"name": "VIPs", "condition": {"type": "tag", "tag": "vip"}}))[
            "id"
        ],
        "letter_id": await a_dead_letter(live, tenant),
        "phone_number_id": sender["phone_number_id"],
        "phone": contact["phone"],
    }
