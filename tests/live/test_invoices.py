"""Payment reminders, as messages and as a campaign: they name what is owed, and stop the instant that it is paid."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from chaos.harness import Platform, Tenant
from live.conftest import DAY_S
from live.listening import enrollment, listening, until_accepted
from support import an_invoice, quiet_now, until


async def reminders(tenant: Tenant, sender: str, *delay_hours: float, **more: Any) -> str:
    """The id of an active campaign that names what is owed at each of these delays."""
    campaign = (await tenant.post("/campaigns", {"name": "Reminders", "sender_id": sender} | more))["id"]
    body = (
        "{{ invoice.number | default('?') }}: {{ invoice.amount | default('?') }} {{ invoice.due_date | default('?') }}"
    )
    for hours in delay_hours:
        await tenant.post(f"/campaigns/{campaign}/steps", {"delay_hours": hours, "body": body})
    await tenant.post(f"/campaigns/{campaign}/activate")
    return str(campaign)


async def test_a_reminder_campaign_names_the_invoice_and_stops_when_it_is_paid(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(), await tenant.contact()
    await tenant.call("PATCH", "/tenant", {"timezone": "Asia/Kolkata"})
    invoice = await tenant.post("/invoices", an_invoice(contact["id"], due_at="2026-11-30T18:30:00Z"))
    campaign = await reminders(tenant, sender["id"], 0, 24 * 365)
    async with listening(tenant) as ear:
        accepted = await tenant.post(
            f"/contacts/{contact['id']}/campaign/{campaign}/enroll", {"invoice_id": invoice["id"]}
        )
        [left] = await until_accepted(live.gateway, sender["phone_number_id"], 1)
        assert left["body"] == f"{invoice['number']}: INR 1,234.50 2026-12-01"
        [message] = await tenant.every("/messages")
        assert message["invoice_id"] == invoice["id"]
        status, paid = await tenant.patiently("POST", f"/invoices/{invoice['id']}/pay")
        assert status == 200, paid
        await ear.until_heard("invoice.paid", invoice["id"])
        await ear.until_heard("enrollment.stopped", accepted["id"])
    [stopped] = [one["data"] for one in ear.heard if one["type"] == "enrollment.stopped"]
    assert stopped["reason"] == "invoice_paid"
    shown = await enrollment(tenant, campaign, contact["id"])
    assert (shown["status"], shown["stopped_reason"]) == ("stopped", "invoice_paid")
    assert (await tenant.get(f"/campaigns/{campaign}/funnel"))["stopped_by"] == {"invoice_paid": 1}


async def test_what_waits_for_its_time_or_for_the_night_to_end_does_not_leave(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(), await tenant.contact(timezone="UTC")
    invoice = (await tenant.post("/invoices", an_invoice(contact["id"])))["id"]
    campaign = await reminders(tenant, sender["id"], 0, quiet_hours=quiet_now("UTC"))
    about = {"invoice_id": invoice}
    wanted = {"sender_id": sender["id"], "contact_id": contact["id"], "body": "{{ invoice.amount }}"} | about
    async with listening(tenant) as ear:
        await tenant.post(f"/contacts/{contact['id']}/campaign/{campaign}/enroll", about)
        await until(lambda: [one for one in ear.heard if one["type"] == "message.deferred"], "the step waits")
        [step] = [one["data"]["id"] for one in ear.heard if one["type"] == "message.deferred"]
        sent = (await tenant.post("/messages", wanted))["id"]
        await ear.until_heard("message.sent", sent)
        soon = datetime.now(UTC) + timedelta(seconds=10)
        later = (await tenant.post("/messages", wanted | {"send_at": soon.isoformat()}))["id"]
        status, voided = await tenant.patiently("POST", f"/invoices/{invoice}/void")
        assert status == 200, voided
        for id_ in (step, later):
            await ear.until_heard("message.suppressed", id_)
            message = await tenant.get(f"/messages/{id_}")
            assert (message["status"], message["reason"], message["why"]["code"]) == (
                "suppressed",
                "invoice_void",
                "invoice_void",
            )
    funnel = await tenant.get(f"/campaigns/{campaign}/funnel")
    assert (funnel["stopped_by"], funnel["totals"]["suppressed_by"]) == ({"invoice_void": 1}, {"invoice_void": 1})
    assert len(await live.gateway.accepted(sender["phone_number_id"])) == 1


async def test_the_gate_itself_ends_a_reminder_of_what_was_paid(live: Platform, tenant: Tenant) -> None:
    """Paid while its enrolment was not there yet, or by whoever writes to the table: the step finds out."""
    sender, contact = await tenant.sender(), await tenant.contact()
    invoice = (await tenant.post("/invoices", an_invoice(contact["id"])))["id"]
    campaign = await reminders(tenant, sender["id"], 24 / DAY_S * 8)  # eight seconds
    async with listening(tenant) as ear:
        path = f"/contacts/{contact['id']}/campaign/{campaign}/enroll"
        accepted = await tenant.post(path, {"invoice_id": invoice})
        async with live.database() as database:
            await ear.until_heard("enrollment.started", accepted["id"])
            await database.execute("update invoices set status = 'paid' where id = $1", invoice)
        await ear.until_heard("enrollment.stopped", accepted["id"])
    [suppressed] = [one["data"] for one in ear.heard if one["type"] == "message.suppressed"]
    assert suppressed["reason"] == "invoice_paid"
    assert (await enrollment(tenant, campaign, contact["id"]))["stopped_reason"] == "invoice_paid"
    assert await live.gateway.accepted(sender["phone_number_id"]) == []
