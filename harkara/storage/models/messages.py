"""Messages out, and conversations."""

# Tortoise has every model say its own Meta, which for a type checker replaces the parent's by another class.
# pyright: reportIncompatibleVariableOverride=false

from __future__ import annotations

from typing import Any

from tortoise import fields

from harkara.ids import uuid7
from harkara.storage.models.base import TenantRow


class Message(TenantRow):
    """One outgoing message and everything that happened to it. Partitioned by the month in its id."""

    contact_id = fields.UUIDField(null=True)
    sender_id = fields.UUIDField()
    campaign_id = fields.UUIDField(null=True)
    enrollment_id = fields.UUIDField(null=True)
    step = fields.IntField(null=True)
    step_id = fields.UUIDField(null=True)
    variant = fields.CharField(max_length=32, null=True)
    is_test = fields.BooleanField(default=False, db_default=False)
    lane = fields.CharField(max_length=16)
    to = fields.CharField(max_length=135)
    content: fields.JSONField[dict[str, Any]] = fields.JSONField()
    status = fields.CharField(max_length=16)
    reason = fields.TextField(null=True)
    error_code = fields.IntField(null=True)
    wamid = fields.CharField(max_length=128, null=True)
    cause = fields.TextField(default="")
    attempts = fields.IntField(default=0)
    pricing: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    due_at = fields.DatetimeField()
    attempted_at = fields.DatetimeField(null=True)
    # What becomes of it when its answer is lost: `at_least_once` sends it once more at `resend_at`.
    delivery = fields.CharField(max_length=16, default="at_most_once", db_default="at_most_once")
    resent = fields.BooleanField(default=False, db_default=False)
    resend_at = fields.DatetimeField(null=True)
    sent_at = fields.DatetimeField(null=True)
    delivered_at = fields.DatetimeField(null=True)
    read_at = fields.DatetimeField(null=True)
    failed_at = fields.DatetimeField(null=True)
    deferred_until = fields.DatetimeField(null=True)
    # What it is a reminder of: it leaves only while that is open.
    invoice_id = fields.UUIDField(null=True)
    # What it quotes: a message or a reply of the same conversation.
    reply_to = fields.UUIDField(null=True)

    class Meta:
        table = "messages"


class Conversation(TenantRow):
    """What one contact and one number say to each other.

    `last_activity` is a UUIDv7 of when something was said last: it orders the list, and no two have the same.
    """

    contact_id = fields.UUIDField()
    sender_id = fields.UUIDField()
    status = fields.CharField(max_length=16, default="open")
    assigned_to = fields.UUIDField(null=True)
    last_inbound_at = fields.DatetimeField(null=True)
    last_activity = fields.UUIDField(null=True, default=uuid7)
    closed_at = fields.DatetimeField(null=True)
    read_at = fields.DatetimeField(null=True)

    class Meta:
        table = "conversations"
        unique_together = (("tenant_id", "sender_id", "contact_id"),)


class Reply(TenantRow):
    """One message from a contact; its id comes from WhatsApp's, so that a webhook delivered twice is one row.

    `message_id` is the message that it answers: the one it quotes, else the last that was sent before it; with what of
    a campaign that was. `reply_to` is what it quotes or reacts to, a message or a reply, which WhatsApp calls
    `context_wamid`.
    """

    conversation_id = fields.UUIDField()
    contact_id = fields.UUIDField()
    sender_id = fields.UUIDField()
    wamid = fields.CharField(max_length=128)
    type = fields.CharField(max_length=32)
    text = fields.TextField(null=True)
    payload: fields.JSONField[dict[str, Any]] = fields.JSONField()
    context_wamid = fields.CharField(max_length=128, null=True)
    received_at = fields.DatetimeField()
    message_id = fields.UUIDField(null=True)
    campaign_id = fields.UUIDField(null=True)
    step = fields.IntField(null=True)
    step_id = fields.UUIDField(null=True)
    variant = fields.CharField(max_length=32, null=True)
    reply_to = fields.UUIDField(null=True)

    class Meta:
        table = "replies"


class ConversationNote(TenantRow):
    """A remark of a member (`by_user`) or a key (`by_key`) in a conversation, for colleagues."""

    conversation_id = fields.UUIDField()
    contact_id = fields.UUIDField()
    text = fields.TextField()
    by_user = fields.UUIDField(null=True)
    by_key = fields.UUIDField(null=True)

    class Meta:
        table = "conversation_notes"


class Media(TenantRow):
    """A file that came with a reply: waiting → stored, or failed. Its bytes are kept under its tenant and id.

    `gateway_id` is what the gateway calls it, which forgets it after thirty days.
    """

    reply_id = fields.UUIDField()
    contact_id = fields.UUIDField()
    gateway_id = fields.TextField()
    status = fields.CharField(max_length=8, default="waiting")
    reason = fields.TextField(null=True)
    mime_type = fields.CharField(max_length=255, null=True)
    filename = fields.TextField(null=True)
    size = fields.IntField(null=True)
    sha256 = fields.CharField(max_length=64, null=True)
    stored_at = fields.DatetimeField(null=True)

    class Meta:
        table = "media"
