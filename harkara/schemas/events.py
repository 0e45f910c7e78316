"""Events: what happened, in the past tense. Feeds, webhooks and partners read them."""

from __future__ import annotations

from typing import ClassVar

from harkara.schemas.base import Message


class EnrollmentEvent(Message, frozen=True):
    """What every event of an enrolment tells."""

    id: str
    campaign_id: str
    contact_id: str
    reason: str | None = None


class EnrollmentStarted(EnrollmentEvent, frozen=True):
    """A contact was enrolled; its first step is scheduled."""

    subject: ClassVar[str] = "t.{tenant}.evt.enrollment.started"


class EnrollmentRefused(EnrollmentEvent, frozen=True):
    """A contact could not be enrolled; `reason` says why."""

    subject: ClassVar[str] = "t.{tenant}.evt.enrollment.refused"


class EnrollmentStopped(EnrollmentEvent, frozen=True):
    """An enrolment was stopped before its last step."""

    subject: ClassVar[str] = "t.{tenant}.evt.enrollment.stopped"


class EnrollmentCompleted(EnrollmentEvent, frozen=True):
    """The last step of an enrolment is done."""

    subject: ClassVar[str] = "t.{tenant}.evt.enrollment.completed"


class EnrollmentBulkDone(Message, frozen=True):
    """A bulk enrolment has seen all its contacts."""

    subject: ClassVar[str] = "t.{tenant}.evt.enrollment.bulk_completed"

    id: str
    campaign_id: str
    enrolled: int


class MessageEvent(Message, frozen=True):
    """What every event of an outgoing message tells."""

    id: str
    contact_id: str | None = None
    sender_id: str | None = None
    campaign_id: str | None = None
    enrollment_id: str | None = None
    step: int | None = None
    wamid: str | None = None
    reason: str | None = None
    error_code: int | None = None


class MessageQueued(MessageEvent, frozen=True):
    """A message waits for its turn on its number."""

    subject: ClassVar[str] = "t.{tenant}.evt.message.queued"


class MessageSent(MessageEvent, frozen=True):
    """WhatsApp accepted a message."""

    subject: ClassVar[str] = "t.{tenant}.evt.message.sent"


class MessageDelivered(MessageEvent, frozen=True):
    """A message reached the phone."""

    subject: ClassVar[str] = "t.{tenant}.evt.message.delivered"


class MessageRead(MessageEvent, frozen=True):
    """A message was read."""

    subject: ClassVar[str] = "t.{tenant}.evt.message.read"


class MessageFailed(MessageEvent, frozen=True):
    """WhatsApp refused a message for good, or could not deliver it."""

    subject: ClassVar[str] = "t.{tenant}.evt.message.failed"


class MessageSuppressed(MessageEvent, frozen=True):
    """Policy kept a message from leaving; `reason` says which."""

    subject: ClassVar[str] = "t.{tenant}.evt.message.suppressed"


class MessageUnknown(MessageEvent, frozen=True):
    """WhatsApp may or may not have taken a message; a status webhook can still settle it."""

    subject: ClassVar[str] = "t.{tenant}.evt.message.unknown"


class ReplyReceived(Message, frozen=True):
    """A contact wrote to us."""

    subject: ClassVar[str] = "t.{tenant}.evt.reply.received"

    id: str
    contact_id: str | None
    sender_id: str
    conversation_id: str
    type: str
    text: str | None = None


class ContactOptedOut(Message, frozen=True):
    """A contact asked to hear nothing more."""

    subject: ClassVar[str] = "t.{tenant}.evt.contact.opted_out"

    id: str
    reason: str
