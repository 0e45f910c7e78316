"""A stand-in for WAHA: its paths, checks, answers by engine, errors and signed reports."""

from __future__ import annotations

import hashlib
import hmac
import time
from base64 import b64encode
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiohttp import web
from gateway.phones import PNG, Handler, PhoneServer

from harkara.ids import uuid7

REQUIRED = {"sendText": "text", "sendImage": "file", "sendFile": "file", "sendVideo": "file"}

ACKS = {"ERROR": -1, "PENDING": 0, "SERVER": 1, "DEVICE": 2, "READ": 3, "PLAYED": 4}

ME = "919800000001@c.us"


@dataclass
class Session:
    """One session: a phone's account."""

    name: str
    status: str = "STOPPED"
    config: dict[str, Any] = field(default_factory=dict)
    restarts: int = 0


class Failed(Exception):
    """An answer other than success."""

    def __init__(self, status: int, body: dict[str, Any]) -> None:
        super().__init__(status)
        self.answer = web.json_response(body, status=status)


class WahaServer(PhoneServer):
    """WAHA, with sessions that are scanned by calling `scan`; `engine` decides how it names what was sent."""

    def __init__(self, engine: str = "NOWEB") -> None:
        super().__init__()
        self.engine = engine
        self.sessions: dict[str, Session] = {}
        self.seen: list[Any] = []
        self.files: dict[str, bytes] = {}

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guarded])
        add = app.router.add_route
        add("POST", "/api/sessions", self._create)
        add("GET", "/api/sessions/{session}", self._show)
        add("PUT", "/api/sessions/{session}", self._update)
        add("POST", "/api/sessions/{session}/{verb}", self._verb)
        add("GET", "/api/{session}/auth/qr", self._qr)
        add("GET", "/api/files/{name}", self._file)
        add("POST", "/api/sendSeen", self._note)
        add("POST", "/api/startTyping", self._note)
        add("POST", "/api/{kind}", self._send)
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            if request.headers.get("X-Api-Key") != self.key:
                raise Failed(401, {"message": "Unauthorized", "statusCode": 401})
            return await handler(request)
        except Failed as failed:
            return failed.answer
        except web.HTTPNotFound:
            said = f"Cannot {request.method} {request.path}"
            return web.json_response({"message": said, "error": "Not Found", "statusCode": 404}, status=404)

    # -- sessions -------------------------------------------------------------------------------------------------

    def _of(self, request: web.Request) -> Session:
        one = self.sessions.get(request.match_info["session"])
        if one is None:
            raise Failed(404, {"message": "Session not found", "error": "Not Found", "statusCode": 404})
        return one

    def _info(self, one: Session, status: int = 200) -> web.StreamResponse:
        me = {"id": ME, "pushName": "Shop"} if one.status == "WORKING" else None
        body = {"name": one.name, "status": one.status, "config": one.config, "me": me, "assignedWorker": "w"}
        return web.json_response(body, status=status)

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if body["name"] in self.sessions:
            said = f"Session '{body['name']}' already exists. Use PUT to update it."
            raise Failed(422, {"message": said, "error": "Unprocessable Entity", "statusCode": 422})
        one = self.sessions[body["name"]] = Session(body["name"], config=body.get("config") or {})
        if body.get("start"):
            self._starts(one)
        return self._info(one, 201)

    async def _show(self, request: web.Request) -> web.StreamResponse:
        return self._info(self._of(request))

    async def _update(self, request: web.Request) -> web.StreamResponse:
        one = self._of(request)
        one.config = (await request.json())["config"]
        if one.status != "STOPPED":
            one.restarts += 1
        return self._info(one)

    async def _verb(self, request: web.Request) -> web.StreamResponse:
        one, verb = self._of(request), request.match_info["verb"]
        if verb == "start" and one.status in ("STOPPED", "FAILED"):
            self._starts(one)
        elif verb == "restart":
            one.restarts += 1
            self.becomes(one.name, "STARTING")
            self.becomes(one.name, "WORKING")
        elif verb == "logout":
            self._starts(one)
        return self._info(one, 201)

    def _starts(self, one: Session) -> None:
        self.becomes(one.name, "STARTING")
        self.becomes(one.name, "SCAN_QR_CODE")

    async def _qr(self, request: web.Request) -> web.StreamResponse:
        one = self._of(request)
        if one.status != "SCAN_QR_CODE":
            raise self._not_as_expected(one, "SCAN_QR_CODE")
        if request.query.get("format") == "raw":
            return web.json_response({"value": "2@code"})
        if request.headers.get("Accept") == "application/json":
            return web.json_response({"mimetype": "image/png", "data": b64encode(PNG).decode()})
        return web.Response(body=PNG, content_type="image/png")

    @staticmethod
    def _not_as_expected(one: Session, expected: str) -> Failed:
        said = "Session status is not as expected. Try again later or restart the session"
        return Failed(422, {"error": said, "session": one.name, "status": one.status, "expected": [expected]})

    # -- messages -------------------------------------------------------------------------------------------------

    async def _send(self, request: web.Request) -> web.StreamResponse:
        kind, body = request.match_info["kind"], await request.json()
        if kind not in REQUIRED:
            raise web.HTTPNotFound
        wrong = [f"{name} should not be empty" for name in ("chatId", REQUIRED[kind]) if not body.get(name)]
        if wrong:
            raise Failed(400, {"statusCode": 400, "message": wrong, "error": "Bad Request"})
        one = self.sessions.get(body["session"])
        if one is None:
            said = f'Session "{body["session"]}" does not exist'
            raise Failed(422, {"message": said, "error": "Unprocessable Entity", "statusCode": 422})
        if one.status != "WORKING":
            raise self._not_as_expected(one, "WORKING")
        fault = self.faults.pop(0) if self.faults else ""
        if body["chatId"].split("@")[0] in self.strangers:
            raise self._exception("No LID for user")
        if fault == "server-error":
            raise self._exception("2 UNKNOWN: server returned error 463")
        key = self.new_key()
        self.taken.append({"id": key, "to": body["chatId"], "kind": kind, "body": body, "session": one.name})
        number, at, host = body["chatId"].partition("@")
        body["chatId"] = f"{self.rewritten.get(number, number)}{at}{host}"
        message = self._message(key, body)
        if fault == "fails-after-sending":
            self._report(one, "message.any", message)
            raise self._exception("Evaluation failed")
        if fault == "acks-before-answering":
            self._acks(one, key, body["chatId"])
            await self.settled()
        self._report(one, "message.any", message)
        if fault == "drops":
            assert request.transport
            request.transport.close()
        if fault != "acks-before-answering":
            self._acks(one, key, body["chatId"])
        return web.json_response(self._answer(key, message), status=201)

    @staticmethod
    def _exception(message: str) -> Failed:
        exception = {"message": message, "name": "Error", "stack": "Error: …"}
        return Failed(500, {"statusCode": 500, "timestamp": "2026-07-01T00:00:00.000Z", "exception": exception})

    def _message(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": f"true_{body['chatId']}_{key}",
            "timestamp": int(time.time()),
            "from": ME,
            "fromMe": True,
            "source": "api",
            "to": body["chatId"],
            "body": body.get("text") or body.get("caption") or "",
            "hasMedia": "file" in body,
            "media": None,
            "ack": 0,
            "ackName": "PENDING",
            "replyTo": None,
        }

    def _answer(self, key: str, message: dict[str, Any]) -> dict[str, Any]:
        if self.engine == "WEBJS":
            id_ = {"fromMe": True, "remote": message["to"], "id": key, "_serialized": message["id"]}
            return message | {"id": id_, "_data": {"id": id_}}
        if self.engine == "OLD-NOWEB":
            return {"key": {"remoteJid": message["to"], "fromMe": True, "id": key}, "status": "PENDING"}
        return message

    def _acks(self, one: Session, key: str, chat: str) -> None:
        for name in self.acks:
            self.ack(one.name, f"true_{chat}_{key}", chat, name)

    async def _note(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(await request.json())
        return web.json_response({"result": True}, status=201)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        data = self.files.get(request.match_info["name"])
        if data is None:
            raise web.HTTPNotFound
        return web.Response(body=data, content_type="image/png")

    # -- what happens at the phone --------------------------------------------------------------------------------

    def becomes(self, name: str, status: str) -> None:
        """The session's state changes."""
        one = self.sessions[name]
        one.status = status
        self._report(one, "session.status", {"name": name, "status": status})

    def scan(self, name: str) -> None:
        """The phone scans the code."""
        self.becomes(name, "WORKING")

    def phone_logs_out(self, name: str) -> None:
        """The account is unlinked at the phone: WAHA asks for a new scan."""
        self._starts(self.sessions[name])

    def ack(self, name: str, id_: str, chat: str, ack: str) -> None:
        """An acknowledgement of a message."""
        body = {"id": id_, "from": chat, "to": ME, "participant": None, "fromMe": True}
        self._report(self.sessions[name], "message.ack", body | {"ack": ACKS[ack], "ackName": ack})

    def writes(self, name: str, chat: str, **more: Any) -> str:
        """Somebody writes; the message's id. WAHA tells it twice: as `message` and as `message.any`."""
        id_ = f"false_{chat}_{self.new_key()}"
        body = {
            "id": id_,
            "timestamp": int(time.time()),
            "from": chat,
            "fromMe": False,
            "source": "app",
            "to": ME,
            "body": "",
            "hasMedia": False,
            "media": None,
            "replyTo": None,
            "_data": {"pushName": "Asha"},
        } | more
        self._report(self.sessions[name], "message", body)
        self._report(self.sessions[name], "message.any", body)
        return id_

    def reports(self, name: str, event: str, payload: dict[str, Any]) -> None:
        """Any other report."""
        self._report(self.sessions[name], event, payload)

    def _report(self, one: Session, event: str, payload: dict[str, Any]) -> None:
        for hook in one.config.get("webhooks") or ():
            if event not in hook["events"]:
                continue
            body = {
                "id": f"evt_{uuid7().hex}",
                "timestamp": time.time_ns() // 1_000_000,
                "event": event,
                "session": one.name,
                "metadata": {},
                "me": {"id": ME, "pushName": "Shop"},
                "payload": payload,
                "engine": self.engine,
                "environment": {"version": "2026.7.1", "engine": self.engine, "tier": "CORE", "browser": None},
            }
            key = (hook.get("hmac") or {}).get("key")
            self.report(hook["url"], body, partial(self._signed, key))

    @staticmethod
    def _signed(key: str | None, data: bytes) -> dict[str, str]:
        headers = {"X-Webhook-Request-Id": uuid7().hex, "X-Webhook-Timestamp": str(time.time_ns() // 1_000_000)}
        if key:
            headers["X-Webhook-Hmac"] = hmac.new(key.encode(), data, hashlib.sha512).hexdigest()
            headers["X-Webhook-Hmac-Algorithm"] = "sha512"
        return headers
