"""`harkara up`: the embedded stack, the sandbox gateway, the front door and all actors, until it is told to stop."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec
from loguru import logger
from rich.table import Table

from harkara import app
from harkara.bus import topology
from harkara.bus.connection import connect
from harkara.embedded.ports import Port, reached_at
from harkara.embedded.sandbox import PORT_OPTION, Sandbox
from harkara.embedded.stack import Stack, StackError, Urls
from harkara.ops import reach
from harkara.printing import console
from harkara.settings import DOTENV, Settings, named
from harkara.storage.migrate import bootstrap, migrate

DATABASE, OWNER, APPLICATION = "harkara", "harkara_owner", "harkara_app"

DEMO_TENANT = "demo"
DEMO_EMAIL = "owner@demo.example"

#: So many may be made, one after the other was erased.
MOST_DEMOS = 20


@dataclass(frozen=True)
class Ports:
    """Where the front door, the gateway and the broker listen."""

    host: str
    door: int
    gateway: int
    nats: int
    #: 0 takes any.
    nats_websocket: int = 0


class DemoTenant(msgspec.Struct, frozen=True, kw_only=True):
    """The tenant that is there from the first start, to try things with."""

    id: str
    email: str
    password: str
    api_key: str


async def serve(settings: Settings, data: Path, ports: Ports, until: Callable[[], Awaitable[None]]) -> None:
    """Run everything until `until` returns. Raises StackError or StorageError in one line if it can't start."""
    begun = time.monotonic()
    # Only a gateway that was named is somebody else's: the default is the one started here.
    given = named(DOTENV)
    sandbox = "whatsapp_gateway_url" not in given
    async with AsyncExitStack() as stack:
        servers = Stack(
            data,
            nats_port=ports.nats,
            nats_websocket_port=ports.nats_websocket,
            database_url=settings.database_direct_url,
            nats_url=settings.nats_url,
            redis_url=settings.redis_url,
            beside=(lambda directory: Sandbox(directory, ports.gateway),) if sandbox else (),
            also_asked=(
                Port("--port", ports.door, ports.host),
                *((Port(PORT_OPTION, ports.gateway),) if sandbox else ()),
            ),
        )
        urls = await stack.enter_async_context(servers)
        if sandbox:
            settings = msgspec.structs.replace(settings, whatsapp_gateway_url=f"http://127.0.0.1:{ports.gateway}")
        if "public_url" not in given:
            public_url = f"http://{reached_at(ports.host)}:{ports.door}"
            settings = msgspec.structs.replace(settings, public_url=public_url)
        settings = await _settled(settings, urls, data)
        parts = await stack.enter_async_context(app.build(settings))
        await stack.enter_async_context(app.actors(parts, tuple(app.ACTORS)))
        port = await stack.enter_async_context(app.door(parts, ports.host, ports.door))
        stack.enter_context(reach.told(settings, data))
        address = f"http://{reached_at(ports.host)}:{port}"
        demo = await _demo_tenant(address, data)
        _show(settings, address, urls.nats_websocket, demo, time.monotonic() - begun, sandbox=sandbox)
        await until()


async def _settled(settings: Settings, urls: Urls, data: Path) -> Settings:
    """The settings with everything filled in, once the database and the broker are as they should be."""
    owner_url, app_url = settings.database_direct_url, settings.database_url
    if not owner_url:
        await bootstrap(urls.database_admin, database=DATABASE, owner=OWNER, app=APPLICATION)
        owner_url = urls.database(OWNER, DATABASE)
        # Our own server, no pooler between: prepared statements may be kept.
        app_url = f"{urls.database(APPLICATION, DATABASE)}&statement_cache_size=200"
    elif not app_url:
        raise StackError("DATABASE_URL: is missing; with DATABASE_DIRECT_URL set, name the role harkara_app's URL too")
    if ran := await migrate(owner_url, lambda name: logger.debug("migrated: {}", name)):
        logger.info("database: {} migrations applied", ran)
    async with await connect(urls.nats) as bus:
        _tell(await topology.apply(bus.js))
    return msgspec.structs.replace(
        settings,
        database_url=app_url,
        database_direct_url=owner_url,
        nats_url=urls.nats,
        nats_partners_url=settings.nats_partners_url or urls.nats_partners,
        nats_partners_seed=settings.nats_partners_seed or urls.nats_partners_seed,
        redis_url=urls.redis,
        secret_key=settings.secret_key or _kept(data / "secret-key", lambda: secrets.token_urlsafe(48)),
        media_url=settings.media_url or _directory_url(data / "media"),
    )


