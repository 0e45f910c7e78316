"""What the measurements share: `harkara up` as a process on servers of ours, a tenant, contacts, a campaign."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg

from harkara.bus import topology
from harkara.bus.connection import connect
from harkara.embedded.ports import free_ports
from harkara.embedded.stack import Stack, Urls
from harkara.storage.migrate import bootstrap, migrate

OWNER, APPLICATION, DATABASE = "harkara_owner", "harkara_app", "harkara"

#: With this the product seals secrets, and so can we.
SECRET_KEY = "a key for measuring, of 32 bytes"

#: Contacts as an import writes them.
A_SECOND = 5000


def cpu_seconds(pid: int) -> float:
    """CPU time of a process and of its children that have ended, in seconds (Linux)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:  # it has ended meanwhile: its parent counts it
        return 0.0
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """A process and all its living descendants (Linux)."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:  # it has ended meanwhile
        return []
    return [pid, *(one for child in children for one in family(int(child)))]


def memory_mb(pids: list[int]) -> float:
    """Memory of these processes together, in MB: each one's own (anonymous) pages, and shared memory once (Linux)."""
    own, shared = 0, 0
    for pid in pids:
        try:
            fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        except FileNotFoundError:  # it has ended meanwhile
            continue
        own += int(fields.get("RssAnon", "0 kB").split()[0])
        shared = max(shared, int(fields.get("RssShmem", "0 kB").split()[0]))
    return (own + shared) / 1024


@dataclass
class Running:
    """The product at work."""

    urls: Urls
    door: str
    gateway: str
    process: subprocess.Popen[bytes]
    servers: dict[str, int]

    def cpu(self) -> dict[str, float]:
        """CPU seconds so far, by part."""
        main, gateway = self.process.pid, [pid for pid in family(self.process.pid) if pid != self.process.pid]
        parts = {"harkara": cpu_seconds(main), "sandbox": sum(map(cpu_seconds, gateway))}
        for name, pid in self.servers.items():
            parts[name] = sum(cpu_seconds(one) for one in family(pid))
        return parts

    async def sql(self, statement: str, *values: Any) -> list[Any]:
        """Run SQL as the administrator: to prepare and to look, never part of what is measured."""
        con = await asyncpg.connect(self.urls.database("postgres", DATABASE))
        try:
            return list(await con.fetch(statement, *values))
        finally:
            await con.close()


@dataclass(frozen=True)
class Prepared:
    """Servers of ours, with what `harkara migrate` and `harkara topology apply` make on them."""

    urls: Urls
    #: Process ids of `postgres`, `nats` and `valkey`.
    pids: dict[str, int]
    #: What leads processes of ours there.
    environment: dict[str, str]


