"""Events: what happened, in the past tense. Feeds, webhooks and partners read them."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

import msgspec

from harkara.schemas.base import Message
from harkara.schemas.keywords import Category


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


class EnrollmentGoalReached(EnrollmentEvent, frozen=True):
    """A contact did what a campaign is for."""

    subject: ClassVar[str] = "t.{tenant}.evt.enrollment.goal_reached"


class EnrollmentMoved(Message, frozen=True):
    """Those who ran on earlier versions of a campaign go on with its current one."""

    subject: ClassVar[str] = "t.{tenant}.evt.enrollment.moved"

    id: str
    campaign_id: str
    moved: int


class EnrollmentBulkDone(Message, frozen=True):
    """A bulk enrolment has seen all its contacts; `refused` counts those it has left out, by reason."""

    subject: ClassVar[str] = "t.{tenant}.evt.enrollment.bulk_completed"

    id: str
    campaign_id: str
    enrolled: int
    refused: dict[str, int] = msgspec.field(default_factory=dict[str, int])


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
    variant: str | None = None


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


class MessageDeferred(MessageEvent, frozen=True):
    """Policy holds a message back until `deferred_until`; `reason` says which."""

    subject: ClassVar[str] = "t.{tenant}.evt.message.deferred"

    deferred_until: datetime | None = None


class MessageUnknown(MessageEvent, frozen=True):
    """WhatsApp may or may not have taken a message; a status webhook can still settle it."""

    subject: ClassVar[str] = "t.{tenant}.evt.message.unknown"


class MessageResent(MessageEvent, frozen=True):
    """A message in doubt was sent a second and last time, because no receipt has come: it may arrive twice."""

    subject: ClassVar[str] = "t.{tenant}.evt.message.resent"


class SenderSession(Message, frozen=True):
    """What every event of a sender's session tells."""

    id: str
    state: str
    reason: str | None = None


class SenderConnected(SenderSession, frozen=True):
    """A sender's phone is linked: what waited for it leaves now."""

    subject: ClassVar[str] = "t.{tenant}.evt.sender.connected"


class SenderDisconnected(SenderSession, frozen=True):
    """A sender's phone is not linked any more: its messages wait until it is."""

    subject: ClassVar[str] = "t.{tenant}.evt.sender.disconnected"


class ReplyReceived(Message, frozen=True):
    """A contact wrote to us. `reply_to` is the message or the reply that it quotes, by id if that is known."""

    subject: ClassVar[str] = "t.{tenant}.evt.reply.received"

    id: str
    contact_id: str | None
    sender_id: str
    conversation_id: str
    type: str
    text: str | None = None
    reply_to: str | None = None
    reply_to_wamid: str | None = None


class ConversationUpdated(Message, frozen=True):
    """A conversation was given to somebody, closed or opened again by a person. A contact's message opens it too."""

    subject: ClassVar[str] = "t.{tenant}.evt.conversation.updated"

    id: str
    contact_id: str
    sender_id: str
    status: str
    assigned_to: str | None = None


class AlertRaised(Message, frozen=True):
    """Something was stopped, or has to rest, and a person should know: what (`scope`), why, and what to do.

    `kind` is `paused` (until somebody acts), `held` (it goes on by itself) or `refused` (nothing is stopped, but each
    message that `scope` is about fails: all of a day are one alert, which is never resolved). `sender_ids` are the
    numbers concerned.
    """

    subject: ClassVar[str] = "t.{tenant}.evt.alert.raised"

    id: str
    kind: str
    scope: str
    reason: str
    todo: str
    sender_ids: list[str]
    error_code: int | None = None
    template: str | None = None


class AlertResolved(Message, frozen=True):
    """What an alert had told was stopped goes on: these numbers of it, or their `template` (`name/language`).

    With a `reason` it does not, and is over all the same: `template_missing`, WhatsApp has the template no longer, and
    what uses it is suppressed.
    """

    subject: ClassVar[str] = "t.{tenant}.evt.alert.resolved"

    id: str
    sender_ids: list[str]
    template: str | None = None
    reason: str | None = None


class ConversationNoted(Message, frozen=True):
    """Somebody left a remark for colleagues in a conversation."""

    subject: ClassVar[str] = "t.{tenant}.evt.conversation.noted"

    id: str
    contact_id: str
    sender_id: str
    note_id: str


class MediaStored(Message, frozen=True):
    """A file that came with a message can be read."""

    subject: ClassVar[str] = "t.{tenant}.evt.media.stored"

    id: str
    contact_id: str
    reply_id: str
    mime_type: str
    size: int


