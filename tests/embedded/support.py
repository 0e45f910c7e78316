"""Leaving data in a stack, finding it again, and watching processes end."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import nats
from nats.js.api import StreamConfig

from harkara.embedded.stack import Urls

WHOLE = (["a row"], [b"a message"])


async def fill(urls: Urls) -> None:
    """Leaves one committed row and one acknowledged message."""
    connection = await asyncpg.connect(urls.database_admin)
    try:
        await connection.execute("create table kept (what text)")
        await connection.execute("insert into kept values ('a row')")
    finally:
        await connection.close()
    client = await nats.connect(urls.nats)
    try:
        jetstream = client.jetstream(timeout=60)
        await jetstream.add_stream(StreamConfig(name="KEPT", subjects=["kept"]))
        await jetstream.publish("kept", b"a message")
    finally:
        await client.close()


async def kept(urls: Urls) -> tuple[list[str], list[bytes]]:
    """The rows and messages that are there now."""
    connection = await asyncpg.connect(urls.database_admin)
    try:
        rows = [str(row[0]) for row in await connection.fetch("select what from kept")]
    finally:
        await connection.close()
    client = await nats.connect(urls.nats)
    try:
        jetstream = client.jetstream(timeout=60)
        last = (await jetstream.stream_info("KEPT")).state.last_seq
        messages = [(await jetstream.get_msg("KEPT", seq)).data or b"" for seq in range(1, last + 1)]
    finally:
        await client.close()
    return rows, messages


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and was not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pids: list[int]) -> bool:
    """Whether none of them runs any more."""
    return not any(alive(pid) for pid in pids)


def owner_of(pid: int) -> int:
    """The user id a process runs as."""
    return Path(f"/proc/{pid}").stat().st_uid
