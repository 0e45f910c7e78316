"""A connection that is closed while its broker is away."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest
import uvloop
from loguru import logger
from nats_server import Server
from support import until

from harkara.bus import link as link_module
from harkara.bus.link import Link

_PUB = b"PUB a 0\r\n\r\n"
_INFO = b'INFO {"server_id":"x","version":"2.15.1","max_payload":1048576,"headers":true,"proto":1}\r\n'


async def _lost_and_closed() -> bool:
    """Lose the broker, write on, and close."""
    gone = asyncio.Event()

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(_INFO)
        while (line := await reader.readline()) and not line.startswith(b"PUB"):
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        server.close()
        writer.transport.abort()
        gone.set()

    server = await asyncio.start_server(broker, "127.0.0.1", 0)
    link = await Link.open(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", None, "test", 30)
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


async def test_a_connection_that_the_broker_never_greets_is_closed_by_us() -> None:
    """One that is left to the garbage collector warns, and that fails whatever test is running then."""
    dialled = list[asyncio.StreamWriter]()

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialled.append(writer)
        if len(dialled) != 2:
            writer.write(_INFO)
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(broker, "127.0.0.1", 0)
    link = await Link.open(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", None, "test", 30)
    dialled[0].transport.abort()
    await until(lambda: len(dialled) > 2 and link.connected, "it is connected again")
    await link.close()
    server.close()
    gc.collect()


async def test_what_befalls_all_connections_of_a_process_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link_module, "_SAID_BY_ALL_WITHIN_S", 60)
    said: list[str] = []
    broker = Server(tmp_path / "nats")
    await broker.start()
    sink = logger.add(lambda line: said.append(str(line).strip()), format="{message}", level="INFO")
    links = [await Link.open(broker.url, None, f"test {number}", 30) for number in range(3)]
    try:
        broker.kill()
        await until(lambda: not any(link.connected for link in links), "all are lost")
        await broker.start()
        await until(lambda: all(link.connected for link in links), "all are back")
    finally:
        logger.remove(sink)
        for link in links:
            await link.close()
        broker.stop()
    assert len([line for line in said if line.startswith("Lost NATS")]) == 1
