"""Campaigns, their versions and steps, and where each contact stands."""

# Tortoise has every model say its own Meta, which for a type checker replaces the parent's by another class.
# pyright: reportIncompatibleVariableOverride=false

from __future__ import annotations

from typing import Any

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField

from harkara.storage.models.base import TenantRow


class Campaign(TenantRow):
    """A drip or a broadcast; its steps hang on its versions.

    `version_id` is the version that is enrolled in; `draft_version_id` the one that is edited beside it, if there is.
    `reentry_days` after its end a contact may be enrolled again; null is never. `status_reason` is who has paused it
    and why, if an operator has.
    """

    name = fields.TextField()
    type = fields.CharField(max_length=16)
    sender_id = fields.UUIDField()
    status = fields.CharField(max_length=16, default="draft")
    status_reason = fields.TextField(null=True)
    version_id = fields.UUIDField()
    draft_version_id = fields.UUIDField(null=True)
    stop_on_reply = fields.BooleanField(default=True)
    quiet_hours: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    reentry_days = fields.FloatField(null=True)
    delivery = fields.CharField(max_length=16, default="at_most_once", db_default="at_most_once")
    goal: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    exit: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    audience: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    scheduled_at = fields.DatetimeField(null=True)
    launched_at = fields.DatetimeField(null=True)
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
    """One message of a campaign: `position` from 0 in the order of `delay_hours`, which count from the enrolment.

    `origin` is the step of an earlier version that this one is the copy of (null: it is new): the same step, as far as
    having been sent goes. With `variants`, one of them is said instead of `content`. `expires_after_hours` after it was
    due it is of no use any more. `delivery` is its campaign's if it is null.
    """

    campaign_id = fields.UUIDField()
    version_id = fields.UUIDField()
    position = fields.IntField()
    name = fields.TextField()
    delay_hours = fields.FloatField()
    content: fields.JSONField[dict[str, Any]] = fields.JSONField()
    variants: fields.JSONField[list[dict[str, Any]] | None] = fields.JSONField(null=True)
    origin = fields.UUIDField(null=True)
    expires_after_hours = fields.FloatField(null=True)
    delivery = fields.CharField(max_length=16, null=True)

    class Meta:
        table = "campaign_steps"
        unique_together = (("tenant_id", "version_id", "position"),)


class ContactCampaignProgress(TenantRow):
    """An enrolment: where one contact stands in one campaign.

    `next_message_id` names the message that comes next and fences every attempt at it. `next_step_scheduled_at` is when
    it is due; `next_claim_at` is when the ticker should look at it again (due time, then the claim's lease). `run`
    counts a contact's enrolments in the campaign. `passed` names the steps that lie ahead and must not be sent, for one
    that was moved to another version. Until `deferred_until` policy holds the step back; its message waits as `queued`.
    With `invoice_id` it reminds of an invoice, and ends when that is paid or void.
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
    run = fields.IntField(default=1, db_default=1)
    passed = ArrayField(element_type="uuid", null=True)
    goal_at = fields.DatetimeField(null=True)
    deferred_until = fields.DatetimeField(null=True)
    invoice_id = fields.UUIDField(null=True)

    class Meta:
        table = "contact_campaign_progress"
        unique_together = (("tenant_id", "contact_id", "campaign_id", "run"),)
