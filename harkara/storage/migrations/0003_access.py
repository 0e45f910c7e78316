"""Users, keys and log-ins."""

from tortoise import migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    """Users, keys and log-ins."""

    dependencies = [("harkara", "0002_tenancy")]
    operations: list[ops.Operation] = []
