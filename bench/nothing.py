"""aiohttp answering at once: what a request costs before anything is done for it. `bench/ingress.py` starts it."""

from __future__ import annotations

import asyncio
import logging
import sys

import uvloop
from aiohttp import web

from harkara.cli import collect_less


async def answer(request: web.Request) -> web.Response:
    """Read the body, and answer."""
    await request.read()
    return web.Response(body=b'{"id":"x"}', status=202, content_type="application/json")


async def main(port: int) -> None:
    """Serve until killed, and say nothing of what is no HTTP."""
    logging.disable()
    application = web.Application()
    application.router.add_post("/api/v1/messages", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    collect_less()
    uvloop.run(main(int(sys.argv[1])))
