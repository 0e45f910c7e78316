"""The Cloud API's webhooks: verified on the raw bytes, stored before they are answered, refused with the reason."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from aiohttp import ClientSession
from aiohttp.test_utils import TestServer
from door_client import Account, Answer, Api
from nats_server import Server
from support import until

from harkara.bus.connection import Bus, connect
from harkara.bus.tail import History, Stored
from harkara.bus.topology import apply
from harkara.http.door import Door, build
from harkara.http.problems import Problem
from harkara.http.webhooks import BODY_LIMIT, Source, Sources
from harkara.schemas.work import Inbound
from harkara.storage.halting import WAKE_SENDER
from harkara.storage.models import Contact, Message
from harkara.storage.storage import Storage
from harkara.vault import Vault

APP_SECRET = "a-secret"

#: As Meta writes it: escapes, odd spacing and all must survive.
BODY = (
    b'{"object":"whatsapp_business_account", "entry":[{"id":"1","changes":[{"field":"messages",'
    b'"value":{"statuses":[{"id":"wamid.\\u00e4","status":"sent"}]}}]}]} '
)


def signature(body: bytes, secret: str = APP_SECRET) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def send(api: Api, sender: str, body: bytes, *, signed: str | None = None) -> Answer:
    """One webhook, rightly signed unless something else is given; the empty text sends no signature."""
    signed = signature(body) if signed is None else signed
    headers = {"Content-Type": "application/json", **({"X-Hub-Signature-256": signed} if signed else {})}
    return await api.call("POST", f"/webhooks/whatsapp/{sender}", data=BytesIO(body), headers=headers)


@pytest.fixture
async def sender(acme: Account) -> str:
    return await acme.sender(app_secret=APP_SECRET)


async def stored(bus: Bus, tenant: str) -> list[Stored]:
    """This tenant's webhooks in the stream."""
    history = History(bus.link, "INBOUND")
    try:
        return (await history.page(f"t.{tenant}.in.>", 0, 100)).messages
    finally:
        await history.close()


async def verify_token(storage: Storage, tenant: str, sender: str) -> str:
    async with storage.tenant(tenant) as con:
        return str(await con.fetchval("select verify_token from senders where id = $1", UUID(sender)))


def handshake(sender: str, token: str, mode: str = "subscribe") -> str:
    return f"/webhooks/whatsapp/{sender}?hub.mode={mode}&hub.challenge=1158201444&hub.verify_token={token}"


async def test_the_handshake_gives_the_challenge_back(api: Api, acme: Account, storage: Storage, sender: str) -> None:
    answer = await api.call("GET", handshake(sender, await verify_token(storage, acme.tenant, sender)))
    assert (answer.status, answer.text) == (200, "1158201444")
    assert answer.headers["Content-Type"].startswith("text/plain")


async def test_a_handshake_with_a_wrong_token_is_refused(api: Api, sender: str) -> None:
    for token in ("", "wrong", "%C3%A9"):
        answer = await api.call("GET", handshake(sender, token))
        assert "verify_token" in answer.is_problem(403).body["detail"]
        assert "1158201444" not in answer.text


async def test_a_handshake_of_another_kind_is_refused(api: Api, acme: Account, storage: Storage, sender: str) -> None:
    token = await verify_token(storage, acme.tenant, sender)
    (await api.call("GET", handshake(sender, token, mode="unsubscribe"))).is_problem(400)
    (await api.call("GET", f"/webhooks/whatsapp/{sender}")).is_problem(400)


async def test_a_webhook_is_stored_exactly_as_it_came(api: Api, acme: Account, live_bus: Bus, sender: str) -> None:
    answer = await send(api, sender, BODY)
    assert answer.status == 200
    [message] = await stored(live_bus, acme.tenant)
    assert message.subject == f"t.{acme.tenant}.in.whatsapp"
    inbound = msgspec.json.decode(message.body, type=Inbound)
    assert (inbound.source, inbound.sender_id) == ("whatsapp", sender)
    assert BODY.strip() in message.body
    assert bytes(inbound.body) == BODY.strip()


def crowd(first: int, many: int, text: str = "hi") -> bytes:
    said = [
        {"from": f"9166{n:08}", "id": f"in.{n}", "timestamp": "1", "type": "text", "text": {"body": text}}
        for n in range(first, first + many)
    ]
    return json.dumps({"entry": [{"changes": [{"field": "messages", "value": {"messages": said}}]}]}).encode()


