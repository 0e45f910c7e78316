"""Conversations, replies and media."""

from tortoise import migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    """Conversations, replies and media."""

    dependencies = [("harkara", "0007_policy")]
    operations: list[ops.Operation] = []
