"""nats-server with JetStream on a loopback port, configured by the one file that production reads too."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from datetime import timedelta
from pathlib import Path

import msgspec
from loguru import logger
from msgspec import Struct

import harkara
from harkara.embedded import binaries, ports
from harkara.embedded.directory import DataDirectory
from harkara.embedded.errors import StackError
from harkara.embedded.process import Child
from harkara.nkeys import AccountKey

PORT_OPTION = "--nats-port"
WEBSOCKET_OPTION = "--nats-websocket-port"
_HEALTH_LIMIT = timedelta(seconds=5)
_ROOM_TO_GO_ON = 64 * 1024 * 1024
_PASSED_OVER = re.compile(r'stream (?:metafile|checksum file)[^"]*"([^"]+)"', re.IGNORECASE)


class _Ports(Struct):
    """What the server writes into its ports file."""

    nats: list[str]
    monitoring: list[str]
    websocket: list[str]


class Nats:
    """The broker. Its ports are known once it answers, and kept for every later start of this object."""

    name = "nats"
    stop_steps = ((signal.SIGTERM, timedelta(seconds=10)),)

    def __init__(self, directory: DataDirectory, port: int, websocket_port: int = 0) -> None:
        self._directory = directory
        self._password = directory.password()
        self._account_key = AccountKey.derived(self._password)
        self._ports = directory.sockets()
        self._program = Path()
        self._told = False
        self.port = port
        self.monitor_port = 0
        self.websocket_port = websocket_port

    @property
    def url(self) -> str:
        """Where clients connect, with user and password."""
        return f"nats://svc:{self._password}@{ports.HOST}:{self.port}"

    @property
    def partners_url(self) -> str:
        """Where whoever decides on partners connects, with user and password."""
        return f"nats://auth:{self._password}@{ports.HOST}:{self.port}"

    @property
    def partners_seed(self) -> str:
        """The seed of the key that signs what partners may do."""
        return self._account_key.seed

    @property
    def websocket_url(self) -> str:
        """Where partners connect that can't but over WebSocket, without user and password."""
        return f"ws://{ports.HOST}:{self.websocket_port}"

    @property
    def monitor_url(self) -> str:
        """The HTTP address of the server's own figures."""
        return f"http://{ports.HOST}:{self.monitor_port}"

    async def prepare(self) -> None:
        """Finds the program."""
        self._program = await binaries.nats_server()
        self._directory.nats.mkdir(mode=0o700, exist_ok=True)

    def spawn(self) -> Child:
        """Starts it; port 0 lets the server choose, which leaves no moment in which another program may take it."""
        for stale in self._ports.glob("nats-server_*.ports"):
            stale.unlink()
        # Most of its memory is the ids of the last two minutes. Collected twice as often it takes a quarter less, and
        # no more CPU that could be measured (`python -m bench memory`).
        env = {
            "GOGC": "50",
            **os.environ,
            "NATS_LISTEN": _quoted(f"{ports.HOST}:{self.port or -1}"),
            "NATS_MONITOR": _quoted(f"{ports.HOST}:{self.monitor_port or -1}"),
            "NATS_PORTS_DIR": _quoted(str(self._ports)),
            "NATS_STORE": _quoted(str(self._directory.nats)),
            "NATS_WEBSOCKET": _quoted(f"{ports.HOST}:{self.websocket_port or -1}"),
            "NATS_PASSWORD": _quoted(self._password),
            "NATS_PARTNERS_ISSUER": _quoted(self._account_key.public),
        }
        return Child(
            [str(self._program), "-c", str(config())],
            log=self._directory.logs / "nats.log",
            lock=self._directory.children_lock,
            death_signal=signal.SIGTERM,
            env=env,
        )

    async def answers(self, child: Child) -> bool:
        """Whether it listens and has recovered its streams."""
        path = self._ports / f"nats-server_{child.pid}.ports"
        try:
            told = msgspec.json.decode(path.read_bytes(), type=_Ports)
        except (FileNotFoundError, msgspec.DecodeError):
            return False
        self.port = _port_of(told.nats[0])
        self.monitor_port = _port_of(told.monitoring[0])
        self.websocket_port = _port_of(told.websocket[0])
        if not (await _health(self.monitor_port, "?js-enabled-only=true")).startswith("HTTP/1.0 200"):
            return False
        self._refuse_damage(child.output())
        return True

    async def ailment(self) -> str:
        """After a failed write a stream takes nothing more until a new start, which makes sense once there is room."""
        health = await _health(self.monitor_port, "")
        if "write error" not in health:
            return ""
        why = self._directory.full("nats", health) or f"nats could not write to {self._directory.nats}"
        if self._directory.free() >= _ROOM_TO_GO_ON:
            self._told = False
            return why
        if not self._told:
            logger.bind(server=self.name).error("{}", why)
        self._told = True
        return ""

    def diagnose(self, output: str) -> str:
        """Tells a taken port and a full disk."""
        if taken := re.search(r":(\d+): bind: address already in use", output):
            port = int(taken[1])
            option = WEBSOCKET_OPTION if port == self.websocket_port else PORT_OPTION
            return ports.taken(ports.Port(option, port))
        if full := self._directory.full("nats", output):
            return full
        if found := re.search(r"\[FTL\] (.*)", output):
            return f"nats cannot start on {self._directory.nats}: {found[1]}"
        return ""

    def _refuse_damage(self, output: str) -> None:
        """Raises StackError if the server passed over a stream that has messages: making it anew would lose them.

        One without messages was being made when the server was killed; its maker makes it again.
        """
        for found in _PASSED_OVER.finditer(output):
            stream = Path(found[1]).parent
            if any(block.stat().st_size for block in stream.glob("msgs/*.blk")):
                raise StackError(
                    f"the broker's stream {stream.name} in {stream} is damaged: restore it from a copy, move it away "
                    "to go on without its messages, or choose another directory with --data"
                )


def config() -> Path:
    """The broker's configuration: beside the package in a checkout, inside it when installed from a wheel."""
    package = Path(harkara.__file__).resolve().parent
    installed = package / "nats_config" / "server.conf"
    return installed if installed.exists() else package.parent / "nats" / "server.conf"


def _quoted(value: str) -> str:
    """A value as the configuration file reads it from a variable: in quotes, or else a blank would end it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


async def _health(port: int, query: str) -> str:
    """The server's answer about its health, headers and all; empty if it gives none."""
    try:
        async with asyncio.timeout(_HEALTH_LIMIT.total_seconds()):
            reader, writer = await asyncio.open_connection(ports.HOST, port)
            try:
                writer.write(f"GET /healthz{query} HTTP/1.0\r\n\r\n".encode())
                return (await reader.read()).decode(errors="replace")
            finally:
                writer.close()
    except OSError:  # a time-out is one too
        return ""
