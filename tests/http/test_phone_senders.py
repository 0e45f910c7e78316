"""Senders whose gateway lends a phone's account: linking the phone, and reports that only the gateway can make."""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any
from uuid import UUID, uuid4

import jwt
import msgspec
import pytest
from door_client import Account, Answer, Api
from gateway.evolution_server import EvolutionServer
from gateway.phones import phone_server
from gateway.waha_server import WahaServer

from harkara.bus.connection import Bus
from harkara.bus.tail import History
from harkara.gateway.evolution import EvolutionGateway
from harkara.gateway.waha import WahaGateway
from harkara.http.door import Door
from harkara.schemas.work import Inbound
from harkara.storage.storage import Storage

SECRET = "a secret that is long enough for a token"
BODY = b'{"event":"messages.update", "data":{"keyId":"3EB01","status":"READ"}} '


async def made(acme: Account, provider: str, **more: Any) -> dict[str, Any]:
    wanted = {"name": "Shop", "provider": provider, "phone_number_id": f"shop-{uuid4().hex[:8]}"}
    answer: dict[str, Any] = await acme.post("/senders", wanted | {"access_token": "global-key"} | more)
    return answer


async def stored(bus: Bus, tenant: str) -> list[Inbound]:
    history = History(bus.link, "INBOUND")
    try:
        page = await history.page(f"t.{tenant}.in.>", 0, 100)
        return [msgspec.json.decode(one.body, type=Inbound) for one in page.messages]
    finally:
        await history.close()


def token(secret: str = SECRET, *, expires_in: int = 600, **more: Any) -> str:
    now = int(time.time())
    claims = {"iat": now, "exp": now + expires_in, "app": "evolution", "action": "webhook"} | more
    return "Bearer " + jwt.encode(claims, secret, algorithm="HS256")


def signed(body: bytes, secret: str = SECRET) -> str:
    return hmac.new(secret.encode(), body, hashlib.sha512).hexdigest()


async def report(api: Api, kind: str, sender: str, body: bytes, **headers: str) -> Answer:
    sent = {"Content-Type": "application/json"} | {name.replace("_", "-"): value for name, value in headers.items()}
    return await api.call("POST", f"/webhooks/{kind}/{sender}", data=BytesIO(body), headers=sent)


async def test_evolution_shows_a_token_or_the_secret_itself(api: Api, acme: Account, live_bus: Bus) -> None:
    sender = await made(acme, "evolution", app_secret=SECRET)
    assert sender["webhook_url"].endswith(f"/api/v1/webhooks/evolution/{sender['id']}")
    for shown in (token(), f"Bearer {SECRET}"):
        assert (await report(api, "evolution", sender["id"], BODY, Authorization=shown)).status == 200
    [inbound] = await stored(live_bus, acme.tenant)
    assert (inbound.source, inbound.sender_id, bytes(inbound.body)) == ("evolution", sender["id"], BODY.strip())


async def test_what_shows_neither_is_refused(api: Api, acme: Account, live_bus: Bus) -> None:
    sender = await made(acme, "evolution", app_secret=SECRET)
    unsigned = jwt.encode({"exp": int(time.time()) + 600}, "", algorithm="none")
    for shown in (
        "", SECRET, "Bearer ", "Bearer wrong", f"Basic {SECRET}", token("another secret that is long enough"),
        token(expires_in=-600), f"Bearer {unsigned}", "Bearer " + jwt.encode({"app": "x"}, SECRET), "Bearer é",
    ):  # fmt: skip
        answer = await report(api, "evolution", sender["id"], BODY, **({"Authorization": shown} if shown else {}))
        assert "Authorization" in answer.is_problem(401).body["detail"]
    assert await stored(live_bus, acme.tenant) == []


async def test_a_short_secret_is_the_tenants_own_choice(api: Api, acme: Account) -> None:
    sender = await made(acme, "evolution", app_secret="short")
    with pytest.warns(match="HMAC"):
        shown = token("short")
    assert (await report(api, "evolution", sender["id"], BODY, Authorization=shown)).status == 200


async def test_waha_signs_the_raw_body(api: Api, acme: Account, live_bus: Bus) -> None:
    sender = await made(acme, "waha", app_secret=SECRET)
    answer = await report(api, "waha", sender["id"], BODY, X_Webhook_Hmac=signed(BODY))
    assert answer.status == 200
    assert (await report(api, "waha", sender["id"], BODY, X_Webhook_Hmac=signed(BODY).upper())).status == 200
    [inbound] = await stored(live_bus, acme.tenant)
    assert (inbound.source, bytes(inbound.body)) == ("waha", BODY.strip())
    for wrong in ("", signed(BODY + b" "), signed(BODY, "another"), signed(BODY)[:-1], "é"):
        answer = await report(api, "waha", sender["id"], BODY, **({"X_Webhook_Hmac": wrong} if wrong else {}))
        assert "X-Webhook-Hmac" in answer.is_problem(401).body["detail"]


