"""Statuses and inbound messages on their way to us: signed, on time, in batches, and again until taken."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from gateway.sandboxes import NUMBER, Caller, Hook
from support import until

from harkara.gateway.sandbox import webhooks as webhooks_module
from harkara.gateway.sandbox.webhooks import signature

TO = "+919876543210"


class Timed(list[bytes]):
    """Bodies that hold `what`, and when each of them came."""

    def __init__(self, what: bytes = b"") -> None:
        super().__init__()
        self._what, self._times = what, list[float]()

    def append(self, body: bytes) -> None:
        if self._what in body:
            super().append(body)
            self._times.append(asyncio.get_running_loop().time())

    def are_apart(self, *waits_s: float, after: int = 1) -> bool:
        """Whether so long, at least, lay between this one and the next, and so on: a busy machine takes longer."""
        waited = [later - earlier for earlier, later in pairwise(self._times[after - 1 :])]
        assert len(waited) >= len(waits_s)
        return all(seconds >= 0.95 * least for seconds, least in zip(waited, waits_s, strict=False))


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhooks_module, "FIRST_RETRY_S", 0.05)


async def test_statuses_come_in_order_signed_and_echo_our_id(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook, display_phone_number="+15550100200", waba_id="42")
    wamid = await sandbox.accepted(TO, "ä", biz_opaque_callback_data="m-ä-😀")
    await until(lambda: len(hook.statuses(wamid)) == 3, "three statuses")
    assert hook.statuses(wamid) == ["sent", "delivered", "read"]
    assert hook.bad_signatures == 0
    assert all(body.isascii() for body in hook.bodies)
    assert rb"m-\u00e4-\ud83d\ude00" in hook.bodies[0]
    assert {json.loads(body)["entry"][0]["id"] for body in hook.bodies} == {"42"}
    values = [change["value"] for change in hook.changes]
    assert values[0]["metadata"] == {"display_phone_number": "+15550100200", "phone_number_id": NUMBER}
    for value in values:
        (status,) = value["statuses"]
        assert status["biz_opaque_callback_data"] == "m-ä-😀"
        assert status["recipient_id"] == TO.strip("+")
        assert status["timestamp"].isdecimal()
        assert value["contacts"][0]["wa_id"] == TO.strip("+")
    assert [("pricing" in value["statuses"][0]) for value in values].count(True) == 1


def test_the_signature_is_over_these_exact_bytes() -> None:
    # Computed with: printf '{"a":1}' | openssl dgst -sha256 -hmac secret
    known = "aa9e2e3575f5d7098b6caccd790888c36d5fdb63342a73bada2d6a51747a8494"
    assert signature("secret", b'{"a":1}') == "sha256=" + known


async def test_the_pace_decides_when_and_whether(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    await sandbox.put("pace", {"sent_ms": 0, "delivered_ms": 500, "read_ms": None})
    loop = asyncio.get_running_loop()
    began = loop.time()
    wamid = await sandbox.accepted(TO)
    await until(lambda: hook.statuses() == ["sent", "delivered"], "delivered")
    assert loop.time() - began >= 0.5
    await sandbox.put("pace", {"delivered_ms": None})
    other = await sandbox.accepted(TO)
    await until(lambda: hook.statuses(other) == ["sent"], "the other one sent")
    assert hook.statuses(wamid) == ["sent", "delivered"]
    assert [item["status"] for item in await sandbox.items()] == ["delivered", "sent"]


async def test_nobody_reads_when_nobody_reads(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    await sandbox.put("pace", {"read_rate": 0})
    for _ in range(5):
        await sandbox.accepted(TO)
    await until(lambda: len(hook.statuses()) == 10, "sent and delivered of five")
    assert set(hook.statuses()) == {"sent", "delivered"}


async def test_anything_but_200_is_sent_again_less_and_less_often(
    sandbox: Caller, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_module, "FIRST_RETRY_S", 0.1)
    hook.answers = [500, 202, 404, 302]
    await sandbox.hook(hook)
    await sandbox.put("pace", {"delivered_ms": None})
    hook.bodies = times = Timed()
    wamid = await sandbox.accepted(TO)
    await until(lambda: hook.statuses(wamid) == ["sent"], "the fifth attempt")
    assert len(times) == 5
    assert times.are_apart(0.1, 0.2, 0.4, 0.8)


async def test_a_payload_that_is_refused_does_not_hold_up_others(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    await sandbox.put("pace", {"delivered_ms": None})
    hook.answers = [400]
    refused = await sandbox.accepted(TO, "refused")
    await until(lambda: hook.bodies, "the first attempt")
    others = [await sandbox.accepted(TO, f"other {n}") for n in range(3)]
    await until(lambda: all(hook.statuses(other) == ["sent"] for other in others), "the others")
    await until(lambda: hook.statuses(refused) == ["sent"], "the refused one, later")


async def test_a_payload_that_is_always_refused_comes_less_and_less_often(
    sandbox: Caller, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others pass in between, so that the address itself is never left alone."""
    monkeypatch.setattr(webhooks_module, "FIRST_RETRY_S", 0.1)
    await sandbox.hook(hook)
    await sandbox.put("policy", {"throughput": False})
    await sandbox.put("pace", {"delivered_ms": None})
    hook.refuses = b"poison"
    hook.bodies = attempts = Timed(hook.refuses)
    await sandbox.accepted(TO, biz_opaque_callback_data="poison")
    while len(attempts) < 4:
        await sandbox.accepted(TO)
        await asyncio.sleep(0.005)
    assert attempts.are_apart(0.1, 0.2, 0.4)


