"""What is told of a message that was sent or not, and of an enrolment that ended with it: the sender's events."""

from __future__ import annotations

from uuid import UUID

from harkara.actors.answers import Finish
from harkara.bus.messages import Outgoing
from harkara.schemas import events
from harkara.storage.sending import Attempt, Facts

_EVENTS: dict[str, type[events.MessageEvent]] = {
    "sent": events.MessageSent,
    "delivered": events.MessageSent,
    "read": events.MessageSent,
    "failed": events.MessageFailed,
    "suppressed": events.MessageSuppressed,
    "unknown": events.MessageUnknown,
}


def had_ended(facts: Facts) -> bool:
    """Whether the enrolment had ended with one of its messages: perhaps this one, and before it could be told."""
    return facts.expected_message_id is None and facts.enrollment_status in ("completed", "stopped", "failed")


def message_events(
    attempt: Attempt, finish: Finish, wamid: str | None, *, second: bool, resent: bool
) -> list[Outgoing]:
    """What became of a message; what the `second` attempt leaves in doubt is another event than the first doubt."""
    kinds: list[tuple[type[events.MessageEvent], str]] = [(events.MessageResent, "resent")] if resent else []
    name = _EVENTS[finish.status].subject.rpartition(".")[2]
    kinds.append((_EVENTS[finish.status], "unknown.resent" if second and name == "unknown" else name))
    return [_message_event(kind, name, attempt, finish, wamid) for kind, name in kinds]


def enrollment_events(attempt: Attempt, status: str, reason: str | None) -> list[Outgoing]:
    """That an enrolment has ended, and if it has reached its goal, that too."""
    kinds: list[tuple[type[events.EnrollmentEvent], str]] = [
        (events.EnrollmentCompleted if status == "completed" else events.EnrollmentStopped, status)
    ]
    if reason == "goal_reached":
        kinds.append((events.EnrollmentGoalReached, reason))
    return [
        Outgoing(
            kind(
                id=str(attempt.enrollment_id),
                campaign_id=str(attempt.campaign_id),
                contact_id=str(attempt.contact_id),
                reason=reason,
            ),
            attempt.tenant,
            f"{attempt.enrollment_id}.{name}",
            attempt.cause,
        )
        for kind, name in kinds
    ]


def _message_event(
    kind: type[events.MessageEvent], name: str, attempt: Attempt, finish: Finish, wamid: str | None
) -> Outgoing:
    event = kind(
        id=str(attempt.message_id),
        contact_id=_text(attempt.contact_id),
        sender_id=str(attempt.sender_id),
        campaign_id=_text(attempt.campaign_id),
        enrollment_id=_text(attempt.enrollment_id),
        step=attempt.step,
        wamid=wamid,
        reason=finish.reason,
        error_code=finish.error_code,
        variant=attempt.variant,
    )
    # A stable id: told again after a crash, it is the same event.
    return Outgoing(event, attempt.tenant, f"{attempt.message_id}.{name}", attempt.cause)


def _text(id_: UUID | None) -> str | None:
    return str(id_) if id_ else None
