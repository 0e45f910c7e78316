"""What the phone page asks the sandbox, and that nothing in a message can run in it."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import aiohttp
import pytest
from gateway.sandboxes import NUMBER, TOKEN, Caller

from harkara.gateway.sandbox import hub as hub_module

A, B = "919876543210", "919876543211"


async def _chats(sandbox: Caller, query: str = "") -> dict[str, Any]:
    status, answer = await sandbox.call("GET", "/sandbox/phone/chats" + query)
    assert status == 200, answer
    return dict(answer)


async def test_the_page_comes_whole_from_here_and_may_load_nothing_else(sandbox: Caller) -> None:
    async with aiohttp.ClientSession() as session, session.get(sandbox.url + "/") as response:
        html = await response.text()
        policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "http" not in re.sub(r"http://www.w3.org/2000/svg", "", html), "no other host is named"
    for path in re.findall(r'(?:src|href)="(/[^"]+)"', html):
        status, _ = await sandbox.call("GET", path)
        assert status == 200, path


async def test_the_page_never_makes_markup_of_a_message(sandbox: Caller) -> None:
    _, script = await sandbox.call("GET", "/sandbox/phone/phone.js")
    for way in (b"innerHTML", b"outerHTML", b"insertAdjacentHTML", b"document.write", b"eval(", b"DOMParser"):
        assert way not in script


async def test_chats_come_newest_first_page_by_page(sandbox: Caller) -> None:
    await sandbox.put("policy", {"throughput": False})
    for n in range(130):
        await sandbox.accepted(f"91900000{n:04d}")
    await sandbox.accepted("919000000007", "the newest")
    seen: list[str] = []
    query = ""
    while True:
        page = await _chats(sandbox, query)
        seen += [item["chat"] for item in page["items"]]
        if page["next"] is None:
            break
        query = f"?before={page['next']}"
    assert len(seen) == len(set(seen)) == 130
    assert seen[:2] == ["919000000007", "919000000129"]
    assert (await _chats(sandbox))["items"][0]["last"]["content"] == {"body": "the newest"}


async def test_chats_are_found_by_phone_and_by_name(sandbox: Caller) -> None:
    await sandbox.register()
    await sandbox.inbound(**{"from": A, "text": "x", "name": "Asha 100%"})
    await sandbox.inbound(**{"from": B, "text": "x", "name": "Boris"})
    assert [item["chat"] for item in (await _chats(sandbox, "?q=sha"))["items"]] == [A]
    assert [item["chat"] for item in (await _chats(sandbox, "?q=%2B" + B))["items"]] == [B]
    assert [item["name"] for item in (await _chats(sandbox, "?q=%25"))["items"]] == ["Asha 100%"]
    assert (await _chats(sandbox, "?q=%27%20OR%201=1"))["items"] == []


async def test_one_chat_page_by_page(sandbox: Caller) -> None:
    await sandbox.put("policy", {"throughput": False})
    for n in range(130):
        await sandbox.accepted(A, str(n))
    await sandbox.accepted(A, "another number's", number="222")
    texts: list[str] = []
    before = ""
    while True:
        _, page = await sandbox.call("GET", f"/sandbox/phone/messages?chat={A}&number={NUMBER}{before}")
        texts = [item["content"]["body"] for item in page["items"]] + texts
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    assert texts == [str(n) for n in range(130)]


async def _news(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    while True:
        line = await asyncio.wait_for(response.content.readline(), 30)
        assert line, "the stream ended"
        if line.startswith(b"data: "):
            news: list[dict[str, Any]] = json.loads(line[6:])["news"]
            return news


async def test_news_arrive_live(sandbox: Caller) -> None:
    await sandbox.register()
    async with aiohttp.ClientSession() as session, session.get(sandbox.url + "/sandbox/phone/events") as response:
        assert await _news(response) == [{"kind": "hello"}]
        await sandbox.inbound(**{"from": A, "text": "first", "name": "Asha"})
        assert len(await _news(response)) == 1
        await sandbox.accepted(A, "<b>live</b>")
        (news,) = await _news(response)
        assert news["kind"] == "message"
        assert news["message"]["content"] == {"body": "<b>live</b>"}
        assert news["message"]["read_at"] is not None
        assert news["chat"] == {"number": NUMBER, "display": NUMBER, "chat": A, "name": "Asha"}
        wamid = await sandbox.inbound(**{"from": A, "text": "back"})
        assert [item["message"]["inbound"] for item in await _news(response)] == [True]
        await sandbox.post({"messaging_product": "whatsapp", "status": "read", "message_id": wamid})
        assert [item["kind"] for item in await _news(response)] == ["read"]


async def test_a_burst_asks_the_page_to_look_again(sandbox: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_module, "_MOST", 5)
    await sandbox.put("policy", {"throughput": False})
    async with aiohttp.ClientSession() as session, session.get(sandbox.url + "/sandbox/phone/events") as response:
        await _news(response)
        sends = asyncio.gather(*(sandbox.accepted(f"91900000{n:04d}") for n in range(300)))
        seen = 0
        while (news := await _news(response)) != [{"kind": "reload"}]:
            seen += len(news)
            assert seen < 300
        await sends


async def test_a_registered_template_comes_with_its_text(sandbox: Caller) -> None:
    components = [{"type": "BODY", "text": "Hi {{1}}"}]
    body: dict[str, Any] = {"name": "greeting", "language": "en", "category": "UTILITY", "components": components}
    await sandbox.call("POST", "/v23.0/42/message_templates", json=body, headers=TOKEN)
    template = {"name": "greeting", "language": {"code": "en"}}
    await sandbox.post({"messaging_product": "whatsapp", "to": A, "type": "template", "template": template})
    (chat,) = (await _chats(sandbox))["items"]
    assert chat["last"]["template"]["components"] == components


@pytest.mark.parametrize(("mime_type", "inline"), [("image/png", True), ("text/plain", False)])
async def test_files_are_shown_only_if_a_browser_cannot_run_them(sandbox: Caller, mime_type: str, inline: bool) -> None:
    form = aiohttp.FormData({"messaging_product": "whatsapp"})
    form.add_field("file", b"<script>alert(1)</script>", filename="a", content_type=mime_type)
    _, stored = await sandbox.call("POST", f"/v23.0/{NUMBER}/media", data=form, headers=TOKEN)
    address = f"{sandbox.url}/sandbox/phone/media/{stored['id']}"
    async with aiohttp.ClientSession() as session, session.get(address) as response:
        assert response.headers["Content-Disposition"] == ("inline" if inline else "attachment")
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.content_type == (mime_type if inline else "application/octet-stream")
    assert (await sandbox.call("GET", "/sandbox/phone/media/..%2Fsandbox.db"))[0] == 404


@pytest.mark.parametrize(("kind", "begins"), [("image", b"\x89PNG"), ("sticker", b"RIFF\x22\x00\x00\x00WEBP")])
async def test_a_picture_of_which_no_file_is_given_can_be_shown(sandbox: Caller, kind: str, begins: bytes) -> None:
    await sandbox.accepted("+" + A)
    await sandbox.call("POST", "/sandbox/inbound", json={"from": A, "to": NUMBER, "type": kind})
    _, thread = await sandbox.call("GET", f"/sandbox/phone/messages?number={NUMBER}&chat={A}")
    address = f"{sandbox.url}/sandbox/phone/media/{thread['items'][-1]['content']['id']}"
    async with aiohttp.ClientSession() as session, session.get(address) as response:
        assert (await response.read()).startswith(begins)
