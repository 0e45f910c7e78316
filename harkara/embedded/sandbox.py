"""The sandbox WhatsApp gateway as a process of its own, as the real one is: it is killed and restarted without us."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import timedelta

from harkara.embedded import ports
from harkara.embedded.directory import DataDirectory
from harkara.embedded.process import Child

PORT_OPTION = "--gateway-port"


class Sandbox:
    """The gateway on loopback; what it has accepted is kept in the data directory."""

    name = "gateway"
    stop_steps = ((signal.SIGTERM, timedelta(seconds=5)),)

    def __init__(self, directory: DataDirectory, port: int) -> None:
        self._directory, self._port = directory, port

    @property
    def url(self) -> str:
        """Where clients and people find it."""
        return f"http://{ports.HOST}:{self._port}"

    async def prepare(self) -> None:
        """Nothing: it makes what it needs."""

    def spawn(self) -> Child:
        """Start `harkara gateway` with this interpreter, wherever we were started from."""
        data = str(self._directory.path / "gateway")
        return Child(
            [sys.executable, "-m", "harkara", "gateway", "--port", str(self._port), "--data", data],
            log=self._directory.logs / "gateway.log",
            lock=self._directory.children_lock,
            death_signal=signal.SIGTERM,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )

    async def answers(self, child: Child) -> bool:
        """Whether it accepts connections."""
        try:
            _, writer = await asyncio.open_connection(ports.HOST, self._port)
        except OSError:
            return False
        writer.close()
        return child.status is None

    async def ailment(self) -> str:
        """What keeps it from working ends it."""
        return ""

    def diagnose(self, output: str) -> str:
        """A port that is taken is the one thing that a user can mend at once."""
        if "in use" in output:
            return ports.taken(ports.Port(PORT_OPTION, self._port))
        return ""
