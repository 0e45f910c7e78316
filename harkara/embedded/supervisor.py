"""Keeps one server running: starts it, waits until it answers, starts it again when it dies, stops it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

from loguru import logger

from harkara.embedded.errors import StackError
from harkara.embedded.process import Child

#: How long a server may take to answer: one with much to recover after a kill -9 needs seconds, rarely more.
START_LIMIT = timedelta(seconds=120)

_FIRST_PAUSE = timedelta(milliseconds=50)
_LONGEST_PAUSE = timedelta(seconds=5)
_LASTING = timedelta(seconds=1)  # what keeps it from starting and is gone before pauses are so long alarms nobody
_CHECK = timedelta(seconds=2)
_STEADY = timedelta(seconds=10)  # one that ran so long starts again with the first pause


class Server(Protocol):
    """What differs between the servers."""

    @property
    def name(self) -> str: ...

    @property
    def stop_steps(self) -> Sequence[tuple[signal.Signals, timedelta]]: ...

    async def prepare(self) -> None:
        """Makes what the first start needs. Raises StackError."""
        ...

    def spawn(self) -> Child:
        """Starts the server, on the same port or socket every time."""
        ...

    async def answers(self, child: Child) -> bool:
        """Whether it serves requests."""
        ...

    async def ailment(self) -> str:
        """One line on why it runs but does not work, if only a new start can cure it now; else empty."""
        ...

    def diagnose(self, output: str) -> str:
        """One line on why it ended by itself and what to do, from its output; empty if that says nothing known."""
        ...


class Supervisor:
    """One server under supervision."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._child: Child | None = None
        self._watch: asyncio.Task[None] | None = None
        self._log = logger.bind(server=server.name)

    @property
    def pid(self) -> int:
        """The process id of the server that runs now; 0 if none does."""
        child = self._child
        return child.pid if child and child.status is None else 0

    async def start(self) -> None:
        """Returns when the server answers. Raises StackError if it does not come up."""
        await self._server.prepare()
        await self._start_once()
        self._watch = asyncio.create_task(self._keep_running(), name=f"embedded-{self._server.name}")

    async def stop(self) -> None:
        """Ends the server cleanly, by force if it takes too long. Does nothing the second time."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
            self._watch = None
        if self._child is not None:
            await self._child.stop(*self._server.stop_steps)
            self._child = None

    async def _start_once(self) -> None:
        self._child = child = self._server.spawn()
        try:
            async with asyncio.timeout(START_LIMIT.total_seconds()):
                await self._answered(child)
        except TimeoutError:
            await child.stop()
            raise StackError(
                f"{self._server.name} did not answer within {START_LIMIT.total_seconds():.0f} s: see {child.log}"
            ) from None
        except StackError:
            await child.stop(*self._server.stop_steps)
            raise

    async def _answered(self, child: Child) -> None:
        while not await self._server.answers(child):
            if child.status is not None:
                raise StackError(self._why(child, await child.exited()))
            await asyncio.sleep(0.005)

    async def _keep_running(self) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        while self._child is not None:
            since = loop.time()
            why = await self._down(self._child)
            if loop.time() - since > _STEADY.total_seconds():
                pause = _FIRST_PAUSE
            self._log.warning("{}; starting it again", why)
            await self._restart(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _down(self, child: Child) -> str:
        """Waits until it has ended, ending it where only that helps, and says why."""
        end = asyncio.create_task(child.exited())
        try:
            while not (await asyncio.wait({end}, timeout=_CHECK.total_seconds()))[0]:
                if ailment := await self._server.ailment():
                    await child.stop(*self._server.stop_steps)
                    return ailment
            return self._why(child, end.result())
        finally:
            end.cancel()

    async def _restart(self, pause: timedelta) -> None:
        while True:
            await asyncio.sleep(pause.total_seconds())
            try:
                await self._start_once()
            except (StackError, OSError) as error:
                pause = min(pause * 2, _LONGEST_PAUSE)
                level = "ERROR" if pause >= _LASTING else "WARNING"
                self._log.log(level, "{}; trying again in {:.1f} s", error, pause.total_seconds())
            else:
                self._log.info("{} runs again", self._server.name)
                return

    def _why(self, child: Child, status: int) -> str:
        if status == -signal.SIGKILL:
            return f"{self._server.name} was killed by SIGKILL"
        output = child.output()
        if known := self._server.diagnose(output):
            return known
        last = output.strip().rpartition("\n")[2]
        return f"{self._server.name} ended with status {status} ({last or 'no output'}): see {child.log}"
