"""How far behind the readers of the streams are, and how old the outbox is: asked when somebody looks."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import timedelta
from typing import NamedTuple

import asyncpg

from harkara.bus.api import Api
from harkara.bus.connection import Bus
from harkara.bus.errors import BusError
from harkara.bus.overview import durables
from harkara.bus.parked import Parked, parked
from harkara.measures import OTHER
from harkara.schemas.commands import LANES
from harkara.storage import outbox
from harkara.storage.storage import Storage

#: What was asked is told again to whoever looks within this time: several may scrape, and thousands of durables take a
#: broker some milliseconds each time.
FRESH = timedelta(seconds=5)

#: How long a server has to answer; what it doesn't tell is left out.
PATIENCE = timedelta(seconds=2)

#: More names of readers than these are told together.
MOST_NAMES = 100


class Lag(NamedTuple):
    """(stream, reader) -> messages, the outbox, and what actors have parked; None for what could not be asked."""

    pending: Counter[tuple[str, str]] | None
    in_hand: Counter[tuple[str, str]] | None
    outbox: tuple[int, float] | None
    parked: list[Parked] | None


class Lags:
    """Asks broker and database."""

    def __init__(self, storage: Storage, bus: Bus | None) -> None:
        self._storage, self._bus = storage, bus
        self._known = Lag(None, None, None, None)
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()

    async def get(self) -> Lag:
        """What is known, no older than a few seconds. Raises nothing."""
        async with self._asking:
            if self._asked_at is None or time.monotonic() - self._asked_at > FRESH.total_seconds():
                readers, waiting, put_off = await asyncio.gather(self._readers(), self._outbox(), self._parked())
                self._known = Lag(*readers, waiting, put_off)
                self._asked_at = time.monotonic()
            return self._known

    async def _readers(self) -> tuple[Counter[tuple[str, str]] | None, Counter[tuple[str, str]] | None]:
        if self._bus is None or not self._bus.connected:
            return None, None
        pending, in_hand = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                for one in await durables(Api(self._bus.link.request), self._bus.topology):
                    key = one.stream, _reader(one.name, len(pending))
                    pending[key] += one.pending
                    in_hand[key] += one.in_hand
        except (BusError, TimeoutError):
            return None, None
        return pending, in_hand

    async def _parked(self) -> list[Parked] | None:
        if self._bus is None or not self._bus.connected:
            return None
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                return await parked(Api(self._bus.link.request), self._bus.topology)
        except (BusError, TimeoutError):
            return None

    async def _outbox(self) -> tuple[int, float] | None:
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()), self._storage.anonymous() as con:
                return await outbox.waiting(con)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            return None


def _reader(durable: str, known: int) -> str:
    """A durable without what it has of a tenant: `send-acme-<number>-otp` is one of many `send.otp`."""
    actor, _, rest = durable.partition("-")
    if known >= MOST_NAMES:
        return OTHER
    if not rest:
        return actor
    lane = rest.rpartition("-")[2]
    return f"{actor}.{lane}" if lane in LANES else actor
