"""Every fault: what the client sees, what was accepted nevertheless, and whom it strikes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from gateway.sandboxes import NUMBER, Caller, Hook
from support import until

from harkara.gateway.cloud import CloudGateway
from harkara.gateway.protocol import Accepted, Answer, Credentials, Refused, Unknown
from harkara.schemas.content import Content, Template

TO = "+919876543210"


@pytest.fixture
async def impatient(sandbox: Caller) -> AsyncIterator[CloudGateway]:
    gateway = CloudGateway(sandbox.url, answer_timeout=timedelta(seconds=1), connect_timeout=timedelta(seconds=1.5))
    yield gateway
    await gateway.close()


async def _send(gateway: CloudGateway, credentials: Credentials, body: str = "Namaste", to: str = TO) -> Answer:
    return await gateway.send(credentials, to, Content(body=body), opaque="m1")


async def _accepted(sandbox: Caller) -> int:
    return len(await sandbox.items())


async def test_an_error_code_is_a_refusal(sandbox: Caller, cloud: CloudGateway, credentials: Credentials) -> None:
    await sandbox.put("faults", [{"kind": "error", "code": 131047, "count": 1}])
    answer = await _send(cloud, credentials)
    assert isinstance(answer, Refused), answer
    assert (answer.code, await _accepted(sandbox)) == (131047, 0)
    assert isinstance(await _send(cloud, credentials), Accepted), "the count is used up"


@pytest.mark.parametrize(("accept", "kept"), [(None, 0), (True, 1)])
async def test_a_5xx_without_json_is_unknown_accepted_or_not(
    sandbox: Caller, cloud: CloudGateway, credentials: Credentials, accept: bool | None, kept: int
) -> None:
    fault: dict[str, Any] = {"kind": "http_5xx", "code": 502} | ({} if accept is None else {"accept": accept})
    await sandbox.put("faults", [fault])
    status, _ = await sandbox.call("POST", f"/v23.0/{NUMBER}/messages", json={}, headers={"Authorization": "Bearer x"})
    assert status == 400, "what is not valid is refused as ever"
    answer = await _send(cloud, credentials)
    assert isinstance(answer, Unknown), answer
    assert "502" in answer.reason
    assert await _accepted(sandbox) == kept


@pytest.mark.parametrize(("accept", "kept"), [(None, 1), (False, 0)])
async def test_a_dropped_connection_is_unknown(
    sandbox: Caller, cloud: CloudGateway, credentials: Credentials, accept: bool | None, kept: int
) -> None:
    fault: dict[str, Any] = {"kind": "drop"} | ({} if accept is None else {"accept": accept})
    await sandbox.put("faults", [fault])
    assert isinstance(await _send(cloud, credentials), Unknown)
    assert await _accepted(sandbox) == kept


async def test_no_answer_is_unknown_and_the_message_accepted(
    sandbox: Caller, impatient: CloudGateway, credentials: Credentials
) -> None:
    await sandbox.put("faults", [{"kind": "hang"}])
    sending = asyncio.create_task(_send(impatient, credentials))
    await until(lambda: _accepted(sandbox), "the message is accepted")
    assert isinstance(await sending, Unknown)
    assert await _accepted(sandbox) == 1


async def test_a_slow_answer_is_accepted_at_once_and_answered_late(
    sandbox: Caller, cloud: CloudGateway, impatient: CloudGateway, credentials: Credentials
) -> None:
    await sandbox.put("faults", [{"kind": "slow", "delay_ms": 4000}])
    loop = asyncio.get_running_loop()
    started = loop.time()
    waiting = asyncio.create_task(_send(cloud, credentials))
    await until(lambda: _accepted(sandbox), "accepted before it is answered")
    assert not waiting.done()
    assert isinstance(await waiting, Accepted)
    assert loop.time() - started >= 4
    assert isinstance(await _send(impatient, credentials), Unknown)
    assert await _accepted(sandbox) == 2


async def test_slowness_adds_to_another_fault(sandbox: Caller, cloud: CloudGateway, credentials: Credentials) -> None:
    await sandbox.put("faults", [{"kind": "slow", "delay_ms": 100}, {"kind": "error", "code": 131000}])
    started = asyncio.get_running_loop().time()
    assert isinstance(await _send(cloud, credentials), Refused)
    assert asyncio.get_running_loop().time() - started >= 0.1


async def test_a_failure_that_is_told_later(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    await sandbox.put("faults", [{"kind": "failed", "code": 131049}])
    wamid = await sandbox.accepted(TO, biz_opaque_callback_data="m1")
    await until(lambda: hook.statuses(wamid), "the failure")
    value = hook.changes[0]["value"]
    (status,) = value["statuses"]
    assert status["status"] == "failed"
    assert status["errors"][0]["code"] == 131049
    assert status["biz_opaque_callback_data"] == "m1"
    assert "contacts" not in value
    assert "recipient_user_id" not in status
    (item,) = await sandbox.items()
    assert (item["status"], item["error"]) == ("failed", 131049)


_FILTERS: list[tuple[dict[str, Any], list[str]]] = [
    ({"phone_number_id": "222"}, ["other number"]),
    ({"to": "919876543210"}, ["text", "template", "other number"]),
    ({"to": "+91 98765-43210"}, ["text", "template", "other number"]),
    ({"type": "template"}, ["template"]),
    ({"text": "ümlaut \"quoted\""}, ["text"]),
    ({"template": "order_update"}, ["template"]),
    ({"to": "919876543211", "type": "template"}, []),
    ({"rate": 0}, []),
    ({"count": 0}, []),
    ({"count": 2}, ["text", "template"]),
]  # fmt: skip


@pytest.mark.parametrize(("filters", "struck"), _FILTERS)
async def test_a_fault_strikes_only_what_it_names(sandbox: Caller, filters: dict[str, Any], struck: list[str]) -> None:
    await sandbox.put("faults", [{"kind": "error", "code": 131000, **filters}])
    template = {"name": "order_update", "language": {"code": "en"}}
    sends = {
        "text": sandbox.text(TO, 'an Ümlaut? an ümlaut "quoted" \\ here'),
        "template": sandbox.post({"messaging_product": "whatsapp", "to": TO, "type": "template", "template": template}),
        "other number": sandbox.text(TO, "x", number="222"),
        "other recipient": sandbox.text("+919876543211", "x"),
    }
    refused = [name for name, send in sends.items() if (await send)[0] != 200]
    assert refused == struck
    _, answer = await sandbox.call("GET", "/sandbox/faults")
    assert answer["faults"][0].get("fired", 0) == len(struck)


async def test_the_same_seed_strikes_the_same_messages(sandbox: Caller) -> None:
    await sandbox.put("policy", {"throughput": False})

    async def pattern(seed: int) -> str:
        await sandbox.put("faults", [{"kind": "error", "code": 131000, "rate": 0.5, "seed": seed}])
        return "".join(["ox"[(await sandbox.text(TO))[0] != 200] for _ in range(40)])

    first = await pattern(7)
    assert await pattern(7) == first
    assert await pattern(8) != first
    assert 8 <= first.count("x") <= 32


async def test_a_webhook_is_lost(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    await sandbox.put("faults", [{"kind": "webhook_lost", "status": "delivered"}])
    wamid = await sandbox.accepted(TO)
    await until(lambda: "read" in hook.statuses(wamid), "read")
    assert hook.statuses(wamid) == ["sent", "read"]
    await sandbox.put("faults", [{"kind": "webhook_lost", "status": "inbound", "count": 1}])
    await sandbox.inbound(**{"from": TO, "text": "lost"})
    await sandbox.inbound(**{"from": TO, "text": "found"})
    await until(lambda: hook.messages(), "the second message")
    assert [message["text"]["body"] for message in hook.messages()] == ["found"]


async def test_a_webhook_comes_twice(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    await sandbox.put("faults", [{"kind": "webhook_duplicated", "status": "sent", "delay_ms": 50}])
    wamid = await sandbox.accepted(TO)
    await until(lambda: len(hook.statuses(wamid)) == 4, "four statuses")
    assert sorted(hook.statuses(wamid)) == ["delivered", "read", "sent", "sent"]


async def test_a_webhook_is_overtaken(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    await sandbox.put("faults", [{"kind": "webhook_reordered", "status": "sent", "delay_ms": 1500}])
    wamid = await sandbox.accepted(TO)
    await until(lambda: len(hook.statuses(wamid)) == 3, "three statuses")
    assert hook.statuses(wamid) == ["delivered", "read", "sent"]


async def test_webhook_faults_filter_by_content_too(sandbox: Caller, hook: Hook) -> None:
    await sandbox.hook(hook)
    await sandbox.put("pace", {"delivered_ms": None})
    await sandbox.put("faults", [{"kind": "webhook_lost", "text": "secret"}])
    lost = await sandbox.accepted(TO, "a secret message")
    found = await sandbox.accepted(TO, "a public message")
    await until(lambda: hook.statuses(found), "the public one")
    assert hook.statuses(lost) == []


async def test_our_own_templates_can_be_struck_by_name(
    sandbox: Caller, cloud: CloudGateway, credentials: Credentials
) -> None:
    await sandbox.put("faults", [{"kind": "error", "code": 132015, "template": "paused_one"}])
    paused = Content(template=Template(name="paused_one", parameters=["x"]))
    other = Content(template=Template(name="other_one", parameters=["x"]))
    assert isinstance(await cloud.send(credentials, TO, paused, opaque="1"), Refused)
    assert isinstance(await cloud.send(credentials, TO, other, opaque="2"), Accepted)


async def test_a_stopped_sandbox_waits_for_no_hanging_request(sandbox: Caller) -> None:
    """Leaving the fixture must not take longer because of these two."""
    await sandbox.put("faults", [{"kind": "hang"}])
    pending = asyncio.create_task(sandbox.text(TO))
    await until(lambda: _accepted(sandbox), "the hanging message")
    pending.cancel()
    with pytest.raises((asyncio.CancelledError, aiohttp.ClientError)):
        await pending