async def test_an_address_that_is_down_is_left_alone(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    await sandbox.put("policy", {"throughput": False})
    hook.answers = [503] * 10_000
    hook.bodies = attempts = Timed()
    sends = 0
    while sends <= 20 or len(attempts) < 6:
        await sandbox.accepted(TO)
        sends += 1
        await asyncio.sleep(0.005)
    # As long as it is not known to be down, it may be tried several times at once.
    assert attempts.are_apart(0.8, after=5), "0.05, 0.1, 0.2, 0.4, 0.8 s, however much comes"


async def test_when_an_address_is_back_all_that_waits_goes_out(
    sandbox: Caller, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_module, "FIRST_RETRY_S", 600)
    monkeypatch.setattr(webhooks_module, "LONGEST_PROBE_S", 0.02)
    await sandbox.hook(hook)
    await sandbox.put("pace", {"delivered_ms": None})
    hook.answers = [503] * 3
    wamids: list[str] = []

    def tried(times: int) -> bool:
        return len(hook.bodies) == times

    for attempt in (1, 2, 3):
        wamids.append(await sandbox.accepted(TO))
        await until(partial(tried, attempt), "one more failed attempt")
    wamids.append(await sandbox.accepted(TO))
    await until(lambda: len(hook.statuses()) == 4, "all four, ten minutes early")
    assert all(hook.statuses(wamid) == ["sent"] for wamid in wamids)


async def test_after_an_outage_everything_comes(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    await sandbox.put("policy", {"throughput": False})
    hook.answers = [503] * 6
    wamids = [await sandbox.accepted(TO, str(n)) for n in range(50)]
    await until(lambda: len(hook.statuses()) == 150, "three statuses of fifty messages")
    assert all(sorted(hook.statuses(wamid)) == ["delivered", "read", "sent"] for wamid in wamids)


async def test_a_busy_second_is_a_few_posts(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    await sandbox.put("policy", {"throughput": False})
    hook.answering.clear()
    await asyncio.gather(*(sandbox.accepted(f"+9190000{n:05d}") for n in range(400)))
    hook.answering.set()
    await until(lambda: len(hook.statuses()) == 1200, "three statuses of 400 messages")
    assert len(hook.bodies) < 100
    assert max(len(json.loads(body)["entry"][0]["changes"]) for body in hook.bodies) > 100


async def test_a_post_is_never_bigger_than_whatsapps(
    sandbox: Caller, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_module, "LARGEST_POST", 3000)
    await sandbox.hook(hook)
    await sandbox.put("policy", {"throughput": False})
    wamids = await asyncio.gather(*(sandbox.accepted(f"+9190000{n:05d}") for n in range(100)))
    await until(lambda: len(hook.statuses()) == 300, "three statuses of 100 messages")
    assert 1000 < max(len(body) for body in hook.bodies) <= 3000
    assert all(sorted(hook.statuses(wamid)) == ["delivered", "read", "sent"] for wamid in wamids)


async def test_more_than_fits_in_memory_waits_in_the_store(
    sandbox: Caller, hook: Hook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks_module, "KEPT", 20)
    await sandbox.put("policy", {"throughput": False})
    await sandbox.hook(hook)
    wamids = await asyncio.gather(*(sandbox.accepted(f"+9190000{n:05d}") for n in range(200)))
    await until(lambda: len(hook.statuses()) == 600, "three statuses of 200 messages")
    assert all(sorted(hook.statuses(wamid)) == ["delivered", "read", "sent"] for wamid in wamids)


_INBOUND: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"text": "नमस्ते"}, {"type": "text", "text": {"body": "नमस्ते"}}),
    ({"text": {"body": "x"}}, {"type": "text", "text": {"body": "x"}}),
    (
        {"button": {"text": "Stop", "payload": "STOP"}},
        {"type": "button", "button": {"text": "Stop", "payload": "STOP"}},
    ),
    (
        {"interactive": {"button_reply": {"id": "y", "title": "Yes"}}},
        {"type": "interactive", "interactive": {"type": "button_reply", "button_reply": {"id": "y", "title": "Yes"}}},
    ),
    (
        {"type": "interactive", "interactive": {"type": "list_reply", "list_reply": {"id": "1", "title": "A"}}},
        {"type": "interactive", "interactive": {"type": "list_reply", "list_reply": {"id": "1", "title": "A"}}},
    ),
    (
        {"reaction": {"message_id": "wamid.x", "emoji": "❤"}},
        {"type": "reaction", "reaction": {"message_id": "wamid.x", "emoji": "❤"}},
    ),
    ({"location": {"latitude": 1, "longitude": 2}}, {"type": "location", "location": {"latitude": 1, "longitude": 2}}),
    ({"contacts": [{"name": {}}]}, {"type": "contacts", "contacts": [{"name": {}}]}),
    ({"order": {"catalog_id": "1"}}, {"type": "order", "order": {"catalog_id": "1"}}),
    ({"type": "unsupported"}, {"type": "unsupported"}),
]


