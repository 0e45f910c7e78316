"""The steps of a campaign's version: what each says, and which comes after it at what time."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from harkara.actors.reading import Once
from harkara.ids import uuid7_near
from harkara.rendering import choose, said
from harkara.schemas.content import Content
from harkara.schemas.variants import Variant
from harkara.storage import sending
from harkara.storage.sending import Advance, StepRow
from harkara.storage.storage import Storage

_decode_content = msgspec.json.Decoder(Content).decode
_decode_variants = msgspec.json.Decoder(list[Variant]).decode


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a frozen version, with those that come after it."""

    id: UUID
    origin: UUID
    position: int
    delay_hours: float
    content: Content
    later: tuple[StepRow, ...]
    variants: tuple[Variant, ...] = ()
    expires_after_hours: float | None = None
    delivery: str | None = None

    def variant(self, contact_id: UUID) -> Variant | None:
        """The variant that a contact gets, if there are any."""
        return choose(self.variants, self.origin, contact_id)

    def said(self, variables: Mapping[str, Any], variant: Variant | None = None) -> Content:
        """What this step says to one contact. Raises Unsayable if that can't be said."""
        return said(variant.content() if variant else self.content, variables)

    def expires_at(self, due_at: datetime, speed: float) -> datetime | None:
        """When it is of no use any more, if ever."""
        return None if self.expires_after_hours is None else due_at + delay(self.expires_after_hours, speed)

    def next_after(
        self, enrollment_id: UUID, started_at: datetime, speed: float, passed: Collection[UUID] = ()
    ) -> Advance:
        """Where an enrolment goes after this step. Times count from the enrolment, never from this step.

        `passed` are steps that it must not be sent, because it had them on an earlier version.
        """
        following = next((one for one in self.later if one.origin not in passed), None)
        if following is None:
            return Advance(enrollment_id, "completed", step=self.position + 1, after=self.id)
        due_at = started_at + delay(following.delay_hours, speed)
        return Advance(
            enrollment_id,
            "active",
            step=following.position,
            step_id=following.id,
            message_id=message_id(enrollment_id, due_at),
            due_at=due_at,
            after=self.id,
        )

    def end(self, enrollment_id: UUID, status: str, reason: str) -> Advance:
        """The enrolment ends at this step."""
        return Advance(enrollment_id, status, reason, step=self.position, after=self.id)


@lru_cache
def delay(hours: float, speed: float) -> timedelta:
    """A step's delay on the clock; `speed` compresses it for demos."""
    return timedelta(hours=hours / speed)


def message_id(enrollment_id: UUID, due_at: datetime) -> UUID:
    """The id of a step's message. It tells when the message is due, by which messages are listed: late ones now.

    What a bulk has due at one instant lies in the order of its enrolments, in which it leaves.
    """
    return uuid7_near(enrollment_id, max(due_at, datetime.now(UTC)))


class Steps:
    """Reads steps once: those of an activated version never change."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._known: Once[tuple[str, UUID], Step | None] = Once(self._read)

    def get(self, tenant: str, step_id: UUID) -> Awaitable[Step | None]:
        """The step, or None if there is none of that id in this tenant."""
        return self._known.get((tenant, step_id))

    async def _read(self, key: tuple[str, UUID]) -> Step | None:
        tenant, step_id = key
        async with self._storage.batch((tenant,)) as con:
            rows = await sending.steps(con, tenant, step_id)
        return _step(rows, step_id)


def _step(rows: Sequence[StepRow], step_id: UUID) -> Step | None:
    for index, row in enumerate(rows):
        if row.id == step_id:
            variants = tuple(_decode_variants(row.variants)) if row.variants else ()
            content = _decode_content(row.content)
            later = tuple(rows[index + 1 :])
            return Step(
                row.id,
                row.origin,
                row.position,
                row.delay_hours,
                content,
                later,
                variants,
                row.expires_after_hours,
                row.delivery,
            )
    return None
