"""Disks that are really full: small ones, each in a mount namespace that ends with its test."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("on_a_small_disk.py")
UNSHARE = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
WHAT_TO_DO = "make room, or choose another directory with --data"


@pytest.fixture(scope="session", autouse=True)
async def namespaces() -> None:
    """Skips where a mount namespace cannot be had."""
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare here")
    probe = await asyncio.create_subprocess_exec(*UNSHARE, "true", stderr=asyncio.subprocess.DEVNULL)
    if await probe.wait() != 0:
        pytest.skip("this machine gives no mount namespace")


async def on_a_small_disk(directory: Path, *arguments: str) -> list[str]:
    """The lines that the program prints."""
    process = await asyncio.create_subprocess_exec(
        *UNSHARE, sys.executable, str(PROGRAM), str(directory), *arguments, stdout=asyncio.subprocess.PIPE
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), 200)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    return output.decode().splitlines()


@pytest.mark.timeout(250)
@pytest.mark.parametrize(
    ("size", "least_free", "expected"),
    [
        ("100m", 256 << 20, "MB free and 256 MB are needed"),
        ("20m", 0, "is full (initdb could not write)"),
        ("48k", 0, "is full"),
    ],
)
async def test_a_start_is_refused(tmp_path: Path, size: str, least_free: int, expected: str) -> None:
    (line,) = await on_a_small_disk(tmp_path, size, "refused", str(least_free))
    assert expected in line
    assert line.endswith(WHAT_TO_DO)


@pytest.mark.timeout(250)
async def test_a_broker_that_ran_full_works_again_once_there_is_room(tmp_path: Path) -> None:
    *reported, counts = await on_a_small_disk(tmp_path, "150m", "heals")
    assert reported == [f"the disk of {tmp_path} is full (nats could not write): {WHAT_TO_DO}"]
    acknowledged, there = map(int, counts.split())
    assert acknowledged > 0
    assert there == acknowledged + 1
