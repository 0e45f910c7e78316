"""What contacts write back: it is kept, it stops campaigns, and a request to stop is final."""

from __future__ import annotations

import asyncio
import time

from chaos.harness import Platform, Tenant
from live.listening import enroll, enrollment, listening, until_accepted
from support import until


async def test_a_reply_stops_the_campaigns_that_say_so(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    # The second step is due after ten seconds: by then the first one was answered, on any machine.
    stops = await tenant.campaign(sender["id"], 0, 80, stop_on_reply=True)
    goes_on = await tenant.campaign(sender["id"], 0, 80, stop_on_reply=False)
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
    campaigns = [await tenant.campaign(sender["id"], 0, 24 * 365) for _ in range(2)]
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


async def test_stop_under_a_user_id_stops_what_goes_to_the_number(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    campaign, contact = await tenant.campaign(sender["id"], 0, 24 * 365), await tenant.contact()
    await enroll(tenant, campaign, contact["id"])
    await until_accepted(live.gateway, sender["phone_number_id"], 1)
    async with listening(tenant) as ear:
        # They hide their number. Whether a status that names both comes before this or after it.
        await live.gateway.tell(
            contact["phone"], sender["phone_number_id"], type="text", text="STOP", user_id_only=True
        )
        await ear.until_heard("enrollment.stopped", (await enrollment(tenant, campaign, contact["id"]))["id"])
    assert (await enrollment(tenant, campaign, contact["id"]))["stopped_reason"] == "opt_out"
    (shown,) = await tenant.every("/contacts")
    assert shown["id"] == contact["id"]
    assert shown["opted_out_at"]


async def test_a_stranger_who_writes_becomes_a_contact_without_consent(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    async with listening(tenant) as ear:
        await live.gateway.write("+919812345678", sender["phone_number_id"], "hello")
        await until(lambda: any(told["type"] == "reply.received" for told in ear.heard), "the reply is told")
    (contact,) = await tenant.every("/contacts")
    assert (contact["phone"], contact["consent"]) == ("+919812345678", None)


async def test_who_writes_again_opens_a_closed_conversation(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(), await tenant.contact()
    async with listening(tenant) as ear:
        await live.gateway.write(contact["phone"], sender["phone_number_id"], "Is it open?")
        await until(lambda: any(told["type"] == "reply.received" for told in ear.heard), "the reply is told")
        (conversation,) = await tenant.every("/conversations")
        path = f"/conversations/{conversation['id']}"
        answer = await tenant.post(f"{path}/reply", {"body": "Until six."})
        await ear.until_heard("message.sent", answer["id"])
        assert (await tenant.post(f"{path}/close", {}))["status"] == "closed"
        await ear.until_heard("conversation.updated", conversation["id"])
        await live.gateway.write(contact["phone"], sender["phone_number_id"], "And tomorrow?")
        await until(lambda: sum(told["type"] == "reply.received" for told in ear.heard) == 2, "the second one too")
    assert (await tenant.get(path))["status"] == "open"
    # WhatsApp tells whole seconds: within one, which came first can't be known.
    said = {(one["direction"], one["text"]) for one in await tenant.every(f"{path}/messages")}
    assert said == {("in", "Is it open?"), ("out", "Until six."), ("in", "And tomorrow?")}


async def test_who_calls_is_answered_with_anything(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(window="enforce"), await tenant.contact()
    async with listening(tenant) as ear:
        await live.gateway.tell(contact["phone"], sender["phone_number_id"], type="call", call={})
        await until(lambda: ear.of_type("reply.received"), "the call is told")
        told = ear.of_type("reply.received")[0]["data"]
        assert (told["type"], told["contact_id"]) == ("call", contact["id"])
        path = f"/conversations/{told['conversation_id']}"
        answer = await tenant.post(f"{path}/reply", {"body": "We were busy: how can we help?"})
        await ear.until_heard("message.sent", answer["id"])
    status, _ = await tenant.ask("POST", f"{path}/read")
    assert status == 409, "a call is nothing to be marked as read"


async def test_both_sides_quote_each_other(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(), await tenant.contact()
    async with listening(tenant) as ear:
        asked = await live.gateway.tell(contact["phone"], sender["phone_number_id"], type="text", text="Is it open?")
        await until(lambda: ear.of_type("reply.received"), "the reply is told")
        (question,) = await tenant.every("/replies")
        path = f"/conversations/{question['conversation_id']}"
        answer = await tenant.post(f"{path}/reply", {"body": "Until six.", "reply_to": question["id"]})
        await ear.until_heard("message.sent", answer["id"])
        (accepted,) = await live.gateway.accepted(sender["phone_number_id"])
        assert accepted["context"] == asked
        assert (await tenant.message(answer["id"]))["reply_to"] == question["id"]
        await live.gateway.tell(
            contact["phone"], sender["phone_number_id"], type="text", text="Sure?", context=accepted["id"]
        )
        await until(lambda: len(ear.of_type("reply.received")) == 2, "the second one too")
    told = ear.of_type("reply.received")[1]["data"]
    assert (told["reply_to"], told["reply_to_wamid"]) == (answer["id"], accepted["id"])
    (quoting, _) = await tenant.every("/replies")
    assert (quoting["reply_to"], quoting["reply_to_wamid"]) == (answer["id"], accepted["id"])
    said = {one["text"]: one["reply_to"] for one in await tenant.every(f"{path}/messages")}
    assert said == {"Is it open?": None, "Until six.": question["id"], "Sure?": answer["id"]}


async def test_marketing_alone_is_stopped_by_its_button_and_the_rest_goes_on(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    campaign, contact = await tenant.campaign(sender["id"], 0, 24 * 365), await tenant.contact()
    await enroll(tenant, campaign, contact["id"])
    await until_accepted(live.gateway, sender["phone_number_id"], 1)
    async with listening(tenant) as ear:
        button = {"payload": "STOP_PROMOTIONS", "text": "Stop promotions"}
        await live.gateway.tell(contact["phone"], sender["phone_number_id"], type="button", button=button)
        await ear.until_heard("enrollment.stopped", (await enrollment(tenant, campaign, contact["id"]))["id"])
        told = next(one["data"] for one in ear.heard if one["type"] == "contact.opted_out")
        assert (told["category"], told["source"]) == ("marketing", "button")
        wanted = {"sender_id": sender["id"], "contact_id": contact["id"], "body": "Your order is here"}
        status, problem = await tenant.ask("POST", "/messages", wanted | {"lane": "marketing"})
        assert (status, "opted out" in problem["detail"]) == (409, True)
        await ear.until_heard("message.sent", (await tenant.post("/messages", wanted))["id"])
    shown = await tenant.get(f"/contacts/{contact['id']}")
    assert [(one["category"], one["source"]) for one in shown["opt_outs"]] == [("marketing", "button")]
    assert shown["opted_out_at"] is None


async def test_what_people_set_in_whatsapp_counts_and_can_be_taken_back(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(), await tenant.contact()
    now = int(time.time())
    async with listening(tenant) as ear:
        for seconds, value, event in ((0, "stop", "contact.opted_out"), (60, "resume", "contact.opted_in")):
            preference = {"category": "marketing_messages", "value": value, "detail": "…", "timestamp": now + seconds}
            await live.gateway.tell(
                contact["phone"], sender["phone_number_id"], type="user_preferences", user_preferences=preference
            )
            await ear.until_heard(event, contact["id"])
    assert {one["data"]["source"] for one in ear.heard if "opted" in one["type"]} == {"preferences"}
    assert (await tenant.get(f"/contacts/{contact['id']}"))["opt_outs"] == []


async def test_an_opt_out_is_confirmed_once_and_start_takes_it_back(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(), await tenant.contact()
    said = {"stop": "We will not write again.", "start": "Welcome back."}
    await tenant.call("PATCH", "/tenant", {"keywords": {"stop": ["basta"], "confirmations": said}})
    async with listening(tenant) as ear:
        for text, event in (("Basta!", "contact.opted_out"), ("start", "contact.opted_in")):
            for _ in range(2):  # said twice it is answered once
                await live.gateway.write(contact["phone"], sender["phone_number_id"], text)
            await ear.until_heard(event, contact["id"])
            until_next_second = 1.05 - time.time() % 1
            await asyncio.sleep(until_next_second)  # WhatsApp tells whole seconds, and of the same one STOP wins
        await until(lambda: sum(one["type"] == "reply.received" for one in ear.heard) == 4, "all was heard")
        await until(lambda: sum(one["type"] == "message.sent" for one in ear.heard) == 2, "both are answered")
    accepted = await live.gateway.accepted(sender["phone_number_id"])
    assert sorted(one["body"] for one in accepted) == sorted(said.values())
    assert (await tenant.get(f"/contacts/{contact['id']}"))["opted_out_at"] is None


async def test_somebody_who_hides_their_number_is_answered(live: Platform, tenant: Tenant) -> None:
    sender = await tenant.sender()
    async with listening(tenant) as ear:
        text = {"type": "text", "text": "Who am I?", "user_id_only": True, "name": "Asha"}
        await live.gateway.tell("+14155550123", sender["phone_number_id"], **text)
        await until(lambda: any(told["type"] == "reply.received" for told in ear.heard), "the reply is told")
        (contact,) = await tenant.every("/contacts")
        assert (contact["name"], contact["phone"], contact["wa_user_id"][:3]) == ("Asha", None, "US.")
        (conversation,) = await tenant.every("/conversations")
        answer = await tenant.post(f"/conversations/{conversation['id']}/reply", {"body": "You are welcome."})
        await ear.until_heard("message.sent", answer["id"])
    (accepted,) = await live.gateway.accepted(sender["phone_number_id"])
    assert accepted["to"] == contact["wa_user_id"]


async def test_agents_read_type_and_leave_remarks(live: Platform, tenant: Tenant) -> None:
    sender, contact = await tenant.sender(), await tenant.contact()
    async with listening(tenant) as ear:
        await live.gateway.write(contact["phone"], sender["phone_number_id"], "Is it open?")
        await until(lambda: any(told["type"] == "reply.received" for told in ear.heard), "the reply is told")
        (conversation,) = await tenant.every("/conversations")
        path = f"/conversations/{conversation['id']}"
        note = await tenant.post(f"{path}/notes", {"text": "A regular"})
        await ear.until_heard("conversation.noted", conversation["id"])
    assert await tenant.every(f"{path}/notes") == [note]
    assert conversation["read_at"] is None
    await tenant.post(f"{path}/read", {"typing": True})

    async def seen() -> bool:
        query = f"messages?direction=in&to={contact['phone'].removeprefix('+')}"
        return "read" in [one["status"] for one in (await live.gateway.get(query))["items"]]

    await until(seen, "the contact sees that it was read")
    assert (await tenant.get(path))["read_at"]
    assert len(await live.gateway.accepted(sender["phone_number_id"])) == 0, "nothing was said to the contact"
