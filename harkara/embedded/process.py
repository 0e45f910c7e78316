"""One child process: started so that it dies with us, waited for without a thread, stopped within a bound."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import IO, Literal

from harkara.embedded.errors import StackError

Identity = Literal["plain", "userns", "nobody"]

_LAUNCH = str(Path(__file__).with_name("launch.py"))

#: For systems without a parent-death signal: a shell that waits for the end of a pipe that only we hold open. The
#: reader gets the pipe as descriptor 3, because a shell gives its background commands an empty standard input.
_WATCHDOG = """
signal=$1 pidfile=$2; shift 2
exec 3<&0 </dev/null
"$@" 3<&- & server=$!
echo $server > "$pidfile"
{ cat <&3 >/dev/null; kill -s "$signal" $server; } & watcher=$!
wait $server; status=$?
kill $watcher 2>/dev/null
exit $status
"""


class Child:
    """A running child in a session of its own: Ctrl-C reaches only us, and our death (even kill -9) ends it.

    `argv[0]` is an absolute path; output goes to the end of `log`; `lock` is a locked descriptor that the child
    inherits, so that the lock lasts until the last of our children is gone.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        log: Path,
        lock: int,
        death_signal: signal.Signals,
        env: Mapping[str, str] | None = None,
        identity: Identity = "plain",
    ) -> None:
        self.log = log
        self._pid_file = log.with_suffix(".pid")
        self._pid_file.unlink(missing_ok=True)
        self.log_start = log.stat().st_size if log.exists() else 0
        # The kernel's parent-death signal fires when the *thread* that forked ends: only the main thread's end is ours.
        self._watched = sys.platform != "linux" or threading.current_thread() is not threading.main_thread()
        command = _command(argv, os.getpid(), death_signal, identity, self._watched, self._pid_file)
        with log.open("ab") as output:
            self.process = _spawn(command, output, lock, env or os.environ, pipe=self._watched)

    @property
    def pid(self) -> int:
        """The server's process id; 0 for the moment in which a watchdog has not told it yet."""
        if not self._watched:
            return self.process.pid
        try:
            return int(self._pid_file.read_text())
        except (OSError, ValueError):
            return 0

    @property
    def status(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return self.process.poll()

    def output(self) -> str:
        """What it has written since it was started, the last 64 kB at most."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self.log_start, self.log.stat().st_size - 65_536))
                return log.read().decode(errors="replace")
        except OSError:
            return ""

    async def exited(self) -> int:
        """Waits for its end and returns the exit status."""
        await _ended(self.process)
        if self.process.stdin is not None:
            self.process.stdin.close()
        return self.process.wait()

    async def stop(self, *steps: tuple[signal.Signals, timedelta]) -> None:
        """Sends each signal in turn, waiting so long after each for the end; at last SIGKILL."""
        for signum, patience in steps:
            self._signal(signum)
            try:
                async with asyncio.timeout(patience.total_seconds()):
                    await self.exited()
            except TimeoutError:
                continue
            return
        self.kill()
        await self.exited()

    def kill(self) -> None:
        """Ends it at once, and what it has started besides our own servers, which follow it."""
        if self.status is None:
            os.killpg(self.process.pid, signal.SIGKILL)  # its session is its group

    def _signal(self, signum: signal.Signals) -> None:
        if self.status is not None:
            return
        if pid := self.pid:
            with suppress(ProcessLookupError):  # it may end between the question and the signal
                os.kill(pid, signum)
        elif self.process.stdin is not None:
            self.process.stdin.close()  # the watchdog knows the process, and ends it


def _command(
    argv: Sequence[str], parent: int, death_signal: signal.Signals, identity: Identity, watched: bool, pid_file: Path
) -> list[str]:
    if not watched:
        return [sys.executable, "-I", "-S", _LAUNCH, str(parent), str(int(death_signal)), identity, *argv]
    launched = argv if identity == "plain" else [sys.executable, "-I", "-S", _LAUNCH, "0", "0", identity, *argv]
    name = death_signal.name.removeprefix("SIG")
    return ["/bin/sh", "-c", _WATCHDOG, "sh", name, str(pid_file), *launched]


def _spawn(
    command: list[str], output: IO[bytes], lock: int, env: Mapping[str, str], *, pipe: bool
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(  # noqa: S603 - our own servers, no shell, no input of anyone's
            command,
            stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(env),
            cwd="/",
            start_new_session=True,
            pass_fds=(lock,),
        )
    except OSError as error:
        raise StackError(f"cannot start {command[0]}: {error.strerror}; check that it may be executed") from error


async def _ended(process: subprocess.Popen[bytes]) -> None:
    """Returns once the process has ended, without a thread: by a descriptor of the process, or else by asking."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except (AttributeError, OSError):
        while process.poll() is None:  # noqa: ASYNC110 - there is no event: that is why we ask
            await asyncio.sleep(0.1)
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


@cache
def identity_for_postgres() -> Identity:
    """How a child gets an identity with which PostgreSQL agrees to run: only root needs another one than its own."""
    if os.geteuid() != 0:
        return "plain"
    probe = [sys.executable, "-I", "-S", _LAUNCH, "0", "0", "userns", "/bin/sh", "-c", "exit 0"]
    done = subprocess.run(probe, capture_output=True, check=False)  # noqa: S603 - our own launcher
    return "userns" if done.returncode == 0 else "nobody"
