"""Shows contacts that somebody reads what they write, and that an answer is being typed.

takes: `cmd.conversation.read`
says: nothing
retries: twice, at once: what is shown late shows nothing
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import ClassVar

from loguru import logger

from harkara.actors.numbers import Numbers
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Done, Outcome, Retry
from harkara.bus.schedule import Schedule
from harkara.gateway.protocol import Gateway, NotSent, Refused, Unknown
from harkara.schemas.base import Message
from harkara.schemas.commands import MarkConversationRead

#: After so long nobody looks for it any more, and typing has long stopped.
USEFUL_FOR = timedelta(seconds=60)


class Attendant:
    """One request to the gateway each. That it is not shown is no harm: the log tells it, and it is no dead letter."""

    name: ClassVar[str] = "attendant"
    takes: ClassVar[tuple[type[Message], ...]] = (MarkConversationRead,)
    retries: ClassVar[Schedule] = Schedule.seconds(1, 5)
    batch: ClassVar[int] = 1
    in_flight: ClassVar[int] = 16

    def __init__(self, gateway: Gateway, numbers: Numbers) -> None:
        self._gateway, self._numbers = gateway, numbers

    async def handle(self, batch: Sequence[Delivery[MarkConversationRead]]) -> Sequence[Outcome]:
        """Show each."""
        return [await self._one(delivery) for delivery in batch]

    async def _one(self, d: Delivery[MarkConversationRead]) -> Outcome:
        if datetime.now(UTC) - d.at > USEFUL_FOR:
            return Done()
        number = await self._numbers.get(d.tenant, d.message.sender_id)
        if number is None:
            return Done()
        answer = await self._gateway.mark_read(number.credentials, d.message.wamid, typing=d.message.typing)
        if isinstance(answer, NotSent | Unknown) and d.attempt <= len(self.retries.delays):
            return Retry(f"the gateway was not reached: {answer.reason}")
        if isinstance(answer, NotSent | Unknown | Refused):
            logger.bind(tenant=d.tenant, sender=d.message.sender_id).info("not shown as read: {}", answer)
        return Done()
