"""The steps of a campaign's version: what each says, and which comes after it at what time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from harkara.actors.reading import Once
from harkara.ids import uuid7
from harkara.schemas.content import Content
from harkara.storage import sending
from harkara.storage.sending import Advance
from harkara.storage.storage import Storage
from harkara.templating import compiled


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a frozen version, with those that come after it."""

    id: UUID
    position: int
    delay_hours: float
    content: Content
    later: tuple[tuple[UUID, float], ...]

    def rendered(self, variables: Mapping[str, Any]) -> Content:
        """What this step says to one contact. Raises TemplateFault if a variable without a default is missing."""
        return self.content.map_texts(lambda text: compiled(text)(variables))

    def next_after(self, enrollment_id: UUID, started_at: datetime, speed: float) -> Advance:
        """Where an enrolment goes after this step. Times count from the enrolment, never from this step."""
        if not self.later:
            return Advance(enrollment_id, "completed", step=self.position + 1)
        step_id, delay_hours = self.later[0]
        due_at = started_at + delay(delay_hours, speed)
        # The id tells when the message is due: by it messages are listed. For what is late already, that is now.
        id_ = uuid7(max(due_at, datetime.now(UTC)))
        return Advance(enrollment_id, "active", step=self.position + 1, step_id=step_id, message_id=id_, due_at=due_at)

    def end(self, enrollment_id: UUID, status: str, reason: str) -> Advance:
        """The enrolment ends at this step."""
        return Advance(enrollment_id, status, reason, step=self.position)


def delay(hours: float, speed: float) -> timedelta:
    """A step's delay on the clock; `speed` compresses it for demos."""
    return timedelta(hours=hours / speed)


class Steps:
    """Reads steps once: those of an activated version never change."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: Once[tuple[str, UUID], Step | None] = Once(self._read)

    async def get(self, tenant: str, step_id: UUID) -> Step | None:
        """The step, or None if there is none of that id in this tenant."""
        return await self._known.get((tenant, step_id))

    async def _read(self, key: tuple[str, UUID]) -> Step | None:
        tenant, step_id = key
        async with self._storage.batch((tenant,)) as con:
            rows = await sending.steps(con, tenant, step_id)
        for index, (id_, position, delay_hours, content) in enumerate(rows):
            if id_ == step_id:
                later = tuple((row[0], row[2]) for row in rows[index + 1 :])
                return Step(id_, position, delay_hours, msgspec.json.decode(content, type=Content), later)
        return None