@pytest.mark.parametrize(("written", "expected"), _INBOUND)
async def test_every_kind_of_inbound_message(
    sandbox: Caller, hook: Hook, written: dict[str, Any], expected: dict[str, Any]
) -> None:
    await sandbox.hook(hook)
    wamid = await sandbox.inbound(**{"from": TO, "name": "Asha", **written})
    await until(lambda: hook.messages(), "the message")
    (message,) = hook.messages()
    assert expected.items() <= message.items()
    assert (message["id"], message["from"]) == (wamid, TO.strip("+"))
    (contact,) = hook.changes[0]["value"]["contacts"]
    assert contact["profile"] == {"name": "Asha"}
    assert contact["wa_id"] == TO.strip("+")
    assert contact["user_id"] == message["from_user_id"]
    assert hook.bad_signatures == 0


@pytest.mark.parametrize("kind", ["image", "video", "audio", "document", "sticker"])
async def test_inbound_files_can_be_fetched(sandbox: Caller, hook: Hook, kind: str) -> None:
    await sandbox.hook(hook)
    await sandbox.inbound(**{"from": TO, "type": kind, kind: {"data": "aGVsbG8="}})
    await until(lambda: hook.messages(), "the message")
    file = hook.messages()[0][kind]
    headers = {"Authorization": "Bearer x"}
    status, info = await sandbox.call("GET", f"/v23.0/{file['id']}", headers=headers)
    assert (status, info["sha256"], info["mime_type"]) == (200, file["sha256"], file["mime_type"])
    assert await sandbox.call("GET", info["url"].removeprefix(sandbox.url), headers=headers) == (200, b"hello")


