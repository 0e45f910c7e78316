"""Publishes what transactions of the front door have written into the outbox.

takes: `sys.tick.outbox`, and nudges
says: whatever lies there
retries: with the next tick
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from loguru import logger

from harkara.bus import headers
from harkara.bus.errors import BusError, Full, Refused
from harkara.bus.messages import Ack, Delivery, Packet
from harkara.bus.outcomes import Done, Outcome
from harkara.bus.publisher import Publisher, Unsubscribe
from harkara.bus.schedule import Schedule
from harkara.bus.tasks import end
from harkara.schemas.base import Message
from harkara.schemas.work import OutboxTick
from harkara.storage import outbox
from harkara.storage.storage import Storage

if TYPE_CHECKING:
    Send = Callable[[Sequence[Packet]], Awaitable[list[Ack | BusError]]]

#: Messages taken at once: they are gone from the outbox when all of them are stored.
MOST = 500


class Herald:
    """Empties the outbox, oldest first. Several may run: each takes what no other holds.

    What is for a tenant's full queue stays where it is, and holds nobody else up.
    """

    name: ClassVar[str] = "herald"
    takes: ClassVar[tuple[type[Message], ...]] = (OutboxTick,)
    retries: ClassVar[Schedule] = Schedule.seconds(1)
    batch: ClassVar[int] = 10
    in_flight: ClassVar[int] = 1

    def __init__(self, storage: Storage, publisher: Publisher, send: Send) -> None:
        self._storage, self._publisher, self._send = storage, publisher, send
        self._wanted = asyncio.Event()
        #: The queues that were full since the last tick.
        self._full: set[str] = set()
        self._unsubscribe: Unsubscribe | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Listen for nudges, and begin with what was left."""
        self._unsubscribe = await self._publisher.subscribe_wake(outbox.WAKE, lambda _: self._wanted.set())
        self._wanted.set()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Stop; what is left stays where it is."""
        if self._unsubscribe is not None:
            await self._unsubscribe()
        if self._task is not None:
            await end(self._task)

    async def handle(self, batch: Sequence[Delivery[OutboxTick]]) -> Sequence[Outcome]:
        """Look, in case a nudge was lost, and whether full queues have room by now."""
        self._full.clear()
        self._wanted.set()
        return [Done() for _ in batch]

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                while await self.publish() == MOST:
                    pass
            except Exception as error:  # the next tick tries again
                logger.warning("the outbox waits: {}", error)

    async def publish(self) -> int:
        """Publish the oldest; returns how many. Raises what keeps them from being stored: they stay then."""
        while True:
            try:
                async with self._storage.anonymous() as con:
                    rows = await outbox.take(con, MOST, self._full)
                    await self._store(rows)
                return len(rows)
            except _Filled as full:
                logger.warning("the outbox waits for room in {}", sorted(full.queues))
                self._full |= full.queues

    async def _store(self, rows: Sequence[Any]) -> None:
        results = await self._send([_packet(row) for row in rows]) if rows else []
        full: set[str] = set()
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, Full):
                full.add(row["subject"])
            elif isinstance(result, Refused):
                logger.error("{} of {} can never be published: {}", row["name"], row["tenant_id"], result)
            elif isinstance(result, BusError):
                raise result
        if full:
            raise _Filled(full)


class _Filled(Exception):
    """Some of it was not stored, because its queue is full: all stays for now. Ids keep it from being told twice."""

    def __init__(self, queues: set[str]) -> None:
        super().__init__(queues)
        self.queues = queues


def _packet(row: Any) -> Packet:
    named = {headers.DEDUPE: f"{row['tenant_id']}.{row['name']}", headers.ID: row["name"]}
    if row["cause"]:
        named[headers.CAUSE] = row["cause"]
    return Packet(row["subject"], row["body"].encode(), named)
