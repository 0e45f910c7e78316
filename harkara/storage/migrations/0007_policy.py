"""What the gate judges by."""

from tortoise import migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    """What the gate judges by."""

    dependencies = [("harkara", "0006_campaigns")]
    operations: list[ops.Operation] = []
