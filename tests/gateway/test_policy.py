"""Meta's rules, one by one: throughput, pair limit, 24-hour window, templates."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from gateway.sandboxes import TOKEN, Caller

from harkara.gateway.sandbox import policy
from harkara.gateway.sandbox.graph_error import GraphError
from harkara.gateway.sandbox.policy import Policy, _Bucket, _Pair, check_parameters
from harkara.gateway.sandbox.wire import Component, Parameter

TO = "+919876543210"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The time by which rates are measured: it stands still until a test moves `now`."""
    made = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(policy, "time", SimpleNamespace(monotonic=lambda: made.now))
    return made


async def _codes(sandbox: Caller, count: int, **more: Any) -> list[int]:
    answers = await asyncio.gather(*(sandbox.text(f"+9190000{n:05d}", **more) for n in range(count)))
    return [200 if status == 200 else answer["error"]["code"] for status, answer in answers]


async def test_by_default_a_number_carries_eighty_a_second(sandbox: Caller, clock: SimpleNamespace) -> None:
    codes = await _codes(sandbox, 200)
    assert set(codes) == {200, 130429}
    assert codes.count(200) == 80
    assert set(await _codes(sandbox, 20, number="222")) == {200}, "another number has its own"
    clock.now += 0.5
    assert (await _codes(sandbox, 100)).count(200) == 40


@pytest.mark.usefixtures("clock")
async def test_throughput_can_be_changed_by_number_or_switched_off(sandbox: Caller) -> None:
    await sandbox.put("policy", {"throughput": 10, "numbers": {"222": 50}})
    assert (await _codes(sandbox, 60)).count(200) == 10
    assert (await _codes(sandbox, 60, number="222")).count(200) == 50
    await sandbox.put("policy", {"throughput": False, "numbers": {}})
    assert set(await _codes(sandbox, 300)) == {200}


def test_a_bucket_holds_one_second_and_refills_steadily() -> None:
    bucket = _Bucket(80, 0)
    assert sum(bucket.take(80, 0) for _ in range(100)) == 80
    assert not bucket.take(80, 0.0124)
    assert bucket.take(80, 0.026)
    assert sum(bucket.take(80, 100) for _ in range(100)) == 80
    assert bucket.take(80, 100, forced=True), "inbound messages are never refused, but count"
    assert not bucket.take(80, 100.013)


def test_a_pair_carries_one_in_six_seconds_and_pays_back_a_burst() -> None:
    pair = _Pair()
    assert pair.take(0)
    assert all(pair.take(n / 10) for n in range(1, 20)), "a burst of twenty"
    assert not pair.take(6.1), "the burst's six seconds are over"
    assert not pair.take(119.9)
    assert pair.take(120), "twenty messages are paid back after two minutes"
    other = _Pair()
    assert sum(other.take(n / 100) for n in range(60)) == 45, "never more than 45 in a burst"


@pytest.mark.usefixtures("clock")
async def test_the_pair_limit_is_for_one_recipient_only(sandbox: Caller) -> None:
    await sandbox.put("policy", {"pair_limit": True, "throughput": False})
    codes = [answer["error"]["code"] if status != 200 else 200 for status, answer in
             [await sandbox.text(TO, str(n)) for n in range(50)]]  # fmt: skip
    assert codes == [200] * 45 + [131056] * 5
    assert (await sandbox.text("+919876543211"))[0] == 200
    assert len(await sandbox.items()) == 46


async def test_outside_the_window_only_templates_pass(sandbox: Caller) -> None:
    await sandbox.put("policy", {"window": True})
    status, answer = await sandbox.text(TO)
    assert (status, answer["error"]["code"]) == (400, 131047)
    template = {"name": "hello_world", "language": {"code": "en"}}
    body = {"messaging_product": "whatsapp", "to": TO, "type": "template", "template": template}
    assert (await sandbox.post(body))[0] == 200
    await sandbox.inbound(**{"from": TO, "text": "hello"})
    assert (await sandbox.text(TO))[0] == 200
    assert (await sandbox.text(TO, number="222"))[0] == 400, "the window is one of this number only"
    assert (await sandbox.text("+919876543211"))[0] == 400


