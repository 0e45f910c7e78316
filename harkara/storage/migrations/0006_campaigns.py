"""Campaign versions, segments, variants and goals."""

from tortoise import migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    """Campaign versions, segments, variants and goals."""

    dependencies = [("harkara", "0005_people")]
    operations: list[ops.Operation] = []
