"""A cluster of nats-servers of a test's own, on the configuration that production has; each may be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import msgspec
from nats_server import binary
from support import until

from harkara.embedded import launch
from harkara.embedded.nats import config
from harkara.nkeys import AccountKey

PASSWORD = "a password with a # and a blank"

#: Signs what partners may do there.
PARTNERS_KEY = AccountKey.derived(PASSWORD)
QUOTED = "a%20password%20with%20a%20%23%20and%20a%20blank"


class Node:
    """One server of the cluster, on ports that stay the same."""

    def __init__(self, name: str, store: Path, ports: tuple[int, int, int]) -> None:
        self.name = name
        self._store = store
        self.port, self.monitor_port, self.route_port = ports
        self._process: subprocess.Popen[bytes] | None = None

    def spawn(self, routes: str) -> None:
        """Start it; it is part of the cluster some time later."""
        self._store.mkdir(parents=True, exist_ok=True)
        environ = os.environ | {
            "NATS_NAME": f'"{self.name}"',
            "NATS_LISTEN": f'"127.0.0.1:{self.port}"',
            "NATS_MONITOR": f'"127.0.0.1:{self.monitor_port}"',
            "NATS_CLUSTER_LISTEN": f'"127.0.0.1:{self.route_port}"',
            "NATS_ROUTES": routes,
            "NATS_STORE": f'"{self._store}"',
            "NATS_PORTS_DIR": f'"{self._store}"',
            "NATS_PASSWORD": f'"{PASSWORD}"',
            "NATS_WEBSOCKET": '"127.0.0.1:-1"',
            "NATS_PARTNERS_ISSUER": f'"{PARTNERS_KEY.public}"',
        }
        tied = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(signal.SIGKILL)), "plain"]
        command = [*(tied if sys.platform == "linux" else []), binary(), "-c", str(config().with_name("cluster.conf"))]
        with (self._store / "nats.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=environ, stdout=log, stderr=log)

    def kill(self) -> None:
        """kill -9, as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """An orderly end: it hands over what it leads."""
        self._end(signal.SIGTERM)

    def _end(self, signum: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(signum)
            self._process.wait()
            self._process = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def ask(self, path: str) -> Any:
        """What its monitoring page says; None if nothing."""
        try:
            with urlopen(f"http://127.0.0.1:{self.monitor_port}/{path}", timeout=2) as answer:
                return msgspec.json.decode(answer.read())
        except (OSError, HTTPException, msgspec.DecodeError):
            return None

    async def healthy(self) -> bool:
        """Whether it has caught up with everything it keeps."""
        return bool(await asyncio.to_thread(self.ask, "healthz"))


class Nodes:
    """Servers n1, n2, n3 that know each other."""

    def __init__(self, directory: Path, ports: list[int]) -> None:
        self.nodes = {
            f"n{number + 1}": Node(f"n{number + 1}", directory / f"n{number + 1}", (a, b, c))
            for number, (a, b, c) in enumerate(zip(ports[::3], ports[1::3], ports[2::3], strict=True))
        }

    @property
    def routes(self) -> str:
        named = (f'"nats://route:{QUOTED}@127.0.0.1:{node.route_port}"' for node in self.nodes.values())
        return f"[{', '.join(named)}]"

    @property
    def url(self) -> str:
        """All of them, as NATS_URL names them."""
        return ",".join(self.url_of(name) for name in self.nodes)

    def url_of(self, name: str) -> str:
        return f"nats://svc:{QUOTED}@127.0.0.1:{self.nodes[name].port}"

    async def start(self, *names: str) -> None:
        """Start these, or all, and wait until the cluster is whole."""
        for name in names or self.nodes:
            self.nodes[name].spawn(self.routes)
        await self.until_healthy()

    async def until_healthy(self, within_s: float = 120) -> None:
        async def healthy() -> bool:
            return all([await node.healthy() for node in self.nodes.values() if node.running])

        await until(healthy, "every server has caught up", within_s, every=0.05)

    def close(self) -> None:
        for node in self.nodes.values():
            node.kill()


@asynccontextmanager
async def clustered(directory: Path, ports: list[int]) -> AsyncIterator[Nodes]:
    """Three servers, whole; nothing of them runs after the block."""
    nodes = Nodes(directory, ports)
    try:
        await nodes.start()
        yield nodes
    finally:
        nodes.close()
