"""Where the servers are: as the settings say, or as a running `harkara up` has written down."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click
import msgspec

from harkara.settings import DOTENV, Settings, SettingsError, named

#: Of every command that goes to servers that are there.
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".data"),
    show_default=True,
    help="Data directory of a running `harkara up`; what the environment or .env names goes before it.",
)

#: In the data directory of a running `harkara up`, for our eyes only.
FILE = "running.json"

#: What of the settings it tells: where everything is, with the passwords in it, and what a process needs that joins in:
#: did it think of steps as a day apart that are an hour apart for the others, it would put them off for that long.
TOLD = (
    "database_url",
    "database_direct_url",
    "nats_url",
    "redis_url",
    "media_url",
    "whatsapp_gateway_url",
    "evolution_url",
    "waha_url",
    "public_url",
    "secret_key",
    "nats_partners_url",
    "nats_partners_seed",
    "speed",
)


@contextmanager
def told(settings: Settings, data: Path) -> Generator[None]:
    """While this runs, `filled` finds these settings in the data directory.

    The file is locked meanwhile: the lock ends with the process, even one that is killed and leaves the file behind.
    """
    path, draft = data / FILE, data / f"{FILE}.new"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(msgspec.json.encode({name: getattr(settings, name) for name in TOLD}))
        file.flush()
        draft.rename(path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def filled(settings: Settings, data: Path) -> Settings:
    """The settings, and what neither the environment nor `.env` says of them as a `harkara up` does that runs on this
    directory."""
    try:
        with (data / FILE).open("rb") as file:
            if not _is_locked(file):
                return settings
            written = msgspec.json.decode(file.read(), type=dict[str, str | float])
    except (OSError, msgspec.MsgspecError):
        return settings
    given = named(DOTENV)
    return msgspec.structs.replace(
        settings, **{name: value for name, value in written.items() if name in TOLD and name not in given}
    )


def _is_locked(file: BinaryIO) -> bool:
    """Whether another process holds it. Others may ask at the same time."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def needed(settings: Settings, *names: str) -> None:
    """Raise SettingsError for the first of these that neither the environment nor a running `harkara up` tells."""
    here = click.get_current_context(silent=True)
    data = Path(".data") if here is None else here.params.get("data", Path(".data"))
    for name in names:
        if not getattr(settings, name):
            raise SettingsError(
                f"{name.upper()}: is missing, and no `harkara up` runs on {data}: start it, name another directory with"
                f" --data, or set {name.upper()}"
            )
