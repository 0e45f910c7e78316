"""Whole journeys through Evolution API and WAHA: a phone is linked, a campaign runs, and what comes back is heard."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from chaos.harness import Platform, Tenant
from gateway.evolution_server import EvolutionServer
from gateway.phones import PNG, phone_server
from gateway.waha_server import WahaServer
from live.listening import enroll, enrollment, listening
from live.situations.telling import until_it_says
from live.terminal import told
from support import until

ACKS = {"evolution": ("SERVER_ACK", "DELIVERY_ACK", "READ"), "waha": ("SERVER", "DEVICE", "READ")}


@dataclass
class Shop:
    """A tenant's sender whose phone is linked, and the gateway that lends it."""

    tenant: Tenant
    server: Any
    provider: str
    name: str
    sender: str

    def jid(self, phone: str) -> str:
        return phone.removeprefix("+") + ("@s.whatsapp.net" if self.provider == "evolution" else "@c.us")

    def writes(self, phone: str, text: str) -> None:
        said = {"conversation": text} if self.provider == "evolution" else {}
        if self.provider == "evolution":
            self.server.writes(self.name, self.jid(phone), said)
        else:
            self.server.writes(self.name, self.jid(phone), body=text)

    def quotes(self, phone: str, text: str, key: str) -> None:
        if self.provider == "evolution":
            part = {"text": text, "contextInfo": {"stanzaId": key}}
            self.server.writes(self.name, self.jid(phone), {"extendedTextMessage": part}, "extendedTextMessage")
        else:
            self.server.writes(self.name, self.jid(phone), body=text, replyTo={"id": f"true_{self.jid(phone)}_{key}"})

    async def session(self) -> str:
        return str((await self.tenant.get(f"/senders/{self.sender}"))["session"]["state"])

    async def becomes(self, state: str) -> None:
        async def is_so() -> bool:
            return await self.session() == state

        await until(is_so, f"the session is {state}")

    async def shows_code(self) -> None:
        """Wait until its code can be seen: what it reported while it started may still come in."""
        path = f"/senders/{self.sender}"

        async def is_so() -> bool:
            session = (await self.tenant.get(path))["session"]
            return bool(session["state"] == "scan_qr" and session["qr_url"] == f"/api/v1{path}/qr")

        await until(is_so, "the code can be seen")

    async def message(self, id_: str, status: str) -> Any:
        async def is_so() -> bool:
            return bool((await self.tenant.message(id_))["status"] == status)

        await until(is_so, f"the message is {status}", 40)
        return await self.tenant.message(id_)

    async def send(self, to: str, text: str = "Namaste") -> str:
        return str((await self.tenant.post("/messages", {"sender_id": self.sender, "to": to, "body": text}))["id"])


def quoted(taken: dict[str, Any]) -> str:
    """The key of what a message quotes."""
    body = taken["body"]
    return str(body["quoted"]["key"]["id"] if "quoted" in body else body["reply_to"].rpartition("_")[2])


@pytest.fixture(params=["evolution", "waha"])
async def shop(live: Platform, tenant: Tenant, request: pytest.FixtureRequest) -> AsyncIterator[Shop]:
    """A shop that has scanned its code."""
    provider, name = request.param, f"shop-{uuid4().hex[:12]}"
    made: Any = EvolutionServer() if provider == "evolution" else WahaServer()
    port = int(live.environ[f"{provider.upper()}_URL"].rsplit(":", 1)[1])
    async with phone_server(made, port) as server:
        wanted = {"name": "Shop", "provider": provider, "phone_number_id": name, "access_token": server.key}
        sender = await tenant.post("/senders", wanted)
        assert (sender["window"], sender["session"]["state"]) == ("ignore", "unknown")
        one = Shop(tenant, server, provider, name, sender["id"])
        path = f"/senders/{sender['id']}"
        assert (await tenant.post(f"{path}/session/start"))["state"] == "scan_qr"
        async with tenant.session.get(f"{tenant.url}/api/v1{path}/qr", headers=tenant.headers) as answer:
            assert (answer.content_type, await answer.read()) == ("image/png", PNG)
        await one.shows_code()
        server.scan(name)
        await one.becomes("working")
        server.acks = ACKS[provider]
        yield one


