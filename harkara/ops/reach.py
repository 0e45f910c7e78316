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

from harkara.settings import Settings, SettingsError

#: Of every command that goes to servers that are there.
data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(".data"),
    show_default=True,
    help="Data directory of a running `harkara up`; what the environment names goes before it.",
)

#: In the data directory of a running `harkara up`, for our eyes only.
FILE = "running.json"

#: What of the settings it tells: where everything is, with the passwords in it.
TOLD = (
    "database_url",
    "database_direct_url",
    "nats_url",
    "redis_url",
    "media_url",
    "whatsapp_gateway_url",
    "public_url",
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
    """The settings, and what the environment doesn't say of them as a `harkara up` that runs on this directory does."""
    try:
        with (data / FILE).open("rb") as file:
            if not _is_locked(file):
                return settings
            written = msgspec.json.decode(file.read(), type=dict[str, str])
    except (OSError, msgspec.MsgspecError):
        return settings
    missing = {name: url for name, url in written.items() if name in TOLD and name.upper() not in os.environ}
    return msgspec.structs.replace(settings, **missing)


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
