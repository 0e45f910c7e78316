"""The sandbox as clients of the Cloud API see it: raw requests, to the letter."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from gateway.sandboxes import NUMBER, TOKEN, Caller, sandbox_in

from harkara.gateway.cloud import CloudGateway
from harkara.gateway.protocol import Accepted, Credentials
from harkara.schemas.content import (
    Content,
    Interactive,
    Media,
    ReplyButton,
    Row,
    Section,
    Template,
    TemplateButton,
)

TO = "+919876543210"


def _message(kind: str, value: Any, **more: Any) -> dict[str, Any]:
    return {"messaging_product": "whatsapp", "to": TO, "type": kind, kind: value, **more}


async def test_a_text_is_accepted_and_listed(sandbox: Caller) -> None:
    status, answer = await sandbox.text(TO, "Grüße, आशा 😀", biz_opaque_callback_data="m-1")
    assert status == 200
    (message,) = answer["messages"]
    assert message["id"].startswith("wamid.")
    assert answer == {
        "messaging_product": "whatsapp",
        "contacts": [{"input": TO, "wa_id": "919876543210"}],
        "messages": [{"id": message["id"]}],
    }
    (item,) = await sandbox.items()
    accepted_at = item.pop("accepted_at")
    assert accepted_at.endswith("Z")
    assert item == {
        "id": message["id"],
        "to": TO,
        "from": NUMBER,
        "type": "text",
        "body": "Grüße, आशा 😀",
        "biz_opaque_callback_data": "m-1",
        "status": "read",
    }


async def test_the_same_post_twice_sends_twice(sandbox: Caller) -> None:
    first = await sandbox.accepted(TO, "once", biz_opaque_callback_data="same")
    second = await sandbox.accepted(TO, "once", biz_opaque_callback_data="same")
    assert first != second
    assert [item["id"] for item in await sandbox.items()] == [first, second]


_BUTTONS = {"type": "button", "body": {"text": "Come?"}, "action": {"buttons": [
    {"type": "reply", "reply": {"id": "y", "title": "Yes"}}, {"type": "reply", "reply": {"id": "n", "title": "No"}},
]}}  # fmt: skip
_LIST = {"type": "list", "body": {"text": "When?"}, "action": {"button": "Slots", "sections": [
    {"title": "Monday", "rows": [{"id": "1", "title": "9 to 12", "description": "morning"}]},
]}}  # fmt: skip
_TEMPLATE = {"name": "order_update", "language": {"code": "en", "policy": "deterministic"}, "components": [
    {"type": "HEADER", "parameters": [{"type": "image", "image": {"link": "https://example.com/a.png"}}]},
    {"type": "body", "parameters": [
        {"type": "text", "text": "Asha"},
        {"type": "currency", "currency": {"fallback_value": "₹5", "code": "INR", "amount_1000": 5000}},
        {"type": "date_time", "date_time": {"fallback_value": "Monday"}},
    ]},
    {"type": "Button", "sub_type": "URL", "index": 0, "parameters": [{"type": "text", "text": "x"}]},
    {"type": "button", "sub_type": "quick_reply", "index": "1", "parameters": [{"type": "payload", "payload": "P"}]},
]}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", {"body": "x", "preview_url": True}),
        ("image", {"link": "https://example.com/a.png", "caption": "c"}),
        ("document", {"link": "https://example.com/a.pdf", "filename": "a.pdf", "caption": "c"}),
        ("video", {"link": "https://example.com/a.mp4"}),
        ("audio", {"link": "https://example.com/a.ogg"}),
        ("sticker", {"link": "https://example.com/a.webp"}),
        ("template", _TEMPLATE),
        ("template", {"name": "hello_world", "language": {"code": "en_US"}}),
        ("interactive", _BUTTONS),
        ("interactive", _LIST),
        (
            "interactive",
            {
                "type": "cta_url",
                "body": {"text": "x"},
                "action": {"name": "cta_url", "parameters": {"display_text": "Open", "url": "https://a.example"}},
            },
        ),
        ("reaction", {"message_id": "wamid.x", "emoji": "👍"}),
        ("reaction", {"message_id": "wamid.x", "emoji": ""}),
        ("location", {"latitude": 1.5, "longitude": "2.5", "name": "here"}),
        ("contacts", [{"name": {"formatted_name": "Asha", "first_name": "Asha"}}]),
    ],
)
async def test_every_type_is_accepted_and_kept_as_written(sandbox: Caller, kind: str, value: Any) -> None:
    status, answer = await sandbox.post(_message(kind, value, recipient_type="individual", unknown_field=1))
    assert status == 200, answer
    assert answer["messages"][0].get("message_status") == ("accepted" if kind == "template" else None)
    (item,) = await sandbox.items()
    assert (item["type"], item["body"]) == (kind, "x" if kind == "text" else value)


_REFUSED: list[tuple[dict[str, Any], int, str]] = [
    ({}, 100, "messaging_product"),
    ({"messaging_product": "telegram", "to": TO, "type": "text", "text": {"body": "x"}}, 100, "messaging_product"),
    ({"messaging_product": "whatsapp", "type": "text", "text": {"body": "x"}}, 131008, "to"),
    (_message("text", {"body": "x"}) | {"to": "asha"}, 131009, "to"),
    (_message("text", {"body": "x"}) | {"to": "12"}, 131009, "to"),
    (_message("text", {"body": "x"}) | {"to": ["1"]}, 100, "to"),
    (_message("telegram", {"body": "x"}), 100, "type"),
    (_message("text", {"body": ""}), 131008, "body"),
    (_message("text", {}), 131008, "body"),
    (_message("text", {"body": "x" * 4097}), 131009, "4096"),
    (_message("text", {"body": 5}), 100, "body"),
    (_message("text", "x"), 100, "text"),
    ({"messaging_product": "whatsapp", "to": TO, "type": "image", "text": {"body": "x"}}, 131008, "image"),
    (_message("image", {}), 100, "id and link"),
    (_message("image", {"id": "1", "link": "https://example.com/a"}), 100, "id and link"),
    (_message("image", {"link": "ftp://example.com"}), 131009, "link"),
    (_message("image", {"id": "123"}), 131009, "media attachment ID"),
    (_message("image", {"link": "https://e.com", "caption": "x" * 1025}), 131009, "1024"),
    (_message("audio", {"link": "https://e.com", "caption": "x"}), 100, "caption"),
    (_message("text", {"body": "x"}, biz_opaque_callback_data="x" * 513), 131009, "512"),
    (_message("template", {"language": {"code": "en"}}), 131008, "name"),
    (_message("template", {"name": "a"}), 131008, "language"),
    (_message("template", {"name": "a", "language": {"code": "en"}, "components": [{"type": "bodi"}]}), 100, "bodi"),
    (
        _message("template", {"name": "a", "language": {"code": "en"}, "components": [
            {"type": "body", "parameters": [{"type": "text", "text": "two\nlines"}]}]}),
        132018, "new-line",
    ),
    (
        _message("template", {"name": "a", "language": {"code": "en"}, "components": [
            {"type": "body", "parameters": [{"type": "text", "text": ""}]}]}),
        131008, "text",
    ),
    (
        _message("template", {"name": "a", "language": {"code": "en"}, "components": [
            {"type": "button", "parameters": []}]}),
        131008, "sub_type",
    ),
    (
        _message("template", {"name": "a", "language": {"code": "en"}, "components": [
            {"type": "button", "sub_type": "url", "parameters": []}]}),
        131008, "index",
    ),
    (_message("interactive", {"type": "button", "body": {"text": "x"}}), 131008, "action"),
    (_message("interactive", {"type": "button", "body": {"text": "x"}, "action": {"buttons": []}}), 131009, "buttons"),
    (
        _message("interactive", {"type": "cta_url", "body": {"text": "x"}, "action": {"name": "cta_url"}}),
        131009,
        "cta_url",
    ),
    (
        _message("interactive", {"type": "cta_url", "body": {"text": "x"}, "action": {
            "name": "cta_url", "parameters": {"display_text": "x" * 21, "url": "https://a.example"}}}),
        131009,
        "display_text",
    ),
    (
        _message("interactive", {"type": "cta_url", "body": {"text": "x"}, "action": {
            "name": "cta_url", "parameters": {"display_text": "Open", "url": "a.example"}}}),
        131009,
        "url",
    ),
    (
        _message("interactive", {"type": "button", "body": {"text": "x"}, "action": {"buttons": [
            {"type": "reply", "reply": {"id": "a", "title": "x" * 21}}]}}),
        131009, "20",
    ),
    (
        _message("interactive", {"type": "button", "body": {"text": "x"}, "action": {"buttons": [
            {"type": "reply", "reply": {"id": "a", "title": "x"}}, {"type": "reply", "reply": {"id": "a", "title": "y"}}
        ]}}),
        131009, "Duplicated",
    ),
    (
        _message("interactive", {"type": "list", "body": {"text": "x"}, "action": {"button": "o", "sections": [
            {"rows": [{"id": str(n), "title": "x"} for n in range(11)]}]}}),
        131009, "10",
    ),
    (_message("reaction", {"emoji": "x"}), 131008, "message_id"),
    ({"messaging_product": "whatsapp", "status": "delivered", "message_id": "x"}, 100, "status"),
    ({"messaging_product": "whatsapp", "status": "read"}, 131008, "message_id"),
    ({"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.none"}, 131009, "message_id"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "code", "named"), _REFUSED)
async def test_a_fault_is_named_and_nothing_is_kept(
    sandbox: Caller, body: dict[str, Any], code: int, named: str
) -> None:
    status, answer = await sandbox.post(body)
    assert 400 <= status < 500
    error = answer["error"]
    assert error["code"] == code, error
    assert named in error["error_data"]["details"], error
    assert set(error) == {"message", "type", "code", "error_data", "fbtrace_id"}
    assert error["message"].startswith(f"(#{code}) ")
    assert await sandbox.items() == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b"null", b"{}" * 10])
async def test_a_body_that_is_no_json_object(sandbox: Caller, body: bytes) -> None:
    status, answer = await sandbox.call(
        "POST", f"/v23.0/{NUMBER}/messages", data=body, headers=TOKEN | {"Content-Type": "application/json"}
    )
    assert (status, answer["error"]["code"]) == (400, 100)


async def test_a_body_that_is_too_big(sandbox: Caller) -> None:
    body = io.BytesIO(json.dumps(_message("text", {"body": "x" * (2 << 20)})).encode())
    status, answer = await sandbox.call("POST", f"/v23.0/{NUMBER}/messages", data=body, headers=TOKEN)
    assert (status, answer["error"]["code"]) == (400, 100)


async def test_any_version_and_a_form_instead_of_json(sandbox: Caller) -> None:
    for version in ("v14.0", "v23.0", "v99.1", "v7"):
        status, _ = await sandbox.post(_message("text", {"body": version}), version=version)
        assert status == 200
    form = {"messaging_product": "whatsapp", "to": TO, "type": "text", "text": json.dumps({"body": "form"})}
    status, _ = await sandbox.call("POST", f"/v23.0/{NUMBER}/messages", data=form, headers=TOKEN)
    assert status == 200
    assert [item["body"] for item in await sandbox.items()] == ["v14.0", "v23.0", "v99.1", "v7", "form"]


async def test_unknown_paths_are_answered_in_kind(sandbox: Caller) -> None:
    status, answer = await sandbox.call("POST", f"/v23.0/{NUMBER}/nothing", headers=TOKEN)
    assert (status, answer["error"]["code"]) == (400, 100)
    status, _ = await sandbox.call("GET", "/nothing")
    assert status == 404


async def test_who_may_send(sandbox: Caller) -> None:
    body = _message("text", {"body": "x"})
    path = f"/v23.0/{NUMBER}/messages"
    status, answer = await sandbox.call("POST", path, json=body)
    assert (status, answer["error"]["code"]) == (401, 190)
    assert (await sandbox.call("POST", path + "?access_token=any", json=body))[0] == 200
    await sandbox.put("webhook", {"phone_number_id": NUMBER, "access_token": "right"})
    status, answer = await sandbox.call("POST", path, json=body, headers={"Authorization": "Bearer wrong"})
    assert (status, answer["error"]["code"]) == (401, 190)
    assert (await sandbox.call("POST", path, json=body, headers={"Authorization": "bearer right"}))[0] == 200


async def test_strict_knows_registered_numbers_only(tmp_path: Path) -> None:
    async with sandbox_in(tmp_path, strict=True) as sandbox:
        status, answer = await sandbox.text(TO)
        assert (status, answer["error"]["code"], answer["error"]["error_subcode"]) == (400, 100, 33)
        await sandbox.put("webhook", {"phone_number_id": NUMBER})
        assert (await sandbox.text(TO))[0] == 200


async def test_a_business_scoped_user_id_as_recipient(sandbox: Caller) -> None:
    body = {"messaging_product": "whatsapp", "recipient": "US.13491208655302741918", "type": "text"}
    status, answer = await sandbox.post(body | {"text": {"body": "x"}})
    assert status == 200
    assert answer["contacts"] == [{"input": body["recipient"], "user_id": body["recipient"]}]
    status, answer = await sandbox.post(body | {"text": {"body": "x"}, "to": TO})
    assert answer["contacts"] == [{"input": TO, "wa_id": TO.strip("+")}], "to wins"


async def test_the_sender_itself_cannot_be_the_recipient(sandbox: Caller) -> None:
    await sandbox.put("webhook", {"phone_number_id": NUMBER, "display_phone_number": "+91 98765 43210"})
    status, answer = await sandbox.text(TO)
    assert (status, answer["error"]["code"]) == (400, 131021)


async def test_a_file_is_stored_looked_up_fetched_and_deleted(sandbox: Caller) -> None:
    form = aiohttp.FormData()
    form.add_field("messaging_product", "whatsapp")
    form.add_field("type", "image/png")
    form.add_field("file", b"\x89PNG....", filename="a.png", content_type="image/png")
    status, answer = await sandbox.call("POST", f"/v23.0/{NUMBER}/media", data=form, headers=TOKEN)
    assert status == 200
    media_id = answer["id"]
    status, info = await sandbox.call("GET", f"/v23.0/{media_id}?phone_number_id={NUMBER}", headers=TOKEN)
    assert (status, info["mime_type"], info["file_size"], info["id"]) == (200, "image/png", 8, media_id)
    path = info["url"].removeprefix(sandbox.url)
    assert (await sandbox.call("GET", path))[0] == 401, "the address needs the token"
    assert await sandbox.call("GET", path, headers=TOKEN) == (200, b"\x89PNG....")
    assert (await sandbox.call("GET", f"/v23.0/{media_id}?phone_number_id=1", headers=TOKEN))[0] == 400
    assert (await sandbox.post(_message("image", {"id": media_id})))[0] == 200
    assert (await sandbox.call("DELETE", f"/v23.0/{media_id}", headers=TOKEN)) == (200, {"success": True})
    assert (await sandbox.call("GET", path, headers=TOKEN))[0] == 404
    assert (await sandbox.post(_message("image", {"id": media_id})))[0] == 400


@pytest.mark.parametrize(
    ("mime_type", "size", "named"),
    [("application/x-sh", 10, "application/x-sh"), ("image/png", 6 << 20, "5242880"), ("image/png", 0, "empty")],
)
async def test_a_file_that_is_not_allowed(sandbox: Caller, mime_type: str, size: int, named: str) -> None:
    form = aiohttp.FormData({"messaging_product": "whatsapp"})
    form.add_field("file", io.BytesIO(b"x" * size), filename="a", content_type=mime_type)
    status, answer = await sandbox.call("POST", f"/v23.0/{NUMBER}/media", data=form, headers=TOKEN)
    assert (status, answer["error"]["code"]) == (400, 100)
    assert named in answer["error"]["error_data"]["details"]


@pytest.mark.parametrize(
    "content",
    [
        Content(body="Namaste"),
        Content(template=Template(name="order_update", language="en", parameters=["Asha", "2 kg"])),
        Content(template=Template(name="order_named", parameters={"name": "Asha"}, header="Order 5")),
        Content(
            template=Template(
                name="otp",
                parameters=["123456"],
                header=Media(type="image", link="https://example.com/a.png"),
                buttons=[
                    TemplateButton(type="url", value="123456"),
                    TemplateButton(type="quick_reply", value="NO", index=4),
                    TemplateButton(type="copy_code", value="25OFF"),
                ],
            )
        ),
        Content(media=Media(type="document", link="https://example.com/a.pdf", caption="c", filename="a.pdf")),
        Content(interactive=Interactive(body="Come?", header="H", buttons=[ReplyButton(id="y", title="Yes")])),
        Content(
            interactive=Interactive(
                body="When?",
                footer="F",
                button="Open",
                sections=[Section(title="S", rows=[Row(id="1", title="A", description="d")]), Section(title="T", rows=[
                    Row(id="2", title="B")])],
            )
        ),
    ],
)  # fmt: skip
async def test_all_that_our_client_can_say_is_what_the_cloud_api_takes(
    sandbox: Caller, cloud: CloudGateway, credentials: Credentials, content: Content
) -> None:
    assert content.faults(rendered=True) == []
    answer = await cloud.send(credentials, TO, content, opaque="m-1", reply_to="wamid.before")
    assert isinstance(answer, Accepted), answer
    (item,) = await sandbox.items()
    assert (item["id"], item["biz_opaque_callback_data"]) == (answer.wamid, "m-1")
    assert item["context"] == "wamid.before"


async def test_thousands_of_sends_are_listed_page_by_page(sandbox: Caller) -> None:
    await sandbox.put("policy", {"throughput": False})

    async def some(worker: int) -> list[str]:
        return [await sandbox.accepted(f"+9190000{worker:02d}{n:03d}", f"{worker} {n}") for n in range(80)]

    sent = [wamid for part in await asyncio.gather(*(some(worker) for worker in range(16))) for wamid in part]
    listed: list[str] = []
    cursor = ""
    while cursor is not None:
        _, page = await sandbox.call("GET", f"/sandbox/messages?limit=500&cursor={cursor}")
        listed += [item["id"] for item in page["items"]]
        cursor = page["next"]
    assert len(listed) == len(set(listed)) == 1280
    assert set(listed) == set(sent)
    assert len(await sandbox.items("?limit=100000")) == 1280
    assert len(await sandbox.items("?limit=1280")) == 1280
    assert len(await sandbox.items()) == 1000