async def test_from_the_enrolment_to_the_stop(shop: Shop) -> None:
    tenant = shop.tenant
    campaign = await tenant.campaign(shop.sender, 0, 24 * 365, stop_on_reply=True)
    contact = await tenant.contact()
    async with listening(tenant) as ear:
        await enroll(tenant, campaign, contact["id"])
        await until(lambda: shop.server.taken, "the first step has left")
        [message] = await tenant.every("/messages")
        read = await shop.message(message["id"], "read")
        assert [moment["status"] for moment in read["timeline"]][-3:] == ["sent", "delivered", "read"]
        assert read["wamid"] == shop.server.taken[0]["id"]
        shop.writes(contact["phone"], "Is it still open?")
        await ear.until_heard("enrollment.stopped", (await enrollment(tenant, campaign, contact["id"]))["id"])
        [reply] = await tenant.every("/replies")
        assert (reply["text"], reply["contact_id"]) == ("Is it still open?", contact["id"])
        shop.writes(contact["phone"], "STOP")
        await ear.until_heard("contact.opted_out", contact["id"])
    await shop.server.settled()
    assert [taken for taken in shop.server.taken if taken["body"].get("text") == "step 1 for Asha"] == []
    assert [status for status in shop.server.refused if status < 500] == []  # 503: told again later


async def test_a_file_is_fetched_from_the_gateway_and_kept(shop: Shop) -> None:
    contact = await shop.tenant.contact()
    async with listening(shop.tenant) as ear:
        if shop.provider == "evolution":
            part = {"mimetype": "image/png", "caption": "Look"}
            key = shop.server.writes(shop.name, shop.jid(contact["phone"]), {"imageMessage": part}, "imageMessage")
            shop.server.files[key] = PNG
        else:
            shop.server.files["a.png"] = PNG
            media = {"url": f"{shop.server.url}/api/files/a.png", "mimetype": "image/png", "filename": None}
            shop.server.writes(shop.name, shop.jid(contact["phone"]), body="Look", hasMedia=True, media=media)
        await until(lambda: ear.of_type("media.stored"), "the file is kept")
    [reply] = await shop.tenant.every("/replies")
    assert (reply["type"], reply["text"], reply["media"]["status"]) == ("image", "Look", "stored")
    url = f"{shop.tenant.url}{reply['media']['url']}"
    async with shop.tenant.session.get(url, headers=shop.tenant.headers) as answer:
        assert (answer.content_type, await answer.read()) == ("image/png", PNG)


async def test_both_sides_quote_each_other(shop: Shop) -> None:
    tenant, contact = shop.tenant, await shop.tenant.contact()
    async with listening(tenant) as ear:
        shop.writes(contact["phone"], "Is it open?")
        await until(lambda: ear.of_type("reply.received"), "the reply is told")
        (question,) = await tenant.every("/replies")
        path = f"/conversations/{question['conversation_id']}/reply"
        answer = await tenant.post(path, {"body": "Until six.", "reply_to": question["id"]})
        await ear.until_heard("message.sent", answer["id"])
        again = await tenant.post(path, {"body": "On Sunday too.", "reply_to": answer["id"]})
        await ear.until_heard("message.sent", again["id"])
        first, second = shop.server.taken
        assert quoted(first) == question["payload"]["id"].rpartition("_")[2]
        assert quoted(second) == first["id"]
        shop.quotes(contact["phone"], "Sure?", first["id"])
        await until(lambda: len(ear.of_type("reply.received")) == 2, "the second one too")
    (quoting, _) = await tenant.every("/replies")
    assert (quoting["reply_to"], quoting["reply_to_wamid"]) == (answer["id"], first["id"])


@pytest.mark.parametrize("to", ["a contact", "a number", "a contact whose number WhatsApp writes otherwise"])
async def test_what_had_no_answer_is_recognised_by_its_echo(shop: Shop, to: str) -> None:
    phone = "+919811111111"
    if to.startswith("a contact"):
        phone = (await shop.tenant.contact(**({"phone": "+5531987654321"} if "otherwise" in to else {})))["phone"]
        shop.server.rewritten["5531987654321"] = "553187654321"
    shop.server.faults.append("drops")
    id_ = await shop.send(phone)
    await shop.message(id_, "read")
    assert len(shop.server.taken) == 1


async def test_acknowledgements_that_overtake_the_answer_are_not_lost(shop: Shop) -> None:
    shop.server.faults.append("acks-before-answering")
    id_ = await shop.send("+919811111111")
    message = await shop.message(id_, "read")
    assert message["wamid"] == shop.server.taken[0]["id"]
    assert len(shop.server.taken) == 1


