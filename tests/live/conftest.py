"""One running platform for all journeys; each has a tenant of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from chaos.harness import Platform, Tenant, new_tenant, running
from support import quick_directory

Tell = Callable[[str], None]

#: 24 hours become this many seconds.
DAY_S = 3.0


@pytest.fixture(scope="session")
async def live() -> AsyncIterator[Platform]:
    """`harkara up`, ready."""
    with quick_directory() as directory:
        async with running(directory, speed=24 * 3600 / DAY_S) as platform:
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


@pytest.fixture
def tell(capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest) -> Tell:
    """Prints a line that is seen whether or not the test fails."""

    def line(text: str) -> None:
        with capsys.disabled():
            print(f"\n{request.node.name}: {text}", end="", flush=True)

    return line
