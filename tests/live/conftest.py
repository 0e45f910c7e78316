"""One running platform for all journeys; each has a tenant of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from chaos.harness import Platform, Tenant, new_tenant, running
from support import quick_directory

from harkara.embedded.ports import free_ports

#: 24 hours become this many seconds.
DAY_S = 3.0

PHONES = ("EVOLUTION_URL", "WAHA_URL")


@pytest.fixture(scope="session")
async def live() -> AsyncIterator[Platform]:
    """`harkara up`, ready; at two more addresses it looks for gateways that lend a phone's account."""
    phones = {name: f"http://127.0.0.1:{port}" for name, port in zip(PHONES, free_ports(2), strict=True)}
    with quick_directory() as directory:
        async with running(directory, speed=24 * 3600 / DAY_S, **phones) as platform:
            await platform.gateway.put("pace", {"read_rate": 1.0, "sent_ms": 20, "delivered_ms": 50, "read_ms": 100})
            yield platform


@pytest.fixture
async def tenant(live: Platform) -> Tenant:
    """A tenant that no other test knows."""
    return await new_tenant(live.session, live.url)


@pytest.fixture
async def other(live: Platform) -> Tenant:
    """Another one."""
    return await new_tenant(live.session, live.url)
