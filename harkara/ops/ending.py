"""`harkara ops erase tenant`: a tenant is taken out everywhere, and it is looked up afterwards that it is.

First nobody gets in for it any more and nothing leaves, then what somebody has in hand arrives, and only then is
everything taken out, the rows that the rest is found by last. Killed at any point, it is run again and goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from harkara.bus.api import Api
from harkara.bus.connection import Bus
from harkara.bus.ending import WAKE_ENDED, Ending
from harkara.http.keyring import WAKE_ACCESS, Change
from harkara.ops import journal
from harkara.ops.places import Places, blobs_of, redis_of
from harkara.ops.reach import data_option, needed
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
from harkara.schemas.base import TENANT
from harkara.settings import Settings, SettingsError
from harkara.storage import ending as rows_of
from harkara.storage.ending import Known
from harkara.storage.halting import WAKE_SENDER
from harkara.storage.storage import StorageError

if TYPE_CHECKING:
    from collections.abc import Generator

#: What was let in before the tenant was closed has arrived after so long, wherever it goes; and what its numbers had in
#: hand is sent or given back, for which senders that stop to pull for one take 17 seconds at most.
SETTLE_S = 20.0

#: How long it is waited, besides, for what actors have in hand. What is left then can write no rows any more.
IN_HAND = timedelta(seconds=60)

#: So often what somebody has told meanwhile is taken out too.
LOOKS = 5

#: Told of a step, with how many rows it is about; and of rows that are done.
Step = Callable[[str, int], None]
Gone = Callable[[int], None]


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where something of it was looked for: how much was found and taken out, and how much is left."""

    place: str
    found: int
    left: int


@click.command("tenant")
@click.argument("tenant", metavar="TENANT")
@data_option
@as_json
@yes_option
@click.option(
    "--settle",
    default=SETTLE_S,
    show_default=True,
    type=click.FloatRange(min=0),
    help="Seconds for what is on its way.",
)
def erase_tenant(tenant: str, data: Path, as_json: bool, yes: bool, settle: float) -> None:
    """Erase a tenant everywhere, and look that it is so.

    Access, rows, streams, readers, Redis, files and accounts. Its id stays nobody's for good. Run it again if it was
    interrupted: it goes on. Exit status 1 if anything is left.
    """

    async def act(settings: Settings) -> list[Place]:
        async with _reached(settings, tenant) as (places, bus), rows_of.alone(places.owner, tenant):
            known = await rows_of.known(places.owner, tenant)
            rows = await _asked(places, known, yes)
            await journal.note(bus, "erase", tenant=tenant, rows=rows)
            with _shown(rows, quiet=as_json) as (step, gone):
                found = await _erase(places, bus, known, settle, step, gone)
            if not any(one.left for one in found):
                await rows_of.erased(places.owner, tenant)
            deleted = places.taken.total()
            await journal.note(bus, "erased", tenant=tenant, taken_out=deleted, left=sum(one.left for one in found))
            return found

    found = run(act, data)
    left = [one for one in found if one.left]
    if as_json:
        tell({"tenant": tenant, "erased": not left, "places": found})
    else:
        table = new_table("where", "found", "left", "")
        for one in found:
            mark = Text("✗", "red") if one.left else Text("✓", "green")
            table.add_row(one.place, str(one.found), str(one.left), mark)
        console().print(table)
        click.echo("something is left: run it again in a minute" if left else "nothing of it is left")
    raise SystemExit(TROUBLE if left else 0)


@asynccontextmanager
async def _reached(settings: Settings, tenant: str) -> AsyncGenerator[tuple[Places, Bus]]:
    """Every server that has something of it: all must answer before anything is begun."""
    needed(settings, "database_url", "database_direct_url")
    async with AsyncExitStack() as stack:
        owner = await stack.enter_async_context(rows_of.owner(settings.database_direct_url))
        storage = await stack.enter_async_context(storage_of(settings))
        bus = await stack.enter_async_context(bus_of(settings))
        redis = await stack.enter_async_context(redis_of(settings))
        blobs = await stack.enter_async_context(blobs_of(settings))
        broker = Ending(Api(bus.link.request), bus.topology, tenant)
        yield Places(tenant, storage, owner, broker, redis, blobs), bus


async def _asked(places: Places, known: Known, yes: bool) -> int:
    """Make sure that it is meant; how many rows it has. Raises StorageError or SettingsError if it can't be done."""
    tenant = places.tenant
    if not TENANT.fullmatch(tenant) or not (known.there or known.marked):
        raise StorageError(f"there is no tenant {tenant}: `harkara tenant list` shows them")
    found = await places.rows()
    if places.blobs is None and found.get("media"):
        raise SettingsError("MEDIA_URL: is missing: name where the files are kept that contacts have sent to it")
    if not yes:
        what = f"{found['contacts']} contacts and {found['messages']} messages"
        click.confirm(f"erase the tenant {tenant} for good, with {what}?", abort=True, err=True)
    return sum(found.values())


async def _erase(places: Places, bus: Bus, known: Known, settle_s: float, step: Step, gone: Gone) -> list[Place]:
    if known.there:
        step("closing it", 0)
        await rows_of.mark(places.owner, places.tenant)
    places.names = await rows_of.names(places.owner, places.tenant)
    _tell_all(places, bus)
    await places.broker.begin()
    await places.purge(unread=True)
    if known.there:
        step("waiting for what is on its way", 0)
        await asyncio.sleep(settle_s)
        await places.broker.settled(IN_HAND)
    step("taking out what is not in rows", 0)
    await places.purge()
    await places.forget_besides()
    step("deleting rows", 1)

    def counted(table: str, count: int) -> None:
        places.taken[table] += count
        gone(count)

    await rows_of.rows(places.owner, places.tenant, counted)
    step("clearing the tables up", 0)
    await rows_of.vacuumed(places.owner)
    step("looking everywhere", 0)
    return await _proof(places, bus)


def _tell_all(places: Places, bus: Bus) -> None:
    """What front doors and senders know of it counts no longer."""
    wake = bus.publisher.wake
    wake(WAKE_ACCESS, msgspec.json.encode(Change(tenant=places.tenant)))
    for sender in places.names.senders:
        wake(WAKE_SENDER, str(sender).encode())
    wake(WAKE_ENDED, places.tenant.encode())


async def _proof(places: Places, bus: Bus) -> list[Place]:
    """Every place with what is left there. What was told of it in the last moment is taken out once more."""
    looks = 0
    while True:
        _tell_all(places, bus)
        await places.purge()
        await places.forget_besides()
        left, looks = await places.look(), looks + 1
        if not any(left.values()) or looks == LOOKS:
            break
        await asyncio.sleep(1)
    names = [*left, *(name for name in places.taken if name not in left)]
    return [Place(place=name, found=places.taken[name], left=left.get(name, 0)) for name in names]


@contextmanager
def _shown(rows: int, *, quiet: bool) -> Generator[tuple[Step, Gone]]:
    """Shows on a terminal what is being done, and how far it has come."""
    screen = Console(stderr=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=screen, disable=quiet or not screen.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=None)

        def step(what: str, of_rows: int) -> None:
            progress.update(task, description=what, total=rows if of_rows else None)

        yield step, lambda count: progress.advance(task, count)
