"""The gate: may this message leave now? Judged on current facts at the moment of sending; pure, without a clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from harkara.storage.sending import Facts

#: An attempt without a result for this long has none coming: longer than any request to the gateway may take.
ATTEMPT_EXPIRES = timedelta(seconds=15)

#: How long a message waits before it asks again whether its number may send.
SENDER_PAUSED_WAIT = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Go:
    """It may leave."""


@dataclass(frozen=True, slots=True)
class Suppress:
    """It must not leave, ever; `stop` is the reason for which its enrolment ends, if it does."""

    reason: str
    stop: str | None = None


@dataclass(frozen=True, slots=True)
class Ambiguous:
    """An earlier attempt has no result: it may have been accepted. It is not sent again."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now."""

    after: timedelta
    reason: str


@dataclass(frozen=True, slots=True)
class Park:
    """Its campaign or tenant is paused: the enrolment keeps its place, and resuming schedules the message again."""


@dataclass(frozen=True, slots=True)
class Settled:
    """It was dealt with before, as `status` says: this is a second copy of the work."""

    status: str


@dataclass(frozen=True, slots=True)
class Stale:
    """The enrolment no longer waits for this message: nothing to do."""


Verdict = Go | Suppress | Ambiguous | Wait | Park | Settled | Stale


def judge(facts: Facts, *, message_id: UUID, lane: str, of_enrollment: bool) -> Verdict:
    """Decide about one message. What happened to the message itself comes first, then its enrolment, then consent."""
    if facts.message_status == "sending":
        return _in_the_air(facts)
    if facts.message_status not in (None, "queued"):
        return Settled(facts.message_status)
    if not facts.tenant_active:
        return Park() if of_enrollment else Suppress("tenant_inactive")
    if of_enrollment and (verdict := _enrollment(facts, message_id)):
        return verdict
    if facts.opted_out:
        return Suppress("opted_out", stop="opt_out")
    if lane == "marketing" and not facts.consents_to_marketing:
        return Suppress("no_consent", stop="no_consent")
    if facts.sender_status != "active":
        return Wait(SENDER_PAUSED_WAIT, f"the number is {facts.sender_status or 'gone'}")
    return Go()


def _in_the_air(facts: Facts) -> Verdict:
    since = facts.now - facts.attempted_at if facts.attempted_at else ATTEMPT_EXPIRES
    if since >= ATTEMPT_EXPIRES:
        return Ambiguous()
    return Wait(ATTEMPT_EXPIRES - since + timedelta(milliseconds=100), "an attempt is in the air")


def _enrollment(facts: Facts, message_id: UUID) -> Verdict | None:
    if facts.expected_message_id != message_id or facts.enrollment_status in (None, "completed", "failed"):
        return Stale()
    if facts.enrollment_status == "stopped":
        return Suppress("enrollment_stopped")
    if facts.enrollment_status == "paused" or facts.campaign_status == "paused":
        return Park()
    if facts.campaign_status != "active":
        return Suppress("campaign_inactive", stop="campaign_archived")
    return None
