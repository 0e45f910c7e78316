"""Kills: of one server, of the parent, in the middle of the first start."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import asyncpg
import msgspec
import nats
import pytest
from embedded.support import WHOLE, fill, gone, kept
from redis.asyncio import Redis
from redis.exceptions import RedisError
from support import until

from harkara.embedded.stack import Stack, Urls

PARENT = Path(__file__).with_name("parent.py")


@asynccontextmanager
async def parent(data: Path, how: str = "main") -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that runs a stack; it is dead afterwards."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PARENT), str(data), how, stdout=asyncio.subprocess.PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(process: asyncio.subprocess.Process) -> tuple[list[int], Urls]:
    """The process ids and addresses that a parent tells."""
    assert process.stdout
    line = json.loads(await process.stdout.readline())
    return list(line["pids"].values()), msgspec.convert(line["urls"], Urls)


@pytest.mark.parametrize("how", ["main", "thread"])
async def test_nothing_outlives_a_killed_parent_and_nothing_is_lost(tmp_path: Path, how: str) -> None:
    """`main`: the kernel tells the servers. `thread`: a watchdog does, as on systems without that signal."""
    data = tmp_path / "data"
    async with parent(data, how) as process:
        pids, urls = await said(process)
        assert not gone(pids)
        await fill(urls)
        process.kill()
        await process.wait()
    async with Stack(data) as urls:  # at once: the next start waits for what still shuts down
        assert gone(pids)
        assert await kept(urls) == WHOLE


async def test_a_watchdog_stops_its_servers_cleanly_too(tmp_path: Path) -> None:
    """The watchdog in this process: from a thread that is not the main one."""

    async def start_and_stop() -> list[int]:
        stack = Stack(tmp_path / "data")
        async with stack as urls:
            pids = list(stack.pids.values())
            await fill(urls)
        return pids

    pids = await asyncio.to_thread(lambda: asyncio.run(start_and_stop()))
    assert all(pids)
    assert gone(pids)
    async with Stack(tmp_path / "data") as urls:
        assert await kept(urls) == WHOLE


async def test_a_kill_during_the_first_start_does_not_poison_the_next(tmp_path: Path) -> None:
    for attempt in range(10):
        data = tmp_path / f"data-{attempt}"
        async with parent(data) as process:
            await until((data / "postgres.new" / "base").exists, "the cluster is being made", every=0.001)
            process.kill()
            await process.wait()
        if not (data / "postgres").exists():  # where it does, it was made before this process came to kill
            break
    else:
        raise AssertionError("the cluster is always made at once")
    async with Stack(data) as urls:
        await fill(urls)
        assert await kept(urls) == WHOLE


async def test_ctrl_c_reaches_only_the_parent_which_stops_the_servers(tmp_path: Path) -> None:
    data = tmp_path / "data"
    async with parent(data) as process:
        pids, _ = await said(process)
        assert all(os.getsid(pid) != os.getsid(process.pid) for pid in pids)
        os.killpg(process.pid, signal.SIGINT)  # what a terminal does
        assert process.stdout
        assert await process.stdout.readline() == b"stopped\n"
        assert await process.wait() == 0
    assert gone(pids)
    assert "database system is shut down" in (data / "logs" / "postgres.log").read_text()
    assert "Server Exiting" in (data / "logs" / "nats.log").read_text()


async def _database_has_the_row(urls: Urls) -> bool:
    try:
        connection = await asyncpg.connect(urls.database_admin)
        rows = await connection.fetch("select what from kept")
        await connection.close()
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
        return False
    return [row[0] for row in rows] == ["a row"]


async def _broker_has_the_message(urls: Urls) -> bool:
    try:
        client = await nats.connect(
            urls.nats, allow_reconnect=False, connect_timeout=1, reconnect_time_wait=0.02, error_cb=_ignore
        )
        try:
            message = await client.jetstream().get_msg("KEPT", 1)
        finally:
            await client.close()
    except (OSError, nats.errors.Error):
        return False
    return message.data == b"a message"


async def _cache_answers(urls: Urls) -> bool:
    try:
        async with Redis.from_url(urls.redis) as redis:
            return bool(await redis.ping())
    except (OSError, RedisError):
        return False


@pytest.mark.parametrize(
    ("name", "works"),
    [("postgres", _database_has_the_row), ("nats", _broker_has_the_message), ("valkey", _cache_answers)],
)
async def test_a_killed_server_comes_back_in_its_place(
    data: Path, log_lines: list[str], name: str, works: Callable[[Urls], object]
) -> None:
    stack = Stack(data)
    async with stack as urls:
        for _ in range(3):
            before = stack.pids[name]
            os.kill(before, signal.SIGKILL)
            await until(partial(_another, stack, name, before), f"{name} is started again")
            await until(lambda: works(urls), f"{name} works at its old address")
        await until(lambda: f"INFO {name} runs again\n" in log_lines, "that is told")
    assert f"WARNING {name} was killed by SIGKILL; starting it again\n" in log_lines


async def test_what_a_killed_database_leaves_behind_for_a_moment_is_no_alarm(data: Path, log_lines: list[str]) -> None:
    """A process of the database's that does not notice at once that it should end, as on a busy machine."""
    stack = Stack(data)
    async with stack as urls:
        connection = await asyncpg.connect(urls.database_admin)
        left, before = await connection.fetchval("select pg_backend_pid()"), stack.pids["postgres"]
        os.kill(left, signal.SIGSTOP)
        os.kill(before, signal.SIGKILL)
        try:
            await until(lambda: any("have not ended yet" in line for line in log_lines), "that is told")
        finally:
            os.kill(left, signal.SIGCONT)
        await until(partial(_another, stack, "postgres", before), "it is started again")
        await until(lambda: _database_has_the_row(urls), "it works at its old address")
        connection.terminate()
    assert not any("cannot open" in line for line in log_lines)
    (told, *_) = [line for line in log_lines if "have not ended yet" in line]
    assert told.startswith("WARNING ")


async def test_clients_find_the_broker_again(data: Path) -> None:
    stack = Stack(data)
    async with stack as urls:
        client = await nats.connect(urls.nats, reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=_ignore)
        os.kill(stack.pids["nats"], signal.SIGKILL)
        await until(lambda: client.is_connected and stack.pids["nats"], "the client is back")

        async def published() -> bool:
            # Under an id: it may have been stored although nobody heard so in time.
            sending = client.jetstream().publish("kept", b"another", timeout=0.5, headers={"Nats-Msg-Id": "another"})
            try:
                return (await sending).seq == 2
            except nats.errors.Error:
                return False

        assert await until(published, "the message after the first one is stored")
        await client.close()


async def _ignore(_: Exception) -> None:
    """A lost connection is what the test is about."""


async def test_a_server_that_cannot_start_again_is_tried_until_it_can(data: Path, log_lines: list[str]) -> None:
    stack = Stack(data)
    async with stack as urls:
        port = stack.ports.nats

        def first() -> socket.socket | None:
            """As often as it comes back before."""
            if pid := stack.pids["nats"]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return _listener(port)

        intruder = await until(first, "another program takes the port first", every=0.001)
        with intruder:
            await until(lambda: any(f"ERROR port {port} is taken" in line for line in log_lines), "that is reported")
        await until(lambda: _broker_has_the_message(urls), "the broker is back on its port")


def _another(stack: Stack, name: str, before: int) -> bool:
    return stack.pids[name] not in (0, before)


def _listener(port: int) -> socket.socket | None:
    """A program of someone else's on this port; None as long as the port is taken."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return None
