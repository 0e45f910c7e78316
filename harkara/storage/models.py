"""The tables as Tortoise models. Composite keys, policies and partitions are in the migrations: it can't say them."""

# Tortoise has every model say its own Meta, which for a type checker replaces the parent's by another class.
# pyright: reportIncompatibleVariableOverride=false

from __future__ import annotations

from typing import Any

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model

from harkara.ids import uuid7
from harkara.storage.engine import current_tenant

SLUG = 32  # characters of a tenant's id


class Row(Model):
    """What every row has."""

    id = fields.UUIDField(primary_key=True, default=uuid7)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        abstract = True


class TenantRow(Row):
    """What every row of a tenant has; `tenant_id` is the transaction's tenant if it isn't given."""

    tenant_id = fields.CharField(max_length=SLUG, default=current_tenant)

    class Meta:
        abstract = True


class Tenant(Model):
    """A customer of the platform. Its id is its slug, fixed for life."""

    id = fields.CharField(max_length=SLUG, primary_key=True)
    name = fields.TextField()
    plan = fields.CharField(max_length=32, default="standard")
    timezone = fields.CharField(max_length=64, default="UTC")
    default_region = fields.CharField(max_length=2, null=True)
    is_active = fields.BooleanField(default=True)
    created_at = fields.DatetimeField(auto_now_add=True)
    updated_at = fields.DatetimeField(auto_now=True)

    class Meta:
        table = "tenants"


class User(Row):
    """A person who can log in; what they may do is said by their TenantUser rows."""

    email = fields.CharField(max_length=320, unique=True)
    name = fields.TextField(default="")
    password_hash = fields.TextField()
    is_active = fields.BooleanField(default=True)

    class Meta:
        table = "users"


class TenantUser(TenantRow):
    """A user's place in one tenant: role owner, admin, agent or viewer."""

    user_id = fields.UUIDField()
    role = fields.CharField(max_length=8)
    is_active = fields.BooleanField(default=True)

    class Meta:
        table = "tenant_users"
        unique_together = (("tenant_id", "user_id"),)


class RefreshToken(Row):
    """One refresh token, named by its jti; used once, then its family lives on in the next."""

    user_id = fields.UUIDField()
    family = fields.UUIDField()
    expires_at = fields.DatetimeField()
    used_at = fields.DatetimeField(null=True)
    revoked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "refresh_tokens"


class ApiKey(TenantRow):
    """A key for machines; only its SHA-256 is kept."""

    name = fields.TextField()
    key_hash = fields.CharField(max_length=64)
    hint = fields.CharField(max_length=12)
    scopes = ArrayField(element_type="text", default=list)
    expires_at = fields.DatetimeField(null=True)
    last_used_at = fields.DatetimeField(null=True)
    revoked_at = fields.DatetimeField(null=True)

    class Meta:
        table = "api_keys"
        unique_together = (("tenant_id", "key_hash"),)


class Sender(TenantRow):
    """A WhatsApp business number and how to reach its gateway; secrets are encrypted."""

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

    class Meta:
        table = "senders"
        unique_together = (("tenant_id", "phone_number_id"),)


class Contact(TenantRow):
    """A person a tenant writes to."""

    name = fields.TextField(default="")
    phone = fields.CharField(max_length=16, null=True)
    wa_user_id = fields.CharField(max_length=64, null=True)
    locale = fields.CharField(max_length=16, null=True)
    timezone = fields.CharField(max_length=64, null=True)
    attributes: fields.JSONField[dict[str, Any]] = fields.JSONField(default=dict)
    tags = ArrayField(element_type="text", default=list)
    opted_in_at = fields.DatetimeField(null=True)
    consent_source = fields.TextField(null=True)
    consent_categories = ArrayField(element_type="text", default=list)
    opted_out_at = fields.DatetimeField(null=True)
    opted_out_reason = fields.TextField(null=True)

    class Meta:
        table = "contacts"
        unique_together = (("tenant_id", "phone"), ("tenant_id", "wa_user_id"))


class PhoneNumber(TenantRow):
    """A further number of a contact; `contacts.phone` is the one we write to."""

    contact_id = fields.UUIDField()
    phone = fields.CharField(max_length=16)
    label = fields.TextField(default="")

    class Meta:
        table = "phone_numbers"
        unique_together = (("tenant_id", "phone"),)