async def _register(sandbox: Caller, name: str, components: list[dict[str, Any]], **more: Any) -> None:
    body = {"name": name, "language": "en", "category": "UTILITY", "components": components, **more}
    status, answer = await sandbox.call("POST", "/v23.0/42/message_templates", json=body, headers=TOKEN)
    assert (status, answer["status"]) == (200, "APPROVED")


async def _template(sandbox: Caller, name: str, components: list[dict[str, Any]]) -> int:
    template = {"name": name, "language": {"code": "en"}, "components": components}
    body = {"messaging_product": "whatsapp", "to": TO, "type": "template", "template": template}
    status, answer = await sandbox.post(body)
    return 200 if status == 200 else int(answer["error"]["code"])


def _texts(*texts: str) -> list[dict[str, Any]]:
    return [{"type": "text", "text": text} for text in texts]


async def test_any_template_passes_until_templates_are_enforced(sandbox: Caller) -> None:
    assert await _template(sandbox, "unknown_one", []) == 200
    await sandbox.put("policy", {"templates": True})
    assert await _template(sandbox, "unknown_one", []) == 132001
    await _register(sandbox, "order_update", [{"type": "BODY", "text": "Hi {{1}}, order {{2}} for {{1}}"}])
    assert await _template(sandbox, "order_update", [{"type": "body", "parameters": _texts("A", "5")}]) == 200
    assert await _template(sandbox, "order_update", [{"type": "body", "parameters": _texts("A")}]) == 132000
    assert await _template(sandbox, "order_update", []) == 132000
    status, answer = await sandbox.call("GET", "/v23.0/42/message_templates?name=order_update", headers=TOKEN)
    assert (status, [found["name"] for found in answer["data"]]) == (200, ["order_update"])
    await sandbox.call("DELETE", "/v23.0/42/message_templates?name=order_update", headers=TOKEN)
    assert await _template(sandbox, "order_update", [{"type": "body", "parameters": _texts("A", "5")}]) == 132001


async def test_a_template_is_one_of_the_numbers_own_account(sandbox: Caller) -> None:
    await sandbox.put("policy", {"templates": True})
    await _register(sandbox, "order_update", [{"type": "BODY", "text": "Hi"}])
    await sandbox.put("webhook", {"phone_number_id": "106540352242922", "waba_id": "43"})
    assert await _template(sandbox, "order_update", []) == 132001
    await sandbox.put("webhook", {"phone_number_id": "106540352242922", "waba_id": "42"})
    assert await _template(sandbox, "order_update", []) == 200


def _component(kind: str, *names: str | None, index: int | None = None) -> Component:
    parameters = [Parameter(type="text", text="x", parameter_name=name) for name in names]
    return Component(type=kind, index=index, sub_type="url" if index is not None else None, parameters=parameters)


@pytest.mark.parametrize(
    ("registered", "given", "code"),
    [
        ([{"type": "BODY", "text": "Hi {{name}}"}], [_component("body", "name")], None),
        ([{"type": "BODY", "text": "Hi {{name}}"}], [_component("body", "nome")], 132012),
        ([{"type": "BODY", "text": "Hi {{name}}"}], [_component("body")], 132000),
        ([{"type": "BODY", "text": "Hi"}], [_component("body", None)], 132000),
        ([{"type": "HEADER", "format": "TEXT", "text": "{{1}}"}], [_component("HEADER", None)], None),
        ([{"type": "HEADER", "format": "IMAGE"}], [], 132000),
        ([{"type": "BUTTONS", "buttons": [{"type": "URL", "url": "https://e/{{1}}"}]}], [], 132000),
        (
            [{"type": "BUTTONS", "buttons": [{"type": "QUICK_REPLY"}, {"type": "URL", "url": "https://e/{{1}}"}]}],
            [_component("BUTTON", None, index=1)],
            None,
        ),
    ],
)
def test_parameters_are_compared_with_what_the_template_asks_for(
    registered: list[dict[str, Any]], given: list[Component], code: int | None
) -> None:
    if code is None:
        check_parameters({"components": registered}, given)
        return
    with pytest.raises(GraphError) as refused:
        check_parameters({"components": registered}, given)
    assert refused.value.code == code


def test_the_default_policy_is_throughput_only() -> None:
    assert Policy() == Policy(window=False, pair_limit=False, throughput=True, templates=False)
