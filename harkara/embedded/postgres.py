"""PostgreSQL on a Unix socket: our own child, never a daemon, set up so that nothing committed is lost to a kill -9."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import asyncpg

from harkara.embedded import binaries
from harkara.embedded.directory import DataDirectory
from harkara.embedded.errors import StackError
from harkara.embedded.launch import NOBODY
from harkara.embedded.process import Child, Identity, identity_for_postgres

_PORT = 5432  # only names the socket: there is no TCP listener

# fsync off: only a crash of the machine can lose or tear what the kernel has. synchronous_commit stays on, because
# without it a kill -9 of the server alone loses hundreds of commits that were already acknowledged.
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "on",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "256MB",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "max_logical_replication_workers": "0",
    "jit": "off",
    "autovacuum_naptime": "20s",
    "idle_in_transaction_session_timeout": "60s",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "listen_addresses": "",
    "port": str(_PORT),
    "unix_socket_permissions": "0700",
}

#: A server that was killed leaves processes, which end as soon as they notice.
_OTHERS = re.compile(r"pre-existing shared memory block|lock file \"\S+\" already exists")


class Postgres:
    """The database server. `url` is known before it runs."""

    name = "postgres"
    stop_steps = (
        (signal.SIGINT, timedelta(seconds=8)),  # fast: ends sessions, writes a checkpoint
        (signal.SIGQUIT, timedelta(seconds=2)),  # immediate: the next start recovers
    )

    def __init__(self, directory: DataDirectory) -> None:
        self._directory = directory
        self._cluster = directory.postgres
        self._sockets = directory.sockets()
        self._identity: Identity = "plain"
        self._installation = binaries.Postgres(bin=Path())
        # A PG… variable of the user's shell must not steer our server.
        self._env = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        self._env |= {"LC_ALL": "C", "TZ": "UTC"}

    def url(self, user: str, database: str) -> str:
        """Where clients connect: through the socket, which only its owner can open, without a password."""
        return f"postgresql://{quote(user)}@/{quote(database)}?host={quote(str(self._sockets), safe='')}&port={_PORT}"

    async def prepare(self) -> None:
        """Finds the program and makes the cluster if there is none. Raises StackError if either fails."""
        self._installation = await binaries.postgres(self._major())
        self._identity = identity_for_postgres()
        if not self._cluster.exists():
            await self._make_cluster()
        self._own(self._cluster)
        self._drop_stale_locks()

    def spawn(self) -> Child:
        """Starts it."""
        self._drop_stale_locks()
        settings = _SETTINGS | {"unix_socket_directories": str(self._sockets)}
        if self._installation.major >= 18:
            settings["io_method"] = "sync"  # the default keeps three more processes
        arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        return self._child("postgres", ["-D", str(self._cluster), *arguments], signal.SIGINT)

    async def answers(self, child: Child) -> bool:
        """Whether it accepts connections: its pid file says so first (line 1 the pid, line 8 the state)."""
        try:
            lines = (self._cluster / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        if len(lines) < 8 or lines[0] != str(child.pid) or lines[7].strip() != "ready":
            return False
        return await self._answers_a_query()

    async def ailment(self) -> str:
        """It ends by itself when it cannot write."""
        return ""

    def diagnose(self, output: str) -> str:
        """Tells a full disk, processes that a killed one has left, and a cluster that cannot be opened."""
        if full := self._directory.full("PostgreSQL", output):
            return full
        if _OTHERS.search(output):
            return "processes of the PostgreSQL before have not ended yet"
        found = re.search(r"(?:FATAL:|PANIC:|^postgres:) +(.*)", output, re.MULTILINE)
        return self._unreadable(found[1]) if found else ""

    async def _answers_a_query(self) -> bool:
        """The server may be ready and its databases gone: it only looks when somebody connects."""
        try:
            connection = await asyncpg.connect(self.url("postgres", "postgres"))
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.ConnectionDoesNotExistError):
            return False
        except asyncpg.PostgresError as error:
            raise StackError(self._unreadable(str(error.args[0]))) from error
        await connection.close()
        return True

    def _unreadable(self, why: str) -> str:
        return (
            f"PostgreSQL cannot open {self._cluster} ({why}): if it is damaged, restore it from a copy, "
            "or choose another directory with --data"
        )

    def _major(self) -> int | None:
        """The version that made the cluster; None if there is no cluster yet."""
        if not self._cluster.exists():
            return None
        try:
            return int((self._cluster / "PG_VERSION").read_text())
        except (OSError, ValueError):
            raise StackError(
                f"{self._cluster} is damaged (PG_VERSION cannot be read): restore it from a copy, "
                "or choose another directory with --data"
            ) from None

    async def _make_cluster(self) -> None:
        """Makes it beside its place and renames it, so that one half made by a run that was killed is never opened."""
        fresh = self._cluster.with_name("postgres.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._own(fresh)
        arguments = ["-D", str(fresh), "-U", "postgres", "-A", "trust", "-E", "UTF8", *self._locale()]
        child = self._child("initdb", [*arguments, "--no-sync", "--no-instructions"], signal.SIGKILL)
        try:
            status = await child.exited()
        except BaseException:
            await child.stop()
            raise
        if status != 0:
            output = child.output()
            last = output.strip().rpartition("\n")[2]
            raise StackError(self._directory.full("initdb", output) or f"initdb failed ({last}): see {child.log}")
        fresh.rename(self._cluster)

    def _locale(self) -> list[str]:
        """Sorting by code point, the same on every machine and version."""
        if self._installation.major >= 17:
            return ["--locale-provider=builtin", "--locale=C.UTF-8"]
        return ["--locale=C.UTF-8" if sys.platform == "linux" else "--locale=C"]

    def _child(self, program: str, arguments: list[str], death_signal: signal.Signals) -> Child:
        return Child(
            [str(self._installation.bin / program), *arguments],
            log=self._directory.logs / f"{program}.log",
            lock=self._directory.children_lock,
            death_signal=death_signal,
            env=self._env,
            identity=self._identity,
        )

    def _own(self, tree: Path) -> None:
        """Gives the cluster to the user the server runs as; only root, whose way to run it may change, ever has to."""
        if os.geteuid() != 0:
            return
        owner = NOBODY if self._identity == "nobody" else 0
        if tree.stat().st_uid != owner:
            for path in (tree, *tree.rglob("*")):
                os.chown(path, owner, owner, follow_symlinks=False)

    def _drop_stale_locks(self) -> None:
        """Removes lock files whose process is no postgres.

        After a restart of a container the same number may be another program, and PostgreSQL would refuse to start.
        """
        for path in (self._cluster / "postmaster.pid", self._sockets / f".s.PGSQL.{_PORT}.lock"):
            try:
                pid = int(path.read_text().partition("\n")[0])
            except (OSError, ValueError):
                continue
            if "postgres" not in _name_of(pid):
                path.unlink(missing_ok=True)


def _name_of(pid: int) -> str:
    """The name of a running program; empty if there is none."""
    if sys.platform == "linux":
        try:
            name, _, rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")
        except OSError:
            return ""
        # One that was killed and that nobody has collected yet still has its number and its name.
        return "" if rest.split()[0] == "Z" else name.partition("(")[2]
    listed = subprocess.run(["/bin/ps", "-o", "comm=", "-p", str(pid)], capture_output=True, text=True, check=False)  # noqa: S603 - a number
    return listed.stdout.strip()