async def test_a_webhook_that_says_much_is_stored_in_parts_each_of_which_holds_whom_it_is_of(
    api: Api, acme: Account, live_bus: Bus, storage: Storage, sender: str
) -> None:
    """A part that is done must not let go of who said something in another one."""
    people = [await acme.call("POST", "/contacts", body={"name": "Asha", "phone": f"+9166{n:08}"}) for n in (3, 99)]
    for _ in range(2):
        assert (await send(api, sender, crowd(0, 120))).status == 200
    found = await stored(live_bus, acme.tenant)
    assert [one.body.count(b'"in.') for one in found] == [50, 50, 20]
    ids = [(one.headers or {})["X-Msg-Id"] for one in found]
    assert len(set(ids)) == 3
    async with storage.tenant(acme.tenant) as con:
        rows = await con.fetch("select contact_id::text, word::text from contact_holds")
    assert {tuple(row) for row in rows} == {(people[0].body["id"], ids[0]), (people[1].body["id"], ids[1])}


async def test_a_part_that_came_before_holds_nobody_again(
    api: Api, acme: Account, storage: Storage, sender: str
) -> None:
    assert (await send(api, sender, crowd(0, 120))).status == 200
    for n in (3, 99):  # they are known only now, when all is done
        await acme.call("POST", "/contacts", body={"name": "Asha", "phone": f"+9166{n:08}"})
    assert (await send(api, sender, crowd(0, 120))).status == 200
    async with storage.tenant(acme.tenant) as con:
        assert await con.fetchval("select count(*) from contact_holds") == 0


async def test_a_crowd_of_one_tenant_is_asked_to_come_back_and_nothing_of_others_is(
    api: Api, acme: Account, other: Account, door: Door, sender: str
) -> None:
    door.crowds.wait_s(acme.tenant, 10_000)
    refused = (await send(api, sender, crowd(0, 120))).is_problem(503)
    assert 900 < int(refused.headers["Retry-After"]) <= 940
    assert "still being read" in refused.body["detail"]
    assert (await send(api, sender, crowd(0, 50))).status == 200
    elsewhere = await other.sender(app_secret=APP_SECRET)
    assert (await send(api, elsewhere, crowd(0, 120))).status == 200


async def test_more_items_than_any_gateway_sends_are_refused(api: Api, sender: str) -> None:
    answer = await send(api, sender, b'{"entry":[' + b"1," * 30_000 + b"1]}")
    assert "at most 1,000" in answer.is_problem(400).body["detail"]


async def test_a_changed_secret_counts_at_once_and_the_old_one_no_more(
    api: Api, acme: Account, door: Door, sender: str
) -> None:
    """Every other front door is told so over the bus, and then asks anew too."""
    elsewhere = Sources(door.storage, door.vault, door.clock)
    unsubscribe = await door.publisher.subscribe_wake(WAKE_SENDER, elsewhere.forget)
    try:
        before = await elsewhere.get(UUID(sender), lambda _: True)
        assert (await send(api, sender, BODY)).status == 200
        await acme.call("PATCH", f"/senders/{sender}", body={"app_secret": "another-secret"})
        (await send(api, sender, BODY)).is_problem(401)
        assert (await send(api, sender, BODY, signed=signature(BODY, "another-secret"))).status == 200
        await until(lambda: not elsewhere._known, "the other front door was told")  # pyright: ignore
        assert (await elsewhere.get(UUID(sender), lambda _: True)).app_secret != before.app_secret
    finally:
        await unsubscribe()


async def test_who_quotes_what_we_sent_is_held_although_nobody_knows_their_user_id(
    api: Api, acme: Account, storage: Storage, sender: str
) -> None:
    contact = await acme.contact()
    async with storage.tenant(acme.tenant):
        await Message.create(
            contact_id=contact, sender_id=sender, lane="utility", to="+919876543210", content={}, status="sent",
            due_at=datetime.now(UTC), wamid="wamid.quoted",
        )  # fmt: skip
    stop = {"type": "text", "text": {"body": "STOP"}, "context": {"id": "wamid.quoted"}}
    message = {"from_user_id": "US.1", "id": "wamid.1", "timestamp": "1772366400", **stop}
    body = {"entry": [{"changes": [{"field": "messages", "value": {"messages": [message]}}]}]}
    assert (await send(api, sender, json.dumps(body).encode())).status == 200
    async with storage.tenant(acme.tenant) as con:
        assert str(await con.fetchval("select contact_id from contact_holds")) == contact


