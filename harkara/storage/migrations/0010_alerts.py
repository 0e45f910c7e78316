"""Messages in doubt that may be sent once more; why and since when numbers are stopped."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops


def _delivery() -> fields.CharField[str]:
    return fields.CharField(max_length=16, default="at_most_once", db_default="at_most_once")


STATEMENTS = (
    *(
        f"alter table {table} add constraint {table}_delivery_check check (delivery in ('at_most_once', 'at_least_once'))"
        for table in ("campaigns", "messages")
    ),
    "alter table senders add constraint senders_daily_check check (daily_limit > 0)",
)


class Migration(migrations.Migration):
    """Messages in doubt, and numbers that are stopped."""

    dependencies = [("harkara", "0009_sessions")]
    operations: list[ops.Operation] = [
        ops.AddField("Campaign", "delivery", _delivery()),
        ops.AddField("Message", "delivery", _delivery()),
        ops.AddField("Sender", "status_since", fields.DatetimeField(null=True)),
        ops.AddField("Sender", "held_until", fields.DatetimeField(null=True)),
        ops.AddField("Sender", "error_code", fields.IntField(null=True)),
        ops.AddField("Sender", "alert_id", fields.UUIDField(null=True)),
        ops.AddField("Sender", "daily_limit", fields.IntField(null=True)),
        ops.AddField("Sender", "portfolio_id", fields.CharField(null=True, max_length=64)),
        ops.AddField("Sender", "pair_limit", fields.BooleanField(null=True)),
        ops.AddField("Message", "resent", fields.BooleanField(default=False, db_default=False)),
        ops.AddField("Message", "resend_at", fields.DatetimeField(null=True)),
        ops.RunSQL(";\n".join(STATEMENTS), reverse_sql=""),
    ]
