"""Senders: what each provider needs, secrets that never come out, and the sandbox that is told at once."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from door_client import Account, Api
from loguru import logger
from support import one_row

from harkara.http.door import Door, build
from harkara.ids import uuid7
from harkara.storage import halting, pausing
from harkara.storage.halting import Bad
from harkara.storage.models import Sender
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
    assert changed.body["webhook_url"] == made["webhook_url"]
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
        row = await one_row(con, "select access_token, app_secret from senders where id = $1", UUID(made["id"]))
    assert b"very-secret" not in row["access_token"] + row["app_secret"]
    assert door.vault.open(row["access_token"]) == "another-very-secret"
    assert door.vault.open(row["app_secret"]) == "app-very-secret"


@pytest.mark.parametrize(
    ("change", "paths"),
    [
        ({"access_token": None, "app_secret": None}, {"access_token", "app_secret"}),
        ({"phone_number_id": None}, {"phone_number_id"}),
        ({"provider": "telegram"}, {"provider"}),
        ({"provider": "telegram", "access_token": None, "app_secret": None}, {"provider"}),
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


COPIED = ("phone_number_id", "waba_id", "portfolio_id", "access_token", "app_secret", "verify_token")


async def test_what_was_pasted_with_white_space_is_taken_without_it(
    acme: Account, storage: Storage, door: Door
) -> None:
    said = CLOUD | {"portfolio_id": "88", "verify_token": "mine"}
    made = await acme.post("/senders", said | {name: f" \u00a0{said[name]}\r\n" for name in COPIED})
    assert made["verify_token"] == "mine"
    changed = {name: f"\n{said[name]}-new\t" for name in COPIED if name != "phone_number_id"}
    for ending in ("", "-new"):
        async with storage.tenant(acme.tenant):
            row = await Sender.get(id=made["id"])
        assert (row.phone_number_id, row.waba_id, row.portfolio_id) == ("1055", f"77{ending}", f"88{ending}")
        secrets = door.vault.open(row.access_token), door.vault.open(row.app_secret), row.verify_token
        assert secrets == (f"token-very-secret{ending}", f"app-very-secret{ending}", f"mine{ending}")
        assert (await acme.call("PATCH", f"/senders/{made['id']}", body=changed)).status == 200


@pytest.mark.parametrize("name", COPIED)
@pytest.mark.parametrize(
    ("text", "plain"), [("a\nb", False), ("a\0b", False), ("a\u200bb", False), (" \n", False), ("tоken", True)]
)
async def test_what_can_not_be_what_was_copied_is_refused_by_name(
    acme: Account, name: str, text: str, *, plain: bool
) -> None:
    if plain and name not in ("access_token", "app_secret"):
        return
    answer = await acme.call("POST", "/senders", body=CLOUD | {name: text})
    assert list(answer.is_problem(422).faults()) == [name]
    made = await acme.post("/senders", CLOUD)
    if name != "phone_number_id":
        answer = await acme.call("PATCH", f"/senders/{made['id']}", body={name: text})
        assert list(answer.is_problem(422).faults()) == [name]


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
    assert "delete them first" in answer.body["detail"]
    kept = await acme.campaign()
    await acme.post(f"/campaigns/{kept}/archive", status=200)
    of_kept = (await acme.get(f"/campaigns/{kept}"))["sender_id"]
    refused = (await acme.call("DELETE", f"/senders/{of_kept}")).is_problem(409).body["detail"]
    assert refused.endswith('so pause it instead (PATCH {"status":"paused"})')
    assert (await acme.call("DELETE", f"/campaigns/{campaign}")).status == 204
    assert (await acme.call("DELETE", f"/senders/{sender}")).status == 204


async def test_the_same_number_made_twice_at_once_is_made_once(acme: Account) -> None:
    body = CLOUD | {"phone_number_id": uuid4().hex}
    answers = await asyncio.gather(*(acme.call("POST", "/senders", body=body) for _ in range(4)))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409]


@pytest.mark.parametrize(
    ("provider", "content", "path"),
    [
        ("evolution", {"template": {"name": "hello"}}, "template"),
        ("waha", {"media": {"type": "sticker", "link": "https://files.example/a.webp"}}, "media.type"),
        ("waha", {"interactive": {"body": "Well?", "buttons": [{"id": "y", "title": "Yes"}]}}, "interactive"),
    ],
    ids=["evolution-template", "waha-sticker", "waha-buttons"],
)
async def test_what_a_gateway_cannot_send_is_refused_before_it_is_tried(
    acme: Account, provider: str, content: dict[str, Any], path: str
) -> None:
    sender = await acme.post("/senders", CLOUD | {"provider": provider})
    message = {"to": "+919876543210", "sender_id": sender["id"], **content}
    assert path in (await acme.call("POST", "/messages", body=message)).is_problem(422).faults()
    campaign = await acme.post("/campaigns", {"name": "One", "type": "drip", "sender_id": sender["id"]})
    await acme.post(f"/campaigns/{campaign['id']}/steps", {"delay_hours": 0, **content})
    answer = await acme.call("POST", f"/campaigns/{campaign['id']}/activate")
    assert f"steps[0].{path}" in answer.is_problem(422).faults()
    assert (await acme.call("POST", "/messages", body=message | {"body": "Hi"} | dict.fromkeys(content))).status == 202


async def test_one_call_has_a_stopped_number_go_on_and_all_that_were_stopped_with_it(
    acme: Account, storage: Storage
) -> None:
    numbers = [await acme.post("/senders", CLOUD | {"phone_number_id": str(n)}) for n in range(3)]
    one, sister, by_hand = (UUID(number["id"]) for number in numbers)
    bad = Bad("waba", "no means of payment", "add one", 131042, of_account=True)
    await acme.call("PATCH", f"/senders/{by_hand}", body={"status": "paused"})
    async with storage.batch((acme.tenant,)) as con:
        assert sorted(await halting.pause(con, acme.tenant, one, bad)) == sorted((one, sister))
    stopped = await acme.get(f"/senders/{one}")
    assert (stopped["status"], stopped["status_reason"], stopped["error_code"]) == ("paused", bad.reason, 131042)
    assert stopped["status_since"]
    resumed = await acme.call("POST", f"/senders/{sister}/resume")
    assert (resumed.status, resumed.body["status"], resumed.body["status_reason"]) == (200, "active", None)
    assert [(await acme.get(f"/senders/{id_}"))["status"] for id_ in (one, by_hand)] == ["active", "paused"]
    await acme.call("PATCH", f"/senders/{by_hand}", body={"status": "active"})
    async with storage.tenant(acme.tenant) as con:
        released = await con.fetch("select body from outbox where subject like '%.work.librarian.release' order by id")
        told = await con.fetch("select subject, body from outbox where subject like '%.evt.alert.%' order by id")
    assert [msgspec.json.decode(row["body"]) for row in released] == [
        {"sender_ids": sorted(map(str, numbers)), "resumed": True} for numbers in ((one, sister), (by_hand,))
    ]
    kinds = [row["subject"].rpartition(".")[2] for row in told]
    bodies = [msgspec.json.decode(row["body"]) for row in told]
    assert kinds == ["raised", "resolved"]
    assert bodies[0]["id"] == bodies[1]["id"]
    assert bodies[0]["todo"] == "add one"
    # One that nothing stops is left as it is.
    assert (await acme.call("POST", f"/senders/{one}/resume")).body["status"] == "active"


async def changed_by_its_tenant(acme: Account, sender: object) -> list[str]:
    """What the tenant is told that tries, in every way, to have a number go on which an operator has paused."""
    path = f"/senders/{sender}"
    answers = [
        await acme.call("POST", f"{path}/resume"),
        await acme.call("PATCH", path, body={"status": "paused"}),
        await acme.call("PATCH", path, body={"status": "active"}),
        await acme.call("POST", "/messages", body={"sender_id": str(sender), "to": "+919876543210", "body": "Hi"}),
        await acme.call("POST", "/messages", body={"to": "+919876543210", "body": "Hi"}),
    ]
    return [str(answer.is_problem(409).body["detail"]) for answer in answers]


async def test_who_sends_with_a_stopped_number_is_told_why_it_is_and_what_has_it_go_on(
    acme: Account, storage: Storage
) -> None:
    campaign = await acme.campaign(active=False)
    sender = (await acme.get(f"/campaigns/{campaign}"))["sender_id"]
    bad = Bad("waba", "no means of payment", "add one", 131042)
    async with storage.batch((acme.tenant,)) as con:
        await halting.pause(con, acme.tenant, UUID(sender), bad)
    how = f"paused (no means of payment): POST /api/v1/senders/{sender}/resume has it go on"
    to = {"to": "+919876543210", "body": "Hi"}
    named = await acme.call("POST", "/messages", body=to | {"sender_id": sender})
    assert named.is_problem(409).body["detail"] == f"this sender is {how}; or send with another"
    (step,) = (await acme.get(f"/campaigns/{campaign}/steps"))["items"][:1]
    test = await acme.call("POST", f"/campaigns/{campaign}/steps/{step['id']}/test", body={"to": to["to"]})
    assert test.is_problem(409).body["detail"] == f"the campaign's sender is {how}"
    faults = (await acme.call("POST", f"/campaigns/{campaign}/activate")).is_problem(422).body["errors"]
    assert {"path": "sender_id", "message": f"the sender is {how}"} in faults
    for other in (await acme.get("/senders"))["items"]:
        await acme.call("PATCH", f"/senders/{other['id']}", body={"status": "paused"})
    alone = (await acme.call("POST", "/messages", body=to)).is_problem(409).body["detail"]
    assert alone.startswith("there is no active sender: ")
    assert "/resume has it go on" in alone


async def test_what_an_operator_has_paused_with_its_tenant_goes_on_with_it_alone(
    acme: Account, storage: Storage
) -> None:
    one, by_hand = UUID(await acme.sender()), await acme.sender()
    await acme.call("PATCH", f"/senders/{by_hand}", body={"status": "paused"})
    async with storage.tenant(acme.tenant) as con:
        assert await pausing.pause_tenant(con, acme.tenant, "unpaid") == [one]
        assert await pausing.pause_tenant(con, acme.tenant, "unpaid") is None
    made = await acme.post("/senders", CLOUD)
    assert (made["status"], made["status_reason"]) == ("paused", "the operator has paused this tenant: unpaid")
    for sender in (one, made["id"]):
        assert all("unpaid; ask the operator" in said for said in await changed_by_its_tenant(acme, sender))
    resumed = await acme.call("POST", f"/senders/{by_hand}/resume")
    assert "ask the operator" in resumed.is_problem(409).body["detail"]
    assert (await acme.call("PATCH", f"/senders/{one}", body={"name": "New"})).body["status"] == "paused"
    async with storage.tenant(acme.tenant) as con:
        assert await pausing.resume_tenant(con, acme.tenant) == [one, UUID(made["id"])]
        assert await pausing.resume_tenant(con, acme.tenant) is None
    found = {sender["id"]: sender["status"] for sender in (await acme.get("/senders"))["items"]}
    assert found == {str(one): "active", made["id"]: "active", by_hand: "paused"}
    assert (await acme.call("POST", f"/senders/{by_hand}/resume")).body["status"] == "active"


async def test_a_number_that_an_operator_has_paused_does_not_go_on_with_those_it_was_stopped_with(
    acme: Account, storage: Storage
) -> None:
    one, sister = [UUID((await acme.post("/senders", CLOUD | {"phone_number_id": n}))["id"]) for n in ("1", "2")]
    bad = Bad("waba", "no means of payment", "add one", 131042, of_account=True)
    async with storage.tenant(acme.tenant) as con:
        await halting.pause(con, acme.tenant, one, bad)
        assert await pausing.pause_sender(con, acme.tenant, sister, "complaints")
        assert not await pausing.pause_sender(con, acme.tenant, sister, "complaints")
    assert all("complaints; ask the operator" in said for said in await changed_by_its_tenant(acme, sister))
    await acme.call("POST", f"/senders/{one}/resume")
    assert [(await acme.get(f"/senders/{id_}"))["status"] for id_ in (one, sister)] == ["active", "paused"]
    async with storage.tenant(acme.tenant) as con:
        assert await halting.resume(con, acme.tenant, sister) == [sister]
    assert (await acme.get(f"/senders/{sister}"))["status"] == "active"


async def test_how_fast_a_senders_messages_go(acme: Account, other: Account, storage: Storage) -> None:
    sender, another, theirs = await acme.sender(), await acme.sender(), await other.sender()
    path = f"/senders/{sender}/stats"
    nothing = await acme.get(path)
    assert (nothing["messages"], nothing["since"], nothing["sent"], nothing["read"]) == (0, None, None, None)
    due = datetime.now(UTC) - timedelta(hours=2)
    rows = [
        (acme.tenant, sender, due, 100, 1.0),
        (acme.tenant, sender, due - timedelta(hours=30), 5, 500.0),
        (acme.tenant, another, due, 5, 600.0),
        (other.tenant, theirs, due, 5, 700.0),
    ]
    for tenant, of, at, count, seconds in rows:
        async with storage.tenant(tenant) as con:
            for place in range(count):
                sent = at + timedelta(seconds=seconds * (place + 1) / count)
                delivered = sent + timedelta(seconds=2) if place % 2 else None
                await con.execute(
                    'insert into messages (id, sender_id, lane, "to", content, status, due_at, sent_at, delivered_at)'
                    " values ($1, $2, 'utility', '+1', '{}', 'sent', $3, $4, $5)",
                    uuid7(at),
                    UUID(of),
                    at,
                    sent,
                    delivered,
                )
    found = await acme.get(path)
    assert (found["hours"], found["messages"], found["sent"]["count"], found["delivered"]["count"]) == (
        24,
        100,
        100,
        50,
    )
    assert 0.4 < found["sent"]["p50_s"] < 0.6 < 0.9 < found["sent"]["p95_s"] < found["sent"]["p99_s"] <= 1.0
    assert (found["delivered"]["p50_s"], found["delivered"]["p99_s"], found["read"]) == (2.0, 2.0, None)
    assert (await acme.get(f"{path}?hours=48"))["messages"] == 105
    (await acme.call("GET", f"{path}?hours=0")).is_problem(422)


async def test_a_number_without_plus_is_read_by_the_tenants_region(acme: Account) -> None:
    await acme.call("PATCH", "/tenant", body={"default_region": "IN"})
    made = await acme.post("/senders", {"name": "Shop", "provider": "sandbox", "phone": "98765 43210"})
    assert made["phone"] == "+919876543210"
    changed = await acme.call("PATCH", f"/senders/{made['id']}", body={"phone": "098765 43211"})
    assert changed.body["phone"] == "+919876543211"
