"""One durable and one pull for every number and lane that has work: made when needed, gone when idle."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

from loguru import logger
from nats.js.errors import APIError

from harkara.actors.numbers import Numbers
from harkara.actors.sender import Sender
from harkara.actors.ticker import WAKE_SEND
from harkara.bus.connection import Bus
from harkara.bus.errors import BusError, TopologyError
from harkara.bus.runner import Runner
from harkara.bus.tasks import end
from harkara.schemas.base import TENANT
from harkara.schemas.commands import LANES
from harkara.schemas.work import Send

STREAM = "SEND"

#: How often the stream is asked for numbers whose wake-up got lost.
SCAN_S = 5.0

#: A number without work for so long is no longer pulled for; its durable goes some time later.
IDLE = timedelta(seconds=60)
DURABLE_IDLE = timedelta(minutes=5)

#: What a number may have in hand: some seconds of its rate, so that a slow gateway doesn't slow it further.
IN_HAND_S = 2.0
LEAST_IN_HAND = 32

Key = tuple[str, str, str]


class SendPool:
    """Keeps a runner for each (tenant, number, lane) that has messages waiting."""

    def __init__(self, bus: Bus, sender: Sender, numbers: Numbers) -> None:
        self._bus, self._sender, self._numbers = bus, sender, numbers
        self._runners: dict[Key, Runner] = {}
        self._starting: dict[Key, asyncio.Task[None]] = {}
        self._scanning: asyncio.Task[None] | None = None
        self._unsubscribe: Any = None

    async def start(self) -> None:
        """Find the numbers that have work now, and listen for those that get some."""
        self._unsubscribe = await self._bus.publisher.subscribe_wake(WAKE_SEND, self._on_wake)
        self._scanning = asyncio.create_task(self._scan_for_ever())

    async def stop(self, grace: timedelta = timedelta(seconds=15)) -> None:
        """Take nothing new; what is being sent gets `grace` to be settled."""
        if self._unsubscribe:
            await self._unsubscribe()
        tasks = [task for task in (self._scanning, *self._starting.values()) if task]
        await asyncio.gather(*(end(task) for task in tasks))
        await asyncio.gather(*(runner.stop(grace) for runner in self._runners.values()))
        self._runners.clear()

    @property
    def active(self) -> list[Key]:
        """The (tenant, number, lane) that are pulled for now."""
        return sorted(self._runners)

    def _on_wake(self, data: bytes) -> None:
        parts = data.decode(errors="replace").split(" ")
        if len(parts) == 3:
            self._want((parts[0], parts[1], parts[2]))

    def _want(self, key: Key) -> None:
        """Have a runner for this number and lane, unless there is one."""
        if key in self._runners or key in self._starting or not _plausible(key):
            return
        task = asyncio.create_task(self._start(key))
        self._starting[key] = task
        task.add_done_callback(lambda _: self._starting.pop(key, None))

    async def _start(self, key: Key) -> None:
        tenant, sender_id, lane = key
        try:
            number = await self._numbers.get(tenant, sender_id)
            rate = number.rate if number else 1
            most = max(LEAST_IN_HAND, int(rate * IN_HAND_S))
            runner: Runner = self._bus.runner(
                self._sender,
                stream=STREAM,
                durable=f"send-{tenant}-{sender_id}-{lane}",
                filters=[Send.subject.format(tenant=tenant, sender_id=sender_id, lane=lane)],
                inactive_threshold=DURABLE_IDLE,
                credit=lambda: most - runner.in_hand,
            )
            await runner.start()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the next scan tries again
            logger.warning("number {} of {} can't be served yet, trying again: {}", sender_id, tenant, error)
            return
        self._runners[key] = runner

    async def _scan_for_ever(self) -> None:
        while True:
            try:
                info = await self._bus.js.stream_info(STREAM, subjects_filter=Send.subject_filter())
                for subject in info.state.subjects or {}:
                    tokens = subject.split(".")
                    self._want((tokens[1], tokens[4], tokens[5]))
            except asyncio.CancelledError:
                raise
            except (APIError, BusError, TopologyError, OSError, TimeoutError) as error:
                logger.debug("could not look for numbers with work: {}", error)
            except Exception as error:  # whatever it is, the next look may succeed
                logger.warning("could not look for numbers with work: {}", error)
            await self._stop_idle()
            await asyncio.sleep(SCAN_S)

    async def _stop_idle(self) -> None:
        idle = [key for key, runner in self._runners.items() if runner.idle_for > IDLE]
        for key in idle:
            await self._runners.pop(key).stop()


def _plausible(key: Key) -> bool:
    """Nudges aren't authenticated: what they name must at least be well formed."""
    tenant, sender_id, lane = key
    try:
        UUID(sender_id)
    except ValueError:
        return False
    return bool(TENANT.match(tenant)) and lane in LANES
