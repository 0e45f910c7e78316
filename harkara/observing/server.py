"""Where a process without a front door tells its figures."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from aiohttp import web

from harkara.http.metrics import CONTENT_TYPE
from harkara.observing.page import Page
from harkara.settings import SettingsError


@asynccontextmanager
async def telling(page: Page, host: str, port: int) -> AsyncGenerator[int]:
    """`GET /metrics` and `/healthz` on this port, inside the block; 0 takes any. Yields the port.

    Raises SettingsError, naming METRICS_PORT, if nothing can listen there.
    """

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=await page.render(), headers={"Content-Type": CONTENT_TYPE})

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    app.router.add_get("/healthz", healthz)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            reason = f"can't listen on {host}:{port} ({error.strerror}): choose another"
            raise SettingsError(f"METRICS_PORT: {reason}") from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()
