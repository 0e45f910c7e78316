"""The data directory: one owner, one user at a time, a layout version, room on the disk, the broker's password."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import hashlib
import os
import pwd
import re
import secrets
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path

from harkara.embedded.errors import StackError

#: The layout of the directory. A newer one is refused; an older one would be brought up to date here.
LAYOUT = 1

#: Below this much free space nothing is started: a new cluster takes 40 MB, its log and the streams need room to grow.
LEAST_FREE = 256 * 1024 * 1024

#: How long the servers of a run that was killed may take to finish.
PATIENCE = timedelta(seconds=20)

_OUT_OF_SPACE = re.compile("no space left on device|check free disk space", re.IGNORECASE)
_NOTHING_LEFT = 1024 * 1024
_ROOM = "make room, or choose another directory with --data"

_LONGEST_SOCKET_DIRECTORY = 80  # a socket's whole path must fit into 104 bytes on macOS, 108 on Linux


class DataDirectory:
    """The directory that holds one stack's data, and the two locks on it.

    `lock` is held by this process: whoever finds it taken meets a running stack. `children.lock` is inherited by the
    servers and held as long as one of them lives: after a kill -9 the next start waits until the last has finished.
    """

    def __init__(self, path: Path, least_free: int = LEAST_FREE) -> None:
        self.path = Path(os.path.abspath(path))
        self.postgres = self.path / "postgres"
        self.nats = self.path / "nats"
        self.logs = self.path / "logs"
        self.children_lock = -1
        self._least_free = least_free
        self._lock = -1

    async def open(self) -> None:
        """Makes, checks and locks the directory. Raises StackError, or OSError, if it cannot be used."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._check_owner()
        self.logs.mkdir(mode=0o700, exist_ok=True)
        self._lock = self._take_lock()
        self.children_lock = _open(self.path / "children.lock")
        await self._wait_for_children()
        self._check_layout()
        self.check_space()
        self._turn_logs()

    def close(self) -> None:
        """Gives the locks back."""
        for descriptor in (self.children_lock, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._lock = self.children_lock = -1

    def check_space(self) -> None:
        """Raises StackError if the disk has less room than the stack needs to work."""
        free = self.free()
        if free < self._least_free:
            raise StackError(
                f"the disk of {self.path} has {free >> 20} MB free and {self._least_free >> 20} MB are needed: {_ROOM}"
            )

    def free(self) -> int:
        """Free space for us on its disk, in bytes."""
        return shutil.disk_usage(self.path).free

    def full(self, program: str, output: str) -> str:
        """The line for a program that ran out of disk space, as its output tells; empty if it did not.

        A disk with nothing left counts too: then not even the output could be written down.
        """
        if not _OUT_OF_SPACE.search(output) and self.free() > _NOTHING_LEFT:
            return ""
        return f"the disk of {self.path} is full ({program} could not write): {_ROOM}"

    def unusable(self, error: OSError) -> StackError:
        """What to tell about an error of the file system."""
        if error.errno == errno.ENOSPC:
            return StackError(f"the disk of {self.path} is full: {_ROOM}")
        return StackError(
            f"cannot use the data directory {self.path}: {error.strerror} ({error.filename}); "
            "put that right, or choose another directory with --data"
        )

    def password(self) -> str:
        """The broker's password: made once, readable by its owner only."""
        path = self.path / "nats.password"
        if not path.exists():
            fresh = path.with_suffix(".new")
            fresh.unlink(missing_ok=True)
            # It begins with a letter: the broker's configuration would read digits as a number.
            with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write("p" + secrets.token_hex(20))
            fresh.rename(path)
        password = path.read_text().strip()
        if not password.isalnum():
            raise StackError(f"{path} is damaged: delete it and start again, a new one is made")
        return password

    def sockets(self) -> Path:
        """The directory for Unix sockets, open to its owner only: a short one when ours is too long for a socket."""
        path = self.path / "run"
        if len(os.fsencode(path)) > _LONGEST_SOCKET_DIRECTORY:
            key = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:12]
            path = Path(tempfile.gettempdir(), f"harkara-{os.geteuid()}-{key}")
        path.mkdir(mode=0o700, exist_ok=True)
        found = path.lstat()
        if found.st_uid != os.geteuid() or found.st_mode & 0o077 or path.is_symlink():
            raise StackError(f"{path} is open to other users: remove it, it is made anew")
        return path

    def _check_owner(self) -> None:
        owner = self.path.stat().st_uid
        if owner != os.geteuid():
            raise StackError(
                f"the data directory {self.path} belongs to {_user(owner)} and this is {_user(os.geteuid())}: "
                "run as its owner, or choose another directory with --data"
            )

    def _take_lock(self) -> int:
        descriptor = _open(self.path / "lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise StackError(
                f"{self.path} is in use by a running stack (process {holder or 'unknown'}): stop that one, "
                "or choose another directory with --data"
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return descriptor

    async def _wait_for_children(self) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE.total_seconds()
        while True:
            try:
                fcntl.flock(self.children_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if loop.time() > deadline:
                    raise StackError(
                        f"servers of an earlier run still use {self.path} after {PATIENCE.total_seconds():.0f} s: "
                        "end them (`ps` shows nats-server, postgres or valkey-server with this path) and start again"
                    ) from None
                await asyncio.sleep(0.01)
            else:
                return

    def _check_layout(self) -> None:
        path = self.path / "layout"
        try:
            layout = int(path.read_text())
        except FileNotFoundError:
            fresh = path.with_suffix(".new")
            fresh.write_text(f"{LAYOUT}\n")
            fresh.rename(path)
            return
        except ValueError:
            raise StackError(
                f"the data directory {self.path} is damaged ({path.name} is no number): restore it from a copy, "
                "or choose another one with --data"
            ) from None
        if layout > LAYOUT:
            raise StackError(
                f"the data directory {self.path} was made by a newer version (its layout is {layout}, this one knows "
                f"{LAYOUT}): upgrade, or choose another directory with --data"
            )

    def _turn_logs(self) -> None:
        for log in self.logs.glob("*.log"):
            log.rename(log.with_suffix(".log.1"))


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
