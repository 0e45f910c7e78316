"""Tenants' transactions through a transaction pooler: `python -m bench.pooler` (needs pgbouncer on PATH).

Sixteen clients share three server connections. It prints what failed, and whether anything of a tenant was left behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import asyncpg
from loguru import logger

from bench.stack import APPLICATION, DATABASE, OWNER
from harkara.embedded.ports import free_ports
from harkara.embedded.stack import Stack
from harkara.ids import uuid7
from harkara.storage.migrate import bootstrap, migrate
from harkara.storage.models import Contact
from harkara.storage.storage import Storage, reason_of

CLIENTS, EACH, SERVERS = 16, 30, 3
TENANTS = ("acme", "other", "third", "fourth")


async def one(storage: Storage, number: int, tenant: str) -> bool:
    """A transaction of one kind or the other; whether it saw its own tenant's rows alone."""
    if number % 3 == 2:
        async with storage.batch((tenant,)) as con:
            rows = await con.fetch("select distinct tenant_id from contacts where name <> $1", "nobody")
            return [row[0] for row in rows] in ([], [tenant])
    async with storage.tenant(tenant):
        await Contact.create(name=f"{number}")
        with contextlib.suppress(ZeroDivisionError):
            async with storage.tenant(tenant):
                await Contact.create(name="undone")
                raise ZeroDivisionError
        names = await Contact.all().values_list("tenant_id", "name")
    return {name[0] for name in names} == {tenant} and "undone" not in {name[1] for name in names}


async def measure(url: str, cache: int) -> None:
    """Everybody at once, then three that are cancelled in the middle."""
    storage = Storage(f"{url}?statement_cache_size={cache}", pool=CLIENTS)
    await storage.open()
    failed: Counter[str] = Counter()
    right = 0

    async def client(number: int) -> None:
        nonlocal right
        for turn in range(EACH):
            try:
                fine = await one(storage, turn, TENANTS[(number + turn) % len(TENANTS)])
                right += fine
            except Exception as error:
                failed[f"{type(error).__name__}: {reason_of(error).partition(chr(34))[0]}"] += 1

    async def sleep() -> None:
        async with storage.tenant(TENANTS[0]) as con:
            await con.execute("select pg_sleep(60)")

    await asyncio.gather(*(client(number) for number in range(CLIENTS)))
    sleeping = [asyncio.create_task(sleep()) for _ in range(SERVERS)]
    await asyncio.sleep(0.2)
    for task in sleeping:
        task.cancel()
    await asyncio.gather(*sleeping, return_exceptions=True)
    async with storage.anonymous() as con:
        clean = await con.fetchval("select app.tenants() is null and not exists (select from contacts)")
    await storage.close()
    print(f"statement_cache_size={cache}: {right} of {CLIENTS * EACH} right, failed: {dict(failed) or 'none'};")
    print(f"  after cancelled transactions the server connections are {'clean' if clean else 'NOT CLEAN'}")


async def main() -> None:
    """A stack, the schema, pgbouncer in front of it."""
    logger.remove()
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
    if program is None:
        sys.exit("pgbouncer is needed: apt install pgbouncer")
    async with AsyncExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harkara-bench-")))
        urls = await stack.enter_async_context(Stack(data / "servers"))
        await bootstrap(urls.database_admin, database=DATABASE, owner=OWNER, app=APPLICATION)
        await migrate(urls.database(OWNER, DATABASE))
        direct = urls.database(APPLICATION, DATABASE)
        con = await asyncpg.connect(direct)
        for tenant in TENANTS:
            statement = "select app.signup($1, $1, $2, $3, 'no password', $4)"
            await con.execute(statement, tenant, uuid7(), f"owner@{tenant}.example", uuid7())
        await con.close()
        socket, port = parse_qs(urlsplit(direct).query)["host"][0], free_ports(1)[0]
        config = data / "pgbouncer.ini"
        config.write_text(
            f"[databases]\n{DATABASE} = host={socket} user={APPLICATION}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
            f"listen_port = {port}\nunix_socket_dir =\nauth_type = any\npool_mode = transaction\n"
            f"default_pool_size = {SERVERS}\n"
        )
        # It refuses to run as root, and the server's socket is ours alone: a user namespace satisfies both.
        command = ["unshare", "--user", "--map-user=65534", program, "-q", str(config)]
        pooler = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        stack.callback(pooler.wait)
        stack.callback(pooler.terminate)
        url = f"postgres://{APPLICATION}@127.0.0.1:{port}/{DATABASE}"
        for _ in range(100):
            with contextlib.suppress(OSError):
                con = await asyncpg.connect(url, statement_cache_size=0)
                await con.close()
                break
            await asyncio.sleep(0.05)
        for cache in (0, 100):
            await measure(url, cache)


if __name__ == "__main__":
    asyncio.run(main())
