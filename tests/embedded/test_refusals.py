"""What cannot work is refused in one line that says what to do, and leaves nothing running and nothing changed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from chaos.harness import environment
from embedded.support import WHOLE, kept

from harkara.embedded.stack import Stack, StackError

STREAM = "nats/jetstream/APP/streams/KEPT"


async def refusal(stack: Stack) -> str:
    """The line with which a start is refused."""
    try:
        await stack.start()
    except StackError as error:
        line = str(error)
    else:
        await stack.stop()
        pytest.fail("the stack started")
    assert stack.pids == {}
    assert "\n" not in line
    return line


async def test_a_second_start_on_the_same_directory(data: Path) -> None:
    async with Stack(data) as urls:
        line = await refusal(Stack(data))
        assert f"{data} is in use" in line
        assert str(os.getpid()) in line
        assert "--data" in line
        assert await kept(urls) == WHOLE  # the first one is none the worse
    async with Stack(data) as urls:
        assert await kept(urls) == WHOLE


async def test_a_taken_port(data: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = await refusal(Stack(data, nats_port=port))
    assert f"port {port} is taken" in line
    assert "--nats-port" in line


async def test_a_port_that_is_none(data: Path) -> None:
    assert "70000 is no port" in await refusal(Stack(data, nats_port=70_000))


async def test_a_directory_made_by_a_newer_version(data: Path) -> None:
    (data / "layout").write_text("2\n")
    line = await refusal(Stack(data))
    assert "newer version" in line
    assert "upgrade" in line


async def test_a_cluster_of_a_postgres_that_is_not_here(data: Path) -> None:
    (data / "postgres" / "PG_VERSION").write_text("14\n")
    line = await refusal(Stack(data))
    assert "made by PostgreSQL 14" in line
    assert "PATH" in line


async def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    line = await refusal(Stack(tmp_path / "data"))
    assert str(tmp_path / "data") in line
    assert "--data" in line


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
async def test_a_directory_of_another_user(data: Path) -> None:
    os.chown(data, 12345, 12345)
    line = await refusal(Stack(data))
    assert "belongs to user 12345" in line
    assert "run as its owner" in line


async def test_a_disk_without_room_to_work(data: Path) -> None:
    line = await refusal(Stack(data, least_free=1 << 60))
    assert "MB free" in line
    assert f"{1 << 40} MB are needed" in line


def _cut(path: Path) -> None:
    os.truncate(path, 0)


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damaged", "damage"),
    [
        ("layout", _cut),
        ("nats.password", _cut),
        ("postgres/PG_VERSION", _cut),
        ("postgres/postgresql.conf", Path.unlink),
        ("postgres/global/pg_control", Path.unlink),
        ("postgres/global/pg_control", _cut),
        ("postgres/global/pg_filenode.map", _cut),
        ("postgres/base", shutil.rmtree),
        ("postgres/pg_wal", shutil.rmtree),
        (f"{STREAM}/meta.inf", _flip),
        (f"{STREAM}/meta.inf", _cut),
        (f"{STREAM}/meta.inf", Path.unlink),
        (f"{STREAM}/meta.sum", Path.unlink),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__.strip("_"),
)
async def test_damage(data: Path, damaged: str, damage: Callable[[Path], object]) -> None:
    damage(data / damaged)
    line = await refusal(Stack(data))
    assert str(data) in line
    assert "damaged" in line


async def test_a_stream_without_messages_may_be_half_made(data: Path) -> None:
    """A broker that was killed while it made a stream: whoever wanted it makes it again."""
    half = data / STREAM.replace("KEPT", "HALF")
    (half / "msgs").mkdir(parents=True)
    (half / "meta.inf").write_text("{}")
    async with Stack(data) as urls:
        assert await kept(urls) == WHOLE


@pytest.mark.parametrize("name", ["nats_port", "nats_websocket_port"])
async def test_a_taken_port_of_the_brokers_too(tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken: dict[str, Any] = {name: other.getsockname()[1]}
        line = await refusal(Stack(tmp_path / "data", **taken))
    assert f"--{name.replace('_', '-')}" in line
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("option", ["--port", "--gateway-port"])
def test_a_taken_port_is_told_before_anything_is_made(tmp_path: Path, option: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ports = {"--port": 0, "--gateway-port": 0, "--nats-port": 0} | {option: port}
        words = [str(word) for named in ports.items() for word in named]
        done = subprocess.run(
            [sys.executable, "-m", "harkara", "up", "--data", str(tmp_path / "data"), *words],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    says = f"port {port} is taken by another program: stop that one, or choose another with {option}"
    assert (done.returncode, done.stderr.strip().splitlines()[-1]) == (2, f"harkara: {says}")
    assert list(tmp_path.iterdir()) == []
