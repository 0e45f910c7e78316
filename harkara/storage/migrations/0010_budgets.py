"""Budgets, plans and alerts."""

from tortoise import migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    """Budgets, plans and alerts."""

    dependencies = [("harkara", "0009_gateways")]
    operations: list[ops.Operation] = []
