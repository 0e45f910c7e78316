"""`harkara ops doctor`, `topology` and `drain`: is all as it should be, and is nothing in hand before a deploy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import click
from rich.text import Text

from harkara.bus import pausing
from harkara.bus import topology as streams_of
from harkara.bus.api import Api
from harkara.bus.connection import Bus
from harkara.bus.errors import BusError
from harkara.bus.overview import PARTNERS, consumers
from harkara.ops.doctor import Doctor, Finding
from harkara.ops.pausing import pause_noted
from harkara.ops.reach import data_option
from harkara.ops.status import status
from harkara.ops.terminal import (
    TROUBLE,
    as_json,
    bus_of,
    new_table,
    run,
    storage_of,
    tell,
    yes_option,
)
from harkara.printing import console
from harkara.settings import Settings, SettingsError
from harkara.storage.storage import Storage, StorageError

#: What nobody has settled for longer comes back to somebody: then it is in nobody's hand.
SETTLED_S = 12.0


@asynccontextmanager
async def reached(settings: Settings) -> AsyncGenerator[tuple[Bus | BusError | SettingsError, Storage | None]]:
    """The broker, or why there is none, and the database, if it is there."""
    async with AsyncExitStack() as stack:
        bus: Bus | BusError | SettingsError
        storage = None
        try:
            bus = await stack.enter_async_context(bus_of(settings))
        except (BusError, SettingsError) as error:
            bus = error
        with suppress(StorageError, SettingsError):
            storage = await stack.enter_async_context(storage_of(settings))
        yield bus, storage


@click.command()
@data_option
@as_json
@click.option("--max-age", default=60.0, show_default=True, help="Seconds that work may wait before it is trouble.")
def doctor(data: Path, as_json: bool, max_age: float) -> None:
    """Looks over the whole set-up, and says how to mend it.

    Exit status 1 if the installation has anything to mend; what is wrong with a single tenant or number is a warning.
    """

    async def ask(settings: Settings) -> list[Finding]:
        async with reached(settings) as (bus, storage):
            state = await status(settings, bus, max_age)
            return await Doctor(settings, bus if isinstance(bus, Bus) else None, storage, state).look()

    found = run(ask, data)
    if as_json:
        tell(found)
    else:
        table = new_table("", "check", "what", "reason")
        table.columns[3].header = "to do"
        for one in found:
            mark = Text("✓", "green") if one.well else Text("!", "yellow") if one.warning else Text("✗", "red")
            table.add_row(mark, one.check, one.found, one.todo)
        console().print(table)
    raise SystemExit(0 if all(one.well or one.warning for one in found) else TROUBLE)


@click.group()
def topology() -> None:
    """The streams on the broker, against their description."""


@topology.command("diff")
@data_option
@as_json
@click.option("--replicas", type=click.IntRange(1, 5), default=None, help="Servers that keep each stream.")
def topology_diff(data: Path, as_json: bool, replicas: int | None) -> None:
    """What differs between the broker and nats/topology.toml.

    Exit status 1 if anything does.
    """

    async def ask(settings: Settings) -> list[streams_of.Change]:
        async with bus_of(settings) as bus:
            return await streams_of.diff(bus.js, replicas=replicas or 0)

    found = run(ask, data)
    if as_json:
        tell(found)
    elif found:
        table = new_table("what", "have", "want")
        for one in found:
            table.add_row(one.what, one.have, one.want)
        console().print(table)
        click.echo("`harkara topology apply` makes these changes")
    else:
        click.echo("the broker is as nats/topology.toml says")
    raise SystemExit(TROUBLE if found else 0)


@click.command()
@data_option
@as_json
@yes_option
@click.option("--within", default=60.0, show_default=True, help="Seconds to wait until nothing is in hand.")
def drain(data: Path, as_json: bool, yes: bool, within: float) -> None:
    """Before a deploy: pauses all actors.

    Waits until nothing is in hand; exit status 1 if something still is. Requests are accepted meanwhile, and wait.
    `harkara ops resume actor all` has everything go on.
    """

    async def act(settings: Settings) -> dict[str, int]:
        async with bus_of(settings) as bus:
            if not yes:
                click.confirm("pause all actors?", abort=True, err=True)
            for name in await pausing.actors(Api(bus.link.request), bus.topology):
                await pause_noted(bus, name, None)
            return await _until_empty(bus, within)

    left = run(act, data)
    if as_json:
        tell({"in_hand": left})
    elif left:
        told = ", ".join(f"{count} of {name}" for name, count in left.items())
        click.echo(
            f"still in hand, or put off by some seconds: {told}. Nothing of it is lost: it comes back after the deploy"
        )
    else:
        click.echo("nothing is in hand: deploy, then `harkara ops resume actor all`")
    raise SystemExit(TROUBLE if left else 0)


async def _until_empty(bus: Bus, within_s: float) -> dict[str, int]:
    """What actors have in hand by reader, once it is nothing, changes no more, or the time is over."""
    loop = asyncio.get_running_loop()
    deadline, changed, before = loop.time() + within_s, loop.time(), dict[str, int]()
    while True:
        found = await consumers(Api(bus.link.request), bus.topology)
        left = {one.name: one.in_hand for one in found if one.in_hand and not one.name.startswith(PARTNERS)}
        now = loop.time()
        if left != before:
            before, changed = left, now
        if not left or now > deadline or now - changed > SETTLED_S:
            return left
        await asyncio.sleep(0.2)
