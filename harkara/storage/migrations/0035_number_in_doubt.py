"""A message to a number that is no contact's is found by that number while nobody knows whether it was sent."""

from tortoise import migrations
from tortoise.migrations import operations as ops

#: Few messages are in it. One is left with a write that renews every index of the row anyway.
IN_DOUBT = """
create index messages_to_number on messages (tenant_id, "to") where contact_id is null and sent_at is null
"""


class Migration(migrations.Migration):
    """By number, whatever has not been sent."""

    dependencies = [("harkara", "0034_messages_outlive_numbers")]
    operations: list[ops.Operation] = [ops.RunSQL(IN_DOUBT, reverse_sql="")]
