"""A tenant that has something of every kind."""

from __future__ import annotations

from uuid import uuid4

from chaos.harness import Platform, Tenant
from live.letters import a_dead_letter
from live.listening import enroll
from support import an_invoice, until


async def make_everything(live: Platform, tenant: Tenant) -> dict[str, str]:
    """A tenant's rows of every kind, by the name that paths give their ids."""
    sender = await tenant.sender()
    contact = await tenant.contact()
    campaign = await tenant.campaign(sender["id"], 0, 24 * 365)
    await enroll(tenant, campaign, contact["id"])
    await live.gateway.tell(contact["phone"], sender["phone_number_id"], type="image", image={"caption": "Hello"})
    await until(lambda: tenant.ids("/replies"), "the reply is there")
    media = (await tenant.every("/replies"))[0]["media"]
    await until(lambda: tenant.ids("/messages"), "the message is there")
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
