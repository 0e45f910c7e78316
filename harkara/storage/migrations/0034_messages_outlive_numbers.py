"""A message may outlive the number that it was to leave through: it says then why it did not."""

from tortoise import migrations
from tortoise.migrations import operations as ops


class Migration(migrations.Migration):
    """What was accepted can always be written down."""

    dependencies = [("harkara", "0033_lines")]
    operations: list[ops.Operation] = [
        ops.RunSQL("alter table messages drop constraint messages_sender_id_fk", reverse_sql="")
    ]