async def test_a_reply_and_a_tapped_button_name_what_they_answer(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook, display_phone_number="+15550100200")
    sent = await sandbox.accepted(TO)
    await sandbox.inbound(**{"from": TO, "text": "yes", "context": "wamid.named"})
    await sandbox.inbound(**{"from": TO, "button": {"text": "Yes", "payload": "Y"}})
    await until(lambda: len(hook.messages()) == 2, "both replies")
    contexts = [message["context"] for message in hook.messages()]
    assert contexts == [{"from": "15550100200", "id": "wamid.named"}, {"from": "15550100200", "id": sent}]


async def test_a_user_with_a_username_hides_the_phone(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    await sandbox.inbound(**{"from": TO, "text": "x", "user_id_only": True, "username": "asha"})
    await until(lambda: hook.messages(), "the message")
    (message,) = hook.messages()
    (contact,) = hook.changes[0]["value"]["contacts"]
    assert "from" not in message
    assert "wa_id" not in contact
    assert message["from_user_id"] == contact["user_id"]
    assert contact["profile"] == {"username": "asha"}
    assert TO.strip("+") not in str(hook.changes)


async def test_an_opt_out_of_marketing(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    preference = {"category": "marketing_messages", "value": "stop", "detail": "User requested to stop"}
    await sandbox.inbound(**{"from": TO, "user_preferences": preference})
    await until(lambda: hook.changes, "the preference")
    (change,) = hook.changes
    assert change["field"] == "user_preferences"
    assert preference.items() <= change["value"]["user_preferences"][0].items()


async def test_a_call(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    await sandbox.inbound(**{"from": TO, "type": "call"})
    await until(lambda: hook.changes, "the call")
    (change,) = hook.changes
    assert change["field"] == "calls"
    (call,) = change["value"]["calls"]
    assert (call["event"], call["direction"], call["from"]) == ("connect", "USER_INITIATED", TO.strip("+"))
    assert "messages" not in change["value"]


async def test_a_message_finds_its_way_without_naming_the_number(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook, display_phone_number="+1 555 010 0200")
    for addressed in ({}, {"to": "+15550100200"}, {"to": 15550100200}):
        status, _ = await sandbox.call("POST", "/sandbox/inbound", json={"from": TO, "text": "x", **addressed})
        assert status == 200
    await until(lambda: len(hook.messages()) == 3, "three messages")


async def test_reading_shows_and_numbers_are_kept_apart(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    first = await sandbox.inbound(**{"from": TO, "text": "one"})
    second = await sandbox.inbound(**{"from": TO, "text": "two"})
    status, _ = await sandbox.post(
        {"messaging_product": "whatsapp", "status": "read", "message_id": second}, number="2"
    )
    assert status == 400, "another number has not received it"
    status, answer = await sandbox.post({"messaging_product": "whatsapp", "status": "read", "message_id": second})
    assert (status, answer) == (200, {"success": True})
    items = await sandbox.items("?direction=in")
    assert [(item["id"], item["status"]) for item in items] == [(first, "read"), (second, "read")]


async def test_what_becomes_due_just_as_a_delivery_ends_does_not_wait_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has looked for more and found none, and nobody knows yet that it has ended."""
    posted: list[list[Any]] = []

    class Numbers:
        def get(self, _: str) -> Any:
            return type("Number", (), {"url": "http://127.0.0.1:9/"})

    async def post(_: object, __: object, body: bytes) -> None:
        return None

    monkeypatch.setattr(webhooks_module, "post", post)
    monkeypatch.setattr(webhooks_module, "payload", lambda _, updates: b"")

    def settled(updates: list[Any]) -> None:
        posted.append(updates)
        if len(posted) == 1:
            asyncio.get_running_loop().call_soon(more)

    def more() -> None:
        queue.ready.append("second")  # type: ignore[arg-type]  # what it is made of doesn't matter here
        queue.kick()

    unused: Any = None
    numbers: Any = Numbers()
    queue = webhooks_module._Queue("1", numbers, lambda: unused, settled)
    queue.ready.append("first")  # type: ignore[arg-type]  # nor here
    queue.kick()
    await until(lambda: posted == [["first"], ["second"]], "both are delivered")
    await queue.stop()
