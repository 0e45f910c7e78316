"""Every contract test runs on each carrier, except where it needs what that one cannot do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from contract.carriers import ACK_WAIT_S, FEATURES, Carrier, opened
from nats_server import Server

from harkara.bus import settle, topology


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*features): what a carrier must be able to do for this test")
    config.addinivalue_line("markers", "ack_wait(seconds): after how long what was not acknowledged comes again")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "carrier" not in metafunc.fixturenames:
        return
    needed = {feature for mark in metafunc.definition.iter_markers("needs") for feature in mark.args}
    able = [name for name, features in FEATURES.items() if needed <= features]
    metafunc.parametrize("carrier", able, indirect=True)


def page(ack_wait_s: float) -> topology.Topology:
    """The real topology with a quota that a test can fill."""
    real = topology.load()
    streams = tuple(
        msgspec.structs.replace(one, max_per_subject=5) if one.name == "COMMANDS" else one for one in real.streams
    )
    return msgspec.structs.replace(
        real, streams=streams, consumers=msgspec.structs.replace(real.consumers, ack_wait_s=ack_wait_s), schedules=()
    )


@pytest.fixture
async def carrier(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Carrier]:
    """One carrier with nothing on it yet."""
    marked = request.node.get_closest_marker("ack_wait")
    ack_wait_s = marked.args[0] if marked else ACK_WAIT_S[request.param]
    server = Server(tmp_path / "nats")
    if request.param != "memory":
        await server.start()
    try:
        async with opened(request.param, lambda: server.url, page(ack_wait_s)) as made:
            yield made
    finally:
        server.stop()


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits longer than a tenth of a second are parked on a schedule, as those over thirty seconds are in earnest."""
    monkeypatch.setattr(settle, "LONGEST_NAK", timedelta(seconds=0.1))
