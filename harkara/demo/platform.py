"""A whole platform of the demo's own: `harkara up` as a child on free ports, gone with all it made when we go."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import aiohttp

from harkara.demo.errors import DemoError
from harkara.embedded.directory import DataDirectory
from harkara.embedded.errors import StackError
from harkara.embedded.ports import free_ports
from harkara.embedded.process import Child
from harkara.settings import Settings

#: A cold start takes some seconds; a slow disk may need many more.
START = timedelta(seconds=60)

#: What `harkara up` needs at most to finish what it has begun and stop its servers.
STOP = timedelta(seconds=30)

#: Between two looks at whether it is ready.
LOOK_EVERY = timedelta(milliseconds=50)


class Platform:
    """`harkara up` on a directory of its own. Usable as `async with Platform(speed=…) as platform`.

    It dies with this process, however this process dies. `keep` leaves its directory behind.
    """

    def __init__(self, *, speed: float, keep: bool = False) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="harkara-demo-"))
        self.started_in = timedelta()
        self._speed, self._keep = speed, keep
        self._door, self._gateway = free_ports(2)
        self._lock = -1
        self._child: Child | None = None

    @property
    def door(self) -> str:
        """The front door's address."""
        return f"http://127.0.0.1:{self._door}"

    @property
    def gateway(self) -> str:
        """The sandbox gateway's address."""
        return f"http://127.0.0.1:{self._gateway}"

    @property
    def log(self) -> Path:
        """What it writes."""
        return self.directory / "up.log"

    async def __aenter__(self) -> Platform:
        begun = time.monotonic()
        try:
            self._spawn()
            await self._ready()
        except BaseException:
            await self.stop()
            raise
        self.started_in = timedelta(seconds=time.monotonic() - begun)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stop it and take away what it made."""
        if self._child is not None:
            await self._child.stop((signal.SIGTERM, STOP))
            self._child = None
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
        if not self._keep:
            with suppress(StackError, OSError):
                await self._let_go()
            shutil.rmtree(self.directory, ignore_errors=True)

    async def _let_go(self) -> None:
        """Wait until the last server has ended: they outlive a platform that was killed by a moment, and write."""
        data = DataDirectory(self.directory / "data", least_free=0)
        await data.open()
        data.close()

    def hurry(self) -> None:
        """Have it end at once. What it made is taken away by `stop` all the same."""
        if self._child is not None:
            self._child.kill()

    def _spawn(self) -> None:
        self._lock = os.open(self.directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        options = {
            "--data": self.directory / "data",
            "--port": self._door,
            "--gateway-port": self._gateway,
            "--nats-port": 0,
            "--speed": self._speed,
        }
        words = [str(word) for option in options.items() for word in option]
        self._child = Child(
            [sys.executable, "-m", "harkara", "up", *words],
            log=self.log,
            lock=self._lock,
            death_signal=signal.SIGTERM,
            env=_environment(),
        )

    async def _ready(self) -> None:
        """Wait until it can do its work. Raises DemoError with the reason it gave if it can't."""
        assert self._child is not None, "spawned before"  # noqa: S101
        deadline = time.monotonic() + START.total_seconds()
        async with aiohttp.ClientSession() as session:
            while not await _answers(session, f"{self.door}/readyz"):
                if self._child.status is not None:
                    raise DemoError(f"the platform did not start: {_last_line(self._child.output())}")
                if time.monotonic() > deadline:
                    raise DemoError(
                        f"the platform is not ready after {START.total_seconds():g} s: run it by itself with `make up`"
                    )
                await asyncio.sleep(LOOK_EVERY.total_seconds())


def _environment() -> dict[str, str]:
    """Ours, without any setting: the demo must not touch a database or a broker that somebody has configured."""
    ours = {name.upper() for name in Settings.__struct_fields__}
    return {name: value for name, value in os.environ.items() if name not in ours} | {"PYTHONUNBUFFERED": "1"}


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(url) as answer:
            return answer.status == 200
    except aiohttp.ClientError:
        return False


def _last_line(output: str) -> str:
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1].removeprefix("harkara: ") if lines else "it said nothing"
