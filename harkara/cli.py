"""The command line: every role as its own process, and all of them in one."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
import uvloop
from loguru import logger

from harkara import log
from harkara.bus.errors import BusError, TopologyError
from harkara.embedded.errors import StackError
from harkara.ops import reach
from harkara.printing import counted, in_plain_letters, open_what_is_closed, why_unwritable
from harkara.settings import DOTENV, Settings, SettingsError, load, remarks
from harkara.storage.storage import StorageError

T = TypeVar("T")

#: How long a broker that has just been started has to let us in.
_PATIENCE = timedelta(seconds=10)

#: Errors whose text is written for whoever typed the command: shown as one line, without a traceback.
TOLD = (SettingsError, StorageError, StackError, BusError, TopologyError)


class Told(click.ClickException):
    """One line on standard error, exit status 2."""

    exit_code = 2

    def show(self, file: Any = None) -> None:
        """Print the line."""
        click.echo(f"harkara: {self.message}", err=True)


class NotFound(Told):
    """There is nothing of the id that was given: exit status 1."""

    exit_code = 1


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
        settings = load(dotenv=DOTENV, **{name: value for name, value in overrides.items() if value is not None})
    except SettingsError as error:
        raise Told(str(error)) from None
    log.configure(settings.log_level, json=settings.log_json)
    for remark in remarks(DOTENV):
        logger.warning("{}", remark)
    if settings.sentry_dsn:
        from harkara.observing.reporting import report_errors

        try:
            report_errors(settings.sentry_dsn, settings.environment)
        except SettingsError as error:
            raise Told(str(error)) from None
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


class _Commands(click.Group):
    """The commands; those of operators are loaded only when they are asked for, as they need much that others don't."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run one. Output that can't be written ends it with a line; a pipe that was closed ends it in silence."""
        open_what_is_closed()
        try:
            return super().main(*args, **kwargs)
        except OSError:
            if not (why := why_unwritable()):
                raise
            click.echo(f"harkara: the output can't be written: {why}: make room, or lead it elsewhere", err=True)
            sys.exit(Told.exit_code)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), "ops"])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name != "ops":
            return super().get_command(ctx, cmd_name)
        from harkara.ops.commands import ops

        return ops


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="harkara", prog_name="harkara", message="%(prog)s %(version)s")
def main() -> None:
    """Harkara: WhatsApp campaigns, codes and conversations for many tenants, on NATS JetStream."""
    in_plain_letters()


@main.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".data"),
    show_default=True,
    help="Directory that everything is kept in.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address the front door listens on.")
@click.option("--port", default=3000, show_default=True, help="Port of the front door.")
@click.option("--gateway-port", default=3001, show_default=True, help="Port of the sandbox WhatsApp gateway.")
@click.option("--nats-port", default=4222, show_default=True, help="Port of the broker; 0 takes any.")
@click.option(
    "--nats-websocket-port", default=0, help="Port of the broker for WebSockets; without it any, told at start."
)
@click.option("--speed", type=float, default=None, help="Divide step delays by this, for demos.")
def up(
    data: Path, host: str, port: int, gateway_port: int, nats_port: int, nats_websocket_port: int, speed: float | None
) -> None:
    """Everything in one: servers, front door and all actors.

    The servers are broker, database, cache and sandbox gateway. Ctrl-C stops all of it.
    """
    from harkara.up import Ports, serve

    settings = settings_for(speed=speed)
    ports = Ports(host=host, door=port, gateway=gateway_port, nats=nats_port, nats_websocket=nats_websocket_port)
    run_until_stopped(lambda until: serve(settings, data, ports, until))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that it listens on.")
@click.option("--port", default=3000, show_default=True, help="Port that it listens on.")
@reach.data_option
def http(host: str, port: int, data: Path) -> None:
    """The front door alone."""
    from harkara import app
    from harkara.embedded.ports import Port, check_all

    async def serve(until: Callable[[], Awaitable[None]]) -> None:
        check_all([Port("--port", port, host)])
        reach.needed(settings, *app.NEEDED)
        async with AsyncExitStack() as stack:
            parts = await stack.enter_async_context(app.build(settings))
            bound = await stack.enter_async_context(app.door(parts, host, port))
            logger.info("front door on http://{}:{}", f"[{host}]" if ":" in host else host, bound)
            await until()

    settings = reach.filled(settings_for(), data)
    run_until_stopped(serve)


@main.command()
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@reach.data_option
def actor(names: tuple[str, ...], data: Path) -> None:
    """Some of the actors, or `all` of them.

    NAME is enrollment, dispatcher, ticker, sender, receipts, attendant, media, herald, importer, eraser or librarian.
    """
    from harkara import app

    chosen = tuple(app.ACTORS) if names == ("all",) else names
    if unknown := [name for name in chosen if name not in app.ACTORS]:
        raise Told(f"there is no actor {unknown[0]!r}: choose from {', '.join(app.ACTORS)}, or all")

    async def serve(until: Callable[[], Awaitable[None]]) -> None:
        reach.needed(settings, *app.NEEDED)
        async with app.build(settings) as parts, app.metrics(parts), app.actors(parts, chosen):
            await until()

    settings = reach.filled(settings_for(), data)
    run_until_stopped(serve)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that it listens on.")
@click.option("--port", default=3001, show_default=True, help="Port that it listens on.")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".data/gateway"),
    show_default=True,
    help="Directory that it keeps in what it has accepted.",
)
def gateway(host: str, port: int, data: Path) -> None:
    """The sandbox WhatsApp gateway.

    It speaks the Cloud API; its page shows the phones.
    """
    from harkara.gateway.sandbox.server import SandboxError, run_sandbox

    settings_for()
    try:
        run(lambda: run_sandbox(host, port, data))
    except SandboxError as error:
        raise Told(str(error)) from None


@main.command()
@reach.data_option
def migrate(data: Path) -> None:
    """Bring the database to the newest schema."""
    from harkara.ops import terminal
    from harkara.storage.migrate import migrate as run_migrations

    async def bring(settings: Settings) -> int:
        reach.needed(settings, "database_direct_url")
        return await run_migrations(settings.database_direct_url, lambda name: click.echo(f"ran {name}"))

    count = terminal.run(bring, data)
    click.echo(f"{counted(count, 'migration')} ran" if count else "the schema is up to date")


@main.command()
@reach.data_option
def reseal(data: Path) -> None:
    """Encrypt all stored secrets with the newest SECRET_KEY."""
    from harkara.ops import terminal
    from harkara.resealing import reseal as run_resealing

    async def encrypt(settings: Settings) -> int:
        reach.needed(settings, "database_direct_url")
        return await run_resealing(settings)

    count = terminal.run(encrypt, data)
    click.echo(f"encrypted anew: {counted(count, 'secret')}; all are under the newest SECRET_KEY")


@main.group()
def topology() -> None:
    """The streams on the broker."""


replicas_option = click.option(
    "--replicas",
    type=click.IntRange(1, 5),
    default=None,
    help="Servers that keep each stream: what nats/topology.toml says for a single broker or a cluster, if not given.",
)


@topology.command("show")
@replicas_option
@reach.data_option
def topology_show(replicas: int | None, data: Path) -> None:
    """What differs between the broker and its description.

    That is nats/topology.toml. On a cluster also what isn't on all its servers. Exit status 1 if there is anything.
    """
    from harkara.ops import terminal

    changes, faults, places = terminal.run(lambda settings: _shown_topology(settings, replicas or 0), data)
    for line in (*map(str, changes), *faults):
        click.echo(line)
    if places and not faults:
        click.echo(f"{places} streams and consumers lie on the servers they should lie on, whole")
    click.echo("`harkara topology apply` makes these changes" if changes else "the broker is as the topology says")
    raise SystemExit(1 if changes or faults else 0)


@topology.command("apply")
@replicas_option
@reach.data_option
def topology_apply(replicas: int | None, data: Path) -> None:
    """Bring the broker to what nats/topology.toml says."""
    from harkara.ops import terminal

    changes = terminal.run(lambda settings: _apply_topology(settings, replicas or 0), data)
    for change in changes:
        click.echo(str(change))
    click.echo(f"{counted(len(changes), 'change')} made" if changes else "nothing to change")


async def _shown_topology(settings: Settings, replicas: int) -> tuple[list[Any], list[str], int]:
    from harkara.bus import placement
    from harkara.bus import topology as streams
    from harkara.ops import terminal

    async with terminal.bus_of(settings, _PATIENCE) as bus:
        changes = await streams.diff(bus.js, replicas=replicas)
        places = await placement.placed(bus.js)
        wanted = replicas or streams.usual_replicas(bus.topology, bus.js)
        return list(changes), placement.faults(places, wanted), len(places)


async def _apply_topology(settings: Settings, replicas: int) -> list[Any]:
    from harkara.bus import topology as streams
    from harkara.ops import terminal

    async with terminal.bus_of(settings, _PATIENCE) as bus:
        return list(await streams.apply(bus.js, replicas=replicas))


@main.group()
def tenant() -> None:
    """Tenants: which there are, and a new one."""


@tenant.command("create")
@click.argument("tenant_id")
@click.option("--name", default="", help="What people call it; its id if not given.")
@click.option("--email", required=True, help="The owner's address, to log in with.")
@click.option("--password", help="The owner's; if not given, a terminal asks, or it is read from standard input.")
@reach.data_option
def tenant_create(tenant_id: str, name: str, email: str, password: str | None, data: Path) -> None:
    """Create a tenant with its owner."""
    from harkara.ops import terminal
    from harkara.tenants import checked, create

    async def make(settings: Settings) -> None:
        checked(tenant_id, email)
        async with terminal.storage_of(settings) as storage:
            secret = _asked_password() if password is None else password
            await create(storage, tenant_id, name or tenant_id, email, secret)

    terminal.run(make, data)
    click.echo(f"tenant {tenant_id} is ready; log in as {email}")


def _asked_password() -> str:
    if not sys.stdin.isatty():
        if given := sys.stdin.readline().rstrip("\r\n"):
            return given
        raise StorageError("password: is missing: pass it on standard input, or with --password")
    return str(click.prompt("Password", hide_input=True, confirmation_prompt=True))


@tenant.command("list")
@reach.data_option
def tenant_list(data: Path) -> None:
    """The ids of all tenants, one a line.

    Behind it stands whether an operator has paused it, or its erasing has not ended.
    """
    from harkara.ops import terminal
    from harkara.tenants import known

    async def ask(settings: Settings) -> list[str]:
        async with terminal.storage_of(settings) as storage:
            return await known(storage)

    for line in terminal.run(ask, data):
        click.echo(line)


@main.command()
@click.option("--speed", type=float, default=10_800.0, show_default=True, help="24 hours become 24 h / SPEED.")
@click.option("--keep", is_flag=True, help="Keep the data directory.")
def demo(speed: float, keep: bool) -> None:
    """A drip campaign to 500 contacts, live, on servers of its own.

    Three steps, in half a minute; at the end its funnel, and whether everybody is accounted for.
    """
    from harkara.demo.run import run_demo

    log.configure("WARNING")
    raise SystemExit(run(lambda: run_demo(speed=speed, keep=keep)))
