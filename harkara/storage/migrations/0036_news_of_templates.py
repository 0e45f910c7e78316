"""What is told of a template late does not undo what was told of it since."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    """When a template became what its status says, as far as a webhook has told that."""

    dependencies = [("harkara", "0035_number_in_doubt")]
    operations: list[ops.Operation] = [ops.AddField("Template", "status_at", fields.DatetimeField(null=True))]
