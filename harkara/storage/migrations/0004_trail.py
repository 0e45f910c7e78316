"""The audit log and the keys of requests that came before."""

from tortoise import migrations
from tortoise.migrations import operations as ops

#: Few messages are in these. Both are left with a write that renews every index of the row anyway (the one that brings
#: WhatsApp's id, or the failure), so receipts stay as cheap as they were.
MESSAGES_IN_THE_WAY = """
create index messages_not_sent on messages (tenant_id, id) where sent_at is null;
create index messages_failed on messages (tenant_id, id) where failed_at is not null;
"""


class Migration(migrations.Migration):
    """The audit log and the keys of requests that came before."""

    dependencies = [("harkara", "0003_access")]
    operations: list[ops.Operation] = [ops.RunSQL(MESSAGES_IN_THE_WAY, reverse_sql="")]
