"""Commands: what the front door and partners ask for. The same JSON arrives over HTTP and over NATS."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from harkara.schemas.base import Message
from harkara.schemas.content import Content

Lane = Literal["otp", "utility", "marketing"]

#: Lanes in the order in which a number's budget serves them.
LANES: tuple[Lane, ...] = ("otp", "utility", "marketing")


class StartEnrollment(Message, frozen=True):
    """Enrol one contact in a campaign. The command's id becomes the enrolment's id."""

    subject: ClassVar[str] = "t.{tenant}.cmd.enrollment.start"

    campaign_id: str
    contact_id: str


class StopEnrollment(Message, frozen=True):
    """Stop one contact's enrolment in a campaign: nothing more of it is sent."""

    subject: ClassVar[str] = "t.{tenant}.cmd.enrollment.stop"

    campaign_id: str
    contact_id: str
    reason: str = "by_hand"


class BulkEnroll(Message, frozen=True):
    """Enrol many contacts: those named, those with a tag, or all that may be; exactly one of the three is set."""

    subject: ClassVar[str] = "t.{tenant}.cmd.enrollment.bulk"

    campaign_id: str
    contact_ids: list[str] | None = None
    tag: str | None = None
    all: bool = False


class SendMessage(Message, frozen=True):
    """Send one message to a contact or a phone, at `send_at` or now. The command's id becomes the message's id."""

    subject: ClassVar[str] = "t.{tenant}.cmd.message.send"

    sender_id: str
    content: Content
    contact_id: str | None = None
    to: str | None = None
    lane: Lane = "utility"
    send_at: datetime | None = None


class CancelMessage(Message, frozen=True):
    """Keep a message that still waits from leaving. One that is on its way already goes."""

    subject: ClassVar[str] = "t.{tenant}.cmd.message.cancel"

    message_id: str
