"""`harkara up`: the embedded stack, the sandbox gateway, the front door and all actors, until it is told to stop."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
from loguru import logger
from rich.console import Console
from rich.table import Table

from harkara import app
from harkara.bus import topology
from harkara.bus.connection import connect
from harkara.embedded.sandbox import Sandbox
from harkara.embedded.stack import Stack, StackError, Urls
from harkara.settings import Settings
from harkara.storage.migrate import bootstrap, migrate

DATABASE, OWNER, APPLICATION = "harkara", "harkara_owner", "harkara_app"

DEMO_TENANT = "demo"
DEMO_EMAIL = "owner@demo.example"


@dataclass(frozen=True)
class Ports:
    """Where the front door, the gateway and the broker listen."""

    host: str
    door: int
    gateway: int
    nats: int


class DemoTenant(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant that is there from the first start, to try things with."""

    id: str
    email: str
    password: str
    api_key: str


async def serve(settings: Settings, data: Path, ports: Ports, until: Callable[[], Awaitable[None]]) -> None:
    """Run everything until `until` returns. Raises StackError or StorageError in one line if it can't start."""
    begun = time.monotonic()
    async with AsyncExitStack() as stack:
        servers = Stack(
            data,
            nats_port=ports.nats,
            database_url=settings.database_direct_url,
            nats_url=settings.nats_url,
            redis_url=settings.redis_url,
        )
        urls = await stack.enter_async_context(servers)
        # Only a gateway that was named is somebody else's: the default is the one started here.
        if "WHATSAPP_GATEWAY_URL" not in os.environ:
            await servers.supervise(lambda directory: Sandbox(directory, ports.gateway))
        settings = await _settled(settings, urls, data, ports)
        parts = await stack.enter_async_context(app.build(settings))
        await stack.enter_async_context(app.actors(parts, tuple(app.ACTORS)))
        port = await stack.enter_async_context(app.door(parts, ports.host, ports.door))
        demo = await _demo_tenant(f"http://127.0.0.1:{port}", data)
        _show(settings, port, demo, time.monotonic() - begun)
        await until()


async def _settled(settings: Settings, urls: Urls, data: Path, ports: Ports) -> Settings:
    """The settings with everything filled in, once the database and the broker are as they should be."""
    owner_url, app_url = settings.database_direct_url, settings.database_url
    if not owner_url:
        await bootstrap(urls.database_admin, database=DATABASE, owner=OWNER, app=APPLICATION)
        owner_url = urls.database(OWNER, DATABASE)
        # Our own server, no pooler between: prepared statements may be kept.
        app_url = f"{urls.database(APPLICATION, DATABASE)}&statement_cache_size=200"
    elif not app_url:
        raise StackError("DATABASE_URL: is missing; with DATABASE_DIRECT_URL set, name the role harkara_app's URL too")
    await migrate(owner_url, lambda name: logger.info("migrated: {}", name))
    async with await connect(urls.nats) as bus:
        for change in await topology.apply(bus.js):
            logger.info("broker: {}", change)
    named = "WHATSAPP_GATEWAY_URL" in os.environ
    return msgspec.structs.replace(
        settings,
        database_url=app_url,
        database_direct_url=owner_url,
        nats_url=urls.nats,
        redis_url=urls.redis,
        secret_key=settings.secret_key or _kept(data / "secret-key", lambda: secrets.token_urlsafe(48)),
        whatsapp_gateway_url=settings.whatsapp_gateway_url if named else f"http://127.0.0.1:{ports.gateway}",
        public_url=settings.public_url if "PUBLIC_URL" in os.environ else f"http://127.0.0.1:{ports.door}",
    )


def _kept(path: Path, make: Callable[[], str]) -> str:
    """What the file holds; made and written for our eyes only if it isn't there."""
    if not path.exists():
        draft = path.with_suffix(".new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(make())
        draft.rename(path)
    return path.read_text()


async def _demo_tenant(url: str, data: Path) -> DemoTenant:
    """The demo tenant, signed up through the front door on the first start."""
    path = data / "demo-tenant.json"
    password = _kept(data / "demo-password", lambda: secrets.token_urlsafe(12))
    if path.exists():
        return msgspec.json.decode(path.read_bytes(), type=DemoTenant)
    async with aiohttp.ClientSession(url) as client:
        body = {"tenant": {"id": DEMO_TENANT, "name": "Demo"}, "email": DEMO_EMAIL, "password": password}
        async with client.post("/api/v1/auth/signup", json=body) as answer:
            if answer.status not in (201, 409):  # 409: an earlier start got this far and was killed
                raise StackError(f"the demo tenant could not be made: {await answer.text()}")
        login = {"email": DEMO_EMAIL, "password": password}
        async with client.post("/api/v1/auth/login", json=login) as answer:
            token = (await answer.json())["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        async with client.post("/api/v1/api-keys", json={"name": "demo", "scopes": ["*"]}, headers=headers) as answer:
            key = (await answer.json())["key"]
    demo = DemoTenant(id=DEMO_TENANT, email=DEMO_EMAIL, password=password, api_key=key)
    _kept(path, lambda: msgspec.json.encode(demo).decode())
    return demo


def _show(settings: Settings, port: int, demo: DemoTenant, seconds: float) -> None:
    table = Table.grid(padding=(0, 2))
    for name, value in (
        ("front door", f"http://127.0.0.1:{port}/api/v1"),
        ("WhatsApp sandbox", f"{settings.whatsapp_gateway_url}  (the phones)"),
        ("broker", settings.nats_url.rpartition("@")[2]),
        ("tenant", demo.id),
        ("login", f"{demo.email}  {demo.password}"),
        ("API key", demo.api_key),
    ):
        table.add_row(f"[bold]{name}", value)
    console = Console()
    console.print(table)
    console.print(f"ready in {seconds:.1f} s; Ctrl-C stops everything", highlight=False)
