"""The usual stack and the best async one beside ours, at the same work: `python -m bench.rivals [MESSAGES] [fsync]`.

One after the other, each on fresh servers, sends to the gateway of `bench.cost` and is counted as it counts; ours sends
MESSAGES, the others, which take longer, a part of them. What they need is installed once into an environment of theirs.
With `fsync` PostgreSQL writes every commit to the disk, for all, as a server in production does.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import uvloop
from loguru import logger
from msgspec import Struct

from bench.cost import MESSAGES, Cost, answering, cost, measure
from harkara.embedded import postgres
from harkara.embedded.ports import free_ports
from harkara.embedded.stack import Stack

HERE = Path(__file__).parent


class Rival(Struct, frozen=True):
    """One of them: its worker's command in its environment, and how many messages it sends for each of ours."""

    title: str
    broker: str
    worker: tuple[str, ...]
    share: float


RIVALS = {
    "celery": Rival(
        title="Celery (Redis, SQLAlchemy, requests)",
        broker="valkey",
        worker=("celery", "-A", "celery_app", "worker", "--loglevel=WARNING"),
        share=0.15,
    ),
    "taskiq": Rival(
        title="taskiq (JetStream, asyncpg, aiohttp)",
        broker="nats",
        worker=("taskiq", "worker", "taskiq_app:broker", "--log-level=WARNING"),
        share=0.3,
    ),
}


def installed() -> Path:
    """The programs of the rivals' environment, which is made if there is none for these requirements."""
    wanted = HERE / "requirements.txt"
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    place = cache / "harkara" / f"rivals-{hashlib.sha256(wanted.read_bytes()).hexdigest()[:12]}"
    programs, complete = place / "bin", place / "complete"
    if not complete.exists():
        print(f"installing the rivals into {place} …", flush=True)
        venv.create(place, clear=True, with_pip=True)
        command = (str(programs / "python"), "-m", "pip", "install", "-qq", "--only-binary", ":all:", "--no-deps")
        subprocess.run([*command, "-r", str(wanted)], check=True)
        complete.touch()
    return programs


async def fill(con: Any, messages: int) -> str:
    """A campaign of two steps, the first of them due for so many contacts; returns an id for each, one a line."""
    await con.execute((HERE / "schema.sql").read_text())
    campaign, first, second = uuid4(), uuid4(), uuid4()
    await con.executemany(
        "insert into rivals.steps values ($1, $2, $3, $4, $5, $6)",
        [
            (first, campaign, 0, "Hi {{ name }}", second, 24),
            (second, campaign, 1, "Hi {{ name }}", None, None),
        ],
    )
    await con.execute(
        "insert into rivals.contacts (name, phone, attributes, opted_in_at)"
        " select 'Name ' || i, '+9198' || (10000000 + i), '{}', now() from generate_series(1, $1::int) i",
        messages,
    )
    await con.execute(
        "insert into rivals.progress (campaign_id, contact_id, next_step_id, next_step_at)"
        " select $1, id, $2, now() from rivals.contacts",
        *(campaign, first),
    )
    await con.execute("analyze")
    return "\n".join(str(one) for (one,) in await con.fetch("select id from rivals.progress"))


@asynccontextmanager
async def working(environment: dict[str, str], command: tuple[str, ...]) -> AsyncIterator[asyncio.subprocess.Process]:
    """A rival's worker, ended at the end of the block."""
    process = await asyncio.create_subprocess_exec(*command, env=environment, cwd=HERE, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def unless_it_ends(process: asyncio.subprocess.Process, measuring: asyncio.Task[Cost]) -> Cost:
    """What is measured; raises RuntimeError if the worker ends before it is."""
    ended = asyncio.create_task(process.wait())
    await asyncio.wait((measuring, ended), return_when=asyncio.FIRST_COMPLETED)
    if not measuring.done():
        measuring.cancel()
        raise RuntimeError(f"the worker has ended with status {process.returncode}: see what it says above")
    ended.cancel()
    return await measuring


async def all_done(con: Any, messages: int) -> None:
    """Return when each message is in the table and its contact at the next step, as it must be."""
    done = (
        "select count(distinct p.id) from rivals.progress p join rivals.messages m on m.progress_id = p.id"
        " where p.current_step = 1 and p.next_step_at > now() + interval '23 h' and m.status = 'sent'"
    )
    async with asyncio.timeout(60):
        while await con.fetchval(done) < messages:
            await asyncio.sleep(0.2)


async def rival(name: str, programs: Path, messages: int) -> Cost:
    """Start the servers, fill the queue, send."""
    one = RIVALS[name]
    async with AsyncExitStack() as stack:
        servers = Stack(Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harkara-bench-"))))
        urls = await stack.enter_async_context(servers)
        con = await asyncpg.connect(urls.database_admin)
        stack.push_async_callback(con.close)
        ids = await fill(con, messages)
        (port,) = free_ports(1)
        environment = {
            **os.environ,
            "DATABASE_URL": urls.database_admin,
            "NATS_URL": urls.nats,
            "CELERY_BROKER_URL": urls.redis.replace("unix:", "redis+socket:", 1),
            "GATEWAY_URL": f"http://127.0.0.1:{port}",
            "ACCESS_TOKEN": "t",
            "PYTHONWARNINGS": "ignore",  # Celery's to root
        }
        queueing = (str(programs / "python"), "enqueue.py", name)
        await asyncio.to_thread(subprocess.run, queueing, env=environment, cwd=HERE, input=ids, text=True, check=True)
        asked = await stack.enter_async_context(answering(port))
        program, *arguments = one.worker
        worker = await stack.enter_async_context(working(environment, (str(programs / program), *arguments)))
        pids = {"worker": worker.pid} | {part: servers.pids[part] for part in ("postgres", one.broker)}
        measured = await unless_it_ends(worker, asyncio.create_task(measure(asked, pids, messages)))
        await all_done(con, messages)
        return measured


async def main(messages: int) -> None:
    """Each in turn, Celery first, whose times the others are."""
    logger.remove()
    programs = await asyncio.to_thread(installed)
    base: Cost | None = None
    for name, one in RIVALS.items():
        measured = await rival(name, programs, int(messages * one.share))
        base = base or measured
        tell(one.title, measured, base)
    assert base is not None
    tell("Harkara", await cost(messages), base)


def tell(title: str, measured: Cost, base: Cost) -> None:
    """One line."""
    print(f"{title}: {measured}; {measured.per_cpu_second / base.per_cpu_second:.1f} times Celery", flush=True)


if __name__ == "__main__":
    numbers = [int(word) for word in sys.argv[1:] if word != "fsync"]
    if "fsync" in sys.argv:
        postgres._SETTINGS |= {"fsync": "on", "full_page_writes": "on"}
    uvloop.run(main(*numbers or [MESSAGES]))
