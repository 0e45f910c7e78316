"""What all commands at the terminal share: settings, connections, tables for people and JSON for machines."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from loguru import logger
from rich.table import Table

from harkara.bus.connection import Bus, connect
from harkara.ops import reach
from harkara.ops.reach import needed
from harkara.schemas.base import TENANT
from harkara.settings import Settings, SettingsError
from harkara.storage.storage import Storage, StorageError

T = TypeVar("T")

#: How long the broker has to let us in.
PATIENCE = timedelta(seconds=3)

#: Exit status of a command that worked and found trouble.
TROUBLE = 1

as_json = click.option("--json", "as_json", is_flag=True, help="For machines: JSON instead of tables.")
yes_option = click.option("--yes", is_flag=True, help="Without asking.")
dry_option = click.option("--dry", is_flag=True, help="Only show which.")
rate_option = click.option("--rate", default=100.0, show_default=True, help="At most so many a second.")


def _subject(_: click.Context, __: click.Parameter, text: str) -> str:
    if re.search(r"\s", text) or "" in text.split("."):
        raise click.BadParameter("give a subject such as in.whatsapp or evt.message.*, without the tenant's part")
    return text


subject_option = click.option(
    "--subject",
    default=">",
    callback=_subject,
    help="Only subjects such as `in.whatsapp` or `evt.message.*`: what stands behind the tenant's part.",
)


def run(main: Callable[[Settings], Coroutine[Any, Any, T]], data: Path) -> T:
    """Run a command's coroutine with the settings that lead to the servers."""
    from harkara.cli import run as run_coroutine
    from harkara.cli import settings_for

    # Whoever sits here is told by the command itself, in one line, when the broker is away.
    logger.disable("harkara.bus.link")
    settings = reach.filled(settings_for(log_level="WARNING"), data)
    return run_coroutine(lambda: main(settings))


def until_ctrl_c(main: Callable[[Settings], Coroutine[Any, Any, None]], data: Path) -> None:
    """Run one that goes on until Ctrl-C, which is how it should end."""
    try:
        run(main, data)
    except KeyboardInterrupt:
        raise SystemExit(0) from None


@asynccontextmanager
async def bus_of(settings: Settings, within: timedelta = PATIENCE) -> AsyncGenerator[Bus]:
    """The broker, that lets us in `within` so long. Raises SettingsError or Unavailable, each in one line."""
    needed(settings, "nats_url")
    async with await connect(settings.nats_url, settings.nats_creds or None, name="ops", within=within) as bus:
        yield bus


@asynccontextmanager
async def storage_of(settings: Settings) -> AsyncGenerator[Storage]:
    """The database. Raises SettingsError or StorageError, each in one line."""
    needed(settings, "database_url")
    storage = Storage(settings.database_url, pool=2)
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


async def known_tenant(settings: Settings, tenant: str | None) -> None:
    """Raises StorageError if one is named and there is none of that id. Without the database it is believed."""
    if tenant is None or (TENANT.fullmatch(tenant) and await _may_be(settings, tenant)):
        return
    raise StorageError(f"there is no tenant {tenant}: `harkara tenant list` shows them")


async def _may_be(settings: Settings, tenant: str) -> bool:
    try:
        async with storage_of(settings) as storage, storage.anonymous() as con:
            return tenant in await con.fetchval("select app.all_tenants()")
    except (StorageError, SettingsError):
        return True


def tell(what: Any) -> None:
    """Print it for machines, in one line of UTF-8 whatever the terminal's encoding is."""
    click.echo(msgspec.json.encode(what))


#: What isn't broken over lines, so that it can be compared and copied. Everything else is, before it is cut away.
_WHOLE = frozenset({"id", "at", "after"})


def new_table(*columns: str) -> Table:
    """An empty table. What is too long for a terminal goes on in the next line."""
    made = Table(box=None, padding=(0, 2), collapse_padding=True, header_style="bold", title_justify="left")
    for column in columns:
        made.add_column(column, no_wrap=column in _WHOLE, overflow="fold")
    return made


def since_time(_: click.Context, __: click.Parameter, text: str | None) -> datetime | None:
    """A time, or how long ago: `2026-11-26T10:00:00Z`, `90s`, `15m`, `6h`, `2d`."""
    if text is None:
        return None
    if (ago := span(text)) is not None:
        return datetime.now(UTC) - ago
    try:
        return msgspec.convert(text, datetime).astimezone(UTC)
    except (msgspec.ValidationError, ValueError):
        raise click.BadParameter(
            "give a time such as 2026-11-26T10:00:00Z, or how long ago: 90s, 15m, 6h, 2d"
        ) from None


def span(text: str) -> timedelta | None:
    """`90s`, `15m`, `6h` or `2d`; None if it is none of these."""
    units = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
    if text[-1:] in units and text[:-1].isdecimal():
        return timedelta(**{units[text[-1]]: int(text[:-1])})
    return None


def who() -> str:
    """Who sits at this terminal, for the audit log."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def at(instant: datetime) -> str:
    """An instant for people, in UTC."""
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def period(first: datetime, last: datetime) -> str:
    """From when until when, for people, in UTC."""
    return f"{at(first)} – {at(last)}"


def age(seconds: float | None) -> str:
    """How long ago, in the largest unit that fits."""
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s"
