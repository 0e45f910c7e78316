"""The command line: every role as its own process, and all of them in one."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

import click
import uvloop
from loguru import logger

from harkara import log
from harkara.bus.errors import BusError, TopologyError
from harkara.embedded.errors import StackError
from harkara.settings import Settings, SettingsError, load
from harkara.storage.storage import StorageError

T = TypeVar("T")

#: Errors whose text is written for whoever typed the command: shown as one line, without a traceback.
TOLD = (SettingsError, StorageError, StackError, BusError, TopologyError)


class Told(click.ClickException):
    """One line on standard error, exit status 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print the line."""
        click.echo(f"harkara: {self.message}", err=True)


def run(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a command's coroutine on uvloop; an error that was written for people is shown as one line."""
    collect_less()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main())
    except TOLD as error:
        raise Told(str(error).replace("\n", " ")) from None
    except OSError as error:
        if not _port_taken(error):
            raise
        raise Told(f"{error.strerror}: stop what uses the port, or choose another with --port") from None


def collect_less() -> None:
    """Tell the garbage collector that what is loaded now stays, and to look less often at what comes and goes.

    Nearly all that a message allocates is freed by counting references. With the defaults the collector walks all live
    objects every few hundred messages: a third of a busy process's CPU (`python -m bench due`).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _port_taken(error: OSError) -> bool:
    return "address already in use" in str(error).lower()


def settings_for(**overrides: Any) -> Settings:
    """The settings of this process, with logging set up by them."""
    try:
        settings = load(dotenv=Path(".env"), **{name: value for name, value in overrides.items() if value is not None})
    except SettingsError as error:
        raise Told(str(error)) from None
    log.configure(settings.log_level, json=settings.log_json)
    return settings


def run_until_stopped(main: Callable[[Callable[[], Awaitable[None]]], Coroutine[Any, Any, None]]) -> None:
    """Run a command that goes on until SIGINT or SIGTERM; a second one ends the process at once.

    `main` is given what to await once it is ready. Told to stop before that, it is cancelled, and takes down what it
    has begun.
    """

    async def stoppable() -> None:
        ready, asked = asyncio.Event(), asyncio.Event()
        loop, starting = asyncio.get_running_loop(), asyncio.current_task()

        async def until_stopped() -> None:
            ready.set()
            await asked.wait()

        def stop() -> None:
            if asked.is_set():
                sys.stderr.write("harkara: stopped without waiting\n")
                sys.stderr.flush()
                signal.raise_signal(signal.SIGKILL)
            asked.set()
            logger.info("stopping: what has begun is being finished")
            if starting and not ready.is_set():
                starting.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
        try:
            await main(until_stopped)
        except asyncio.CancelledError:
            if not asked.is_set():
                raise

    run(stoppable)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Harkara: WhatsApp campaigns, codes and conversations for many tenants, on NATS JetStream."""


@main.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False), default=Path(".data"), show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address the front door listens on.")
@click.option("--port", default=3000, show_default=True, help="Port of the front door.")
@click.option("--gateway-port", default=3001, show_default=True, help="Port of the sandbox WhatsApp gateway.")
@click.option("--nats-port", default=4222, show_default=True, help="Port of the broker; 0 takes any.")
@click.option("--speed", type=float, default=None, help="Divide step delays by this, for demos.")
def up(data: Path, host: str, port: int, gateway_port: int, nats_port: int, speed: float | None) -> None:
    """Everything in one: broker, database, cache, sandbox gateway, front door and all actors."""
    from harkara.up import Ports, serve

    settings = settings_for(speed=speed)
    ports = Ports(host=host, door=port, gateway=gateway_port, nats=nats_port)
    run_until_stopped(lambda until: serve(settings, data, ports, until))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=3000, show_default=True)