class Campaign(TenantRow):
    """A drip or a broadcast; its steps hang on its versions."""

    name = fields.TextField()
    type = fields.CharField(max_length=16)
    sender_id = fields.UUIDField()
    status = fields.CharField(max_length=16, default="draft")
    version_id = fields.UUIDField()
    stop_on_reply = fields.BooleanField(default=True)
    quiet_hours: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    activated_at = fields.DatetimeField(null=True)

    class Meta:
        table = "campaigns"


class CampaignVersion(TenantRow):
    """One state of a campaign's steps; frozen once the campaign was activated with it."""

    campaign_id = fields.UUIDField()
    number = fields.IntField()
    frozen_at = fields.DatetimeField(null=True)

    class Meta:
        table = "campaign_versions"
        unique_together = (("tenant_id", "campaign_id", "number"),)


class CampaignStep(TenantRow):
    """One message of a campaign: `position` from 0 in the order of `delay_hours`, which count from the enrolment."""

    campaign_id = fields.UUIDField()
    version_id = fields.UUIDField()
    position = fields.IntField()
    name = fields.TextField()
    delay_hours = fields.FloatField()
    content: fields.JSONField[dict[str, Any]] = fields.JSONField()

    class Meta:
        table = "campaign_steps"
        unique_together = (("tenant_id", "version_id", "position"),)


class ContactCampaignProgress(TenantRow):
    """An enrolment: where one contact stands in one campaign.

    `next_message_id` names the message that comes next and fences every attempt at it. `next_step_scheduled_at` is when
    it is due; `next_claim_at` is when the ticker should look at it again (due time, then the claim's lease).
    """

    campaign_id = fields.UUIDField()
    version_id = fields.UUIDField()
    contact_id = fields.UUIDField()
    status = fields.CharField(max_length=16, default="active")
    stopped_reason = fields.TextField(null=True)
    cause = fields.TextField(default="")
    current_step = fields.IntField(default=0)
    messages_sent = fields.IntField(default=0)
    started_at = fields.DatetimeField()
    next_step_id = fields.UUIDField(null=True)
    next_message_id = fields.UUIDField(null=True)
    next_step_scheduled_at = fields.DatetimeField(null=True)
    next_claim_at = fields.DatetimeField(null=True)
    last_step_at = fields.DatetimeField(null=True)
    finished_at = fields.DatetimeField(null=True)

    class Meta:
        table = "contact_campaign_progress"
        unique_together = (("tenant_id", "contact_id", "campaign_id"),)


class Message(TenantRow):
    """One outgoing message and everything that happened to it. Partitioned by the month in its id."""

    contact_id = fields.UUIDField(null=True)
    sender_id = fields.UUIDField()
    campaign_id = fields.UUIDField(null=True)
    enrollment_id = fields.UUIDField(null=True)
    step = fields.IntField(null=True)
    lane = fields.CharField(max_length=16)
    to = fields.CharField(max_length=64)
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
    sent_at = fields.DatetimeField(null=True)
    delivered_at = fields.DatetimeField(null=True)
    read_at = fields.DatetimeField(null=True)
    failed_at = fields.DatetimeField(null=True)

    class Meta:
        table = "messages"


class Conversation(TenantRow):
    """What one contact and one number say to each other."""

    contact_id = fields.UUIDField()
    sender_id = fields.UUIDField()
    status = fields.CharField(max_length=16, default="open")
    last_inbound_at = fields.DatetimeField(null=True)

    class Meta:
        table = "conversations"
        unique_together = (("tenant_id", "sender_id", "contact_id"),)


class Reply(TenantRow):
    """One message from a contact; its id comes from WhatsApp's, so that a webhook delivered twice is one row."""

    conversation_id = fields.UUIDField()
    contact_id = fields.UUIDField()
    sender_id = fields.UUIDField()
    wamid = fields.CharField(max_length=128)
    type = fields.CharField(max_length=32)
    text = fields.TextField(null=True)
    payload: fields.JSONField[dict[str, Any]] = fields.JSONField()
    context_wamid = fields.CharField(max_length=128, null=True)
    received_at = fields.DatetimeField()

    class Meta:
        table = "replies"
