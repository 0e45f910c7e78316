"""Senders of gateways that lend a phone's account: how the session with the phone stands."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

STATEMENTS = (
    "alter table senders add constraint senders_session_check"
    " check (session_state in ('starting', 'scan_qr', 'working', 'stopped', 'failed'))",
)


class Migration(migrations.Migration):
    """Senders of other gateways, and what billing and latencies need of messages."""

    dependencies = [("harkara", "0008_conversations")]
    operations: list[ops.Operation] = [
        ops.AddField("Sender", "session_state", fields.CharField(max_length=16, null=True)),
        ops.AddField("Sender", "session_detail", fields.TextField(null=True, unique=False)),
        ops.AddField("Sender", "session_at", fields.DatetimeField(null=True)),
        ops.AddField("Sender", "session_clock", fields.DatetimeField(null=True)),
        ops.RunSQL(";\n".join(STATEMENTS), reverse_sql=""),
    ]
