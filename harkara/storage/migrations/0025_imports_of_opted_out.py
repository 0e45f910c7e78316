"""Imports of large files count who stays opted out."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    """How many contacts of an import stay opted out."""

    dependencies = [("harkara", "0024_suppressions")]
    operations: list[ops.Operation] = [ops.AddField("Import", "opted_out", fields.IntField(default=0, db_default=0))]
