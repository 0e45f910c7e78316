"""Which alert told that a template may not be used."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    """Templates know their alert."""

    dependencies = [("harkara", "0013_outbox_age")]
    operations: list[ops.Operation] = [ops.AddField("Template", "alert_id", fields.UUIDField(null=True))]
