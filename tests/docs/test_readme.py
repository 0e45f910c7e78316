"""The README's first steps, run as they stand there, against a platform of the test's own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from pathlib import Path

import pytest
from support import until

from harkara.demo.platform import Platform

README = Path(__file__).parents[2] / "README.md"

TESTED = re.compile(r"<!-- tested: [^>]*-->\n```(\w+)\n(.*?)```", re.DOTALL)


def blocks() -> dict[str, str]:
    """The blocks that are run, by their language."""
    return dict(TESTED.findall(README.read_text("utf-8")))


async def printed_key(platform: Platform) -> str:
    """The key that `harkara up` prints once its tenant is made."""

    def said() -> str:
        found = re.search(r"API key +(\S+)", platform.log.read_text())
        return found[1] if found else ""

    return str(await until(said, "the API key is printed", timeout=60))


async def run(platform: Platform, *command: str, key: str, text: str) -> asyncio.subprocess.Process:
    """Start a block, with the platform's address and key where the README has its own."""
    text = re.sub(r"^KEY=.*$", f"KEY={key}", text, flags=re.MULTILINE)
    return await asyncio.create_subprocess_exec(
        *command,
        text.replace("127.0.0.1:3000", platform.door.removeprefix("http://")),
        env={**os.environ, "KEY": key, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )


@pytest.mark.skipif(os.name != "posix", reason="the block is for a shell")
async def test_the_first_steps_work() -> None:
    async with Platform(speed=43_200) as platform:
        key = await printed_key(platform)
        listening = await run(platform, sys.executable, "-c", key=key, text=blocks()["python"])
        assert listening.stdout
        try:
            shell = await run(platform, "bash", "-eo", "pipefail", "-c", key=key, text=blocks()["sh"])
            out, _ = await shell.communicate()
            assert shell.returncode == 0, out.decode()
            answers = [json.loads(line) for line in out.decode().splitlines()]
            assert [one for one in answers if one.get("status", 200) in range(400, 600)] == []
            assert answers[0]["status"] == "accepted"
            assert answers[-1]["steps"][1]["delay_hours"] == 24
            sent: set[tuple[str, str]] = set()

            async def heard() -> bool:
                assert listening.stdout
                event = json.loads(await listening.stdout.readline())
                if event["type"] == "message.delivered":
                    sent.add((event["type"], str(event["data"].get("step"))))
                return len(sent) == 3

            await until(heard, "the order's message and both steps were delivered, by the feed", timeout=60)
        finally:
            listening.kill()
            await listening.wait()
