"""What an actor is to the bus: a name, what it takes, how it retries, and one method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Outcome
from harkara.bus.schedule import Schedule
from harkara.schemas.base import Message


class Actor(Protocol):
    """An independent worker that takes messages and answers each with an outcome."""

    #: Durable name, and the token in its `work`, `at` and `dead` subjects: never changed once used.
    name: ClassVar[str]
    takes: ClassVar[tuple[type[Message], ...]]
    retries: ClassVar[Schedule]
    #: Most deliveries handed over at once; fewer are handed over as soon as they are there.
    batch: ClassVar[int]
    #: Most batches being handled at the same time.
    in_flight: ClassVar[int]

    async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
        """Handle a batch: one outcome per delivery, in the same order.

        An exception does not settle the batch: each delivery is then handled alone, and one that still
        raises is retried by the schedule. So what a handler does must be harmless when it is done again.
        """
        ...
