"""One durable and one pull for every number and lane that has work: made when needed, gone when idle."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from loguru import logger
from nats.js.errors import APIError

from harkara.actors.numbers import Numbers
from harkara.actors.sender import Sender
from harkara.actors.ticker import WAKE_SEND
from harkara.bus.connection import Bus
from harkara.bus.ending import WAKE_ENDED
from harkara.bus.errors import BusError, TopologyError
from harkara.bus.overview import paused_until
from harkara.bus.pausing import WAKE_PAUSED
from harkara.bus.runner import Runner
from harkara.bus.tasks import end
from harkara.schemas.base import TENANT
from harkara.schemas.commands import LANES
from harkara.schemas.work import Send
from harkara.storage.halting import WAKE_SENDER

STREAM = "SEND"

#: How often the stream is asked for numbers whose wake-up got lost.
SCAN_S = 5.0

#: A number without work for so long is no longer pulled for; its durable goes some time later.
IDLE = timedelta(seconds=60)
DURABLE_IDLE = timedelta(minutes=5)

#: What a number may have in hand: some seconds of its rate, so that a slow gateway doesn't slow it further.
IN_HAND_S = 2.0
LEAST_IN_HAND = 32

#: However fast it may send: what waits in hand is memory, and how many requests it may have in the air is `Air`'s.
MOST_IN_HAND = 400

#: Durables made at the same time: after a restart thousands are wanted at once, and the broker has others to serve.
STARTS_AT_ONCE = 32

Key = tuple[str, str, str]


class SendPool:
    """Keeps a runner for each (tenant, number, lane) that has messages waiting."""

    def __init__(self, bus: Bus, sender: Sender, numbers: Numbers) -> None:
        self._bus, self._sender, self._numbers = bus, sender, numbers
        self._runners: dict[Key, Runner] = {}
        self._starting: dict[Key, asyncio.Task[None]] = {}
        self._at_once = asyncio.Semaphore(STARTS_AT_ONCE)
        self._scanning: asyncio.Task[None] | None = None
        self._unsubscribe: list[Any] = []
        self._look_now = asyncio.Event()
        #: Until then no durable is made: those that are there the broker has paused.
        self._paused_until: datetime | None = None

    async def start(self) -> None:
        """Find the numbers that have work now, and listen for those that get some."""
        subscribe = self._bus.publisher.subscribe_wake
        self._unsubscribe = [
            await subscribe(WAKE_SEND, self._on_wake),
            await subscribe(WAKE_SENDER, self._on_changed),
            await subscribe(WAKE_PAUSED, lambda _: self._look_now.set()),
            await subscribe(WAKE_ENDED, lambda _: self._look_now.set()),
        ]
        self._scanning = asyncio.create_task(self._scan_for_ever())

    async def stop(self, grace: timedelta = timedelta(seconds=15)) -> None:
        """Take nothing new, give back what waits for its turn, and give what is being sent `grace` to be settled.

        Whatever may wait as long as it likes is given back: what is left is a request and two statements, shorter than
        any grace worth the name. Cut off in its request, a message would be in doubt.
        """
        for unsubscribe in self._unsubscribe:
            await unsubscribe()
        tasks = [task for task in (self._scanning, *self._starting.values()) if task]
        await asyncio.gather(*(end(task) for task in tasks))
        # In this order: no runner hands on another message once its stop has begun.
        await asyncio.gather(*(runner.stop(grace) for runner in self._runners.values()), self._sender.end_waiting())
        self._runners.clear()

    @property
    def active(self) -> list[Key]:
        """The (tenant, number, lane) that are pulled for now."""
        return sorted(self._runners)

    def _on_wake(self, data: bytes) -> None:
        parts = data.decode(errors="replace").split(" ")
        if len(parts) == 3:
            self._want((parts[0], parts[1], parts[2]))

    def _on_changed(self, data: bytes) -> None:
        """A number goes on, perhaps."""
        self._numbers.changed(data.decode(errors="replace"))
        self._look_now.set()

    def _want(self, key: Key) -> None:
        """Have a runner for this number and lane, unless there is one."""
        if key in self._runners or key in self._starting or not _plausible(key) or self._paused():
            return
        if key[0] in self._bus.ended:
            return
        task = asyncio.create_task(self._start(key))
        self._starting[key] = task
        task.add_done_callback(lambda _: self._starting.pop(key, None))

    def _paused(self) -> bool:
        return self._paused_until is not None and self._paused_until > datetime.now(UTC)

    async def _start(self, key: Key) -> None:
        tenant, sender_id, lane = key
        try:
            number = await self._numbers.get(tenant, sender_id)
            if number is not None and number.rest(datetime.now(UTC)) is not None:
                return  # its messages stay where they are; the next look asks again
            rate = number.rate if number else 1
            most = min(max(LEAST_IN_HAND, int(rate * IN_HAND_S)), MOST_IN_HAND)
            runner: Runner = self._bus.runner(
                self._sender,
                stream=STREAM,
                durable=f"send-{tenant}-{sender_id}-{lane}",
                filters=[Send.subject.format(tenant=tenant, sender_id=sender_id, lane=lane)],
                inactive_threshold=DURABLE_IDLE,
                credit=lambda: 0 if self._numbers.rests(tenant, sender_id) else most - runner.in_hand,
            )
            async with self._at_once:
                await runner.start()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the next scan tries again
            logger.warning("number {} of {} can't be served yet, trying again: {}", sender_id, tenant, error)
            return
        self._runners[key] = runner

    async def _scan_for_ever(self) -> None:
        while True:
            self._look_now.clear()
            try:
                info = await self._bus.js.stream_info(STREAM, subjects_filter=Send.subject_filter())
                self._paused_until = paused_until(info.config.metadata, datetime.now(UTC))
                for subject in info.state.subjects or {}:
                    tokens = subject.split(".")
                    await self._look_again(tokens[1], tokens[4])
                    self._want((tokens[1], tokens[4], tokens[5]))
            except asyncio.CancelledError:
                raise
            except (APIError, BusError, TopologyError, OSError, TimeoutError) as error:
                logger.debug("could not look for numbers with work: {}", error)
            except Exception as error:  # whatever it is, the next look may succeed
                logger.warning("could not look for numbers with work: {}", error)
            await self._stop_idle()
            with suppress(TimeoutError):
                async with asyncio.timeout(SCAN_S):
                    await self._look_now.wait()

    async def _look_again(self, tenant: str, sender_id: str) -> None:
        """A number that is not pulled for says nothing by itself: see whether it may go on."""
        if self._numbers.rests(tenant, sender_id):
            await self._numbers.get(tenant, sender_id)

    async def _stop_idle(self) -> None:
        """Stop what has nothing to do, or no tenant; all, while the sender is paused: some may have begun just then."""
        paused, ended = self._paused(), self._bus.ended
        over = [key for key, one in self._runners.items() if paused or key[0] in ended or one.idle_for > IDLE]
        await asyncio.gather(*(self._runners.pop(key).stop() for key in over))


def _plausible(key: Key) -> bool:
    """Nudges aren't authenticated: what they name must at least be well formed."""
    tenant, sender_id, lane = key
    try:
        UUID(sender_id)
    except ValueError:
        return False
    return bool(TENANT.match(tenant)) and lane in LANES
