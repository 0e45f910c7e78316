"""Facts that change seldom, read once for all who ask at the same moment."""

from __future__ import annotations

import asyncio
import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Once(Generic[K, V]):
    """Remembers what `read` found for a key for `fresh_s` seconds (None: for ever), at most `most` keys.

    However many ask at once, one reads. What could not be read is asked for again by the next.
    """

    def __init__(self, read: Callable[[K], Awaitable[V]], *, fresh_s: float | None = None, most: int = 10_000) -> None:
        self._read, self._fresh_s, self._most = read, fresh_s, most
        self._known: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._reading: dict[K, asyncio.Task[V]] = {}

    def known(self, key: K) -> V | None:
        """What is remembered and still fresh, without asking anybody."""
        found = self._known.get(key)
        if found is None or (self._fresh_s is not None and found[0] + self._fresh_s < time.monotonic()):
            return None
        return found[1]

    def last(self, key: K) -> V | None:
        """What was found last, however long ago."""
        found = self._known.get(key)
        return None if found is None else found[1]

    def put(self, key: K, value: V) -> None:
        """Remember what has become true just now."""
        self._known[key] = (time.monotonic(), value)

    def expire(self, which: Callable[[K], bool]) -> None:
        """What was found for these may not be so any more: whoever gets it next reads it again."""
        for key, (_, value) in self._known.items():
            if which(key):
                self._known[key] = (-math.inf, value)

    async def get(self, key: K) -> V:
        """What is known of the key, read if need be."""
        found = self.known(key)
        if found is not None:
            return found
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.ensure_future(self._fetch(key))
            task.add_done_callback(lambda _: self._reading.pop(key, None))
        # Whoever is cancelled must not take the others' reading with it.
        return await asyncio.shield(task)

    async def _fetch(self, key: K) -> V:
        value = await self._read(key)
        self._known[key] = (time.monotonic(), value)
        self._known.move_to_end(key)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        return value
