"""Tenants, who may act for them, and what is kept of their acting and using."""

# Tortoise has every model say its own Meta, which for a type checker replaces the parent's by another class.
# pyright: reportIncompatibleVariableOverride=false

from __future__ import annotations

from typing import Any

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.models import Model

from harkara.ids import uuid7
from harkara.storage.engine import current_tenant
from harkara.storage.models.base import SLUG, Row, TenantRow


class Tenant(Model):
    """A customer of the platform. Its id is its slug, fixed for life.

    `keywords` are the words by which its contacts opt out and in (`harkara/schemas/keywords.py`). `quiet_hours` are
    those of campaigns that have none of their own, and of other marketing. `paused_reason` is why an operator has
    paused it: null unless one has.
    """

    id = fields.CharField(max_length=SLUG, primary_key=True)
    name = fields.TextField()
    plan = fields.CharField(max_length=32, default="standard")
    timezone = fields.CharField(max_length=64, default="UTC")
    default_region = fields.CharField(max_length=2, null=True)
    keywords: fields.JSONField[dict[str, Any]] = fields.JSONField(default=dict, db_default={})
    quiet_hours: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    frequency_caps: fields.JSONField[list[dict[str, Any]] | None] = fields.JSONField(null=True)
    is_active = fields.BooleanField(default=True)
    paused_reason = fields.TextField(null=True)
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
    supabase_id = fields.UUIDField(null=True)

    class Meta:
        table = "users"


class TenantUser(TenantRow):
    """A user's place in one tenant: role owner, admin, agent or viewer.

    `name` is what the tenant calls them. `accepted_at` is when they first came: until then nobody who has other tenants
    is asked which one is meant.
    """

    user_id = fields.UUIDField()
    role = fields.CharField(max_length=8)
    is_active = fields.BooleanField(default=True)
    name = fields.TextField(null=True)
    accepted_at = fields.DatetimeField(null=True)

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


class AuditEntry(Model):
    """One change that somebody made: the columns that changed, before and after. Partitioned by the month in its id.

    `via` is the route or the command by which it came. Rows are added and never changed.
    """

    id = fields.UUIDField(primary_key=True, default=uuid7)
    tenant_id = fields.CharField(max_length=SLUG, default=current_tenant)
    user_id = fields.UUIDField(null=True)
    api_key_id = fields.UUIDField(null=True)
    action = fields.CharField(max_length=32)
    entity = fields.CharField(max_length=32)
    entity_id = fields.CharField(max_length=64, null=True)
    request_id = fields.TextField()
    address = fields.TextField()
    via = fields.TextField()
    before: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    after: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    created_at = fields.DatetimeField(auto_now_add=True)

    class Meta:
        table = "audit_log"


class IdempotencyKey(TenantRow):
    """A request that said under which key it may come again, and its answer, encrypted, once there is one.

    `who` is the user or API key that made it. The ids of what it makes come from this row's own id.
    """

    who = fields.UUIDField()
    key = fields.CharField(max_length=255)
    fingerprint = fields.BinaryField()
    answer = fields.BinaryField(null=True)

    class Meta:
        table = "idempotency_keys"
        unique_together = (("tenant_id", "who", "key"),)


class MonthlyUsage(TenantRow):
    """How many messages a tenant has sent in a month of the calendar, in UTC.

    Counted when a message leaves for the first time, and given back if WhatsApp provably did not take it.
    `exhausted_at` is when one was first kept back because the plan includes no more.
    """

    month = fields.DateField()
    messages = fields.BigIntField(default=0)
    exhausted_at = fields.DatetimeField(null=True)

    class Meta:
        table = "monthly_usage"
        unique_together = (("tenant_id", "month"),)


class CategoryUsage(TenantRow):
    """How many of a month's messages WhatsApp has told a price of, by its category: what it charges, or gives free.

    A count, not a view of the messages: they may be erased, and the bill stays.
    """

    month = fields.DateField()
    category = fields.CharField(max_length=32)
    billable = fields.BooleanField()
    messages = fields.BigIntField(default=0)

    class Meta:
        table = "usage_by_category"
        unique_together = (("tenant_id", "month", "category", "billable"),)
