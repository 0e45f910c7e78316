"""Business numbers, and the message templates of their accounts."""

# Tortoise has every model say its own Meta, which for a type checker replaces the parent's by another class.
# pyright: reportIncompatibleVariableOverride=false

from __future__ import annotations

from typing import Any

from tortoise import fields

from harkara.storage.models.base import TenantRow


class Sender(TenantRow):
    """A WhatsApp business number and how to reach its gateway; secrets are encrypted.

    `templates_synced_at` is when the gateway last told its templates, if it had any: only then it is known which exist.
    """

    name = fields.TextField()
    provider = fields.CharField(max_length=16)
    phone = fields.CharField(max_length=16, null=True)
    phone_number_id = fields.CharField(max_length=64)
    waba_id = fields.CharField(max_length=64, null=True)
    access_token = fields.BinaryField(null=True)
    app_secret = fields.BinaryField(null=True)
    verify_token = fields.CharField(max_length=64)
    mps = fields.IntField(default=80)
    window = fields.CharField(max_length=8)
    status = fields.CharField(max_length=16, default="active")
    status_reason = fields.TextField(null=True)
    status_since = fields.DatetimeField(null=True)
    held_until = fields.DatetimeField(null=True)
    error_code = fields.IntField(null=True)
    alert_id = fields.UUIDField(null=True)
    # What WhatsApp lets it do: people it may write to first in 24 hours, with all numbers of its portfolio; and whether
    # the rule of six seconds to one phone holds, null: by its provider.
    daily_limit = fields.IntField(null=True)
    portfolio_id = fields.CharField(max_length=64, null=True)
    pair_limit = fields.BooleanField(null=True)
    templates_synced_at = fields.DatetimeField(null=True)
    templates_tried_at = fields.DatetimeField(null=True)

    session_state = fields.CharField(max_length=16, null=True)
    session_detail = fields.TextField(null=True)
    session_at = fields.DatetimeField(null=True)
    session_clock = fields.DatetimeField(null=True)

    class Meta:
        table = "senders"
        unique_together = (("tenant_id", "phone_number_id"),)


class Template(TenantRow):
    """A message template as WhatsApp has it, for one number of the account that it belongs to.

    `category`, `status` and `quality` are Meta's own words, in lower case; `reason` says why it may not be used, and
    `alert_id` names the alert that told so, if one did. `status_at` is when it became so, if a webhook has told it.
    """

    sender_id = fields.UUIDField()
    name = fields.CharField(max_length=512)
    language = fields.CharField(max_length=16)
    category = fields.CharField(max_length=32, default="")
    status = fields.CharField(max_length=32)
    reason = fields.TextField(null=True)
    quality = fields.CharField(max_length=16, null=True)
    components: fields.JSONField[list[dict[str, Any]]] = fields.JSONField(default=list)
    alert_id = fields.UUIDField(null=True)
    status_at = fields.DatetimeField(null=True)

    class Meta:
        table = "templates"
        unique_together = (("tenant_id", "sender_id", "name", "language"),)
