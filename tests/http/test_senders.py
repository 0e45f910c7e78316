"""Senders: what each provider needs, secrets that never come out, and the sandbox that is told at once."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from door_client import Account, Api
from loguru import logger

from harkara.http.door import Door, build
from harkara.storage.storage import Storage

CLOUD: dict[str, Any] = {
    "name": "Shop",
    "provider": "cloud",
    "phone": "+919876543210",
    "phone_number_id": "1055",
    "waba_id": "77",
    "access_token": "token-very-secret",
    "app_secret": "app-very-secret",
}


async def test_a_sender_is_made_shown_changed_and_deleted(acme: Account) -> None:
    made = await acme.post("/senders", CLOUD)
    assert made["window"] == "enforce"
    assert made["mps"] == 80
    assert made["status"] == "active"
    assert made["webhook_url"].endswith(f"/api/v1/webhooks/whatsapp/{made['id']}")
    changed = await acme.call("PATCH", f"/senders/{made['id']}", body={"name": "New", "mps": 20, "status": "paused"})
    assert (changed.body["name"], changed.body["mps"], changed.body["status"]) == ("New", 20, "paused")
    assert await acme.get(f"/senders/{made['id']}") == changed.body
    assert [one["id"] for one in (await acme.get("/senders"))["items"]] == [made["id"]]
    assert (await acme.call("DELETE", f"/senders/{made['id']}")).status == 204
    (await acme.call("GET", f"/senders/{made['id']}")).is_problem(404)


@pytest.mark.parametrize(("provider", "window"), [("evolution", "ignore"), ("waha", "ignore"), ("cloud", "enforce")])
async def test_only_the_cloud_api_has_a_window_unless_one_says_so(acme: Account, provider: str, window: str) -> None:
    assert (await acme.post("/senders", CLOUD | {"provider": provider}))["window"] == window
    said = await acme.post("/senders", CLOUD | {"provider": provider, "phone_number_id": "2", "window": "enforce"})
    assert said["window"] == "enforce"


async def test_secrets_are_encrypted_and_never_shown_or_logged(acme: Account, storage: Storage, door: Door) -> None:
    lines: list[str] = []
    sink = logger.add(lines.append, level="TRACE", format="{message} {extra}")
    try:
        made = await acme.post("/senders", CLOUD)
        path = f"/senders/{made['id']}"
        changed = await acme.call("PATCH", path, body={"access_token": "another-very-secret"})
        wrong = await acme.call("POST", "/senders", body=CLOUD | {"mps": "many"})
        shown = [
            str(made),
            changed.text,
            wrong.text,
            str(await acme.get("/senders")),
            str(await acme.get(path)),
            *lines,
        ]
    finally:
        logger.remove(sink)
    assert not [text for text in shown if "very-secret" in text]
    async with storage.tenant(acme.tenant) as con:
        row = await con.fetchrow("select access_token, app_secret from senders where id = $1", UUID(made["id"]))
    assert b"very-secret" not in row["access_token"] + row["app_secret"]
    assert door.vault.open(row["access_token"]) == "another-very-secret"
    assert door.vault.open(row["app_secret"]) == "app-very-secret"


@pytest.mark.parametrize(
    ("change", "paths"),
    [
        ({"access_token": None, "app_secret": None}, {"access_token", "app_secret"}),
        ({"phone_number_id": None}, {"phone_number_id"}),
        ({"provider": "telegram"}, {"provider"}),
        ({"mps": 0}, {"mps"}),
        ({"window": "open", "colour": "red"}, {"window", "colour"}),
        ({"phone": "12345", "name": " "}, {"phone", "name"}),
    ],
)
async def test_what_is_missing_or_wrong_is_named_and_nothing_is_stored(
    acme: Account, change: dict[str, Any], paths: set[str]
) -> None:
    answer = await acme.call("POST", "/senders", body=CLOUD | change)
    assert set(answer.is_problem(422).faults()) == paths
    assert (await acme.get("/senders"))["items"] == []


async def test_a_number_that_another_sender_has_is_refused_by_its_id(acme: Account, other: Account) -> None:
    made = await acme.post("/senders", CLOUD)
    answer = (await acme.call("POST", "/senders", body=CLOUD)).is_problem(409)
    assert answer.body["sender_id"] == made["id"]
    await other.post("/senders", CLOUD)


async def test_a_sandbox_sender_needs_only_a_name_and_is_known_to_the_sandbox(
    acme: Account, api: Api, gateway_url: str
) -> None:
    made = await acme.post("/senders", {"name": "Play", "provider": "sandbox"})
    async with api.session.get(f"{gateway_url}/sandbox/webhook") as answer:
        known = await answer.text()
    assert made["phone_number_id"] in known
    assert made["webhook_url"] in known


async def test_a_sandbox_that_is_away_leaves_nothing_half_done(acme: Account, door: Door) -> None:
    away = Door(
        settings=door.settings.__class__(
            secret_key=door.settings.secret_key,
            whatsapp_gateway_url="http://127.0.0.1:9",
            public_url="http://127.0.0.1:1",
        ),
        storage=door.storage,
        publisher=door.publisher,
        redis=door.redis,
    )
    async with TestServer(build(away)) as server:
        there = Account(Api(str(server.make_url("")).rstrip("/"), acme.api.session, away), acme.tenant, "", {})
        answer = await there.call("POST", "/senders", body={"name": "P", "provider": "sandbox"}, headers=acme.headers)
    assert "WHATSAPP_GATEWAY_URL" in answer.is_problem(502).body["detail"]
    assert (await acme.get("/senders"))["items"] == []


async def test_a_sandbox_whose_handshake_fails_leaves_nothing_half_done(acme: Account, door: Door) -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.json_response({"error": "the challenge was not given back"}, status=400)

    sandbox = web.Application()
    sandbox.router.add_put("/sandbox/webhook", refuse)
    async with TestServer(sandbox) as gateway:
        refused = Door(
            settings=door.settings.__class__(
                secret_key=door.settings.secret_key, whatsapp_gateway_url=str(gateway.make_url(""))
            ),
            storage=door.storage,
            publisher=door.publisher,
            redis=door.redis,
        )
        async with TestServer(build(refused)) as server:
            there = Api(str(server.make_url("")).rstrip("/"), acme.api.session, refused)
            wanted = {"name": "P", "provider": "sandbox"}
            answer = await there.call("POST", "/senders", body=wanted, headers=acme.headers)
    assert "challenge" in answer.is_problem(502).body["detail"]
    assert (await acme.get("/senders"))["items"] == []


async def test_a_sender_in_use_is_not_deleted_and_says_by_what(acme: Account, storage: Storage) -> None:
    sender = await acme.sender()
    campaign = (await acme.post("/campaigns", {"name": "Diwali", "sender_id": sender}))["id"]
    answer = (await acme.call("DELETE", f"/senders/{sender}")).is_problem(409)
    assert "Diwali" in answer.body["detail"]
    assert answer.body["campaign_ids"] == [campaign]
    assert (await acme.call("DELETE", f"/campaigns/{campaign}")).status == 204
    assert (await acme.call("DELETE", f"/senders/{sender}")).status == 204


async def test_the_same_number_made_twice_at_once_is_made_once(acme: Account) -> None:
    body = CLOUD | {"phone_number_id": uuid4().hex}
    answers = await asyncio.gather(*(acme.call("POST", "/senders", body=body) for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409]
