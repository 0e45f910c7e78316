"""Templates: listed page by page, changed as WhatsApp changes them, and told of."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from gateway.sandboxes import NUMBER, TOKEN, Caller, Hook
from support import until

from harkara.gateway import cloud as cloud_module
from harkara.gateway.cloud import CloudGateway
from harkara.gateway.inbound import parse
from harkara.gateway.protocol import Credentials, Refused
from harkara.gateway.told import TemplateUpdate

TO = "+919876543210"
BODY = {"category": "MARKETING", "components": [{"type": "BODY", "text": "Hi {{1}}"}]}


async def register(sandbox: Caller, name: str, language: str = "en") -> None:
    path, body = "/v23.0/42/message_templates", {"name": name, "language": language} | BODY
    status, answer = await sandbox.call("POST", path, json=body, headers=TOKEN)
    assert status == 200, answer


async def test_all_of_an_account_are_listed_however_many_pages_they_are(
    sandbox: Caller, cloud: CloudGateway, credentials: Credentials, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_module, "TEMPLATE_PAGE", 2)
    for number in range(5):
        await register(sandbox, f"t{number}")
    await register(sandbox, "t0", "hi")
    found = await cloud.templates(credentials, "42")
    assert isinstance(found, list)
    assert [(one.name, one.language) for one in found] == [
        ("t0", "en"),
        ("t0", "hi"),
        *((f"t{n}", "en") for n in range(1, 5)),
    ]
    assert {(one.category, one.status, one.reason, one.quality) for one in found} == {
        ("marketing", "approved", None, None)
    }
    assert msgspec.json.decode(found[0].components) == BODY["components"]
    assert await cloud.templates(credentials, "43") == []


async def test_a_token_that_is_none_is_refused(cloud: CloudGateway) -> None:
    nobody = Credentials(sender_id="s1", phone_number_id=NUMBER, access_token="", provider="sandbox")
    refused = await cloud.templates(nobody, "42")
    assert isinstance(refused, Refused)
    assert refused.code == 190


@pytest.mark.parametrize(
    ("changed", "update"),
    [
        ({"status": "paused"}, TemplateUpdate("offer", "en", status="paused")),
        (
            {"status": "rejected", "reason": "abusive content"},
            TemplateUpdate("offer", "en", status="rejected", reason="ABUSIVE CONTENT"),
        ),
        ({"quality": "red"}, TemplateUpdate("offer", "en", quality="red")),
        ({"category": "utility"}, TemplateUpdate("offer", "en", category="utility")),
    ],
    ids=["paused", "rejected", "quality", "category"],
)
async def test_what_whatsapp_decides_is_told_and_listed(
    sandbox: Caller,
    hook: Hook,
    cloud: CloudGateway,
    credentials: Credentials,
    changed: dict[str, Any],
    update: TemplateUpdate,
) -> None:
    await register(sandbox, "offer")
    await sandbox.hook(hook, waba_id="42")
    await sandbox.put("template", {"waba_id": "42", "name": "offer", "language": "en"} | changed)
    await until(lambda: hook.bodies, "the webhook came")
    assert hook.bad_signatures == 0
    [told] = parse(hook.bodies[0])[None].templates
    assert replace(told, at=None) == update
    assert told.at is not None
    assert abs(told.at - datetime.now(UTC)) < timedelta(minutes=10)
    found = await cloud.templates(credentials, "42")
    assert isinstance(found, list)
    [listed] = found
    assert (listed.status, listed.reason, listed.quality, listed.category) == (
        update.status or "approved",
        update.reason,
        update.quality,
        update.category or "marketing",
    )


@pytest.mark.parametrize(("status", "code"), [("paused", 132015), ("disabled", 132016), ("rejected", 132001)])
async def test_one_that_may_not_be_used_is_refused_where_templates_are_enforced(
    sandbox: Caller, status: str, code: int
) -> None:
    await register(sandbox, "offer")
    await sandbox.put("policy", {"templates": True})
    await sandbox.put("template", {"waba_id": "42", "name": "offer", "language": "en", "status": status})
    template = {"name": "offer", "language": {"code": "en"}}
    wanted = {"messaging_product": "whatsapp", "to": "919876543210", "type": "template", "template": template}
    _, answer = await sandbox.post(wanted)
    assert answer["error"]["code"] == code


@pytest.mark.parametrize("category", ["MARKETING", "UTILITY", "AUTHENTICATION", None])
async def test_a_template_is_charged_as_its_category_says(sandbox: Caller, hook: Hook, category: str | None) -> None:
    await sandbox.hook(hook, waba_id="42")
    if category is not None:
        body: dict[str, Any] = {"name": "news", "language": "en", "category": category, "components": []}
        await sandbox.call("POST", "/v23.0/42/message_templates", json=body, headers=TOKEN)
    template = {"name": "news", "language": {"code": "en"}}
    await sandbox.post({"messaging_product": "whatsapp", "to": TO, "type": "template", "template": template})
    await sandbox.accepted(TO, "A text")

    def charged() -> list[str]:
        told = [status for change in hook.changes for status in change["value"].get("statuses", [])]
        return sorted(one["pricing"]["category"] for one in told if "pricing" in one)

    await until(lambda: len(charged()) == 2, "both were delivered")
    assert charged() == sorted([(category or "marketing").lower(), "service"])