class MediaFailed(Message, frozen=True):
    """A file that came with a message can't be had; `reason` says why."""

    subject: ClassVar[str] = "t.{tenant}.evt.media.failed"

    id: str
    contact_id: str
    reply_id: str
    reason: str


class ContactOptedOut(Message, frozen=True):
    """A contact asked to hear nothing more: of everything (`all`), or of one category of messages.

    `reason` and `source` say how: `asked` in a message, by a `button`, in WhatsApp's own `preferences`, through the
    `api`, or `whatsapp` refused marketing because they had. `remembered`: a contact that had its number before had.
    """

    subject: ClassVar[str] = "t.{tenant}.evt.contact.opted_out"

    id: str
    reason: str
    category: Category = "all"
    source: str = ""


class ContactOptedIn(Message, frozen=True):
    """A contact took back an opt-out: of everything (`all`), or of one category. That is no consent to marketing."""

    subject: ClassVar[str] = "t.{tenant}.evt.contact.opted_in"

    id: str
    category: Category
    source: str


class ContactMerged(Message, frozen=True):
    """Another contact became part of this one: `merged_id` is no more."""

    subject: ClassVar[str] = "t.{tenant}.evt.contact.merged"

    id: str
    merged_id: str


class ContactErased(Message, frozen=True):
    """A contact and all that was known of it are gone for good."""

    subject: ClassVar[str] = "t.{tenant}.evt.contact.erased"

    id: str


class LeadEvent(Message, frozen=True):
    """What every event of a lead tells."""

    id: str
    contact_id: str
    stage: str
    score: int
    source: str | None = None


class LeadCreated(LeadEvent, frozen=True):
    """A lead was made."""

    subject: ClassVar[str] = "t.{tenant}.evt.lead.created"


class LeadUpdated(LeadEvent, frozen=True):
    """A lead was changed; what its stage and score were, if they did."""

    subject: ClassVar[str] = "t.{tenant}.evt.lead.updated"

    stage_before: str | None = None
    score_before: int | None = None


class InvoiceEvent(Message, frozen=True):
    """What every event of an invoice tells; `amount` is in the currency's minor units."""

    id: str
    contact_id: str
    number: str
    amount: int
    currency: str
    due_at: datetime
    external_id: str | None = None


class InvoiceCreated(InvoiceEvent, frozen=True):
    """An invoice was made."""

    subject: ClassVar[str] = "t.{tenant}.evt.invoice.created"


class InvoicePaid(InvoiceEvent, frozen=True):
    """An invoice was paid: nothing that reminds of it is sent any more."""

    subject: ClassVar[str] = "t.{tenant}.evt.invoice.paid"


class InvoiceVoided(InvoiceEvent, frozen=True):
    """An invoice is owed no more, although it was not paid."""

    subject: ClassVar[str] = "t.{tenant}.evt.invoice.voided"


class ImportEvent(Message, frozen=True):
    """How far an import of contacts has come; `opted_out` counts who stays so, though the file doesn't say it."""

    id: str
    rows: int
    rows_done: int
    created: int
    updated: int
    duplicates: int
    errors: int
    opted_out: int = 0


class ImportProgressed(ImportEvent, frozen=True):
    """Some more rows of a file are stored."""

    subject: ClassVar[str] = "t.{tenant}.evt.import.progressed"


class ImportCompleted(ImportEvent, frozen=True):
    """All rows of a file are stored or refused."""

    subject: ClassVar[str] = "t.{tenant}.evt.import.completed"


class PlanExhausted(Message, frozen=True):
    """This month's messages of the tenant's plan are used up: told once a month. `month` is like 2026-03."""

    subject: ClassVar[str] = "t.{tenant}.evt.plan.exhausted"

    id: str
    month: str
    messages: int


class TemplateUpdated(Message, frozen=True):
    """A message template of a number may be used from now on, or not any more; `status` is WhatsApp's own word."""

    subject: ClassVar[str] = "t.{tenant}.evt.template.updated"

    id: str
    name: str
    language: str
    status: str
    reason: str | None = None


class TemplatesSynced(Message, frozen=True):
    """A number's message templates were read from its gateway: so many."""

    subject: ClassVar[str] = "t.{tenant}.evt.template.synced"

    id: str
    templates: int


class TemplatesNotSynced(Message, frozen=True):
    """A number's message templates could not be read; `reason` is what its gateway says."""

    subject: ClassVar[str] = "t.{tenant}.evt.template.sync_failed"

    id: str
    reason: str