async def test_what_is_no_json_object_is_refused(api: Api, acme: Account) -> None:
    evolution, waha = await made(acme, "evolution", app_secret=SECRET), await made(acme, "waha", app_secret=SECRET)
    for body in (b"{", b"[]", b"\xff"):
        (await report(api, "evolution", evolution["id"], body, Authorization=token())).is_problem(400)
        (await report(api, "waha", waha["id"], body, X_Webhook_Hmac=signed(body))).is_problem(400)


async def test_a_report_at_another_gateways_address_is_not_found(api: Api, acme: Account) -> None:
    waha, cloud = await made(acme, "waha", app_secret=SECRET), await acme.sender(app_secret=SECRET)
    for sender in (waha["id"], cloud, str(uuid4())):
        (await report(api, "evolution", sender, BODY, Authorization=token())).is_problem(404)
    for sender in (cloud, str(uuid4())):
        (await report(api, "waha", sender, BODY, X_Webhook_Hmac=signed(BODY))).is_problem(404)


# -- sessions -----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["evolution", "waha"])
async def server(door: Door, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """A gateway that the front door knows."""
    one: Any = EvolutionServer() if request.param == "evolution" else WahaServer()
    async with phone_server(one) as running:
        client: Any = (EvolutionGateway if request.param == "evolution" else WahaGateway)(running.url)
        monkeypatch.setattr(door, "sessions", {request.param: client})
        running.provider = request.param
        yield running
        await client.close()


async def test_a_phone_is_linked_and_lost(acme: Account, server: Any, live_bus: Bus) -> None:
    sender = await made(acme, server.provider)
    path, name = f"/senders/{sender['id']}", sender["phone_number_id"]
    assert sender["session"] == {"state": "unknown", "detail": None, "at": None, "qr_url": None}
    assert (await acme.get(f"{path}/session"))["state"] == "stopped"
    assert (await acme.post(f"{path}/session/start", status=200))["state"] == "scan_qr"
    shown = (await acme.get(path))["session"]
    assert (shown["state"], shown["qr_url"]) == ("scan_qr", f"/api/v1{path}/qr")
    image = await acme.api.session.get(f"{acme.api.url}{shown['qr_url']}", headers=acme.headers)
    assert (image.status, image.content_type, (await image.read())[:4]) == (200, "image/png", b"\x89PNG")
    code = await acme.call("GET", f"{path}/qr?format=code")
    assert code.text.startswith("2@code")
    server.scan(name)
    assert (await acme.get(f"{path}/session"))["state"] == "working"
    assert "linked already" in (await acme.call("GET", f"{path}/qr")).is_problem(409).body["detail"]
    assert (await acme.post(f"{path}/session/restart", status=200))["state"] == "working"
    assert (await acme.post(f"{path}/session/logout", status=200))["state"] in ("stopped", "scan_qr")
    await server.settled()
    assert server.refused == []
    assert len(await stored(live_bus, acme.tenant)) >= 3


async def test_a_gateway_that_refuses_or_is_away_is_told(acme: Account, server: Any, door: Door) -> None:
    sender = await made(acme, server.provider, access_token="wrong")
    path = f"/senders/{sender['id']}"
    if server.provider == "waha":
        answer = (await acme.call("POST", f"{path}/session/start")).is_problem(502)
        assert "access token" in answer.body["detail"]
        assert "wrong" not in answer.text
    for verb in ("start", "restart", "logout"):
        (await acme.call("POST", f"{path}/session/{verb}")).is_problem(502)
    (await acme.call("GET", f"{path}/qr")).is_problem(502)


@pytest.mark.parametrize("provider", ["evolution", "waha"])
async def test_a_gateway_that_is_another_is_told_with_the_setting_to_make(
    acme: Account, gateway_url: str, provider: str
) -> None:
    path = f"/senders/{(await made(acme, provider))['id']}"
    place = f"{gateway_url} (WHATSAPP_GATEWAY_URL, because {provider.upper()}_URL is not set)"
    for method, end in (("GET", "session"), ("POST", "session/start"), ("GET", "qr")):
        detail = (await acme.call(method, f"{path}/{end}")).is_problem(502).body["detail"]
        assert f"the gateway at {place} refuses: " in detail
        assert "or is not at this address" in detail


async def test_a_cloud_sender_needs_no_phone(acme: Account) -> None:
    path = f"/senders/{await acme.sender()}"
    assert (await acme.get(path))["session"] is None
    for method, end in (("GET", "session"), ("POST", "session/start"), ("GET", "qr")):
        (await acme.call(method, f"{path}/{end}")).is_problem(409)


async def test_messages_of_a_lost_phone_are_known_to_wait(acme: Account, storage: Storage) -> None:
    """What the sender's actor reads of its number, before it sends and when it judges."""
    from harkara.storage import sending

    sender = UUID((await made(acme, "waha"))["id"])
    for state, status in ((None, "active"), ("working", "active"), ("starting", "active"), ("scan_qr", "disconnected"),
                          ("stopped", "disconnected"), ("failed", "disconnected")):  # fmt: skip
        async with storage.tenant(acme.tenant) as con:
            await con.execute("update senders set session_state = $2 where id = $1", sender, state)
        async with storage.batch((acme.tenant,)) as con:
            row = await sending.sender(con, acme.tenant, sender)
        assert status in list(row)
