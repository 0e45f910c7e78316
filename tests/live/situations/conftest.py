"""A platform of their own: some situations stop what all tenants share."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from chaos.harness import Platform, running
from support import quick_directory


@pytest.fixture(scope="session")
async def live() -> AsyncIterator[Platform]:
    """`harkara up`, ready, with a clock that is not compressed."""
    with quick_directory() as directory:
        async with running(directory) as platform:
            await platform.gateway.put("pace", {"read_rate": 1.0, "sent_ms": 20, "delivered_ms": 50, "read_ms": 100})
            yield platform
