"""What contacts write back: it is kept, it stops campaigns, and a request to stop is final."""

from __future__ import annotations

from chaos.harness import Platform, Tenant
from live.listening import enroll, enrollment, listening, until_accepted
from support import until


async def test_a_reply_stops_the_campaigns_that_say_so(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    stops = await tenant.campaign(sender["id"], 0, 24, stop_on_reply=True)
    goes_on = await tenant.campaign(sender["id"], 0, 24, stop_on_reply=False)
    contact = await tenant.contact()
    for campaign in (stops, goes_on):
        await enroll(tenant, campaign, contact["id"])
    await until_accepted(live.gateway, sender["phone_number_id"], 2)
    async with listening(tenant) as ear:
        await live.gateway.write(contact["phone"], sender["phone_number_id"], "Is it still open?")
        await ear.until_heard("enrollment.stopped", (await enrollment(tenant, stops, contact["id"]))["id"])
        await ear.until_heard("enrollment.completed", (await enrollment(tenant, goes_on, contact["id"]))["id"])
        reply = next(told for told in ear.heard if told["type"] == "reply.received")
    assert reply["data"]["text"] == "Is it still open?"
    assert (await enrollment(tenant, stops, contact["id"]))["stopped_reason"] == "reply"
    replies = (await tenant.get(f"/replies?contact_id={contact['id']}"))["items"]
    assert [one["text"] for one in replies] == ["Is it still open?"]
    said = (await tenant.get(f"/conversations/{reply['data']['conversation_id']}/messages"))["items"]
    assert sorted(one["direction"] for one in said) == ["in", "out", "out", "out"]
    assert len(await live.gateway.accepted(sender["phone_number_id"])) == 3


async def test_stop_ends_everything_for_good(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    campaigns = [await tenant.campaign(sender["id"], 0, 24) for _ in range(2)]
    contact = await tenant.contact()
    for campaign in campaigns:
        await enroll(tenant, campaign, contact["id"])
    await until_accepted(live.gateway, sender["phone_number_id"], 2)
    async with listening(tenant) as ear:
        await live.gateway.write(contact["phone"], sender["phone_number_id"], " Stop. ")
        await ear.until_heard("contact.opted_out", contact["id"])
        for campaign in campaigns:
            await ear.until_heard("enrollment.stopped", (await enrollment(tenant, campaign, contact["id"]))["id"])
    for campaign in campaigns:
        assert (await enrollment(tenant, campaign, contact["id"]))["stopped_reason"] == "opt_out"
    assert (await tenant.get(f"/contacts/{contact['id']}"))["opted_out_at"]
    message = {"sender_id": sender["id"], "contact_id": contact["id"], "body": "One more thing"}
    for path, body in (
        ("/messages", message),
        ("/messages", message | {"lane": "otp"}),
        ("/messages", {"sender_id": sender["id"], "to": contact["phone"], "body": "One more thing"}),
        (f"/contacts/{contact['id']}/campaign/{await tenant.campaign(sender['id'], 0)}/enroll", None),
    ):
        status, problem = await tenant.ask("POST", path, body)
        assert status == 409, (path, problem)
        assert "opted out" in problem["detail"]
    assert len(await live.gateway.accepted(sender["phone_number_id"])) == 2


async def test_a_stranger_who_writes_becomes_a_contact_without_consent(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    async with listening(tenant) as ear:
        await live.gateway.write("+919812345678", sender["phone_number_id"], "hello")
        await until(lambda: any(told["type"] == "reply.received" for told in ear.heard), "the reply is told")
    (contact,) = await tenant.every("/contacts")
    assert (contact["phone"], contact["consent"]) == ("+919812345678", None)
