"""`harkara ops`: the commands and how they look. Tables for people, `--json` for machines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import click
import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harkara.bus.connection import Bus
from harkara.bus.dead import DeadLetter
from harkara.bus.errors import Unavailable
from harkara.bus.overview import PARTNERS, ConsumerState
from harkara.bus.parked import Parked
from harkara.cli import NotFound
from harkara.ops import dead as letters_of
from harkara.ops.ending import erase_tenant
from harkara.ops.erasing import erase
from harkara.ops.maintenance import doctor, drain, topology
from harkara.ops.pausing import journal, pause, resume
from harkara.ops.reach import data_option, needed
from harkara.ops.replaying import replay
from harkara.ops.status import Status
from harkara.ops.status import status as look
from harkara.ops.tail import Line, follow, read_back
from harkara.ops.terminal import (
    TROUBLE,
    age,
    as_json,
    at,
    bus_of,
    dry_option,
    known_tenant,
    new_table,
    period,
    rate_option,
    run,
    since_time,
    storage_of,
    subject_option,
    tell,
    until_ctrl_c,
    who,
    yes_option,
)
from harkara.ops.trace.command import trace
from harkara.printing import WIDE, console, counted, fitted
from harkara.settings import Settings

#: The broker brings back what was put off within a quarter of a second.
_LATE_S = 1.0

_UNKNOWN = {
    "streams": "what the streams hold and who is behind is not known: the broker could not be asked",
    "idle": "whether numbers have something to send and can't is not known: somebody could not be asked",
    "resting": "whether tenants are paused, or numbers stopped, is not known: the database could not be asked",
}

_LOST = "harkara: the broker is away: waiting for it to be there again"
_FOUND = "harkara: the broker is there again; what passed meanwhile is shown with --since"

_NO_LETTERS = Text("no dead letters", "green")


@click.group()
def ops() -> None:
    """Looks after the platform: what runs, waits or was given up."""


erase.add_command(erase_tenant)
for _command in (trace, pause, resume, journal, doctor, drain, topology, replay, erase):
    ops.add_command(_command)


@ops.command()
@data_option
@as_json
@click.option("--max-age", default=60.0, show_default=True, help="Seconds that work may wait before it is trouble.")
def status(data: Path, as_json: bool, max_age: float) -> None:
    """Servers, streams and readers.

    Exit status 1 if somebody has to look at something.
    """

    async def ask(settings: Settings) -> Status:
        try:
            async with bus_of(settings) as bus:
                return await look(settings, bus, max_age)
        except Unavailable as error:
            return await look(settings, error, max_age)

    found = run(ask, data)
    if as_json:
        tell(found)
    else:
        show_status(found)
    raise SystemExit(TROUBLE if found.trouble else 0)


def show_status(found: Status) -> None:
    """All of it as people read it; what is to be done comes last."""
    screen = console()
    servers = new_table("server", "", "ms")
    for server in found.servers:
        mark = (
            Text("up", "green")
            if server.answers
            else Text(*("away", "red") if server.asked else ("not asked", "yellow"))
        )
        servers.add_row(server.name, mark, f"{server.ms:.0f}" if server.answers else "")
    screen.print(servers)
    for one, line in _UNKNOWN.items():
        if one in found.unknown:
            screen.print(Text(f"? {line}", "yellow"))
    if "streams" not in found.unknown:
        _show_streams(screen, found)
    for line in found.trouble:
        screen.print(Text(f"✗ {line}", "red"))
    if not found.trouble:
        screen.print(Text("✓ all is well", "green"))


def _show_streams(screen: Console, found: Status) -> None:
    held = new_table("stream", "messages", "MB", "readers", "replicas", "oldest")
    for one in found.streams:
        if one.missing:
            held.add_row(one.name, Text("missing", "red"))
            continue
        oldest = "" if one.first_at is None else age((found.at - one.first_at).total_seconds())
        held.add_row(
            one.name, str(one.messages), f"{one.bytes / 1e6:.1f}", str(one.consumers), str(one.replicas), oldest
        )
    screen.print(held)
    show_lag(screen, [one for one in found.consumers if one.lag])
    if found.parked:
        screen.print(parked_table(found.parked, found.at))


def parked_table(waiting: Sequence[Parked], now: datetime) -> Table:
    """A line for what each actor has put off."""
    put_off = new_table("put off by", "failed", "came", "back in", "because")
    for one in waiting:
        left = (one.due_at - now).total_seconds()
        back = Text(f"{age(one.overdue_s)} late", "red") if one.overdue_s > _LATE_S else age(max(left, 0))
        put_off.add_row(one.actor, str(one.failed or ""), age(one.age_s), back, one.reason)
    return put_off


@ops.command()
@data_option
@as_json
@click.option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
@click.option("--all", "everybody", is_flag=True, help="Readers that have nothing to do, too.")
def lag(data: Path, as_json: bool, watch: bool, everybody: bool) -> None:
    """Who is behind: what waits, what is in hand, for how long."""

    async def ask(settings: Settings) -> None:
        from harkara.bus.api import Api
        from harkara.bus.overview import consumers

        async with bus_of(settings) as bus:
            while True:
                found = await consumers(Api(bus.link.request), bus.topology)
                chosen = [one for one in found if everybody or one.lag]
                if as_json:
                    tell(chosen)
                else:
                    if watch:
                        click.echo(at(datetime.now(UTC)))
                    if everybody:
                        console().print(lag_table(chosen))
                    else:
                        show_lag(console(), chosen)
                if not watch:
                    return
                await asyncio.sleep(2)

    until_ctrl_c(ask, data)


def show_lag(screen: Console, behind: Sequence[ConsumerState]) -> None:
    """Our own readers one by one. Partners read when they like: of all together it is said what they have left."""
    partners = [one for one in behind if one.name.startswith(PARTNERS)]
    screen.print(lag_table([one for one in behind if not one.name.startswith(PARTNERS)]))
    if partners:
        left, have = counted(sum(one.lag for one in partners), "event"), "has" if len(partners) == 1 else "have"
        readers = counted(len(partners), "reader")
        screen.print(f"{readers} of partners {have} {left} to read yet: `harkara ops lag --all`")


def lag_table(chosen: Sequence[ConsumerState]) -> Table | Text:
    """A line for each reader."""
    if not chosen:
        return Text("nobody is behind", "green")
    table = new_table("reader", "stream", "waiting", "in hand", "again", "oldest")
    for one in chosen:
        table.add_row(one.name, one.stream, str(one.pending), str(one.in_hand), str(one.redelivered), age(one.oldest_s))
    return table


@ops.command()
@data_option
@as_json
@click.option("--tenant", help="Only what is this tenant's.")
@subject_option
@click.option(
    "--since", callback=since_time, help="First what lies in the streams since then: a time, or 90s, 15m, 6h, 2d."
)
def tail(data: Path, as_json: bool, tenant: str | None, subject: str, since: datetime | None) -> None:
    """Every message on the bus as it passes, one a line.

    A terminal shows as much of each as it is wide; in a narrow one id and body stand in a line below. Codes are masked.
    Ctrl-C ends it.
    """

    def show(line: Line) -> None:
        click.echo(line.as_json() if as_json else fitted(*line.as_text()))

    async def ask(settings: Settings) -> None:
        pattern = f"t.{tenant or '*'}.{subject}"
        await known_tenant(settings, tenant)
        async with bus_of(settings) as bus:
            bus.link.on_down.append(lambda: click.echo(_LOST, err=True))
            bus.link.on_up.append(lambda: click.echo(_FOUND, err=True))
            click.echo(f"harkara: listening to {pattern}; Ctrl-C ends it", err=True)
            if since is not None:
                async for line in read_back(bus, pattern, since):
                    show(line)
            async for line in follow(bus, pattern):
                show(line)

    until_ctrl_c(ask, data)


@ops.group()
def dead() -> None:
    """What actors gave up: looked at, tried again, or forgotten."""


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--since", callback=since_time, help="Only since then: a time, or 90s, 15m, 6h, 2d."),
        click.option("--reason", help="Only those whose reason has this in it."),
        click.option("--tenant", help="Only this tenant's."),
        click.option("--actor", help="Only those that this actor gave up."),
        as_json,
        data_option,
    ):
        command = option(command)
    return command


def _wanted(filters: dict[str, Any]) -> letters_of.Wanted:
    return letters_of.Wanted(**{name: filters[name] for name in ("actor", "tenant", "reason", "since")})


async def _chosen(settings: Settings, bus: Bus, filters: dict[str, Any]) -> list[DeadLetter]:
    await known_tenant(settings, filters["tenant"])
    return [letter async for letter in letters_of.find(bus.dead, _wanted(filters))]


@dead.command("list")
@_filters
@click.option("--ids", is_flag=True, help="Each of them, instead of groups.")
def dead_list(data: Path, as_json: bool, ids: bool, **filters: Any) -> None:
    """Dead letters, grouped by who gave them up and why."""

    async def ask(settings: Settings) -> list[DeadLetter]:
        async with bus_of(settings) as bus:
            return await _chosen(settings, bus, filters)

    found = run(ask, data)
    if as_json:
        tell([letters_of.shown(one) for one in found] if ids else letters_of.grouped(found))
    elif ids:
        screen = console()
        screen.print(letter_table(found, screen.width))
    else:
        _show_groups(found)


def letter_table(found: Sequence[DeadLetter], width: int) -> Table | Text:
    """A line for each dead letter. In a terminal of fewer columns than `WIDE` all but its id stands together."""
    if not found:
        return _NO_LETTERS
    wide = width >= WIDE
    made = new_table("id", "at", "tenant", "actor", "attempts", "reason") if wide else new_table("id", "reason")
    for one in found:
        told = at(one.at), one.tenant, one.actor, str(one.attempts), one.reason
        made.add_row(str(one.id), *(told if wide else ("{}, {}: {} after {} attempts: {}".format(*told),)))
    return made


def _show_groups(found: Sequence[DeadLetter]) -> None:
    console().print(group_table(found))


def group_table(found: Sequence[DeadLetter]) -> Table | Text:
    """A line for each group."""
    if not found:
        return _NO_LETTERS
    table = new_table("letters", "tenants", "actor", "first – last", "reason")
    for group in letters_of.grouped(found):
        between = period(group.first, group.last)
        table.add_row(str(group.letters), str(group.tenants), group.actor, between, group.reason)
    return table


def _no_letter(id_: UUID) -> str:
    return f"there is no dead letter {id_}: `harkara ops dead list --ids` shows them"


@dead.command("show")
@click.argument("letter_id", metavar="ID", type=click.UUID)
@data_option
@as_json
def dead_show(letter_id: UUID, data: Path, as_json: bool) -> None:
    """One dead letter with all that is known of it; codes are masked."""

    async def ask(settings: Settings) -> DeadLetter | None:
        async with bus_of(settings) as bus:
            return await bus.dead.get(letter_id)

    letter = run(ask, data)
    if letter is None:
        raise NotFound(_no_letter(letter_id))
    told = letters_of.shown(letter)
    if as_json:
        tell(told)
        return
    table = Table.grid(padding=(0, 2))
    for name, value in told.items():
        if value is not None:
            table.add_row(
                Text(name, "bold"), Text(msgspec.json.encode(value).decode() if name == "body" else str(value))
            )
    console().print(table)


def _mending(how: Literal["replay", "drop"], doing: str) -> Callable[..., None]:
    def command(
        data: Path, as_json: bool, letter_ids: tuple[UUID, ...], dry: bool, yes: bool, rate: float, **filters: Any
    ) -> None:
        async def act(settings: Settings) -> int:
            needed(settings, "database_url")
            async with bus_of(settings) as bus:
                found = await _chosen(settings, bus, filters)
                if missing := set(letter_ids) - {one.id for one in found}:
                    raise NotFound(_no_letter(min(missing)))
                found = [one for one in found if not letter_ids or one.id in letter_ids]
                if not as_json:
                    _show_groups(found)
                if not found or dry:
                    return 0 if not dry else len(found)
                if not yes:
                    click.confirm(f"{doing} {len(found)} of them?", abort=True, err=True)
                async with storage_of(settings) as storage:
                    return await letters_of.mend(storage, bus.dead, found, how, who=who(), rate=rate)

        count = run(act, data)
        if as_json:
            tell({"letters": count, "done": not dry})
        elif count:
            click.echo(f"{'it would concern' if dry else 'done with'} {counted(count, 'dead letter')}")

    command.__doc__ = {
        "replay": "Have dead letters tried again, with all their attempts. Shows first which; asks unless --yes.",
        "drop": "Forget dead letters: they will not be done. Shows first which; asks unless --yes.",
    }[how]
    for option in (
        rate_option,
        yes_option,
        dry_option,
        click.argument("letter_ids", nargs=-1, type=click.UUID, metavar="[ID]..."),
    ):
        command = option(command)
    return _filters(command)


dead.command("replay")(_mending("replay", "replay"))
dead.command("drop")(_mending("drop", "forget"))
