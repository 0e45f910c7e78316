"""A stand-in for Evolution API v2.3.6: its paths, checks, answers, errors and reports."""

from __future__ import annotations

import time
from base64 import b64encode
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jwt
from aiohttp import web
from gateway.phones import PNG, Handler, PhoneServer

#: What each path needs in its body, as its schemas say.
REQUIRED = {
    "sendText": ("number", "text"),
    "sendMedia": ("number", "mediatype"),
    "sendSticker": ("number", "sticker"),
    "sendButtons": ("number",),
    "sendList": ("number", "title", "footerText", "buttonText", "sections"),
}


@dataclass
class Instance:
    """One instance: a phone's account."""

    name: str
    state: str = "close"
    webhook: dict[str, Any] = field(default_factory=dict)
    qr: int = 0


class Failed(Exception):
    """An answer other than success."""

    def __init__(self, status: int, error: str, message: Any) -> None:
        super().__init__(error)
        self.answer = web.json_response(
            {"status": status, "error": error, "response": {"message": message}}, status=status
        )


class EvolutionServer(PhoneServer):
    """Evolution API, with instances that are scanned by calling `scan`."""

    def __init__(self) -> None:
        super().__init__()
        self.instances: dict[str, Instance] = {}
        self.seen: list[Any] = []
        self.files: dict[str, bytes] = {}

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._guarded])
        add = app.router.add_route
        add("POST", "/instance/create", self._create)
        add("GET", "/instance/connectionState/{instance}", self._state)
        add("GET", "/instance/connect/{instance}", self._connect)
        add("POST", "/instance/restart/{instance}", self._restart)
        add("DELETE", "/instance/logout/{instance}", self._logout)
        add("POST", "/webhook/set/{instance}", self._hook)
        add("POST", "/message/{kind}/{instance}", self._send)
        add("POST", "/chat/markMessageAsRead/{instance}", self._read)
        add("POST", "/chat/sendPresence/{instance}", self._presence)
        add("POST", "/chat/getBase64FromMediaMessage/{instance}", self._file)
        return app

    @web.middleware
    async def _guarded(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            name = request.match_info.get("instance")
            if name is not None and name not in self.instances:
                raise Failed(404, "Not Found", [f'The "{name}" instance does not exist'])
            if request.headers.get("apikey") != self.key:
                raise Failed(401, "Unauthorized", "Unauthorized")
            return await handler(request)
        except Failed as failed:
            return failed.answer
        except web.HTTPNotFound:
            return Failed(404, "Not Found", [f"Cannot {request.method} {request.path}"]).answer

    def _instance(self, request: web.Request) -> Instance:
        return self.instances[request.match_info["instance"]]

    # -- instances ------------------------------------------------------------------------------------------------

    async def _create(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        name = body["instanceName"]
        if name in self.instances:
            raise Failed(403, "Forbidden", [f'This name "{name}" is already in use.'])
        self.instances[name] = Instance(name)
        return web.json_response({"instance": {"instanceName": name, "status": "close"}, "hash": "token"}, status=201)

    async def _state(self, request: web.Request) -> web.StreamResponse:
        one = self._instance(request)
        return web.json_response({"instance": {"instanceName": one.name, "state": one.state}})

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        one = self._instance(request)
        if one.state == "open":
            return await self._state(request)
        if one.state in ("close", "refused"):
            one.state = "connecting"
            self._report(one, "connection.update", {"instance": one.name, "state": "connecting", "statusReason": 200})
            self._new_code(one)
        return web.json_response({"pairingCode": None, **self._code(one), "count": one.qr})

    def _new_code(self, one: Instance) -> None:
        one.qr += 1
        self._report(one, "qrcode.updated", {"qrcode": {"instance": one.name, "pairingCode": None, **self._code(one)}})

    @staticmethod
    def _code(one: Instance) -> dict[str, str]:
        return {"code": f"2@code-{one.qr}", "base64": f"data:image/png;base64,{b64encode(PNG).decode()}"}

    async def _restart(self, request: web.Request) -> web.StreamResponse:
        one = self._instance(request)
        if one.state == "close":
            return web.json_response({"error": True, "message": f'Error: The "{one.name}" instance is not connected'})
        return await self._connect(request)

    async def _logout(self, request: web.Request) -> web.StreamResponse:
        one = self._instance(request)
        if one.state == "close":
            raise Failed(400, "Bad Request", [f'The "{one.name}" instance is not connected'])
        self.phone_logs_out(one.name)
        return web.json_response({"status": "SUCCESS", "error": False, "response": {"message": "Instance logged out"}})

    async def _hook(self, request: web.Request) -> web.StreamResponse:
        one = self._instance(request)
        one.webhook = (await request.json())["webhook"]
        return web.json_response({"id": "cm0", **one.webhook}, status=201)

    # -- messages -------------------------------------------------------------------------------------------------

    async def _send(self, request: web.Request) -> web.StreamResponse:
        one, kind = self._instance(request), request.match_info["kind"]
        if kind not in REQUIRED:
            raise web.HTTPNotFound
        body = await request.json()
        if missing := [f'requires property "{name}"' for name in REQUIRED[kind] if name not in body]:
            raise Failed(400, "Bad Request", [missing])
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "axios":
            raise Failed(500, "Internal Server Error", ["AxiosError: Request failed with status code 404"])
        if one.state != "open":
            raise Failed(500, "Internal Server Error", "Connection Closed")
        if fault == "closed-while-sending":
            raise Failed(400, "Bad Request", ["Error: Connection Closed"])
        number = self.rewritten.get(body["number"], body["number"])
        jid = number if "@" in number else f"{number}@s.whatsapp.net"
        if body["number"] in self.strangers:
            raise Failed(400, "Bad Request", [{"jid": jid, "exists": False, "number": body["number"]}])
        key = {"id": self.new_key(), "remoteJid": jid, "fromMe": True}
        self.taken.append({"id": key["id"], "to": body["number"], "kind": kind, "body": body, "session": one.name})
        message = self._message(key, kind, body)
        if fault == "fails-after-sending":
            self._report(one, "send.message", message)
            raise Failed(400, "Bad Request", ["PrismaClientKnownRequestError: Invalid `create()` invocation"])
        if fault == "acks-before-answering":
            self._acks(one, key)
            await self.settled()
        self._report(one, "send.message", message)
        if fault == "drops":
            assert request.transport
            request.transport.close()
        if fault != "acks-before-answering":
            self._acks(one, key)
        return web.json_response(message, status=201)

    def _message(self, key: dict[str, Any], kind: str, body: dict[str, Any]) -> dict[str, Any]:
        content: dict[str, Any] = {"conversation": body.get("text") or body.get("caption") or body.get("title") or ""}
        if kind == "sendMedia":
            content = {f"{body['mediatype']}Message": {"caption": body.get("caption"), "mimetype": "x/y"}}
        return {
            "key": key,
            "pushName": "Você",
            "status": "PENDING",
            "message": content,
            "contextInfo": None,
            "messageType": next(iter(content)),
            "messageTimestamp": int(time.time()),
            "instanceId": "b2c3",
            "source": "web",
        }

    def _acks(self, one: Instance, key: dict[str, Any]) -> None:
        for status in self.acks:
            self.ack(one.name, key["id"], key["remoteJid"], status)

    async def _read(self, request: web.Request) -> web.StreamResponse:
        self.seen += (await request.json())["readMessages"]
        return web.json_response({"message": "Read messages", "read": "success"}, status=201)

    async def _presence(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(await request.json())
        return web.json_response({"presence": "composing"}, status=201)

    async def _file(self, request: web.Request) -> web.StreamResponse:
        data = self.files.get((await request.json())["message"]["key"]["id"])
        if data is None:
            raise Failed(400, "Bad Request", ["Message not found"])
        return web.json_response(
            {
                "mediaType": "imageMessage",
                "fileName": "a.png",
                "mimetype": "image/png",
                "base64": b64encode(data).decode(),
            },
            status=201,
        )

    # -- what happens at the phone --------------------------------------------------------------------------------

    def scan(self, name: str) -> None:
        """The phone scans the code."""
        one = self.instances[name]
        one.state = "open"
        more = {"wuid": "919800000001@s.whatsapp.net", "profileName": "Shop", "profilePictureUrl": None}
        self._report(one, "connection.update", {"instance": name, **more, "state": "open", "statusReason": 200})

    def phone_logs_out(self, name: str) -> None:
        """The account is unlinked at the phone."""
        one = self.instances[name]
        one.state = "close"
        self._report(one, "connection.update", {"instance": name, "state": "close", "statusReason": 401})

    def nobody_scans(self, name: str) -> None:
        """The last code has run out."""
        one = self.instances[name]
        one.state = "refused"
        self._report(one, "connection.update", {"instance": name, "state": "refused", "statusReason": 428})

    def ack(self, name: str, key: str, jid: str, status: str) -> None:
        """A status of a message."""
        data = {
            "keyId": key,
            "remoteJid": jid,
            "fromMe": True,
            "status": status,
            "instanceId": "b2c3",
            "messageId": "cm1",
        }
        self._report(self.instances[name], "messages.update", data)

    def writes(self, name: str, jid: str, message: dict[str, Any], kind: str = "conversation", **key: Any) -> str:
        """Somebody writes; the message's key."""
        id_ = self.new_key()
        data = {
            "key": {"id": id_, "remoteJid": jid, "fromMe": False, **key},
            "pushName": "Asha",
            "status": "DELIVERY_ACK",
            "message": message,
            "messageType": kind,
            "contextInfo": message.get(kind, {}).get("contextInfo") if isinstance(message.get(kind), dict) else None,
            "messageTimestamp": int(time.time()),
            "instanceId": "b2c3",
            "source": "android",
        }
        self._report(self.instances[name], "messages.upsert", data)
        return id_

    def _report(self, one: Instance, event: str, data: Any) -> None:
        if not one.webhook.get("enabled") or event.replace(".", "_").upper() not in one.webhook["events"]:
            return
        body = {
            "event": event,
            "instance": one.name,
            "data": data,
            "destination": one.webhook["url"],
            "date_time": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "sender": "919800000001@s.whatsapp.net",
            "server_url": self.url,
            "apikey": self.key,
        }
        self.report(one.webhook["url"], body, lambda _: self._token(one.webhook.get("headers") or {}))

    @staticmethod
    def _token(headers: dict[str, str]) -> dict[str, str]:
        made = dict(headers)
        if secret := made.pop("jwt_key", None):
            now = int(time.time())
            claims = {"iat": now, "exp": now + 600, "app": "evolution", "action": "webhook"}
            made["Authorization"] = f"Bearer {jwt.encode(claims, secret, algorithm='HS256')}"
        return made