def http(host: str, port: int) -> None:
    """The front door alone."""
    from harkara import app

    async def serve(until: Callable[[], Awaitable[None]]) -> None:
        async with AsyncExitStack() as stack:
            parts = await stack.enter_async_context(app.build(settings))
            bound = await stack.enter_async_context(app.door(parts, host, port))
            logger.info("front door on http://{}:{}", host, bound)
            await until()

    settings = settings_for()
    run_until_stopped(serve)


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
def actor(names: tuple[str, ...]) -> None:
    """Some actors, or `all`: enrollment, dispatcher, ticker, sender, receipts."""
    from harkara import app

    chosen = tuple(app.ACTORS) if names == ("all",) else names
    if unknown := [name for name in chosen if name not in app.ACTORS]:
        raise Told(f"there is no actor {unknown[0]!r}: choose from {', '.join(app.ACTORS)}, or all")

    async def serve(until: Callable[[], Awaitable[None]]) -> None:
        async with app.build(settings) as parts, app.actors(parts, chosen):
            await until()

    settings = settings_for()
    run_until_stopped(serve)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=3001, show_default=True)
@click.option(
    "--data", type=click.Path(path_type=Path, file_okay=False), default=Path(".data/gateway"), show_default=True
)
def gateway(host: str, port: int, data: Path) -> None:
    """The sandbox WhatsApp gateway: speaks the Cloud API; its page shows the phones."""
    from harkara.gateway.sandbox.server import SandboxError, run_sandbox

    settings_for()
    try:
        run(lambda: run_sandbox(host, port, data))
    except SandboxError as error:
        raise Told(str(error)) from None


@main.command()
def migrate() -> None:
    """Bring the database to the newest schema."""
    from harkara.settings import require
    from harkara.storage.migrate import migrate as run_migrations

    async def bring() -> int:
        require(settings, "database_direct_url")
        return await run_migrations(settings.database_direct_url, lambda name: click.echo(f"ran {name}"))

    settings = settings_for()
    count = run(bring)
    click.echo(f"{count} migrations ran" if count else "the schema is up to date")


@main.group()
def topology() -> None:
    """The streams on the broker."""


#: A cluster keeps every stream on three servers; the page says one, because that is what `harkara up` has.
replicas_option = click.option(
    "--replicas", type=click.IntRange(1, 5), default=None, help="Servers that keep each stream."
)


@topology.command("show")
@replicas_option
def topology_show(replicas: int | None) -> None:
    """What differs between the broker and nats/topology.toml; exit status 1 if anything does."""
    changes = run(lambda: _topology(settings_for(), replicas or 0, apply=False))
    for change in changes:
        click.echo(str(change))
    click.echo("the broker is as the topology says" if not changes else "`harkara topology apply` makes these changes")
    raise SystemExit(1 if changes else 0)


@topology.command("apply")
@replicas_option
def topology_apply(replicas: int | None) -> None:
    """Bring the broker to what nats/topology.toml says."""
    changes = run(lambda: _topology(settings_for(), replicas or 0, apply=True))
    for change in changes:
        click.echo(str(change))
    click.echo(f"{len(changes)} changes made" if changes else "nothing to change")


async def _topology(settings: Settings, replicas: int, *, apply: bool) -> list[Any]:
    from harkara.bus import topology as streams
    from harkara.bus.connection import connect
    from harkara.settings import require

    require(settings, "nats_url")
    async with await connect(settings.nats_url, settings.nats_creds or None) as bus:
        return list(await (streams.apply if apply else streams.diff)(bus.js, replicas=replicas))


@main.group()
def tenant() -> None:
    """Tenants."""


@tenant.command("create")
@click.argument("tenant_id")
@click.option("--name", default="", help="What people call it; its id if not given.")
@click.option("--email", required=True, help="The owner's address, to log in with.")
@click.option("--password", prompt=True, hide_input=True, confirmation_prompt=True)
def tenant_create(tenant_id: str, name: str, email: str, password: str) -> None:
    """Create a tenant with its owner."""
    from harkara.tenants import create

    settings = settings_for()
    run(lambda: create(settings, tenant_id, name or tenant_id, email, password))
    click.echo(f"tenant {tenant_id} is ready; log in as {email}")


@main.command()
@click.option("--speed", type=float, default=10_800.0, show_default=True, help="24 hours become 24 h / SPEED.")
@click.option("--keep", is_flag=True, help="Keep the data directory.")
def demo(speed: float, keep: bool) -> None:
    """A three-step drip campaign to 500 contacts, live, on a stack of its own; then its funnel."""
    from harkara.demo.run import run_demo

    log.configure("WARNING")
    raise SystemExit(run(lambda: run_demo(speed=speed, keep=keep)))
