"""Files of contacts on their way in."""

# Tortoise has every model say its own Meta, which for a type checker replaces the parent's by another class.
# pyright: reportIncompatibleVariableOverride=false

from __future__ import annotations

from typing import Any

from tortoise import fields

from harkara.storage.models.base import TenantRow


class Import(TenantRow):
    """A file of contacts that is stored piece by piece: how to read it, and how far it has come.

    receiving → queued → running → completed, or cancelled. `read_at` is what `yes` in a column of consent means.
    `opted_out` counts, of those made and updated, who stays so though the file doesn't say it.
    """

    status = fields.CharField(max_length=16, default="receiving")
    filename = fields.TextField(null=True)
    encoding = fields.CharField(max_length=32)
    delimiter = fields.CharField(max_length=1)
    # The file's `columns`, and `hints` at what to look; of older imports the columns alone.
    header: fields.JSONField[dict[str, Any] | list[Any]] = fields.JSONField()
    region = fields.CharField(max_length=2, null=True)
    #: Who sent it, as the audit log notes what it changes.
    acting = fields.TextField(default="")
    cause = fields.TextField(default="")
    read_at = fields.DatetimeField()
    rows = fields.IntField(default=0)
    rows_done = fields.IntField(default=0)
    chunks = fields.IntField(default=0)
    created = fields.IntField(default=0)
    updated = fields.IntField(default=0)
    duplicates = fields.IntField(default=0)
    opted_out = fields.IntField(default=0, db_default=0)
    errors = fields.IntField(default=0)
    finished_at = fields.DatetimeField(null=True)

    class Meta:
        table = "imports"


class ImportChunk(TenantRow):
    """Some rows of a file, as cells, that wait to be stored; gone when they are."""

    import_id = fields.UUIDField()
    number = fields.IntField()
    rows = fields.TextField()

    class Meta:
        table = "import_chunks"
        unique_together = (("tenant_id", "import_id", "number"),)


class ImportFault(TenantRow):
    """What is wrong with one row of a file; ids are in the order of the rows."""

    import_id = fields.UUIDField()
    row = fields.IntField()
    path = fields.TextField()
    message = fields.TextField()

    class Meta:
        table = "import_faults"
