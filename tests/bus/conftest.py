"""A broker of each test's own, with the real topology on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats_server import Server, connected, serving

from harkara.bus.connection import Bus


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path / "nats") as made:
        yield made


@pytest.fixture
async def bus(server: Server) -> AsyncIterator[Bus]:
    async with connected(server) as opened:
        yield opened
