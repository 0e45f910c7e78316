"""The examples for partners, run as they stand, against a platform of the test's own; and the table of commands."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from support import until

from harkara.demo.platform import Platform
from harkara.partners.commands import OF_PARTNERS, OF_ROUTES

PAGE = Path(__file__).parents[2] / "docs" / "partners.md"

TESTED = re.compile(r"<!-- tested: [^>]*-->\n```(\w+)\n(.*?)```", re.DOTALL)

#: What the npm client was when this was written.
PACKAGES = ("@nats-io/transport-node@3.4.0", "@nats-io/jetstream@3.4.0")


def blocks() -> dict[str, str]:
    """The blocks that are run, by their language."""
    return dict(TESTED.findall(PAGE.read_text("utf-8")))


def test_the_commands_are_all_there() -> None:
    table = dict(re.findall(r"^\| `([a-z.]+)` \| (.+?) \|$", PAGE.read_text("utf-8"), re.MULTILINE))
    assert {name: told.strip("`") for name, told in table.items() if told.startswith("`")} == dict(OF_ROUTES)
    assert set(table) == {*OF_ROUTES, *OF_PARTNERS}


def addresses(platform: Platform) -> tuple[str, str, str] | None:
    """Key, broker and broker for WebSockets, as `harkara up` prints them."""
    told = re.search(r"broker +(\S+), (ws://\S+)", platform.log.read_text())
    key = re.search(r"API key +(\S+)", platform.log.read_text())
    return (key[1], f"nats://{told[1]}", told[2]) if key and told else None


async def printed(key: str, *command: str, cwd: Path) -> list[str]:
    """What an example prints, line by line."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, env={**os.environ, "KEY": key}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
    return out.decode().splitlines()


def check(lines: list[str]) -> None:
    """One message was accepted, told of twice; the other was refused; its events came live and from the durable."""
    first, again, refused = (line for line in lines if "status" in line and not line.startswith(("live", "kept")))
    assert first == again
    assert "accepted" in first
    assert "422" in refused
    assert [line for line in lines if line.startswith("live t.demo.evt.message.")]
    assert len([line for line in lines if line.startswith("kept t.demo.evt.")]) >= 2


async def npm(directory: Path) -> None:
    """The npm client, in this directory. Skips the test where there is no Node, or no npm registry."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        pytest.skip("Node is missing: the example in JavaScript is not run")
    (directory / "package.json").write_text(json.dumps({"type": "module", "private": True}))
    command = ("npm", "install", "--no-audit", "--no-fund", "--fetch-retries=0", *PACKAGES)
    process = await asyncio.create_subprocess_exec(
        *command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    out, _ = await process.communicate()
    if process.returncode:
        pytest.skip(f"npm can't install the NATS client: {out.decode()[-200:]}")


@pytest.fixture(scope="module")
async def up() -> AsyncIterator[tuple[aiohttp.ClientSession, str, str]]:
    """A platform with a number to send from: its front door, its broker, and that for WebSockets."""
    async with Platform(speed=43_200) as platform:
        key, broker, websocket = await until(lambda: addresses(platform), "it is told", timeout=60)
        async with aiohttp.ClientSession(platform.door, headers={"X-API-Key": key}) as door:
            async with door.post("/api/v1/senders", json={"name": "Shop", "provider": "sandbox"}) as answer:
                assert answer.status == 201, await answer.text()
            yield door, broker, websocket


async def new_key(door: aiohttp.ClientSession) -> str:
    """A key of the test's own, whose durable nobody has read before."""
    async with door.post("/api/v1/api-keys", json={}) as answer:
        return str((await answer.json())["key"])


@pytest.mark.parametrize("transport", ["TCP", "WebSocket"])
async def test_the_example_in_python_works(
    up: tuple[aiohttp.ClientSession, str, str], transport: str, tmp_path: Path
) -> None:
    door, broker, websocket = up
    text = blocks()["python"].replace("order-4711", f"order-4711 over {transport}")
    text = text.replace("nats://127.0.0.1:4222", broker if transport == "TCP" else websocket)
    check(await printed(await new_key(door), sys.executable, "-c", text, cwd=tmp_path))


@pytest.mark.parametrize("transport", ["TCP", "WebSocket"])
async def test_the_example_in_javascript_works(
    up: tuple[aiohttp.ClientSession, str, str], transport: str, tmp_path: Path
) -> None:
    door, broker, websocket = up
    await npm(tmp_path)
    text = blocks()["js"].replace("order-4712", f"order-4712 over {transport}")
    text = text.replace("nats://127.0.0.1:4222", broker if transport == "TCP" else websocket)
    if transport == "WebSocket":
        text = text.replace("{ connect,", "{ wsconnect as connect,")
    (tmp_path / "example.js").write_text(text)
    options = ("--experimental-websocket",) if transport == "WebSocket" else ()  # Node 20 has it behind this option
    check(await printed(await new_key(door), "node", *options, "example.js", cwd=tmp_path))
