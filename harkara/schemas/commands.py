"""Commands: what the front door and partners ask for. The same JSON arrives over HTTP and over NATS."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar, Literal

from harkara.schemas.base import Message
from harkara.schemas.content import Content

Lane = Literal["otp", "utility", "marketing"]

#: Lanes in the order in which a number's budget serves them.
LANES: tuple[Lane, ...] = ("otp", "utility", "marketing")

#: What becomes of a message in doubt (`docs/decisions/0037`): whether a duplicate is better than silence.
DeliveryPolicy = Literal["at_most_once", "at_least_once"]

#: What holds for a message that says nothing itself. A code that comes late is useless, and who waits for it asks for a
#: new one; what a contact needs to know (an order, an appointment) is better told twice than never.
DELIVERY: dict[Lane, DeliveryPolicy] = {
    "otp": "at_most_once",
    "utility": "at_least_once",
    "marketing": "at_most_once",
}


class StartEnrollment(Message, frozen=True):
    """Enrol one contact in a campaign, perhaps to be paid an invoice. The command's id becomes the enrolment's id."""

    subject: ClassVar[str] = "t.{tenant}.cmd.enrollment.start"

    campaign_id: str
    contact_id: str
    invoice_id: str | None = None


class StopEnrollment(Message, frozen=True):
    """Stop one contact's enrolment in a campaign: nothing more of it is sent."""

    subject: ClassVar[str] = "t.{tenant}.cmd.enrollment.stop"

    campaign_id: str
    contact_id: str
    reason: str = "by_hand"


class BulkEnroll(Message, frozen=True):
    """Enrol many contacts: those named, with a tag, of a segment, or all that may be; exactly one of these is set."""

    subject: ClassVar[str] = "t.{tenant}.cmd.enrollment.bulk"

    campaign_id: str
    contact_ids: list[str] | None = None
    tag: str | None = None
    segment_id: str | None = None
    all: bool = False


class MoveEnrollments(Message, frozen=True):
    """Have those who run on earlier versions of a campaign go on with its current one, from where they are."""

    subject: ClassVar[str] = "t.{tenant}.cmd.enrollment.move"

    campaign_id: str


class ReachGoal(Message, frozen=True):
    """A contact did what a campaign is for: note it, and send nothing more of it."""

    subject: ClassVar[str] = "t.{tenant}.cmd.enrollment.goal"

    campaign_id: str
    contact_id: str


class SendMessage(Message, frozen=True):
    """Send one message to a contact or a phone, at `send_at` or now. The command's id becomes the message's id.

    Of one that is `filled_in` no variable is looked for: what looks like one came out of a contact's own values.
    It quotes `reply_to`, a message or a reply, which its gateway calls `quoted`.
    """

    subject: ClassVar[str] = "t.{tenant}.cmd.message.send"

    sender_id: str
    content: Content
    contact_id: str | None = None
    to: str | None = None
    lane: Lane = "utility"
    send_at: datetime | None = None
    is_test: bool = False
    filled_in: bool = False
    delivery: DeliveryPolicy | None = None
    expires_at: datetime | None = None
    invoice_id: str | None = None
    reply_to: str | None = None
    quoted: str | None = None


class SyncTemplates(Message, frozen=True):
    """Read a number's message templates from its gateway."""

    subject: ClassVar[str] = "t.{tenant}.cmd.template.sync"

    sender_id: str


class CancelMessage(Message, frozen=True):
    """Keep a message that still waits from leaving. One that is on its way already goes."""

    subject: ClassVar[str] = "t.{tenant}.cmd.message.cancel"

    message_id: str


class MarkConversationRead(Message, frozen=True):
    """Show a contact that what it wrote up to this message was read and, with `typing`, that somebody is answering."""

    subject: ClassVar[str] = "t.{tenant}.cmd.conversation.read"

    sender_id: str
    wamid: str
    typing: bool = False


class RunImport(Message, frozen=True):
    """Store the contacts of a file that is here as a whole."""

    subject: ClassVar[str] = "t.{tenant}.cmd.contact.import"

    import_id: str


class EraseContact(Message, frozen=True):
    """Erase a contact for good, with all that is stored of it anywhere; by what it is reached is told here."""

    subject: ClassVar[str] = "t.{tenant}.cmd.contact.erase"

    contact_id: str
    phones: list[str]
    wa_user_id: str | None = None
