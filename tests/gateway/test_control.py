"""The sandbox's own routes: lists and their filters, registrations, settings, and what they refuse."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from gateway.sandboxes import NUMBER, Caller, Hook

_A, _B = "+919876543210", "+919876543211"


async def test_messages_are_found_by_recipient_number_type_and_time(sandbox: Caller) -> None:
    first = await sandbox.accepted(_A, "one")
    second = await sandbox.accepted(_B, "two")
    third = await sandbox.accepted(_A, "three", number="222")
    inbound = await sandbox.inbound(**{"from": _A, "text": "hello"})

    async def found(query: str) -> list[str]:
        return [item["id"] for item in await sandbox.items(query)]

    assert await found("?to=919876543210") == [first, third]
    assert await found(f"?to={_A}") == [first, third], "a bare + in a query arrives as a space"
    assert await found(f"?to={quote(_A)}&from=222") == [third]
    assert await found("?type=image") == []
    assert await found("?limit=2") == [first, second]
    assert await found("?direction=in") == [inbound]
    assert await found("?direction=all") == [first, second, third, inbound]
    since = (await sandbox.items())[1]["accepted_at"]
    after = await found(f"?since={since}")
    assert second in after
    assert third in after
    assert await found(f"?since={since.replace('Z', '+00:00')}") == after
    assert await found("?since=2999-01-01T00:00:00Z") == []
    assert len(await found("?since=1000000000")) == 3


@pytest.mark.parametrize(
    ("query", "named"),
    [("?since=yesterday", "since"), ("?limit=0", "limit"), ("?limit=x", "limit"), ("?cursor=x", "cursor")],
)
async def test_a_filter_that_makes_no_sense_is_named(sandbox: Caller, query: str, named: str) -> None:
    status, answer = await sandbox.call("GET", "/sandbox/messages" + query)
    assert status == 422
    assert answer["errors"][0]["path"] == named


@pytest.mark.parametrize(
    ("method", "path", "body", "named"),
    [
        ("PUT", "faults", [{"kind": "error", "code": 1, "cod": 2}], "cod"),
        ("PUT", "faults", {"faults": [{"kind": "boom"}]}, "boom"),
        ("PUT", "faults", [{"kind": "error"}], "code"),
        ("PUT", "faults", [{"kind": "drop", "rate": 2}], "rate"),
        ("PUT", "faults", [{"kind": "drop", "count": -1}], "count"),
        ("PUT", "faults", [{"kind": "slow", "delay_ms": -1}], "delay_ms"),
        ("PUT", "faults", [{"kind": "http_5xx", "code": 404}], "500 to 599"),
        ("PUT", "faults", [{"kind": "drop", "status": "sent"}], "status"),
        ("PUT", "faults", "drop", "array"),
        ("PUT", "pace", {"sent": 1}, "sent"),
        ("PUT", "pace", {"read_rate": 1.5}, "read_rate"),
        ("PUT", "pace", {"read_ms": -1}, "negative"),
        ("PUT", "pace", [], "object"),
        ("PUT", "policy", {"windows": True}, "windows"),
        ("PUT", "policy", {"throughput": 0}, "throughput"),
        ("PUT", "policy", {"numbers": {"1": 0}}, "throughput"),
        ("PUT", "webhook", {"url": "http://127.0.0.1:1/"}, "phone_number_id"),
        ("PUT", "webhook", {"phone_number_id": "1", "url": "ftp://x"}, "url"),
        ("PUT", "webhook", {"phone_number_id": "1", "secret": "x"}, "secret"),
        ("POST", "inbound", {"text": "x"}, "from"),
        ("POST", "inbound", {"from": "asha", "text": "x"}, "from"),
        ("POST", "inbound", {"from": _A, "text": "x"}, "to is needed"),
        ("POST", "inbound", {"from": _A, "to": "1", "txt": "x"}, "txt"),
        ("POST", "inbound", {"from": _A, "to": "1", "type": "text"}, "text"),
        ("POST", "inbound", {"from": _A, "to": "1", "type": "carrier_pigeon"}, "type"),
        ("POST", "inbound", {"from": _A, "to": "1", "type": "text", "text": "x", "image": {}}, "image"),
        ("POST", "inbound", {"from": _A, "to": "1", "text": {}}, "text.body"),
        ("POST", "inbound", {"from": _A, "to": "1", "interactive": {"type": "button_reply"}}, "button_reply"),
        ("POST", "inbound", {"from": _A, "to": "1", "image": {"data": "%"}}, "base64"),
        ("POST", "inbound", {"from": _A, "to": "1", "image": {"mime_type": "text/html"}}, "text/html"),
    ],
)
async def test_a_body_that_makes_no_sense_is_named_and_changes_nothing(
    sandbox: Caller, method: str, path: str, body: Any, named: str
) -> None:
    await sandbox.register("1", "2")
    before = [await sandbox.call("GET", f"/sandbox/{setting}") for setting in ("faults", "pace", "policy", "webhook")]
    status, answer = await sandbox.call(method, f"/sandbox/{path}", json=body)
    assert status == 422, answer
    assert answer["status"] == 422
    assert named in answer["detail"] + str(answer.get("errors"))
    after = [await sandbox.call("GET", f"/sandbox/{setting}") for setting in ("faults", "pace", "policy", "webhook")]
    assert after == before
    assert await sandbox.items("?direction=all") == []


async def test_settings_keep_what_is_left_out_and_go_back_to_the_default(sandbox: Caller) -> None:
    await sandbox.put("policy", {"window": True})
    assert await sandbox.put("policy", {"throughput": 20, "numbers": {"1": 1000}}) == {
        "window": True,
        "pair_limit": False,
        "throughput": 20,
        "templates": False,
        "numbers": {"1": 1000},
    }
    _, policy = await sandbox.call("DELETE", "/sandbox/policy")
    assert (policy["window"], policy["throughput"]) == (False, True)
    _, pace = await sandbox.call("DELETE", "/sandbox/pace")
    assert pace["sent_ms"] == 100
    await sandbox.put("faults", [{"kind": "drop"}])
    assert await sandbox.call("DELETE", "/sandbox/faults") == (200, {"faults": []})


async def test_one_fault_a_list_or_an_object_are_all_understood(sandbox: Caller) -> None:
    fault = {"kind": "slow", "delay_ms": 5}
    for body in (fault, [fault], {"faults": [fault]}):
        assert await sandbox.put("faults", body) == {"faults": [fault]}


async def test_registering_shakes_hands_and_shows_no_secret(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook, verify_token="verify-me")
    status, answer = await sandbox.call("GET", "/sandbox/webhook")
    assert status == 200
    assert answer["items"][0]["url"] == hook.url
    assert hook.secret not in str(answer)
    assert "verify-me" not in str(answer)
    status, _ = await sandbox.call("DELETE", f"/sandbox/webhook?phone_number_id={NUMBER}")
    assert status == 204
    assert (await sandbox.call("DELETE", f"/sandbox/webhook?phone_number_id={NUMBER}"))[0] == 404


async def test_a_handshake_that_fails_says_why_and_registers_nothing(sandbox: Caller, hook: Hook) -> None:
    for url, token, why in (
        (hook.url, "wrong", "answered 403"),
        (hook.url + "/elsewhere", "verify-me", "answered 404"),
        ("http://127.0.0.1:1/hook", "verify-me", "not reached"),
        (sandbox.url + "/healthz", "verify-me", "echo"),
    ):
        body = {"phone_number_id": NUMBER, "url": url, "verify_token": token}
        status, answer = await sandbox.call("PUT", "/sandbox/webhook", json=body)
        assert status == 422
        assert why in answer["detail"]
    assert await sandbox.call("GET", "/sandbox/webhook") == (200, {"items": []})


async def test_a_phone_writes_to_no_number_that_nobody_knows(sandbox: Caller) -> None:
    await sandbox.register("111")
    await sandbox.accepted(_A, "one", number="222")
    for to, from_, wanted in (("111", _B, 200), ("222", _A, 200), ("222", _B, 404), ("+15550100200", _A, 404)):
        body = {"from": from_, "to": to, "text": "x"}
        status, answer = await sandbox.call("POST", "/sandbox/inbound", json=body)
        assert status == wanted, (to, from_, answer)
        if wanted == 404:
            assert [error["path"] for error in answer["errors"]] == ["to"]
            assert "PUT /sandbox/webhook" in answer["detail"]


async def test_pages_of_another_origin_cannot_use_the_sandbox(sandbox: Caller) -> None:
    body = {"from": _A, "to": NUMBER, "text": "x"}
    await sandbox.register()
    status, _ = await sandbox.call("POST", "/sandbox/inbound", json=body, headers={"Origin": "https://evil.example"})
    assert status == 403
    status, _ = await sandbox.call("POST", "/sandbox/inbound", json=body, headers={"Origin": sandbox.url})
    assert status == 200