def _tell(changes: Sequence[topology.Change]) -> None:
    """One line for a broker that held nothing yet; every change by itself if it held something else."""
    page = topology.load()
    fresh = len(changes) == len(page.streams) + len(page.schedules) and all(change.makes for change in changes)
    if fresh:
        logger.info("broker: {} streams made", len(page.streams))
    for change in changes:
        logger.log("DEBUG" if fresh else "INFO", "broker: {}", change)


def _directory_url(path: Path) -> str:
    return path.absolute().as_uri()


def _kept(path: Path, make: Callable[[], str]) -> str:
    """What the file holds; made and written for our eyes only if it isn't there."""
    if not path.exists():
        draft = path.with_suffix(".new")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(make())
        draft.rename(path)
    return path.read_text()


async def _demo_tenant(url: str, data: Path) -> DemoTenant:
    """The demo tenant, signed up through the front door: on the first start, and another once that one was erased."""
    path = data / "demo-tenant.json"
    password = _kept(data / "demo-password", lambda: secrets.token_urlsafe(12))
    async with aiohttp.ClientSession(url) as client:
        if path.exists():
            demo = msgspec.json.decode(path.read_bytes(), type=DemoTenant)
            async with client.get("/api/v1/tenant", headers={"Authorization": f"Bearer {demo.api_key}"}) as answer:
                if answer.status != 401:
                    return demo
            logger.info("the demo tenant {} lets nobody in any more, as if it was erased: another is made", demo.id)
            path.unlink()
        for id_, email in _demo_names():
            if (key := await _signed_up(client, id_, email, password)) is not None:
                demo = DemoTenant(id=id_, email=email, password=password, api_key=key)
                _kept(path, lambda: msgspec.json.encode(demo).decode())  # noqa: B023 - written here
                return demo
    raise StackError("the demo tenant could not be made: the ids for it are all taken")


def _demo_names() -> Iterator[tuple[str, str]]:
    """An id that was erased becomes nobody's again, so there are more."""
    yield DEMO_TENANT, DEMO_EMAIL
    for number in range(2, MOST_DEMOS + 1):
        yield f"{DEMO_TENANT}-{number}", f"owner@{DEMO_TENANT}-{number}.example"


async def _signed_up(client: aiohttp.ClientSession, id_: str, email: str, password: str) -> str | None:
    """An API key of this tenant's, signed up for it; None if the id is taken and the password lets nobody in."""
    body = {"tenant": {"id": id_, "name": "Demo"}, "email": email, "password": password}
    async with client.post("/api/v1/auth/signup", json=body) as answer:
        if answer.status not in (201, 409):  # 409: an earlier start got this far and was killed, or it was erased
            raise StackError(f"the demo tenant could not be made: {await answer.text()}")
    async with client.post("/api/v1/auth/login", json={"email": email, "password": password}) as answer:
        if answer.status != 200:
            return None
        token = (await answer.json())["access_token"]
    headers = {"Authorization": f"Bearer {token}"}
    async with client.post("/api/v1/api-keys", json={"name": "demo", "scopes": ["*"]}, headers=headers) as answer:
        return str((await answer.json())["key"]) if answer.status == 201 else None


def _show(settings: Settings, address: str, websocket: str, demo: DemoTenant, seconds: float, *, sandbox: bool) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in (
        ("API to read and try", f"{address}/docs"),
        ("API", f"{address}/api/v1"),
        ("WhatsApp sandbox", f"{settings.whatsapp_gateway_url}  (the phones)")
        if sandbox
        else ("WhatsApp gateway", settings.whatsapp_gateway_url),
        ("broker", ", ".join(filter(None, (settings.nats_url.rpartition("@")[2], websocket)))),
        ("tenant", demo.id),
        ("login", f"{demo.email}  {demo.password}"),
        ("API key", demo.api_key),
    ):
        table.add_row(f"[bold]{name}", value)
    screen = console()
    screen.print(table)
    screen.print(f"ready in {seconds:.1f} s; Ctrl-C stops everything")
