"""A nats-server of a test's own, to be killed and restarted on the same port and store."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

from harkara.bus import topology
from harkara.bus.connection import Bus, connect
from harkara.embedded.ports import free_ports


def binary() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, "nats-server is missing: run make setup"
    return found


class Server:
    """One server on a fixed port with its own store."""

    def __init__(self, store: Path, *, max_file: str = "20GB", password: str = "") -> None:
        (self.port,) = free_ports(1)
        self._store = store
        self._max_file = max_file
        self._users = f'authorization {{ user: svc, password: "{password}" }}\n' if password else ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def freeze(self) -> None:
        """Stop it in its tracks, as a paused machine does; returns when it stands still."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)

    def thaw(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    async def start(self) -> None:
        self._store.mkdir(parents=True, exist_ok=True)
        config = self._store / "server.conf"
        config.write_text(
            f'listen: "127.0.0.1:{self.port}"\nmax_payload: 1MB\n'
            f'jetstream {{ store_dir: "{self._store}", max_file: {self._max_file} }}\n{self._users}'
        )
        self._process = subprocess.Popen(  # noqa: ASYNC220 - a fork takes a millisecond
            [binary(), "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(3000):  # half a minute: a busy machine takes its time with what a store holds
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.close()
                await writer.wait_closed()
                return
            assert self._process.poll() is None, "nats-server did not start"
            await asyncio.sleep(0.01)
        raise AssertionError("nats-server does not answer")

    def kill(self) -> None:
        """kill -9, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """An orderly end, also of a server that a test has stopped in its tracks."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.terminate()
            self._process.wait()
            self._process = None


@asynccontextmanager
async def serving(store: Path) -> AsyncIterator[Server]:
    """A server, running until the block is left."""
    made = Server(store)
    await made.start()
    try:
        yield made
    finally:
        made.stop()


@asynccontextmanager
async def connected(server: Server) -> AsyncIterator[Bus]:
    """A bus with the real topology on it; what it publishes while the server is away waits for it for long."""
    async with await connect(server.url, patience=timedelta(seconds=60)) as opened:
        await topology.apply(opened.js)
        yield opened
