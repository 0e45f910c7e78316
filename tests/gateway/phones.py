"""What the stand-ins for Evolution API and WAHA have in common: reports, sent again until somebody takes them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
from aiohttp import web

#: One pixel.
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c49444154789c63f8ffff3f0005fe02fe0def46b8"
    "0000000049454e44ae426082"
)


class PhoneServer:
    """A gateway that lends a phone's account: sessions, what was sent, faults, and reports to a webhook."""

    def __init__(self) -> None:
        self.key = "global-key"
        self.url = ""
        #: What WhatsApp took, in order: `{id, to, kind, body, session}`.
        self.taken: list[dict[str, Any]] = []
        #: Each is used up by one send: what shall go wrong with it.
        self.faults: list[str] = []
        #: Numbers that are not on WhatsApp.
        self.strangers: set[str] = set()
        #: Numbers that WhatsApp writes otherwise than they were written to, in all that is told of them.
        self.rewritten: dict[str, str] = {}
        #: Statuses that the phone reports by itself for each message.
        self.acks: tuple[str, ...] = ()
        #: Answers of the receiver that were not 2xx.
        self.refused: list[int] = []
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0
        self._in_order = asyncio.Lock()

    def app(self) -> web.Application:
        """The server as an application."""
        raise NotImplementedError

    def new_key(self) -> str:
        """The key of the next message, as Baileys makes them."""
        self._count += 1
        return f"3EB0{self._count:016X}"

    def report(self, url: str, body: Any, sign: Callable[[bytes], Mapping[str, str]]) -> None:
        """Send a webhook, again and again until it is taken or refused for good; in the order in which they begin."""
        task = asyncio.create_task(self._deliver(url, json.dumps(body, ensure_ascii=False).encode(), sign))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, url: str, data: bytes, sign: Callable[[bytes], Mapping[str, str]]) -> None:
        async with self._in_order:
            await self._until_taken(url, data, sign)

    async def _until_taken(self, url: str, data: bytes, sign: Callable[[bytes], Mapping[str, str]]) -> None:
        assert self._session
        for _ in range(600):
            headers = {"Content-Type": "application/json", **sign(data)}
            try:
                async with self._session.post(url, data=data, headers=headers) as answer:
                    if answer.status < 300:
                        return
                    self.refused.append(answer.status)
                    if answer.status in (400, 401, 403, 404, 422):
                        return
            except (aiohttp.ClientError, OSError):
                pass
            await asyncio.sleep(0.1)

    async def settled(self) -> None:
        """All reports that were begun are through."""
        while self._tasks:
            await asyncio.gather(*self._tasks)

    async def opened(self) -> None:
        self._session = aiohttp.ClientSession()

    async def closed(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session:
            await self._session.close()


P = TypeVar("P", bound=PhoneServer)


@asynccontextmanager
async def phone_server(server: P, port: int = 0) -> AsyncIterator[P]:
    """The server, on this port or a free one of its own."""
    await server.opened()
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await server.closed()
        await runner.cleanup()


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
