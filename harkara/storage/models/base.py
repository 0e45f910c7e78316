"""What all rows have."""

# Tortoise has every model say its own Meta, which for a type checker replaces the parent's by another class.
# pyright: reportIncompatibleVariableOverride=false

from __future__ import annotations

from tortoise import fields
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
