"""Two tenants on one running platform: neither reads, enrols, sends or hears anything of the other's."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import Any

from chaos.harness import Platform, Tenant
from live.everything import make_everything
from live.listening import listening, until_accepted
from support import until

from harkara.http.access import Public
from harkara.http.routes import ROUTES

#: Bodies that would be good if the ids in the path were one's own.
_BODIES: dict[str, Any] = {
    "PATCH /senders/{sender_id}": {"name": "Mine"},
    "PATCH /users/{user_id}": {"name": "Mine"},
    "PATCH /contacts/{contact_id}": {"name": "Mine"},
    "POST /contacts/{contact_id}/phone-numbers": {"phone": "+919812345678"},
    "PATCH /contacts/{contact_id}/phone-numbers/{phone_id}": {"label": "Mine"},
    "PATCH /leads/{lead_id}": {"stage": "lost"},
    "PATCH /invoices/{invoice_id}": {"amount": 1},
    "POST /contacts/{contact_id}/merge": {"contact_id": "01906d5e-0000-7000-8000-000000000000"},
    "PATCH /campaigns/{campaign_id}": {"name": "Mine"},
    "POST /campaigns/{campaign_id}/steps": {"delay_hours": 1, "body": "Mine"},
    "PATCH /campaigns/{campaign_id}/steps/{step_id}": {"delay_hours": 1},
    "POST /campaigns/{campaign_id}/enroll": {"all": True},
    "POST /campaigns/{campaign_id}/dry-run": {"all": True},
    "POST /campaigns/{campaign_id}/steps/{step_id}/preview": {"contact_id": "01906d5e-0000-7000-8000-000000000000"},
    "POST /campaigns/{campaign_id}/steps/{step_id}/test": {"to": "+919812345678"},
    "PATCH /segments/{segment_id}": {"name": "Mine"},
    "POST /conversations/{conversation_id}/reply": {"body": "Mine"},
    "POST /conversations/{conversation_id}/assign": {"user_id": None},
    "POST /conversations/{conversation_id}/notes": {"text": "Mine"},
}


async def _all_that_is_shown(tenant: Tenant) -> dict[str, Any]:
    """Everything a tenant can list, by path."""
    paths = [route.path.removeprefix("/api/v1") for route in ROUTES if route.method == "GET" and "{" not in route.path]
    lists = ("/senders", "/contacts", "/campaigns", "/messages", "/conversations", "/replies", "/api-keys")
    assert set(lists) <= set(paths)
    shown = {path: await tenant.every(path) for path in lists}
    for key in shown["/api-keys"]:
        key.pop("last_used_at")
    return shown


async def test_every_route_denies_the_others_ids(live: Platform, tenant: Tenant, other: Tenant) -> None:
    theirs = await make_everything(live, tenant)
    mine = await other.sender()
    async with live.database() as database:
        await until(
            lambda: database.fetchval("select status = 'read' from messages where id = $1", theirs["message_id"]),
            "the last receipt has come",
        )
    before = await _all_that_is_shown(tenant)
    tried = 0
    for route in ROUTES:
        path = route.path.removeprefix("/api/v1")
        if "{" not in path or isinstance(route.access, Public):  # a secret of the sender's opens webhooks
            continue
        filled = re.sub(r"\{(\w+)\}", lambda found: theirs[found[1]], path)
        status, answer = await other.ask(route.method, filled, _BODIES.get(f"{route.method} {path}"))
        assert status == 404, f"{route.method} {path}: {status} {answer}"
        tried += 1
    assert tried > 20
    wanted = {"sender_id": theirs["sender_id"], "to": theirs["phone"], "body": "Mine"}
    for path, body in (
        ("/messages", wanted),
        ("/messages", {"sender_id": mine["id"], "contact_id": theirs["contact_id"], "body": "Mine"}),
        ("/campaigns", {"name": "Mine", "sender_id": theirs["sender_id"]}),
    ):
        status, answer = await other.ask("POST", path, body)
        assert status == 404, f"{path}: {status} {answer}"
    assert await _all_that_is_shown(tenant) == before
    seen = json.dumps(await _all_that_is_shown(other))
    assert not [name for name, id_ in theirs.items() if id_ in seen]
    assert len(await live.gateway.accepted(theirs["phone_number_id"])) == 1


async def test_mixed_enrolments_are_refused(live: Platform, tenant: Tenant, other: Tenant) -> None:
    """One's own campaign with the other's contact, and the other way round."""
    theirs = await make_everything(live, tenant)
    sender = await other.sender()
    campaign, contact = await other.campaign(sender["id"], 0), (await other.contact())["id"]
    for path, body in (
        (f"/contacts/{theirs['contact_id']}/campaign/{campaign}/enroll", None),
        (f"/contacts/{contact}/campaign/{theirs['campaign_id']}/enroll", None),
        (f"/contacts/{theirs['contact_id']}/campaign/{campaign}/stop", None),
        (f"/campaigns/{campaign}/enroll", {"contact_ids": [contact, theirs["contact_id"]]}),
    ):
        status, answer = await other.ask("POST", path, body)
        assert status == 404, f"{path}: {status} {answer}"
    assert not await other.ids(f"/campaigns/{campaign}/enrollments")
    assert not await live.gateway.accepted(sender["phone_number_id"])


async def test_the_same_phone_is_two_people_to_two_tenants(live: Platform, tenant: Tenant, other: Tenant) -> None:
    """A STOP to one of them is none to the other."""
    theirs = await make_everything(live, tenant)
    sender = await other.sender()
    contact = await other.contact(phone=theirs["phone"])
    async with listening(tenant) as ear:
        await live.gateway.write(theirs["phone"], theirs["phone_number_id"], "STOP")
        await ear.until_heard("contact.opted_out", theirs["contact_id"])
    assert (await other.get(f"/contacts/{contact['id']}"))["opted_out_at"] is None
    await other.post("/messages", {"sender_id": sender["id"], "contact_id": contact["id"], "body": "Still here"})
    await until_accepted(live.gateway, sender["phone_number_id"], 1)


async def test_the_feed_tells_only_ones_own(live: Platform, tenant: Tenant, other: Tenant) -> None:
    async with listening(tenant) as theirs, listening(other) as mine:
        await make_everything(live, tenant)
        await until(lambda: any(told["type"] == "message.read" for told in theirs.heard), "the message was read")
        sender = await other.sender()
        wanted = {"sender_id": sender["id"], "to": "+919812345678", "body": "Mine"}
        id_ = (await other.post("/messages", wanted))["id"]
        await mine.until_heard("message.read", id_)
        about = {told["data"]["id"] for told in mine.heard}
    assert about == {id_}
    assert id_ not in {told["data"]["id"] for told in theirs.heard}


async def test_a_webhook_signed_by_another_is_refused(live: Platform, tenant: Tenant, other: Tenant) -> None:
    """Even a good signature of one's own sender opens nobody else's."""
    theirs = await tenant.sender(app_secret="their secret")
    await other.sender(app_secret="my secret")
    body = json.dumps({"object": "whatsapp_business_account", "entry": []}).encode()
    for secret, status in (("my secret", 401), ("their secret", 200)):
        signature = "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        found, answer = await other.ask(
            "POST", f"/webhooks/whatsapp/{theirs['id']}", data=body, headers={"X-Hub-Signature-256": signature}
        )
        assert found == status, answer