async def test_groups_and_what_the_phone_writes_itself_are_no_replies(shop: Shop) -> None:
    group = "120363041234567890@g.us"
    if shop.provider == "evolution":
        shop.server.writes(shop.name, group, {"conversation": "hello all"})
        shop.server.writes(shop.name, shop.jid("+919822222222"), {"conversation": "mine"}, fromMe=True)
    else:
        shop.server.writes(shop.name, group, body="hello all")
        shop.server.writes(shop.name, shop.jid("+919822222222"), body="mine", fromMe=True)
    await shop.server.settled()
    shop.writes("+919833333333", "the last one")
    await until(lambda: shop.tenant.ids("/replies"), "the reply is there")
    assert [reply["text"] for reply in await shop.tenant.every("/replies")] == ["the last one"]
    assert len(await shop.tenant.every("/contacts")) == 1


async def test_a_lost_phone_is_told_and_its_number_alone_waits(live: Platform, shop: Shop) -> None:
    async with listening(shop.tenant) as ear:
        shop.server.phone_logs_out(shop.name)
        await ear.until_heard("sender.disconnected", shop.sender)
        assert await shop.session() in ("stopped", "scan_qr")
        waiting = await shop.send("+919844444444")
        other = await shop.tenant.sender()
        sent = await shop.tenant.post(
            "/messages", {"sender_id": other["id"], "to": "+919844444444", "body": "From another number"}
        )
        await shop.message(sent["id"], "read")
        await shop.message(waiting, "queued")
        assert shop.server.taken == []
        [line] = [one for one in (await told(live, "status"))["trouble"] if f"for Shop of {shop.tenant.id}" in one]
        assert "no phone is linked to its number" in line
        assert f"POST /senders/{shop.sender}/session/start" in line
        linked = [one for one in await told(live, "doctor") if f"Shop of {shop.tenant.id}" in one["found"]]
        assert linked[0]["found"].startswith(f"no phone is linked to Shop of {shop.tenant.id}: ")
        assert (linked[0]["well"], linked[0]["warning"]) == (False, True)
        await shop.tenant.post(f"/senders/{shop.sender}/session/start")
        shop.server.scan(shop.name)
        await shop.becomes("working")
        await ear.until_heard("sender.connected", shop.sender)


@pytest.mark.parametrize("provider", ["evolution", "waha"])
async def test_nobody_is_where_the_gateway_should_be(live: Platform, tenant: Tenant, provider: str) -> None:
    wanted = {"name": "Shop", "provider": provider, "phone_number_id": f"s-{uuid4().hex[:9]}", "access_token": "key"}
    sender = await tenant.post("/senders", wanted)
    id_ = str((await tenant.post("/messages", {"sender_id": sender["id"], "to": "+919855555555", "body": "Hi"}))["id"])
    now = await until_it_says(live, id_, "gateway_away")
    setting = f"{provider.upper()}_URL"
    place = f"{live.environ[setting]} ({setting})"
    assert place in now["waits_for"]
    assert now["todo"].startswith("check that it runs, and its address")
    why = (await tenant.message(id_))["why"]
    assert (why["code"], place in why["text"]) == ("gateway_away", True)
    [line] = [one for one in (await told(live, "status"))["trouble"] if f"for Shop of {tenant.id}" in one]
    assert line.startswith("1 message waits for")
    assert f"its gateway does not answer: {place}: Connection refused: check that it runs" in line
    [found] = [one for one in await told(live, "doctor") if one["check"] == f"gateway: {provider}"]
    assert (found["well"], found["found"]) == (False, f"{place} does not answer: Connection refused")


@pytest.mark.long
async def test_what_waited_for_a_lost_phone_leaves_by_itself(shop: Shop) -> None:
    shop.server.phone_logs_out(shop.name)
    await until(lambda: _lost(shop), "the loss is known")
    waiting = await shop.send("+919844444444")
    await shop.tenant.post(f"/senders/{shop.sender}/session/start")
    shop.server.scan(shop.name)
    await shop.becomes("working")
    await until(lambda: shop.server.taken, "it leaves when it is asked again", 100)
    await shop.message(waiting, "read")


async def _lost(shop: Shop) -> bool:
    return await shop.session() != "working"
