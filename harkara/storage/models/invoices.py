"""What contacts owe."""

# Tortoise has every model say its own Meta, which for a type checker replaces the parent's by another class.
# pyright: reportIncompatibleVariableOverride=false

from __future__ import annotations

from tortoise import fields

from harkara.storage.models.base import TenantRow


class Invoice(TenantRow):
    """What a contact owes: open → paid, or void. `amount` is in the currency's minor units."""

    contact_id = fields.UUIDField()
    number = fields.CharField(max_length=64)
    amount: fields.Field[int] = fields.BigIntField()
    currency = fields.CharField(max_length=3)
    due_at = fields.DatetimeField()
    status = fields.CharField(max_length=8, default="open")
    paid_at = fields.DatetimeField(null=True)
    external_id = fields.CharField(max_length=200, null=True)

    class Meta:
        table = "invoices"
        unique_together = (("tenant_id", "number"),)
