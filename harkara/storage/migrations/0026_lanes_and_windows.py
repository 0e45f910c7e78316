"""The database knows which lanes and windows there are."""

from tortoise import migrations
from tortoise.migrations import operations as ops

STATEMENTS = (
    "alter table messages add constraint messages_lane_check check (lane in ('otp', 'utility', 'marketing'))",
    "alter table senders add constraint senders_window_check check (\"window\" in ('enforce', 'ignore'))",
)


class Migration(migrations.Migration):
    """No message in a lane that no actor reads, no number whose window nobody knows to judge."""

    dependencies = [("harkara", "0025_imports_of_opted_out")]
    operations: list[ops.Operation] = [ops.RunSQL(";\n".join(STATEMENTS), reverse_sql="")]