@asynccontextmanager
async def prepared() -> AsyncIterator[Prepared]:
    """A fresh stack with the schema and the streams; everything is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="harkara-bench-") as directory:
        servers = Stack(Path(directory))
        async with servers as urls:
            await bootstrap(urls.database_admin, database=DATABASE, owner=OWNER, app=APPLICATION)
            await migrate(urls.database(OWNER, DATABASE))
            async with await connect(urls.nats) as bus:
                await topology.apply(bus.js)
            environment = {
                **os.environ,
                "DATABASE_URL": urls.database(APPLICATION, DATABASE) + "&statement_cache_size=200",
                "NATS_URL": urls.nats,
                "REDIS_URL": urls.redis,
                "SECRET_KEY": SECRET_KEY,
                "LOG_LEVEL": "WARNING",
            }
            yield Prepared(urls, dict(servers.pids), environment)


@asynccontextmanager
async def harkara(environment: dict[str, str], *command: str) -> AsyncIterator[subprocess.Popen[bytes]]:
    """One process of ours, ended at the end of the block."""
    process = subprocess.Popen([sys.executable, "-m", "harkara", *command], env=environment)
    try:
        yield process
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait)


@asynccontextmanager
async def front_door(environment: dict[str, str]) -> AsyncIterator[tuple[int, subprocess.Popen[bytes]]]:
    """A front door that is ready: its port and its process."""
    (port,) = free_ports(1)
    async with harkara(environment, "http", "--port", str(port)) as process:
        await until_ready(f"http://127.0.0.1:{port}", process)
        yield port, process


@asynccontextmanager
async def running(*, speed: float = 1.0) -> AsyncIterator[Running]:
    """`harkara up` on a fresh stack, ready; everything is gone afterwards."""
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harkara-bench-")))
        servers = Stack(data / "servers")
        urls = await stack.enter_async_context(servers)
        await bootstrap(urls.database_admin, database=DATABASE, owner=OWNER, app=APPLICATION)
        door, gateway = free_ports(2)
        environment = {
            **os.environ,
            "DATABASE_URL": urls.database(APPLICATION, DATABASE) + "&statement_cache_size=200",
            "DATABASE_DIRECT_URL": urls.database(OWNER, DATABASE),
            "NATS_URL": urls.nats,
            "NATS_PARTNERS_URL": urls.nats_partners,
            "NATS_PARTNERS_SEED": urls.nats_partners_seed,
            "REDIS_URL": urls.redis,
            "SECRET_KEY": SECRET_KEY,
            "LOG_LEVEL": "WARNING",
        }
        command = [sys.executable, "-m", "harkara", "up", "--data", str(data / "up"), "--port", str(door)]
        command += ["--gateway-port", str(gateway), "--nats-port", "0", "--speed", str(speed)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, cwd=data)
        stack.callback(_stop, process)
        await until_ready(f"http://127.0.0.1:{door}", process)
        yield Running(urls, f"http://127.0.0.1:{door}", f"http://127.0.0.1:{gateway}", process, dict(servers.pids))


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


async def until_ready(url: str, process: subprocess.Popen[bytes], within_s: float = 60) -> float:
    """Wait until the front door says that it is ready; returns after how many seconds."""
    begun = time.monotonic()
    async with aiohttp.ClientSession(url) as client:
        while time.monotonic() - begun < within_s:
            if process.poll() is not None:
                raise RuntimeError(f"harkara up ended with status {process.returncode}")
            try:
                async with client.get("/readyz") as answer:
                    if answer.status == 200:
                        return time.monotonic() - begun
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.01)
    raise TimeoutError(f"not ready within {within_s:.0f} s")


@dataclass
class Shop:
    """A tenant with contacts and an active campaign, whose enrolments the measurement makes itself."""

    id: str
    sender_id: str
    campaign_id: str
    #: Its owner's access token.
    token: str


async def shop(run: Running, contacts: int, *, mps: int = 10_000, quiet_hours: dict[str, str] | None = None) -> Shop:
    """Make a tenant over HTTP, as a customer would; only the contacts come straight into the table."""
    name = f"bench-{int(time.time() * 1000) % 10**9}"
    async with aiohttp.ClientSession(run.door) as client:
        owner = {"tenant": {"id": name, "name": name}, "email": f"{name}@example.com", "password": "correct horse 1"}
        token = (await _post(client, "/auth/signup", owner))["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        sender = await _post(client, "/senders", {"name": "n", "provider": "sandbox", "mps": mps})
        campaign = await _post(
            client, "/campaigns", {"name": "c", "sender_id": sender["id"], "quiet_hours": quiet_hours}
        )
        step = {"name": "one", "delay_hours": 0, "body": "Hi {{ name }} in {{ attributes.city | default('town') }}"}
        await _post(client, f"/campaigns/{campaign['id']}/steps", step)
        await _post(client, f"/campaigns/{campaign['id']}/activate", None)
    async with (
        aiohttp.ClientSession(run.gateway) as client,
        client.put("/sandbox/policy", json={"throughput": 100_000}) as a,
    ):
        a.raise_for_status()
    await run.sql(
        "insert into contacts (id, tenant_id, name, phone, opted_in_at, attributes)"
        " select gen_random_uuid(), $1::text, 'Name ' || i, '+9198' || (10000000 + i), now(), '{\"city\":\"Pune\"}'"
        " from generate_series(1, $2) i",
        name,
        contacts,
    )
    return Shop(name, sender["id"], campaign["id"], token)


async def enroll(run: Running, shop: Shop, due: str, most: int) -> None:
    """Enrol contacts with the SQL expression `due` as the time of their first step; `n` in it counts from 0."""
    await run.sql(
        f"""insert into contact_campaign_progress (id, tenant_id, campaign_id, version_id, contact_id, started_at,
              next_step_id, next_message_id, next_step_scheduled_at, next_claim_at)
            select gen_random_uuid(), k.tenant_id, c.id, c.version_id, k.id, now(), s.id,
              overlay(gen_random_uuid()::text placing left(app.uuid7_floor(now())::text, 15) from 1 for 15)::uuid,
              {due}, {due}
            from (select *, row_number() over (order by id) - 1 as n from contacts where tenant_id = $1 limit $3) k
            join campaigns c on c.id = $2 join campaign_steps s on s.campaign_id = c.id
            on conflict do nothing""",
        shop.id,
        shop.campaign_id,
        most,
    )


async def _post(client: aiohttp.ClientSession, path: str, body: Any) -> Any:
    async with client.post(f"/api/v1{path}", json=body) as answer:
        if answer.status >= 300:
            raise RuntimeError(f"POST {path}: {answer.status} {await answer.text()}")
        return await answer.json()


def percentile(values: list[float], share: float) -> float:
    """The value below which this share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
