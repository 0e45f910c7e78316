"""`harkara ops pause`, `resume` and `journal`: what rests until somebody has it go on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click
import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError
from rich.table import Table

from harkara.bus import pausing as actors_of
from harkara.bus.api import Api
from harkara.bus.connection import Bus
from harkara.bus.errors import Unavailable
from harkara.ids import uuid7_text
from harkara.ops import journal as journal_of
from harkara.ops.reach import data_option
from harkara.ops.terminal import (
    as_json,
    at,
    bus_of,
    new_table,
    run,
    since_time,
    span,
    storage_of,
    tell,
    who,
    yes_option,
)
from harkara.ops.terminal import as_json as json_option
from harkara.ops.trace.rows import whose
from harkara.printing import console, counted
from harkara.settings import Settings
from harkara.storage import halting, outbox, redis_keys
from harkara.storage import pausing as rows_of
from harkara.storage.storage import Storage, StorageError

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Nudges the ticker: something became due.
WAKE_DUE = "sys.wake.due"

#: Dead letters name the sender by its shorter name.
ALIASES = {"send": "sender"}

_REDIS_PATIENCE_S = 1.0

#: What is done with rows, in one tenant's transaction. Says what became of it, or None if it was so already.
Change = Callable[["Connection", str, str], Awaitable[str | None]]


def _for(_: click.Context, __: click.Parameter, text: str | None) -> timedelta | None:
    if text is None:
        return None
    if (found := span(text)) is None:
        raise click.BadParameter("say how long: 90s, 15m, 6h, 2d")
    return found


@click.group()
def pause() -> None:
    """Have an actor, a tenant, a number or a campaign rest. Nothing is lost: it waits until it is resumed."""


@click.group()
def resume() -> None:
    """Have go on what was paused."""


@pause.command("actor")
@click.argument("name")
@data_option
@as_json
@yes_option
@click.option("--for", "how_long", callback=_for, help="So long: 90s, 15m, 6h, 2d; else until it is resumed.")
def pause_actor(name: str, data: Path, as_json: bool, yes: bool, how_long: timedelta | None) -> None:
    """Hand an actor nothing more, in all processes.

    Also in those that start later. What it has in hand it finishes. NAME is that of `harkara actor NAME`; asks unless
    --yes.
    """
    name = ALIASES.get(name, name)
    until = None if how_long is None else datetime.now(UTC) + how_long

    async def act(settings: Settings) -> list[str]:
        async with bus_of(settings) as bus:
            if not yes:
                click.confirm(f"pause the actor {name} in all processes?", abort=True, err=True)
            return await pause_noted(bus, name, until)

    names = run(act, data)
    if as_json:
        tell({"actor": name, "paused_until": until, "readers": names})
    else:
        end = f"until {at(until)}" if until else f"until `harkara ops resume actor {name}`"
        click.echo(f"the actor {name} is paused {end}: {counted(len(names), 'reader')}")


async def pause_noted(bus: Bus, name: str, until: datetime | None) -> list[str]:
    """Pause an actor until then, or until it is resumed, with a note in the journal; the names of its readers.

    Raises BusError.
    """
    api = Api(bus.link.request)
    if name not in (known := await actors_of.actors(api, bus.topology)):
        why = actors_of.NOT_PAUSED.get(name, f"choose from {', '.join(known)}")
        raise actors_of.NoActor(f"there is no actor {name} that can be paused: {why}")
    await journal_of.note(bus, "pause", actor=name, until=until)
    names = await actors_of.pause(api, bus.topology, name, until)
    bus.publisher.wake(actors_of.WAKE_PAUSED)
    return names


@resume.command("actor")
@click.argument("name")
@data_option
@as_json
@click.option("--yes", is_flag=True, help="As elsewhere; this never asks.")
def resume_actor(name: str, data: Path, as_json: bool, yes: bool) -> None:
    """Have a paused actor go on; `all` for all of them."""
    name = ALIASES.get(name, name)

    async def act(settings: Settings) -> list[str]:
        async with bus_of(settings) as bus:
            api = Api(bus.link.request)
            names = await actors_of.actors(api, bus.topology) if name == "all" else [name]
            await journal_of.note(bus, "resume", actor=name)
            found = [one for actor in names for one in await actors_of.resume(api, bus.topology, actor)]
            bus.publisher.wake(actors_of.WAKE_PAUSED)
            return found

    names = run(act, data)
    if as_json:
        tell({"actor": name, "readers": names})
    else:
        click.echo(
            f"{'all actors go' if name == 'all' else f'the actor {name} goes'} on: {counted(len(names), 'reader')}"
        )


async def _pause_tenant(con: Connection, tenant: str, why: str) -> str | None:
    paused = await rows_of.pause_tenant(con, tenant, why)
    if paused is None:
        return None
    return (
        f"{tenant} is paused, with {_numbers(paused)}: nothing leaves, nothing is lost; numbers to come are paused too"
    )


async def _resume_tenant(con: Connection, tenant: str, _: str) -> str | None:
    resumed = await rows_of.resume_tenant(con, tenant)
    return None if resumed is None else f"{tenant} goes on, with {_numbers(resumed)}"


def _numbers(found: Sequence[UUID]) -> str:
    return counted(len(found), "number")


def _pause_sender(id_: UUID) -> Change:
    async def change(con: Connection, tenant: str, why: str) -> str | None:
        paused = await rows_of.pause_sender(con, tenant, id_, why)
        return f"the number {id_} of {tenant} is paused" if paused else None

    return change


def _resume_sender(id_: UUID) -> Change:
    async def change(con: Connection, tenant: str, _: str) -> str | None:
        resumed = await halting.resume(con, tenant, id_)
        return f"the number {id_} of {tenant} goes on, with all that were stopped with it" if resumed else None

    return change


def _pause_campaign(id_: UUID) -> Change:
    async def change(con: Connection, tenant: str, why: str) -> str | None:
        return f"the campaign {id_} of {tenant} is paused" if await rows_of.pause_campaign(con, id_, why) else None

    return change


def _resume_campaign(id_: UUID) -> Change:
    async def change(con: Connection, tenant: str, _: str) -> str | None:
        return f"the campaign {id_} of {tenant} goes on" if await rows_of.resume_campaign(con, tenant, id_) else None

    return change


async def _changed(settings: Settings, how: str, kind: str, named: str, change: Change, why: str, yes: bool) -> str:
    """Do it in the transaction that the audit log notes, and nudge whoever waits for it; what became of it."""
    async with storage_of(settings) as storage:
        if kind == "tenant":
            tenant = await _open_tenant(storage, named)
        else:
            tenant, found = await whose(storage, named)
            if found != kind:
                raise StorageError(f"there is no {kind} {named}: look for its id in the API's list of {kind}s")
        if not yes:
            click.confirm(
                f"{how} the {kind} {named}{'' if kind == 'tenant' else f' of {tenant}'}?", abort=True, err=True
            )
        said = {"address": who(), "via": f"harkara ops {how} {kind}", "request_id": uuid7_text()}
        async with storage.tenant(tenant, msgspec.json.encode(said).decode()) as con:
            done = await change(con, tenant, why)
            goes_on = how == "resume" and kind != "campaign"
            resumed = await con.fetch("select id from senders where status = 'active'") if goes_on else []
    with suppress(Unavailable):
        async with bus_of(settings) as bus:
            bus.publisher.wake(WAKE_DUE)
            bus.publisher.wake(outbox.WAKE)
            for row in resumed:
                bus.publisher.wake(halting.WAKE_SENDER, str(row[0]).encode())
    if goes_on and await _let_go(settings, [row[0] for row in resumed] if kind == "tenant" else [named]) and not done:
        done = f"the {kind} {named} goes on: it rests no longer"
    return done or f"nothing to do: the {kind} {named} is {'paused already' if how == 'pause' else 'not paused'}"


async def _open_tenant(storage: Storage, named: str) -> str:
    """The tenant of this id. Raises StorageError if there is none, or if it is being erased."""
    async with storage.anonymous() as con:
        known: list[str] = await con.fetchval("select app.all_tenants()")
        resting = await rows_of.at_rest(con)
    if named not in known:
        raise StorageError(f"there is no tenant {named}: `harkara tenant list` shows them")
    if any(one.is_ending for one in resting if one.tenant == named):
        raise StorageError(
            f"the erasing of {named} has not ended: run `harkara ops erase tenant {named}` again, which goes on with it"
        )
    return named


async def _let_go(settings: Settings, senders: list[Any]) -> int:
    """A number that somebody has seen to need not rest any longer; without Redis its rest ends by itself.

    Returns how many of them rested.
    """
    clients: Any = Redis  # redis-py types it only in part
    if not settings.redis_url or not senders:
        return 0
    redis, rested = clients.from_url(settings.redis_url), 0
    with suppress(RedisError, OSError, TimeoutError):
        async with asyncio.timeout(_REDIS_PATIENCE_S):
            rested = await redis.delete(*(redis_keys.hold(one) for one in senders))
    await redis.aclose()
    return rested


def _command(group: click.Group, how: str, kind: str, doc: str, change: Callable[[Any], Change]) -> None:
    """`harkara ops pause|resume KIND ID`, all alike."""

    def command(id_: Any, data: Path, as_json: bool, yes: bool, why: str = "") -> None:
        done = run(lambda settings: _changed(settings, how, kind, str(id_), change(id_), why, yes), data)
        if as_json:
            tell({kind: str(id_), "done": done})
        else:
            click.echo(done)

    command.__doc__ = doc
    if how == "pause":
        command = click.option("--why", default="no reason was given", help="For those who see it paused.")(command)
    of = "TENANT" if kind == "tenant" else "ID"
    parameter = click.argument("id_", metavar=of, type=str if kind == "tenant" else click.UUID)
    group.command(kind)(parameter(data_option(json_option(yes_option(command)))))


_command(
    pause, "pause", "tenant", "Stop all numbers of a tenant: nothing leaves, nothing is lost.", lambda _: _pause_tenant
)
_command(pause, "pause", "sender", "Stop one number: its messages wait.", _pause_sender)
_command(pause, "pause", "campaign", "Hold back all that is due of a campaign.", _pause_campaign)
_command(
    resume, "resume", "tenant", "Have the numbers go on that were paused with their tenant.", lambda _: _resume_tenant
)
_command(resume, "resume", "sender", "Have a stopped number go on, and all that were stopped with it.", _resume_sender)
_command(
    resume,
    "resume",
    "campaign",
    "Have a paused campaign go on. What became due meanwhile leaves now.",
    _resume_campaign,
)


@click.command()
@data_option
@as_json
@click.option("--since", callback=since_time, help="Only since then: a time, or 90s, 15m, 6h, 2d.")
def journal(data: Path, as_json: bool, since: datetime | None) -> None:
    """What operators did to the platform itself: who, what, when. What concerns a tenant is in its audit log."""

    async def ask(settings: Settings) -> list[journal_of.Entry]:
        async with bus_of(settings) as bus:
            return [entry async for entry in journal_of.entries(bus, since)]

    found = run(ask, data)
    if as_json:
        tell(found)
        return
    if not found:
        console().print("nothing was noted since then" if since else "nothing was noted yet")
        return
    console().print(entry_table(found))


def entry_table(found: Sequence[journal_of.Entry]) -> Table:
    """A line for each entry of the journal."""
    table = new_table("at", "who", "action", "what")
    for one in found:
        table.add_row(at(one.at), one.by, one.action, "  ".join(_word(*item) for item in one.detail.items()))
    return table


def _word(name: str, value: object) -> str:
    if name == "until":
        return actors_of.end_of(msgspec.convert(value, datetime | None))
    return f"{name}={value if isinstance(value, str) else msgspec.json.encode(value).decode()}"
