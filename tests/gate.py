"""A gate before a server, to take it away and give it back without touching the server itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from harkara.embedded.ports import free_ports


class Gate:
    """Forwards a TCP port to a server while it is open. Closed, it refuses; stalled, it takes and answers nothing."""

    def __init__(self, target: str | tuple[str, int]) -> None:
        self._target = target
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._tasks: set[asyncio.Task[None]] = set()
        # Nobody else is given it while the gate is closed.
        (self.port,) = free_ports(1)

    async def open(self) -> None:
        """Let through, on the same port every time."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def close(self) -> None:
        """Cut all connections and refuse new ones."""
        assert self._server
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stall(self) -> None:
        """Hold back all that comes."""
        self._flowing.clear()

    def flow(self) -> None:
        """Let it go on."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            if isinstance(self._target, str):
                there = await asyncio.open_unix_connection(self._target)
            else:
                there = await asyncio.open_connection(*self._target)
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, there[1]))
                both.create_task(self._pump(there[0], writer))
        except* OSError:
            pass
        finally:
            self._tasks.discard(task)
            writer.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            try:
                while data := await reader.read(65_536):
                    await self._flowing.wait()
                    writer.write(data)
                    await writer.drain()
            finally:
                writer.transport.abort()


def target_of(url: str) -> str | tuple[str, int]:
    """Where a server's URL leads: a Unix socket's path, or host and port."""
    parts = urlsplit(url)
    if parts.scheme == "unix":
        return parts.path
    assert parts.hostname
    assert parts.port
    return parts.hostname, parts.port


@asynccontextmanager
async def gate(target: str | tuple[str, int]) -> AsyncGenerator[Gate]:
    """An open gate, for as long as the block lasts."""
    made = Gate(target)
    await made.open()
    try:
        yield made
    finally:
        made.flow()
        await made.close()
