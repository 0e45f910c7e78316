"""What Evolution API and WAHA report, put as the Cloud API would say it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from harkara.gateway.jids import Who, address, full_id, key_of, who
from harkara.gateway.reports import parse
from harkara.gateway.told import InboundMessage, Webhook

AT = datetime(2026, 7, 1, 12, 0, 30, tzinfo=UTC)
TOLD = "2026-07-01T12:00:29.000Z"
JID = "919876543210@s.whatsapp.net"


CARD = (
    "BEGIN:VCARD\r\nVERSION:3.0\r\nN:Rao;Ravi;;;\r\nFN:Rao\\, R\r\n avi\r\n"
    "item1.TEL;waid=919812345678:+91 98123 45678\r\nTEL;type=HOME:022 555\r\nEND:VCARD"
)
NAMELESS = "BEGIN:VCARD\nTEL:+1 202 555 0142\nEND:VCARD"


def evolution(event: str, data: Any, told: str = TOLD) -> Webhook:
    return parse("evolution", json.dumps({"event": event, "data": data, "date_time": told}).encode(), AT)[None]


def upsert(message: dict[str, Any], jid: str = JID, **more: Any) -> list[InboundMessage]:
    key = {"id": "3EB01", "remoteJid": jid, "fromMe": False, **more.pop("key", {})}
    data = {"key": key, "message": message, "pushName": "Asha", "messageTimestamp": 1782907229, **more}
    return evolution("messages.upsert", data).messages


def waha(event: str, payload: Any) -> Webhook:
    told = int(AT.timestamp() * 1000) - 1000
    body = {"id": "evt_1", "timestamp": told, "event": event, "session": "shop", "payload": payload}
    return parse("waha", json.dumps(body).encode(), AT)[None]


def said(**more: Any) -> list[InboundMessage]:
    payload = {"id": "false_919876543210@c.us_3EB01", "from": "919876543210@c.us", "timestamp": 1782907229}
    return waha("message", payload | {"fromMe": False, "body": "", "hasMedia": False} | more).messages


def test_people_and_messages_have_several_names() -> None:
    assert who(JID) == Who("919876543210", None)
    assert who("919876543210:12@c.us") == Who("919876543210", None)
    assert who("123456789012345@lid") == Who(None, "123456789012345@lid")
    assert who("123456789012345@lid", JID) == Who("919876543210", "123456789012345@lid")
    for other in ("120363041234567890@g.us", "status@broadcast", "1203@newsletter", "", "x@lid"):
        assert who(other) is None
    assert (key_of("true_919876543210@c.us_3EB01"), key_of("3EB01")) == ("3EB01", "3EB01")
    assert key_of("true_120363041234567890@g.us_3EB01_919876543210@c.us") == "3EB01"
    assert key_of(full_id(JID, "3EB01")) == "3EB01"
    assert (address("+919876543210"), address("123456789012345@lid")) == ("919876543210", "123456789012345@lid")
    assert address("US.13491208655302741918") is None


@pytest.mark.parametrize(
    ("message", "type_", "text"),
    [
        ({"conversation": "Hi"}, "text", "Hi"),
        ({"extendedTextMessage": {"text": "Hi"}}, "text", "Hi"),
        ({"ephemeralMessage": {"message": {"conversation": "Hi"}}}, "text", "Hi"),
        ({"imageMessage": {"caption": "Look", "mimetype": "image/jpeg"}}, "image", "Look"),
        ({"documentMessage": {"fileName": "a.pdf", "mimetype": "application/pdf"}}, "document", "a.pdf"),
        ({"buttonsResponseMessage": {"selectedButtonId": "y", "selectedDisplayText": "Yes"}}, "interactive", "Yes"),
        ({"templateButtonReplyMessage": {"selectedId": "y", "selectedDisplayText": "Yes"}}, "interactive", "Yes"),
        (
            {"interactiveResponseMessage": {"nativeFlowResponseMessage": {"paramsJson": '{"id":"y"}'}, "body": {}}},
            "interactive",
            "y",
        ),
        ({"listResponseMessage": {"title": "A", "singleSelectReply": {"selectedRowId": "a"}}}, "interactive", "A"),
        ({"reactionMessage": {"key": {"id": "3EB00"}, "text": "👍"}}, "reaction", "👍"),
        ({"locationMessage": {"degreesLatitude": 1.5, "degreesLongitude": 2.5}}, "location", "1.5, 2.5"),
        ({"contactMessage": {"displayName": "Ravi Rao", "vcard": CARD}}, "contacts", "Ravi Rao"),
        ({"contactMessage": {"vcard": CARD}}, "contacts", "Rao, Ravi"),
        (
            {"contactsArrayMessage": {"displayName": "2", "contacts": [{"vcard": CARD}, {"vcard": NAMELESS}]}},
            "contacts",
            "Rao, Ravi, +1 202 555 0142",
        ),
        ({"pollCreationMessage": {"name": "?"}}, "unsupported", None),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_is_said_through_evolution(message: dict[str, Any], type_: str, text: str | None) -> None:
    [one] = upsert(message)
    assert (one.type, one.text, one.phone, one.name) == (type_, text, "919876543210", "Asha")
    assert (one.wamid, one.at) == (f"false_{JID}_3EB01", datetime.fromtimestamp(1782907229, UTC))


def test_a_card_is_as_the_cloud_api_writes_it() -> None:
    [one] = upsert({"contactMessage": {"vcard": CARD}})
    phones = [{"phone": "+91 98123 45678", "wa_id": "919812345678"}, {"phone": "022 555"}]
    assert one.payload["contacts"] == [{"name": {"formatted_name": "Rao, Ravi"}, "phones": phones}]
    [other] = said(body=CARD, vCards=[CARD])
    assert other.payload["contacts"] == one.payload["contacts"]


@pytest.mark.parametrize(
    "told", [1782907229, "1782907229", {"low": 1782907229 - 2**32, "high": 0, "unsigned": True}, {"low": 1782907229}]
)
def test_seconds_are_numbers_texts_or_two_halves(told: Any) -> None:
    [one] = upsert({"conversation": "Hi"}, messageTimestamp=told)
    assert one.at == datetime.fromtimestamp(1782907229, UTC)


@pytest.mark.parametrize("kind", ["protocolMessage", "senderKeyDistributionMessage", "pollUpdateMessage"])
def test_what_nobody_says_is_passed_over(kind: str) -> None:
    assert upsert({kind: {}, "messageContextInfo": {}}) == []


@pytest.mark.parametrize("jid", ["120363041234567890@g.us", "status@broadcast", "1203@newsletter"])
def test_groups_broadcasts_and_channels_are_passed_over(jid: str) -> None:
    assert upsert({"conversation": "Hi"}, jid) == []
    assert said(id=f"false_{jid}_3EB01", **{"from": jid}) == []


def test_our_own_messages_are_no_replies_but_those_of_the_api_settle_doubts() -> None:
    assert upsert({"conversation": "Hi"}, key={"fromMe": True}) == []
    key = {"id": "3EB01", "remoteJid": JID, "fromMe": True}
    [echo] = evolution("send.message", {"key": key, "message": {"conversation": "Hi"}}).echoes
    assert (echo.wamid, echo.phone, echo.text) == ("3EB01", "919876543210", "Hi")
    own = {"id": "true_919876543210@c.us_3EB01", "from": "1@c.us", "to": "919876543210@c.us", "fromMe": True}
    assert waha("message", own | {"body": "Hi"}).messages == []
    [echo] = waha("message.any", own | {"body": "Hi", "source": "api"}).echoes
    assert (echo.wamid, echo.phone, echo.text) == ("3EB01", "919876543210", "Hi")
    assert waha("message.any", own | {"body": "Hi", "source": "app"}).echoes == []
    assert waha("message.any", own | {"fromMe": False, "body": "Hi", "source": "api"}) == Webhook()


def test_a_hidden_number_is_known_if_it_is_told() -> None:
    [one] = upsert({"conversation": "Hi"}, "123456789012345@lid")
    assert (one.phone, one.user_id) == (None, "123456789012345@lid")
    [one] = upsert({"conversation": "Hi"}, "123456789012345@lid", key={"remoteJidAlt": JID})
    assert (one.phone, one.user_id) == ("919876543210", "123456789012345@lid")
    [one] = said(**{"from": "123456789012345@lid", "_data": {"key": {"remoteJidAlt": JID}}})
    assert (one.phone, one.user_id) == ("919876543210", "123456789012345@lid")


def test_what_is_quoted() -> None:
    [one] = upsert({"conversation": "Yes"}, contextInfo={"stanzaId": "3EB00"})
    assert one.context_wamid == "3EB00"
    [one] = upsert({"extendedTextMessage": {"text": "Yes", "contextInfo": {"stanzaId": "3EB00"}}})
    assert one.context_wamid == "3EB00"
    [one] = said(body="Yes", replyTo={"id": "true_919876543210@c.us_3EB00", "body": "?"})
    assert one.context_wamid == "3EB00"


@pytest.mark.parametrize(
    ("more", "type_", "text"),
    [
        ({"body": "Hi"}, "text", "Hi"),
        (
            {"hasMedia": True, "body": "Look", "media": {"url": "http://w/a.jpg", "mimetype": "image/jpeg"}},
            "image",
            "Look",
        ),
        ({"hasMedia": True, "media": {"url": "http://w/a.pdf", "mimetype": "application/pdf"}}, "document", None),
        ({"hasMedia": True, "media": None}, "document", None),
        ({"location": {"latitude": "1.5", "longitude": "2.5"}}, "location", "1.5, 2.5"),
        ({"body": "BEGIN:VCARD", "vCards": [CARD, NAMELESS]}, "contacts", "Rao, Ravi, +1 202 555 0142"),
    ],
    ids=["text", "image", "document", "not-downloaded", "location", "contacts"],
)
def test_what_is_said_through_waha(more: dict[str, Any], type_: str, text: str | None) -> None:
    [one] = said(**more, _data={"notifyName": "Asha"})
    assert (one.type, one.text, one.phone, one.name) == (type_, text, "919876543210", "Asha")


def test_a_reaction_through_waha() -> None:
    payload = {"id": "false_919876543210@c.us_3EB02", "from": "919876543210@c.us", "timestamp": 1782907229}
    about = {"text": "👍", "messageId": "true_919876543210@c.us_3EB00"}
    [one] = waha("message.reaction", payload | {"reaction": about}).messages
    assert (one.type, one.text, one.context_wamid) == ("reaction", "👍", "3EB00")


@pytest.mark.parametrize(
    ("theirs", "ack", "ours"),
    [
        ("PENDING", 0, None),
        ("SERVER_ACK", 1, "sent"),
        ("DELIVERY_ACK", 2, "delivered"),
        ("READ", 3, "read"),
        ("PLAYED", 4, "read"),
        ("ERROR", -1, "failed"),
        ("DELETED", 7, None),
    ],
)
def test_acknowledgements(theirs: str, ack: int, ours: str | None) -> None:
    found = [
        *evolution("messages.update", {"keyId": "3EB01", "remoteJid": JID, "fromMe": True, "status": theirs}).statuses,
        *waha("message.ack", {"id": "true_1@lid_3EB01", "from": "1@lid", "fromMe": True, "ack": ack}).statuses,
    ]
    assert [(one.wamid, one.status, one.at) for one in found] == (
        [] if ours is None else [("3EB01", ours, AT - timedelta(seconds=1))] * 2
    )
    assert all((one.error is not None) == (ours == "failed") for one in found)


def test_acknowledgements_of_what_others_sent_tell_nothing() -> None:
    data = {"keyId": "3EB01", "remoteJid": JID, "fromMe": False, "status": "READ"}
    assert evolution("messages.update", data).statuses == []
    assert waha("message.ack", {"id": "false_1@lid_3EB01", "fromMe": False, "ack": 3}).statuses == []


def test_evolutions_local_time_is_not_taken_for_ours() -> None:
    data = {"keyId": "3EB01", "remoteJid": JID, "fromMe": True, "status": "READ"}
    for told in ("2026-07-01T09:00:29.000Z", "soon", ""):
        [one] = evolution("messages.update", data, told).statuses
        assert one.at == AT


@pytest.mark.parametrize(
    ("event", "data", "state"),
    [
        ("connection.update", {"state": "open", "statusReason": 200}, "working"),
        ("connection.update", {"state": "connecting", "statusReason": 200}, "starting"),
        ("connection.update", {"state": "close", "statusReason": 401}, "stopped"),
        ("connection.update", {"state": "refused", "statusReason": 428}, "failed"),
        ("CONNECTION_UPDATE", {"state": "open"}, "working"),
        ("qrcode.updated", {"qrcode": {"code": "2@x", "base64": "…"}}, "scan_qr"),
        ("qrcode.updated", {"message": "QR code limit reached, please login again", "statusCode": 500}, "failed"),
    ],
    ids=lambda value: value if isinstance(value, str) else str(value.get("state", "")),
)
def test_how_evolutions_phone_is_linked(event: str, data: dict[str, Any], state: str) -> None:
    [change] = evolution(event, data).sessions
    assert (change.state, change.clock) == (state, AT - timedelta(seconds=1))


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("STOPPED", "stopped"),
        ("STARTING", "starting"),
        ("SCAN_QR_CODE", "scan_qr"),
        ("PASSKEY_REQUIRED", "scan_qr"),
        ("WORKING", "working"),
        ("FAILED", "failed"),
        ("SOMETHING_NEW", "failed"),
    ],
)
def test_how_wahas_phone_is_linked(status: str, state: str) -> None:
    [change] = waha("session.status", {"name": "shop", "status": status}).sessions
    assert (change.state, change.clock) == (state, AT - timedelta(seconds=1))


def test_unknown_events_tell_nothing_and_strange_ones_are_refused() -> None:
    assert evolution("labels.edit", {"anything": 1}) == Webhook()
    assert waha("presence.update", []) == Webhook()
    for source, body in (("evolution", b"{}"), ("waha", b"[]"), ("waha", b'{"event":"message.ack"}')):
        with pytest.raises((msgspec.MsgspecError, KeyError, ValueError)):
            parse(source, body, AT)


GOOD = {"key": {"id": "3EB01", "remoteJid": JID}, "message": {"conversation": "Hi"}, "messageTimestamp": 1782907229}


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (5, "Expected `object`"),
        ({}, "missing required field `key`"),
        ({**GOOD, "key": {"remoteJid": JID}}, "missing required field `id`"),
        ({**GOOD, "key": {"id": "x" * 129, "remoteJid": JID}}, "no id"),
        ({**GOOD, "key": {"id": "1", "remoteJid": "91987@s.whatsapp.net"}}, "'91987' is no phone number"),
        ({**GOOD, "messageTimestamp": "soon"}, "soon"),
        ({**GOOD, "messageTimestamp": 2**62}, "too large"),
        ({**GOOD, "message": ["Hi"]}, "Expected `object | null`"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_can_not_be_read_of_several_is_named_and_the_rest_counts(bad: Any, why: str) -> None:
    found = evolution("messages.upsert", [GOOD, bad, GOOD])
    assert [one.text for one in found.messages] == ["Hi", "Hi"]
    (named,) = found.unread
    assert named.startswith("data[1]: ")
    assert why in named
    assert evolution("messages.upsert", bad).unread == [named.replace("data[1]", "data")]


def test_numbers_may_stand_for_texts() -> None:
    found = evolution("messages.update", [{"keyId": 7, "fromMe": True, "status": "READ"}, {"keyId": "8"}])
    assert ([one.wamid for one in found.statuses], len(found.unread)) == (["7"], 1)


@pytest.mark.parametrize(
    ("event", "payload"), [("message", {"from": JID}), ("message.ack", {}), ("session.status", [])]
)
def test_what_can_not_be_read_of_waha_is_named(event: str, payload: Any) -> None:
    (named,) = waha(event, payload).unread
    assert named.startswith("payload: ")