async def test_who_writes_under_another_spelling_of_their_number_is_held(
    api: Api, acme: Account, storage: Storage, sender: str
) -> None:
    contact = await acme.contact()
    async with storage.tenant(acme.tenant):
        await Contact.filter(id=contact).update(phone="+5511987654321")
    stop = {"type": "text", "text": {"body": "STOP"}, "id": "wamid.1", "timestamp": "1772366400"}
    change = {"field": "messages", "value": {"messages": [{**stop, "from": "551187654321"}]}}
    assert (await send(api, sender, json.dumps({"entry": [{"changes": [change]}]}).encode())).status == 200
    async with storage.tenant(acme.tenant) as con:
        assert str(await con.fetchval("select contact_id from contact_holds")) == contact


async def test_who_calls_is_held_as_who_writes(api: Api, acme: Account, storage: Storage, sender: str) -> None:
    contact = await acme.contact()
    phone = (await acme.get(f"/contacts/{contact}"))["phone"]
    call = {"event": "connect", "direction": "USER_INITIATED", "id": "wacid.1", "timestamp": "1772366400"}
    change = {"field": "calls", "value": {"calls": [{**call, "from": phone.removeprefix("+")}]}}
    assert (await send(api, sender, json.dumps({"entry": [{"changes": [change]}]}).encode())).status == 200
    async with storage.tenant(acme.tenant) as con:
        assert str(await con.fetchval("select contact_id from contact_holds")) == contact


async def test_who_writes_under_an_id_is_held_with_all_who_have_their_number_in_another_spelling(
    api: Api, acme: Account, storage: Storage, sender: str
) -> None:
    phones = {"+5511987654321": "BR.1", "+551187654321": None, "+5511987654322": None}
    async with storage.tenant(acme.tenant):  # the door makes one contact of a line; two imports at once may make two
        contacts = [str((await Contact.create(phone=phone, wa_user_id=id_)).id) for phone, id_ in phones.items()]
    stop = {"type": "text", "text": {"body": "STOP"}, "id": "wamid.1", "timestamp": "1772366400"}
    change = {"field": "messages", "value": {"messages": [{**stop, "from_user_id": "BR.1"}]}}
    assert (await send(api, sender, json.dumps({"entry": [{"changes": [change]}]}).encode())).status == 200
    async with storage.tenant(acme.tenant) as con:
        held = {str(row[0]) for row in await con.fetch("select contact_id from contact_holds")}
    assert held == set(contacts[:2])


async def test_the_request_is_the_cause_of_what_follows(api: Api, acme: Account, live_bus: Bus, sender: str) -> None:
    answer = await send(api, sender, BODY)
    [message] = await stored(live_bus, acme.tenant)
    raw = await live_bus.js.get_msg("INBOUND", seq=message.seq)
    assert raw.headers is not None
    named = {name.lower(): value for name, value in answer.headers.items()}
    assert raw.headers["X-Cause"] == named["x-request-id"]


async def test_the_same_body_again_is_answered_but_not_stored_again(
    api: Api, acme: Account, live_bus: Bus, sender: str
) -> None:
    assert [(await send(api, sender, BODY)).status for _ in range(3)] == [200, 200, 200]
    assert (await send(api, sender, BODY.replace(b"sent", b"read"))).status == 200
    assert len(await stored(live_bus, acme.tenant)) == 2


@pytest.mark.parametrize(
    "signed",
    [
        "",
        "sha256=",
        "sha256=" + "0" * 64,
        signature(BODY)[7:],
        signature(BODY).replace("sha256", "sha1"),
        signature(BODY + b" "),
        signature(BODY, "another secret"),
        signature(BODY) + "0",
        "sha256=\u00e9",
    ],
)
async def test_an_unsigned_or_wrongly_signed_body_is_refused(
    api: Api, acme: Account, live_bus: Bus, sender: str, signed: str
) -> None:
    answer = await send(api, sender, BODY, signed=signed)
    assert "X-Hub-Signature-256" in answer.is_problem(401).body["detail"]
    assert await stored(live_bus, acme.tenant) == []


