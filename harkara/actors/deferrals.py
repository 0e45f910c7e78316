"""Messages that are held back for a while, as they are told."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from harkara.bus.messages import Outgoing
from harkara.bus.outcomes import Done, Outcome, Retry
from harkara.policy.gate import Defer, Verdict
from harkara.schemas.events import MessageDeferred
from harkara.storage.deferring import Deferral
from harkara.storage.sending import Attempt


def deferrals(attempts: Sequence[Attempt], verdicts: Sequence[Verdict]) -> list[Deferral]:
    """Those that are to wait."""
    return [
        Deferral(attempt, verdict.until, verdict.reason)
        for attempt, verdict in zip(attempts, verdicts, strict=True)
        if isinstance(verdict, Defer)
    ]


def deferred(deferral: Deferral, now: datetime) -> Outcome:
    """A step is claimed again at its time; any other message waits in the broker. Neither holds its number up."""
    told = deferred_event(deferral)
    if deferral.attempt.enrollment_id is not None:
        return Done((told,))
    return Retry(deferral.reason, deferral.until - now, counts=False, park=True, events=(told,))


def deferred_event(deferral: Deferral) -> Outgoing:
    """The event; told again after a crash, it is the same one."""
    message = deferral.attempt
    event = MessageDeferred(
        id=str(message.message_id),
        contact_id=_text(message.contact_id),
        sender_id=str(message.sender_id),
        campaign_id=_text(message.campaign_id),
        enrollment_id=_text(message.enrollment_id),
        step=message.step,
        reason=deferral.reason,
        variant=message.variant,
        deferred_until=deferral.until,
    )
    name = f"{message.message_id}.deferred.{int(deferral.until.timestamp())}"
    return Outgoing(event, message.tenant, name, message.cause)


def _text(id_: UUID | None) -> str | None:
    return str(id_) if id_ else None
