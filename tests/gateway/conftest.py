"""Every test of this room has its own sandbox: they are cheap."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from gateway.sandboxes import NUMBER, Caller, Hook, receiving, sandbox_in

from harkara.gateway.cloud import CloudGateway
from harkara.gateway.protocol import Credentials


@pytest.fixture
async def sandbox(tmp_path: Path) -> AsyncIterator[Caller]:
    """A sandbox with a fresh data directory, quick statuses and every message read."""
    async with sandbox_in(tmp_path / "sandbox") as caller:
        await caller.put("pace", {"sent_ms": 0, "delivered_ms": 0, "read_ms": 0, "read_rate": 1})
        yield caller


@pytest.fixture
async def hook() -> AsyncIterator[Hook]:
    """A webhook receiver."""
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def cloud(sandbox: Caller) -> AsyncIterator[CloudGateway]:
    """Our client, connected to the sandbox."""
    gateway = CloudGateway(sandbox.url, connect_timeout=timedelta(seconds=60))
    yield gateway
    await gateway.close()


@pytest.fixture
def credentials() -> Credentials:
    """Credentials of the number that the tests use."""
    return Credentials(sender_id="s1", phone_number_id=NUMBER, access_token="EAAG-test", provider="sandbox")
