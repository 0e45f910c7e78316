"""A broker of each test's own, with the real topology on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats_server import Server

from harkara.bus import topology
from harkara.bus.connection import Bus, connect


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path / "nats")
    await made.start()
    yield made
    made.stop()


@pytest.fixture
async def bus(server: Server) -> AsyncIterator[Bus]:
    async with await connect(server.url) as opened:
        await topology.apply(opened.js)
        yield opened
