"""Starts the sandbox: an application for tests, and a server with its own data directory."""

from __future__ import annotations

import asyncio
import errno
import fcntl
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import contextmanager
from pathlib import Path

from aiohttp import web
from loguru import logger

from harkara.gateway.sandbox import control, graph, phone
from harkara.gateway.sandbox.media import LARGEST
from harkara.gateway.sandbox.state import SANDBOX, Sandbox

PORT = 3001
HOST = "127.0.0.1"

_BACKLOG = 1024
_SHUTDOWN_S = 1.0


class SandboxError(Exception):
    """The sandbox cannot start: one line that says why and what to do."""


def build_app(data: Path, *, strict: bool = False) -> web.Application:
    """The sandbox as an application that keeps its data in `data`.

    `strict` refuses numbers that were not registered. The data directory must not be shared by two applications.
    """
    # A little above the largest file, for the form around it.
    app = web.Application(client_max_size=LARGEST + (1 << 20))
    control.add_routes(app)
    phone.add_routes(app)
    graph.add_routes(app)

    async def life(app: web.Application) -> AsyncIterator[None]:
        sandbox = Sandbox(data, strict=strict)
        app[SANDBOX] = sandbox
        await sandbox.start()
        yield
        await sandbox.stop()

    async def shutdown(app: web.Application) -> None:
        app[SANDBOX].close_streams()

    app.cleanup_ctx.append(life)
    app.on_shutdown.append(shutdown)
    return app


async def serve(
    port: int,
    data_dir: Path,
    host: str = HOST,
    *,
    strict: bool = False,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Run the sandbox until cancelled; `ready` hears its address once it listens (port 0 is any free one).

    Raises SandboxError if the port or the data directory is taken.
    """
    with _alone(data_dir):
        runner = web.AppRunner(
            build_app(data_dir, strict=strict), access_log=None, shutdown_timeout=_SHUTDOWN_S, keepalive_timeout=75
        )
        await runner.setup()
        try:
            address = await _listen(runner, host, port)
            logger.info("sandbox gateway at {}, data in {}", address, data_dir)
            if ready is not None:
                ready(address)
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()


async def run_sandbox(
    host: str, port: int, data: Path, ready: Callable[[str], None] | None = None, *, strict: bool = False
) -> None:
    """`serve` as the command line calls it."""
    await serve(port, data, host, strict=strict, ready=ready)


async def _listen(runner: web.AppRunner, host: str, port: int) -> str:
    site = web.TCPSite(runner, host, port, backlog=_BACKLOG)
    try:
        await site.start()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SandboxError(f"port {port} is taken: stop what listens there, or choose another port") from None
        raise SandboxError(f"cannot listen on {host} port {port}: {error.strerror}") from None
    bound = runner.addresses[0]
    shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
    return f"http://{shown}:{bound[1]}"


@contextmanager
def _alone(data: Path) -> Generator[None]:
    """Hold the data directory; the lock goes with the process, however it ends."""
    try:
        data.mkdir(parents=True, exist_ok=True)
        lock = (data / "lock").open("a")
    except OSError as error:
        raise SandboxError(f"cannot use the data directory {data}: {error.strerror}") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SandboxError(f"another sandbox uses {data}: stop it, or choose another directory") from None
        yield
