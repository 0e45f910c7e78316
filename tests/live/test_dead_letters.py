"""What an actor gave up is seen, tried again and forgotten by whose it is."""

from __future__ import annotations

import hmac
import json
from base64 import b64decode
from typing import Any
from uuid import uuid4

from chaos.harness import Platform, Tenant
from live.letters import a_dead_letter
from support import until


async def test_a_dead_letter_is_shown_tried_again_and_forgotten(live: Platform, tenant: Tenant, other: Tenant) -> None:
    id_ = await a_dead_letter(live, tenant)
    (letter,) = await tenant.every("/dead-letters")
    assert (letter["actor"], letter["subject"]) == ("enrollment", f"t.{tenant.id}.cmd.enrollment.start")
    assert "JSON" in letter["reason"]
    assert (letter["body"], letter["body_begins"]) == (None, "garbage")
    assert b64decode(letter["body_base64"]) == b"garbage", "it is no JSON"
    assert await other.every("/dead-letters") == []
    await tenant.post(f"/dead-letters/{id_}/replay")

    async def died_again() -> bool:
        return len(ids := await tenant.ids("/dead-letters")) == 1 and ids != [id_]

    await until(died_again, "it was tried again, and given up again")
    (again,) = await tenant.every("/dead-letters")
    assert (again["message_id"], again["subject"]) == (letter["message_id"], letter["subject"])
    await tenant.call("DELETE", f"/dead-letters/{again['id']}")
    assert await tenant.every("/dead-letters") == []


async def test_what_is_for_a_number_that_is_not_there_yet_is_done_once_it_is(live: Platform, tenant: Tenant) -> None:
    """An app has one address: what comes to one number's may be for another."""
    number = {"name": "Shop", "provider": "cloud", "access_token": "t", "app_secret": "one app"}
    url = (await tenant.post("/senders", number | {"phone_number_id": str(uuid4().int)[:15]}))["webhook_url"]
    other = str(uuid4().int)[:15]
    message = {"from": "919812345678", "id": f"wamid.{uuid4()}", "timestamp": "1772366400", "type": "text"}
    value: dict[str, Any] = {"messages": [message | {"text": {"body": "Hi"}}], "metadata": {"phone_number_id": other}}
    body = json.dumps({"entry": [{"changes": [{"field": "messages", "value": value}]}]}).encode()
    signed = {"X-Hub-Signature-256": "sha256=" + hmac.new(b"one app", body, "sha256").hexdigest()}
    async with live.session.post(url, data=body, headers=signed) as answer:
        assert answer.status == 200, await answer.text()

    async def is_dead() -> bool:
        return len(await tenant.ids("/dead-letters")) == 1

    await until(is_dead, "it is a dead letter")
    (letter,) = await tenant.every("/dead-letters")
    assert f"no sender has the phone_number_id {other}" in letter["reason"]
    assert await tenant.every("/conversations") == []
    added = await tenant.post("/senders", number | {"phone_number_id": other})
    await tenant.post(f"/dead-letters/{letter['id']}/replay")

    async def is_done() -> bool:
        return [one["sender_id"] for one in await tenant.every("/conversations")] == [added["id"]]

    await until(is_done, "the number that it named has the conversation")
