"""Contacts, leads and imports."""

from tortoise import migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    """Contacts, leads and imports."""

    dependencies = [("harkara", "0004_trail")]
    operations: list[ops.Operation] = []
