"""The demo itself, on platforms of its own: told to its end, falling short, and broken off."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from rich.console import Console
from support import quick_directory, until

from harkara.demo.platform import Platform
from harkara.demo.run import run_on
from harkara.demo.script import CONTACTS

#: 24 hours in six seconds: time enough on any machine to answer one step before the next.
SPEED = 14_400.0


@pytest.fixture
def some(tmp_path: Path) -> Path:
    """A good hundred of the contacts: those who answer are among them, and some of the bad rows."""
    path = tmp_path / "some.csv"
    path.write_text("".join(CONTACTS.read_text("utf-8").splitlines(keepends=True)[:121]), "utf-8")
    return path


class Faulty(Platform):
    """A platform whose gateway misbehaves from the start."""

    async def __aenter__(self) -> Platform:
        await super().__aenter__()
        fault = {"kind": "error", "code": 131026, "to": "+19075550109", "type": "interactive"}
        async with (
            aiohttp.ClientSession() as session,
            session.put(f"{self.gateway}/sandbox/faults", json=[fault]) as answer,
        ):
            assert answer.status == 200, await answer.text()
        return self


async def told(platform: Platform, contacts: Path) -> tuple[int, str]:
    """The exit status and all that was printed, with one space where there were several."""
    out = io.StringIO()
    status = await run_on(platform, Console(file=out, width=160), SPEED, contacts)
    return status, " ".join(out.getvalue().split())


async def test_it_is_told_to_its_end_and_the_books_balance(some: Path) -> None:
    platform = Platform(speed=SPEED)
    status, out = await told(platform, some)
    assert status == 0, out
    assert not platform.directory.exists()
    for expected in (
        "118 contacts imported from contacts.csv",
        "row 40 phone is not a phone number",
        "activation is refused: a message would have a hole",
        "422 steps[1].interactive.body: undefined value: `attributes.product` is undefined",
        "Timeline of कबीर शर्मा +15145550125",
        "← reply",
        "enrolled 117, completed 113, stopped 4, failed 0",
        "stopped by opt-out 2 stopped by reply 2",
        "not enrolled: they did not agree to marketing 1",
        "Where the time went",
        "✓ Everybody got every step once, or stopped for the reason shown.",
    ):
        assert expected in out, out


async def test_it_says_what_falls_short_and_fails(some: Path) -> None:
    status, out = await told(Faulty(speed=SPEED), some)
    assert status == 1, out
    assert "✗ This fell short: 张雨桐 +19075550109: their enrolment is failed (unreachable)" in out


@asynccontextmanager
async def command(directory: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`harkara demo`, its campaign running; what it makes lies in the directory."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "harkara",
        "demo",
        env={**os.environ, "TMPDIR": str(directory)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout
    told: list[bytes] = []
    try:
        async with asyncio.timeout(120):
            while b"are enrolled" not in (line := await process.stdout.readline()):
                told.append(line)
                assert line, f"the demo ended before its campaign began: {b''.join(told[-20:]).decode()}"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await until(lambda: not alive(directory), "everything that the demo started has ended", timeout=40)


def left(directory: Path) -> list[Path]:
    """What lies there."""
    return list(directory.iterdir())


def alive(directory: Path) -> list[str]:
    """The processes that have something to do with this directory: it is in their command line or environment."""
    found: list[str] = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words, environment = ((entry / name).read_bytes() for name in ("cmdline", "environ"))
        except OSError:
            continue
        if os.fsencode(directory) in words + environment:
            found.append(words.replace(b"\0", b" ").decode(errors="replace"))
    return found


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_broken_off_it_takes_everything_with_it(number: signal.Signals) -> None:
    with quick_directory() as directory:
        await break_off(directory, number)


async def break_off(directory: Path, number: signal.Signals) -> None:
    async with command(directory) as process:
        assert len(alive(directory)) >= 4
        process.send_signal(number)
        async with asyncio.timeout(40):
            assert await process.wait() == 130
        assert process.stdout
        assert b"stopped; nothing is left running" in await process.stdout.read()
        await until(lambda: not alive(directory), "the last of its servers is gone")
        assert left(directory) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
async def test_broken_off_twice_it_takes_everything_with_it_too() -> None:
    with quick_directory() as directory:
        async with command(directory) as process:
            (platform,) = directory.glob("harkara-demo-*/data/lock")
            up = int(platform.read_text())
            os.kill(up, signal.SIGSTOP)  # one that does not come to its end
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(40):
                assert await process.wait() == 130
            await until(lambda: not alive(directory), "the last of its servers is gone")
            assert left(directory) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks for processes in /proc")
async def test_killed_it_leaves_no_process() -> None:
    with quick_directory() as directory:  # a socket's path must be short
        async with command(directory) as process:
            process.kill()
            await process.wait()
            await until(lambda: not alive(directory), "the platform has followed its demo", timeout=40)
