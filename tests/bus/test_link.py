"""A connection that is closed while its broker is away."""

from __future__ import annotations

import asyncio

import uvloop
from support import until

from harkara.bus.link import Link

_PUB = b"PUB a 0\r\n\r\n"


async def _lost_and_closed() -> bool:
    """Lose the broker, write on, and close."""
    gone = asyncio.Event()

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,"headers":true,"proto":1}\r\n')
        while (line := await reader.readline()) and not line.startswith(b"PUB"):
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        server.close()
        writer.transport.abort()
        gone.set()

    server = await asyncio.start_server(broker, "127.0.0.1", 0)
    link = await Link.open(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", None, "test", 5)
    link.write(_PUB)
    await gone.wait()
    await until(lambda: not link.connected, "the loss is noticed", every=0)
    for _ in range(10):
        link.write(_PUB)
    await link.close()
    return True


async def test_what_was_not_sent_yet_keeps_nobody_from_closing() -> None:
    """On the loop that our processes run on, whose words for a lost socket are its own."""
    assert await asyncio.to_thread(uvloop.run, _lost_and_closed())
