"""Campaigns that an operator has paused say so, and why."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    """Why a campaign is paused."""

    dependencies = [("harkara", "0022_room_for_claims")]
    operations: list[ops.Operation] = [ops.AddField("Campaign", "status_reason", fields.TextField(null=True))]
