"""What WhatsApp charges for, by month and category."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from harkara.ids import uuid7
from harkara.storage.engine import current_tenant
from harkara.storage.tenancy import tenant_table

STATEMENTS = (
    *tenant_table("usage_by_category"),
    "alter table usage_by_category alter column messages set default 0",
)


class Migration(migrations.Migration):
    """Usage by category."""

    dependencies = [("harkara", "0014_template_alerts")]
    operations: list[ops.Operation] = [
        ops.CreateModel(
            name="CategoryUsage",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
                ("tenant_id", fields.CharField(default=current_tenant, max_length=32)),
                ("month", fields.DateField()),
                ("category", fields.CharField(max_length=32)),
                ("billable", fields.BooleanField()),
                ("messages", fields.BigIntField(default=0)),
            ],
            options={
                "table": "usage_by_category",
                "app": "harkara",
                "unique_together": (("tenant_id", "month", "category", "billable"),),
                "pk_attr": "id",
                "table_description": "How many of a month's messages WhatsApp has told a price of, by its category: what"
                " it charges, or gives free.",
            },
            bases=["TenantRow"],
        ),
        ops.RunSQL(";\n".join(STATEMENTS), reverse_sql=""),
    ]
