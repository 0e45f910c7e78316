"""Contacts, and what is known of them."""

# Tortoise has every model say its own Meta, which for a type checker replaces the parent's by another class.
# pyright: reportIncompatibleVariableOverride=false

from __future__ import annotations

from typing import Any

from tortoise import fields
from tortoise.contrib.postgres.fields import ArrayField

from harkara.storage.models.base import TenantRow


class Contact(TenantRow):
    """A person a tenant writes to.

    `opted_out_at` is an opt-out of everything, `opt_outs` are those of one category each and `opt_ins` what was last
    taken back: `{category: {at, source}}` (`harkara/storage/opting.py`).
    """

    name = fields.TextField(default="")
    phone = fields.CharField(max_length=16, null=True)
    wa_user_id = fields.CharField(max_length=135, null=True)
    locale = fields.CharField(max_length=16, null=True)
    timezone = fields.CharField(max_length=64, null=True)
    attributes: fields.JSONField[dict[str, Any]] = fields.JSONField(default=dict)
    tags = ArrayField(element_type="text", default=list)
    opted_in_at = fields.DatetimeField(null=True)
    consent_source = fields.TextField(null=True)
    consent_categories = ArrayField(element_type="text", default=list)
    opted_out_at = fields.DatetimeField(null=True)
    opted_out_reason = fields.TextField(null=True)
    opt_outs: fields.JSONField[dict[str, Any]] = fields.JSONField(default=dict, db_default={})
    opt_ins: fields.JSONField[dict[str, Any]] = fields.JSONField(default=dict, db_default={})
    # WhatsApp gives it no marketing for a while: until then none is sent.
    marketing_rests_until = fields.DatetimeField(null=True)
    #: The import that wrote it last: a second row with its number in the same file is a repetition.
    import_id = fields.UUIDField(null=True)

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


class ContactHold(TenantRow):
    """Something accepted and not done yet that may stop what is sent to a contact: until it is done, nothing is.

    `word` is the id of the webhook or the command (`harkara/storage/holding.py`).
    """

    contact_id = fields.UUIDField()
    word = fields.UUIDField()

    class Meta:
        table = "contact_holds"
        unique_together = (("tenant_id", "word", "contact_id"),)


class ContactMerge(TenantRow):
    """The contact with this id is part of `contact_id` now."""

    contact_id = fields.UUIDField()

    class Meta:
        table = "contact_merges"


class Lead(TenantRow):
    """What may become of a contact: how far it has come, and how promising it is from 0 to 100."""

    contact_id = fields.UUIDField()
    stage = fields.CharField(max_length=16, default="new")
    score = fields.IntField(default=0)
    source = fields.TextField(null=True)

    class Meta:
        table = "leads"


class LeadChange(TenantRow):
    """Who changed what of a lead: `by_user` or `by_key`, and the columns that changed, before and after."""

    lead_id = fields.UUIDField()
    by_user = fields.UUIDField(null=True)
    by_key = fields.UUIDField(null=True)
    before: fields.JSONField[dict[str, Any] | None] = fields.JSONField(null=True)
    after: fields.JSONField[dict[str, Any]] = fields.JSONField()

    class Meta:
        table = "lead_changes"


class Segment(TenantRow):
    """A group of contacts, by a condition that is judged whenever the group is used."""

    name = fields.TextField()
    condition: fields.JSONField[dict[str, Any]] = fields.JSONField()

    class Meta:
        table = "segments"
