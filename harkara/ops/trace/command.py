"""`harkara ops trace`, as it looks."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import click
from redis.asyncio import Redis
from rich.table import Table
from rich.text import Text

from harkara.bus.errors import BusError
from harkara.cli import NotFound
from harkara.ops.reach import data_option
from harkara.ops.terminal import (
    TROUBLE,
    age,
    as_json,
    at,
    bus_of,
    known_tenant,
    new_table,
    run,
    storage_of,
    tell,
)
from harkara.ops.trace.rows import as_uuid
from harkara.ops.trace.story import Moment, Story, Teller
from harkara.printing import WIDE, console
from harkara.settings import Settings, SettingsError
from harkara.storage.storage import StorageError


def whom(_: click.Context, __: click.Parameter, named: str) -> str:
    """The id of which messages on the bus are named, as `ID.sent`: what `harkara ops tail` shows can be pasted here."""
    first = named.partition(".")[0]
    return first if as_uuid(first) else named


@click.command()
@click.argument("id_", metavar="ID", callback=whom)
@data_option
@as_json
@click.option("--tenant", default="", help="Whose it is: then it needn't be looked for at all of them.")
def trace(id_: str, data: Path, as_json: bool, tenant: str) -> None:
    """All that happened to one thing, and what it waits for.

    ID is that of a message, contact, enrolment, invoice, reply, command, request (`X-Request-Id`) or dead letter; or
    that of a campaign or number, of which it tells first how it stands. Codes are masked. Exit status 1 if nobody
    knows it.
    """

    async def ask(settings: Settings) -> Story | None:
        await known_tenant(settings, tenant or None)
        async with AsyncExitStack() as stack:
            storage = bus = None
            unasked: list[str] = []
            try:
                bus = await stack.enter_async_context(bus_of(settings))
            except (BusError, SettingsError) as error:
                unasked.append(f"broker: {error}")
            try:
                storage = await stack.enter_async_context(storage_of(settings))
            except (StorageError, SettingsError) as error:
                unasked.append(f"database: {error}")
            if storage is None and bus is None:
                raise SettingsError("; ".join(unasked))
            clients: Any = Redis  # redis-py types it only in part
            redis = clients.from_url(settings.redis_url) if settings.redis_url else None
            if redis is not None:
                stack.push_async_callback(redis.aclose)
            return await Teller(storage, bus, redis).tell(id_, tenant, unasked)

    story = run(ask, data)
    if story is None:
        where = f"of tenant {tenant}" if tenant else "of any tenant"
        raise NotFound(
            f"nothing {where} has the id {id_}: a request's id is known for as long as what it set off; "
            "name its tenant with --tenant, or look with `harkara ops tail --since 1h`"
        )
    if as_json:
        tell(story)
    else:
        show(story)
    raise SystemExit(0 if story.timeline or story.now or story.standing else TROUBLE)


def show(story: Story) -> None:
    """The story as people read it: how it stands, the timeline, then the words."""
    screen = console()
    screen.print(Text(f"{story.kind} {story.id} of {story.tenant or 'nobody that is known'}", "bold"))
    for line in story.standing:
        screen.print(Text(f"  {line}"))
    screen.print(timeline(story.timeline, screen.width))
    for one in story.now:
        screen.print(Text(f"{one.kind} {one.id}", "bold"))
        grid = Table.grid(padding=(0, 2))
        style = "green" if one.done else "yellow"
        for name, text in (("where", one.where), ("waits for", one.waits_for), ("to do", one.todo)):
            grid.add_row(Text(f"  {name}", "bold"), Text(text, style if name == "waits for" else ""))
        screen.print(grid)
    if not story.now:
        screen.print("nothing waits")
    for line in story.unasked:
        screen.print(Text(f"not asked: {line}", "red"))


def timeline(moments: list[Moment], width: int) -> Table:
    """A line for each moment. In a terminal of fewer columns than `WIDE` where and id stand with what happened."""
    wide = width >= WIDE
    made = new_table("at", "after", "where", "what", "id") if wide else new_table("at", "after", "what")
    before: Moment | None = None
    for moment in moments:
        after = "" if before is None else f"+{_wait((moment.at - before.at).total_seconds())}"
        stamp = f"{at(moment.at)}.{moment.at.microsecond // 1000:03d}"
        told = (moment.where, moment.what, moment.id) if wide else (f"{moment.where}: {moment.what} {moment.id}",)
        made.add_row(stamp, after, *told)
        before = moment
    return made


def _wait(seconds: float) -> str:
    return f"{seconds:.3f} s" if seconds < 1 else age(seconds)
