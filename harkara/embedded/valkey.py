"""Valkey on a Unix socket, as a cache that may forget: nothing of it is kept on disk."""

from __future__ import annotations

import asyncio
import signal
from datetime import timedelta
from pathlib import Path

from harkara.embedded import binaries
from harkara.embedded.directory import DataDirectory
from harkara.embedded.process import Child


class Valkey:
    """The cache. `url` is known before it runs."""

    name = "valkey"
    stop_steps = ((signal.SIGTERM, timedelta(seconds=3)),)

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._socket = directory.sockets() / "valkey.sock"
        self._program = Path()

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"unix://{self._socket}"

    async def prepare(self) -> None:
        """Finds the program."""
        self._program = await binaries.valkey_server()

    def spawn(self) -> Child:
        """Starts it; a socket left by one that was killed is replaced."""
        self._socket.unlink(missing_ok=True)
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self._socket.parent),
            "save": "",
            "appendonly": "no",
            "maxmemory": "64mb",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return Child(
            [str(self._program), *arguments],
            log=self._directory.logs / "valkey.log",
            lock=self._directory.children_lock,
            death_signal=signal.SIGTERM,
        )

    async def answers(self, child: Child) -> bool:
        """Whether it says PONG."""
        try:
            reader, writer = await asyncio.open_unix_connection(self._socket)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"
        except OSError:
            return False
        finally:
            writer.close()

    async def ailment(self) -> str:
        """It writes nothing, so nothing keeps it from working."""
        return ""

    def diagnose(self, output: str) -> str:
        """It keeps nothing on disk and takes no port: its own last line says it best."""
        return ""