async def test_another_tenants_secret_is_of_no_use(
    api: Api, acme: Account, other: Account, live_bus: Bus, sender: str
) -> None:
    theirs = await other.sender(app_secret="their secret")
    (await send(api, sender, BODY, signed=signature(BODY, "their secret"))).is_problem(401)
    assert (await send(api, theirs, BODY, signed=signature(BODY, "their secret"))).status == 200
    assert await stored(live_bus, acme.tenant) == []
    assert len(await stored(live_bus, other.tenant)) == 1


@pytest.mark.parametrize("body", [b"{", b"[]", b"", b'"text"', b'{"a":1} x', b'{"a":"\xff"', b"[" * 100_000])
async def test_a_signed_body_that_is_no_json_object_is_refused(
    api: Api, acme: Account, live_bus: Bus, sender: str, body: bytes
) -> None:
    (await send(api, sender, body)).is_problem(400)
    assert await stored(live_bus, acme.tenant) == []


@pytest.mark.parametrize(
    ("cut", "read"),
    [
        (rb"hi \ud83d", "hi \ufffd"),
        (rb"\uDE00 hi", "\ufffd hi"),
        (rb"\ud83d\ud83d\ude00 \\ud83d", "\ufffd\U0001f600 \\ud83d"),
        (b"hi \xf0\x9f", "hi \ufffd"),
    ],
)
async def test_a_text_that_was_cut_within_a_character_silences_nothing_beside_it(
    api: Api, acme: Account, live_bus: Bus, storage: Storage, sender: str, cut: bytes, read: str
) -> None:
    contact = await acme.contact()
    phone = (await acme.get(f"/contacts/{contact}"))["phone"].removeprefix("+").encode()
    value = (
        b'{"messages":[{"from":"1202555","id":"wamid.1","timestamp":"1","type":"text","text":{"body":"%s"}},'
        b'{"from":"%s","id":"wamid.2","timestamp":"2","type":"text","text":{"body":"STOP"}}]}' % (cut, phone)
    )
    body = b'{"object":"w","entry":[{"id":"1","changes":[{"field":"messages","value":%s}]}]}' % value
    assert (await send(api, sender, body)).status == 200
    [message] = await stored(live_bus, acme.tenant)
    inbound = msgspec.json.decode(message.body, type=Inbound)
    told = msgspec.json.decode(inbound.body)["entry"][0]["changes"][0]["value"]["messages"]
    assert [one["text"]["body"] for one in told] == [read, "STOP"]
    async with storage.tenant(acme.tenant) as con:
        assert str(await con.fetchval("select contact_id from contact_holds")) == contact, "the word beside it is heard"
    assert (await send(api, sender, body)).status == 200
    assert len(await stored(live_bus, acme.tenant)) == 1, "the same body again is the same webhook"


async def test_the_largest_body_is_taken_and_a_larger_one_is_not(
    api: Api, acme: Account, live_bus: Bus, sender: str
) -> None:
    room = BODY_LIMIT - len(json.dumps({"x": ""}))
    assert (await send(api, sender, json.dumps({"x": "y" * room}).encode())).status == 200
    (await send(api, sender, json.dumps({"x": "y" * (room + 1)}).encode())).is_problem(413)
    [message] = await stored(live_bus, acme.tenant)
    assert len(message.body) > BODY_LIMIT


@pytest.mark.parametrize("who", [919876543210, ["919876543210"], None, {"id": 1}, "123"])
async def test_whoever_writes_a_webhook_of_meta_is_answered(api: Api, acme: Account, sender: str, who: Any) -> None:
    message = {"id": "wamid.1", "from": who, "timestamp": 1772366400, "type": "text", "text": {"body": "STOP"}}
    change = {"field": "messages", "value": {"messages": [message]}}
    body = json.dumps({"entry": [{"changes": [change]}]}).encode()
    assert (await send(api, sender, body)).status == 200


@pytest.mark.parametrize("sender", ["0192a000-0000-7000-8000-00000000dead", "no-id", "0"])
async def test_an_unknown_sender_is_not_found(api: Api, sender: str) -> None:
    (await send(api, sender, BODY)).is_problem(404)
    (await api.call("GET", handshake(sender, "token"))).is_problem(404)


