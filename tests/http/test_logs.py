"""No secret, code, token, password or key is ever in a log line: a whole journey at TRACE, with every way to fail."""

from __future__ import annotations

import hmac
import io
import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from aiohttp import ClientSession
from chaos.harness import running
from door_client import a_phone
from loguru import logger
from support import quick_directory, until

from harkara import log
from harkara.bus.errors import Unavailable


class Secrets(dict[str, str]):
    """Everything that must never be logged, by what it is."""

    def make(self, name: str) -> str:
        self[name] = f"{name}-{uuid4().hex}"
        return self[name]

    def found_in(self, text: str) -> dict[str, str]:
        """Those that are in this text, with the line."""
        lines = text.splitlines()
        return {name: line for name, secret in self.items() for line in lines if secret in line}


class Journey:
    """Somebody who does everything once, well and badly, and remembers what was secret in it."""

    def __init__(self, session: ClientSession, url: str) -> None:
        self._session, self._url = session, url
        self.secrets = Secrets()
        self.tried = 0

    async def call(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """The answer, decoded if it is JSON. Who is told to come again, as on a busy machine, does."""
        self.tried += 1
        if body is not None:
            more["data"] = body if isinstance(body, bytes) else json.dumps(body).encode()
            more["headers"] = {"Content-Type": "application/json"} | more.get("headers", {})

        async def told() -> list[str] | None:
            async with self._session.request(method, f"{self._url}{path}", **more) as answer:
                text = await answer.text()
                return None if answer.status == 503 else [text]

        [text] = await until(told, f"an answer to {method} {path}", every=0.5)
        return json.loads(text) if text.startswith("{") else text

    async def well(self) -> dict[str, str]:
        """Sign-up to message; gives the headers of who made it."""
        secrets, tenant = self.secrets, f"t-{uuid4().hex[:12]}"
        login = {"email": f"owner@{tenant}.example", "password": secrets.make("password")}
        made = await self.call("POST", "/auth/signup", {"tenant": {"id": tenant, "name": "T"}, **login})
        again = await self.call("POST", "/auth/login", login)
        fresh = await self.call("POST", "/auth/refresh", {"refresh_token": again["refresh_token"]})
        for turn, tokens in enumerate((made, again, fresh)):
            secrets[f"access{turn}"], secrets[f"refresh{turn}"] = tokens["access_token"], tokens["refresh_token"]
        headers = {"Authorization": f"Bearer {fresh['access_token']}"}
        key = (await self.call("POST", "/api-keys", {"scopes": ["*"]}, headers=headers))["key"]
        secrets["key"] = key
        headers = {"X-API-Key": key}
        app_secret = secrets.make("app_secret")
        number = {"phone_number_id": str(uuid4().int)[:15], "access_token": secrets.make("whatsapp_token")}
        wanted = {"name": "S", "provider": "cloud", "app_secret": app_secret, **number}
        sender = await self.call("POST", "/senders", wanted, headers=headers)
        secrets["verify_token"] = sender["verify_token"]
        code = secrets.make("493817")
        for lane in ("otp", "utility"):
            message = {"sender_id": sender["id"], "to": a_phone(), "lane": lane, "body": f"Your code is {code}"}
            assert "id" in await self.call("POST", "/messages", message, headers=headers)
        text = secrets.make("reply")
        webhook = json.dumps({"object": "whatsapp_business_account", "entry": [], "note": text}).encode()
        signature = "sha256=" + hmac.digest(app_secret.encode(), webhook, "sha256").hex()
        secrets["signature"] = signature
        path = f"/webhooks/whatsapp/{sender['id']}"
        answer = await self.call("POST", path, webhook, headers={"X-Hub-Signature-256": signature})
        assert answer == {"status": "accepted"}
        unreadable = json.dumps({"entry": secrets.make("entry"), "note": secrets.make("note")}).encode()
        signed = "sha256=" + hmac.digest(app_secret.encode(), unreadable, "sha256").hex()
        assert (await self.call("POST", path, unreadable, headers={"X-Hub-Signature-256": signed})) == answer
        token = sender["verify_token"]
        await self.call("GET", f"{path}?hub.mode=subscribe&hub.challenge=1&hub.verify_token={token}")
        ticket = (await self.call("POST", "/feed/ticket", headers=headers))["ticket"]
        secrets["ticket"] = ticket
        async with self._session.ws_connect(f"{self._url}/feed?ticket={ticket}") as feed:
            await feed.send_str(json.dumps({"subscribe": ["*"], "since": 0, secrets.make("wish"): 1}))
            await feed.receive()
        await self.call("GET", f"/feed?ticket={ticket}")
        await self.badly(headers, sender["id"])
        return headers

    async def badly(self, headers: dict[str, str], sender: str) -> None:
        """Everything that fails, with something secret in each."""
        make = self.secrets.make
        await self.call("POST", "/auth/login", {"email": "owner@nowhere.example", "password": make("wrong")})
        await self.call("POST", "/auth/login", {"email": make("email"), "password": make("short"), "x": make("x")})
        await self.call("POST", "/auth/refresh", {"refresh_token": make("refresh")})
        await self.call("POST", "/auth/login", b'{"password": "' + make("cut").encode())
        await self.call("POST", "/contacts", {"name": "A", "phone": make("phone"), "attributes": {"a": [make("a")]}},
                        headers=headers)  # fmt: skip
        await self.call("GET", "/tenant", headers={"X-API-Key": f"hk_acme_{make('unknown')}"})
        await self.call("GET", "/tenant", headers={"Authorization": f"Bearer {make('jwt')}"})
        await self.call("GET", "/tenant", headers={"Authorization": f"Basic {make('basic')}"})
        await self.call("GET", f"/nowhere/{make('path')}?key={make('query')}")
        await self.call("GET", f"/contacts/{make('id')}", headers=headers)
        await self.call("GET", f"/contacts?cursor={make('cursor')}", headers=headers)
        await self.call("GET", f"/feed?ticket={make('used')}")
        unsigned = {"X-Hub-Signature-256": make("forged")}
        await self.call("POST", f"/webhooks/whatsapp/{sender}", {"text": make("forgery")}, headers=unsigned)
        await self.call("GET", "/tenant", headers={"X-Long": make("long") * 1000})
        await self.call("POST", "/messages", {"sender_id": sender, "to": "+919876543210", "body": "{{ " + make("var")},
                        headers=headers)  # fmt: skip
        await self.call("DELETE", f"/api-keys/{make('key_id')}", headers=headers)


@pytest.mark.parametrize("as_json", ["0", "1"], ids=["text", "json"])
async def test_a_whole_journey_leaves_no_secret_in_the_log(as_json: str) -> None:
    with quick_directory() as directory:
        async with running(Path(directory), LOG_LEVEL="TRACE", LOG_JSON=as_json) as platform:
            journey = Journey(platform.session, f"{platform.url}/api/v1")
            headers = await journey.well()

            async def failed() -> bool:
                found = await journey.call("GET", "/messages?limit=2", headers=headers)
                return all(one["status"] not in ("queued", "sending") for one in found["items"])

            await until(failed, "the messages went as far as they can", 60)
            await until(lambda: "Dead letter" in platform.process.output(), "what can't be read is given up", 60)
            await platform.process.stop()
            output = platform.process.output()
    assert journey.secrets.found_in(output) == {}
    assert len(journey.secrets) > 25
    mark = '"level":"DEBUG"' if as_json == "1" else " DEBUG "
    assert sum(mark in line for line in output.splitlines()) > 10
    if as_json == "1":
        lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        assert all({"at", "level", "message", "logger"} <= line.keys() for line in lines)
        given_up, *again = [line for line in lines if line["message"].startswith("Dead letter")]
        assert {line["message_id"] for line in again} <= {given_up["message_id"]}  # whose ack was lost comes again
        assert (given_up["actor"], given_up["attempt"]) == ("receipts", 1)
        assert given_up["tenant"].startswith("t-")
        assert {"cause", "message_id"} <= given_up.keys()


async def fail(secret: str) -> None:
    """Fails with a secret in variables, in a message, and in what caused it."""
    try:
        json.loads(f"{{{secret}")
    except ValueError as error:
        raise KeyError(secret) from error


@pytest.mark.parametrize("format_", [log.text, log.line])
async def test_an_exception_is_logged_by_kind_and_place_without_its_values(format_: Any) -> None:
    secrets, written = Secrets(), io.StringIO()
    sink = logger.add(written, level="TRACE", format=format_, diagnose=False, backtrace=False)
    try:
        await fail(secrets.make("inside"))
    except KeyError as error:
        logger.bind(request="r-1").opt(exception=error).error("a request failed")
    logger.remove(sink)
    text = written.getvalue()
    assert secrets.found_in(text) == {}
    assert "KeyError" in text
    assert "JSONDecodeError" in text
    assert "in fail" in text
    if format_ is log.line:
        assert json.loads(text)["request"] == "r-1"


async def test_our_own_errors_are_logged_with_their_text() -> None:
    written = io.StringIO()
    sink = logger.add(written, format=log.text, diagnose=False)
    logger.opt(exception=Unavailable("the broker is away: try again")).warning("not now")
    logger.remove(sink)
    assert "the broker is away: try again" in written.getvalue()
