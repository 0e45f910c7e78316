"""What a message or a reply quotes, by its id. Two columns that are empty at first: no table is written anew."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    """What is quoted."""

    dependencies = [("harkara", "0030_archived_while_deferred")]
    operations: list[ops.Operation] = [
        ops.AddField("Message", "reply_to", fields.UUIDField(null=True)),
        ops.AddField("Reply", "reply_to", fields.UUIDField(null=True)),
    ]
