"""Contacts whom WhatsApp gives no marketing for a while; what becomes of a step in doubt."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

STATEMENTS = (
    "alter table campaign_steps add constraint campaign_steps_delivery_check"
    " check (delivery in ('at_most_once', 'at_least_once'))",
)


class Migration(migrations.Migration):
    """Contacts that rest, and steps with a delivery of their own."""

    dependencies = [("harkara", "0011_opt_outs")]
    operations: list[ops.Operation] = [
        ops.AddField("Contact", "marketing_rests_until", fields.DatetimeField(null=True)),
        ops.AddField("CampaignStep", "delivery", fields.CharField(max_length=16, null=True)),
        ops.RunSQL(";\n".join(STATEMENTS), reverse_sql=""),
    ]
