"""Senders of other gateways, and templates."""

from tortoise import migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    """Senders of other gateways, and templates."""

    dependencies = [("harkara", "0008_talk")]
    operations: list[ops.Operation] = []
