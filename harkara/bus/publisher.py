"""How everybody puts messages onto the bus."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from harkara.bus.errors import BusError
from harkara.bus.messages import Ack, Outgoing

#: Ends a subscription.
Unsubscribe = Callable[[], Awaitable[None]]


class Publisher(Protocol):
    """Publishes messages that are stored before the call returns, and nudges that are not stored at all."""

    async def publish(self, out: Outgoing) -> Ack:
        """Store one message. Raises Unavailable (it may or may not be stored), Full or Refused."""
        ...

    async def publish_many(self, outs: Sequence[Outgoing]) -> list[Ack | BusError]:
        """Store many messages at once: what happened to each, in the same order. Raises no BusError."""
        ...

    def wake(self, subject: str, data: bytes = b"") -> None:
        """Nudge whoever listens right now: not stored, not awaited, lost when nobody does."""
        ...

    async def subscribe_wake(self, subject: str, callback: Callable[[bytes], None]) -> Unsubscribe:
        """Call `callback` with each nudge's data from now on; lossy by design: keep a slow poll beside it."""
        ...
