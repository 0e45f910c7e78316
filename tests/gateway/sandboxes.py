"""Sandboxes for tests: one inside the test's own process, one as a process that can be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from harkara.embedded.ports import free_ports
from harkara.gateway.sandbox import build_app
from harkara.gateway.sandbox.webhooks import signature

NUMBER = "106540352242922"
TOKEN = {"Authorization": "Bearer EAAG-test"}

_PROGRAM = """
import asyncio, sys
from pathlib import Path
from harkara.gateway.sandbox import run_sandbox
asyncio.run(run_sandbox("127.0.0.1", int(sys.argv[1]), Path(sys.argv[2]), lambda url: print(url, flush=True)))
"""


class Caller:
    """Speaks raw HTTP to a sandbox, as any client would."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def call(self, method: str, path: str, **kwargs: Any) -> tuple[int, Any]:
        """The status and the decoded answer."""
        async with self._session.request(method, self.url + path, **kwargs) as response:
            is_json = "json" in response.content_type
            return response.status, await (response.json() if is_json else response.read())

    async def post(self, body: Any, *, number: str = NUMBER, version: str = "v23.0") -> tuple[int, Any]:
        """Send a raw message body."""
        return await self.call("POST", f"/{version}/{number}/messages", json=body, headers=TOKEN)

    async def text(self, to: str, body: str = "Namaste", *, number: str = NUMBER, **more: Any) -> tuple[int, Any]:
        """Send a text."""
        return await self.post(
            {"messaging_product": "whatsapp", "to": to, "type": "text", "text": {"body": body}, **more}, number=number
        )

    async def accepted(self, to: str, body: str = "Namaste", **more: Any) -> str:
        """Send a text that must be accepted; its wamid."""
        status, answer = await self.text(to, body, **more)
        assert status == 200, answer
        return str(answer["messages"][0]["id"])

    async def items(self, query: str = "") -> list[dict[str, Any]]:
        """What the sandbox says it accepted."""
        status, answer = await self.call("GET", "/sandbox/messages" + query)
        assert status == 200, answer
        items: list[dict[str, Any]] = answer["items"]
        return items

    async def put(self, what: str, body: Any) -> Any:
        """Change a setting of the sandbox."""
        status, answer = await self.call("PUT", f"/sandbox/{what}", json=body)
        assert status == 200, answer
        return answer

    async def inbound(self, **fields: Any) -> str:
        """Make a phone write; the wamid."""
        status, answer = await self.call("POST", "/sandbox/inbound", json={"to": NUMBER, **fields})
        assert status == 200, answer
        return str(answer["id"])

    async def register(self, *numbers: str) -> None:
        """Make these numbers known, without webhooks."""
        for number in numbers or (NUMBER,):
            await self.put("webhook", {"phone_number_id": number})

    async def hook(self, hook: Hook, **more: Any) -> None:
        """Send this number's webhooks to a receiver."""
        body = {"phone_number_id": NUMBER, "url": hook.url, "app_secret": hook.secret, **more}
        await self.put("webhook", body)


class Hook:
    """A webhook receiver: keeps what it got, and answers what it is told to."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.secret = "s3cret"
        self.verify_token = "verify-me"
        self.answers: list[int] = []
        self.refuses = b"nothing at all"
        self.bodies: list[bytes] = []
        self.changes: list[dict[str, Any]] = []
        self.bad_signatures = 0
        #: Nobody is answered while it is cleared.
        self.answering = asyncio.Event()
        self.answering.set()

    async def receive(self, request: web.Request) -> web.Response:
        body = await request.read()
        await self.answering.wait()
        if request.headers.get("X-Hub-Signature-256") != signature(self.secret, body):
            self.bad_signatures += 1
        self.bodies.append(body)
        if self.answers and (status := self.answers.pop(0)) != 200:
            return web.Response(status=status)
        if self.refuses in body:
            return web.Response(status=400)
        for entry in (await request.json())["entry"]:
            self.changes += entry["changes"]
        return web.Response()

    async def verify(self, request: web.Request) -> web.Response:
        if request.query["hub.verify_token"] != self.verify_token or request.query["hub.mode"] != "subscribe":
            return web.Response(status=403)
        return web.Response(text=request.query["hub.challenge"])

    def statuses(self, wamid: str | None = None) -> list[str]:
        """The names of all statuses received, of one message or of all."""
        values = [status for change in self.changes for status in change["value"].get("statuses", [])]
        return [value["status"] for value in values if wamid in (None, value["id"])]

    def messages(self) -> list[dict[str, Any]]:
        """All inbound messages received."""
        return [message for change in self.changes for message in change["value"].get("messages", [])]


async def _served(app: web.Application) -> tuple[web.AppRunner, str]:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


@asynccontextmanager
async def serving(app: web.Application) -> AsyncIterator[str]:
    """An application on a free port of its own; gives its address."""
    runner, url = await _served(app)
    try:
        yield url
    finally:
        await runner.cleanup()


@asynccontextmanager
async def sandbox_in(data: Path, *, strict: bool = False) -> AsyncIterator[Caller]:
    """A sandbox inside this process."""
    async with serving(build_app(data, strict=strict)) as url, aiohttp.ClientSession() as session:
        yield Caller(url, session)


@asynccontextmanager
async def receiving() -> AsyncIterator[Hook]:
    """A webhook receiver."""
    hook = Hook("")
    app = web.Application(client_max_size=8 << 20)
    app.router.add_post("/hook", hook.receive)
    app.router.add_get("/hook", hook.verify)
    async with serving(app) as url:
        hook.url = url + "/hook"
        yield hook


class Process:
    """A sandbox as a process of its own."""

    def __init__(self, data: Path) -> None:
        self._data = data
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""
        # Nobody else is given it while the process is killed and started again.
        (self._port,) = free_ports(1)

    async def start(self) -> None:
        """Start it, on the same port every time."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROGRAM, str(self._port), str(self._data), stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert self._process.stdout is not None
        line = await asyncio.wait_for(self._process.stdout.readline(), 60)
        self.url = line.decode().strip()
        assert self.url.startswith("http"), "the sandbox did not start"

    async def kill(self) -> None:
        """Kill it where it stands."""
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, signal.SIGKILL)
        if self._process is not None:
            await self._process.wait()


@asynccontextmanager
async def sandbox_process(data: Path) -> AsyncIterator[Process]:
    """A sandbox that can be killed and started again; gone in any case at the end."""
    process = Process(data)
    await process.start()
    try:
        yield process
    finally:
        await process.kill()