async def test_a_sender_without_a_secret_takes_nothing(api: Api, acme: Account, storage: Storage, sender: str) -> None:
    async with storage.tenant(acme.tenant) as con:
        await con.execute("update senders set app_secret = null where id = $1", UUID(sender))
    (await send(api, sender, BODY, signed=signature(BODY, ""))).is_problem(401)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path / "nats")
    await made.start()
    yield made
    made.stop()


async def test_while_the_broker_is_away_the_gateway_is_asked_to_come_back(
    server: Server, door: Door, api: Api, acme: Account, sender: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harkara.http.webhooks.PATIENCE", timedelta(seconds=0.3))
    async with await connect(server.url) as bus, ClientSession() as session:
        await apply(bus.js)
        async with TestServer(build(replace(door, publisher=bus.publisher))) as front:
            other_door = Api(str(front.make_url("")).rstrip("/"), session, door)
            server.kill()
            answer = (await send(other_door, sender, BODY)).is_problem(503)
            assert int(answer.headers["Retry-After"]) > 0
            await server.start()

            async def accepted() -> bool:
                return (await send(other_door, sender, BODY)).status == 200

            await until(accepted, "the broker is back")
            assert len(await stored(bus, acme.tenant)) == 1


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


async def change_secret(storage: Storage, tenant: str, sender: str, vault: Vault, secret: str) -> None:
    async with storage.tenant(tenant) as con:
        await con.execute("update senders set app_secret = $2 where id = $1", UUID(sender), vault.seal(secret))


async def test_a_changed_secret_is_noticed_by_the_first_body_it_signs(
    door: Door, acme: Account, storage: Storage, sender: str
) -> None:
    clock = Clock()
    sources = Sources(storage, door.vault, clock)
    new = signature(BODY, "the new one")
    await sources.get(UUID(sender), lambda one: one.signs(BODY, signature(BODY)))
    await change_secret(storage, acme.tenant, sender, door.vault, "the new one")
    clock.now += timedelta(seconds=2)
    assert (await sources.get(UUID(sender), lambda one: one.signs(BODY, new))).signs(BODY, new)


async def test_wrong_signatures_do_not_ask_the_database_again_and_again(
    door: Door, acme: Account, storage: Storage, sender: str
) -> None:
    clock = Clock()
    sources = Sources(storage, door.vault, clock)
    first = await sources.get(UUID(sender), lambda _: False)
    clock.now += timedelta(seconds=0.9)
    assert await sources.get(UUID(sender), lambda _: False) is first
    clock.now += timedelta(seconds=20)
    assert await sources.get(UUID(sender), lambda _: True) is first
    clock.now += timedelta(seconds=20)
    assert await sources.get(UUID(sender), lambda _: True) is not first


async def test_a_sender_that_was_deleted_is_forgotten(door: Door, acme: Account, storage: Storage, sender: str) -> None:
    clock = Clock()
    sources = Sources(storage, door.vault, clock)
    await sources.get(UUID(sender), lambda _: True)
    async with storage.tenant(acme.tenant) as con:
        await con.execute("delete from senders where id = $1", UUID(sender))
    clock.now += timedelta(minutes=1)
    with pytest.raises(Problem) as caught:
        await sources.get(UUID(sender), lambda _: True)
    assert caught.value.status == 404


async def test_a_secret_under_another_key_is_our_fault_and_not_the_gateways(
    door: Door, acme: Account, storage: Storage, sender: str
) -> None:
    await change_secret(storage, acme.tenant, sender, Vault("another SECRET_KEY of thirty-two bytes"), APP_SECRET)
    with pytest.raises(Problem) as caught:
        await Sources(storage, door.vault, door.clock).get(UUID(sender), lambda _: True)
    assert caught.value.status == 503


def test_a_signature_fits_one_secret_and_one_body() -> None:
    source = Source(uuid4(), "acme", APP_SECRET, "token", datetime.now(UTC))
    assert source.signs(BODY, signature(BODY))
    assert not source.signs(BODY + b"\n", signature(BODY))
    assert not replace(source, app_secret="another").signs(BODY, signature(BODY))
    assert not replace(source, app_secret=None).signs(BODY, signature(BODY, ""))
