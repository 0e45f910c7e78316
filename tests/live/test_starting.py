"""What a platform says while it starts: little the first time, everything that had changed at any other."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator

import pytest
from chaos.harness import Platform, Process
from loguru import logger
from support import quick_directory, until

from harkara import up
from harkara.bus.topology import Change, load
from harkara.embedded.ports import free_ports

MADE = [Change(f"stream {one.name}", "missing", "t.>") for one in load().streams] + [
    Change(f"schedule {one.subject}", "missing", "{}") for one in load().schedules
]


@pytest.fixture
def shown() -> Iterator[list[str]]:
    """What is logged for everybody to see."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line).strip()), format="{message}", level="INFO")
    yield lines
    logger.remove(sink)


async def test_a_first_start_tells_in_a_line_each_what_was_made(live: Platform) -> None:
    # It answers a moment before it says so.
    await until(lambda: "ready in" in live.process.output(), "it says that it is ready")
    said, _, _ = live.process.output().partition("ready in")  # what was said later is about other tests
    for line in (f"broker: {len(load().streams)} streams made\n", " migrations applied\n"):
        assert said.count(line) == 1, said
    assert "missing" not in said
    assert "migrated" not in said


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ([], 0),
        (MADE, 1),
        (MADE[1:], len(MADE) - 1),
        ([Change("stream WORK max_age", "0", "1"), *MADE[1:]], len(MADE)),
    ],
    ids=["as it was", "nothing", "one was there", "one differed"],
)
def test_what_differs_at_a_later_start_is_shown(shown: list[str], changes: list[Change], lines: int) -> None:
    up._tell(changes)
    assert len(shown) == lines
    assert (lines == 1) or shown == [f"broker: {change}" for change in changes]


async def test_it_starts_on_another_address_and_with_another_gateway_than_the_usual_one() -> None:
    door, gateway = free_ports(2)
    with quick_directory() as directory:
        options = {"--data": directory / "data", "--host": "localhost", "--port": door, "--gateway-port": gateway}
        words = [str(word) for option in options.items() for word in option]
        (directory / ".env").write_text("WHATSAPP_GATEWAY_URL=http://127.0.0.1:9\nPUBLIC_URL=\n")
        process = Process(["up", "--nats-port", "0", *words], directory / "up.log")
        await process.spawn()
        try:
            await until(lambda: "ready in" in process.output(), "it is ready", 120)
            said = process.output()
            assert f"http://localhost:{door}/docs" in said
            assert re.search(r"WhatsApp gateway +http://127\.0\.0\.1:9\n", said)
            with pytest.raises(ConnectionRefusedError):  # no sandbox answers in its place
                await asyncio.open_connection("127.0.0.1", gateway)
        finally:
            await process.stop()
