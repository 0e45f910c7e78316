"""Where an enrolment goes on in another version of its campaign; pure, without a clock of its own.

It keeps its place: what it was sent, or would have been sent before its place, it is never sent again; what it still
had to come comes, even late; and a step that is new in the version comes if its time has not passed yet. Times count
from the enrolment, as ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from harkara.actors.steps import delay, message_id
from harkara.storage.moving import Moved, Place, Waiting


def moved(row: Waiting, old: Sequence[Place], new: Sequence[Place], now: datetime, speed: float) -> Moved:
    """The place of one enrolment in the new version's steps."""
    had = {step.origin for step in old if step.position < row.current_step} | set(row.passed)
    to_come = {step.origin for step in old} - had

    def due_at(step: Place) -> datetime:
        return row.started_at + delay(step.delay_hours, speed)

    def comes(step: Place) -> bool:
        return step.origin not in had and (step.origin in to_come or due_at(step) > now)

    following = next((step for step in new if comes(step)), None)
    if following is None:
        return Moved(row.id, len(new), None, None, None, ())
    at = due_at(following)
    waited_for = next((step.origin for step in old if step.id == row.step_id), None)
    # Work for a message that was claimed may be on its way. If it is the same step's, it stays the same message: then
    # of the two copies one is sent (docs/decisions/0004-message-ids-as-fences.md).
    same = following.origin == waited_for and not row.untouched
    passed = tuple(step.origin for step in new[following.position + 1 :] if not comes(step))
    message = row.message_id if same else message_id(row.id, at)
    return Moved(row.id, following.position, following.id, message, at, passed)
