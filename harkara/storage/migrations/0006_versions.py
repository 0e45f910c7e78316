"""Campaign versions that are edited beside the live one, segments, variants, re-entry, goals and broadcasts."""

import functools
from json import dumps, loads

from tortoise import fields, migrations
from tortoise.contrib.postgres.fields import ArrayField
from tortoise.migrations import operations as ops
from tortoise.migrations.constraints import UniqueConstraint

from harkara.ids import uuid7
from harkara.storage.engine import current_tenant
from harkara.storage.tenancy import audited, refers, tenant_table

STATEMENTS = (
    *tenant_table("segments"),
    *audited("segments", "segment"),
    refers("campaigns", "draft_version_id", "campaign_versions", "set null (draft_version_id)"),
    "alter table campaigns add constraint campaigns_reentry_check check (reentry_days >= 0)",
    "create index replies_campaign on replies (tenant_id, campaign_id) where campaign_id is not null",
)


class Migration(migrations.Migration):
    """Campaign versions, segments, variants and goals."""

    dependencies = [("harkara", "0005_contacts")]
    operations: list[ops.Operation] = [
        ops.CreateModel(
            name="Segment",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
                ("tenant_id", fields.CharField(default=current_tenant, max_length=32)),
                ("name", fields.TextField(unique=False)),
                ("condition", fields.JSONField(encoder=functools.partial(dumps, separators=(",", ":")), decoder=loads)),
            ],
            options={
                "table": "segments",
                "app": "harkara",
                "pk_attr": "id",
                "table_description": "A group of contacts, by a condition that is judged whenever the group is used.",
            },
            bases=["TenantRow"],
        ),
        ops.AddField(
            model_name="Campaign",
            name="audience",
            field=fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(",", ":")), decoder=loads),
        ),
        ops.AddField(
            model_name="Campaign",
            name="draft_version_id",
            field=fields.UUIDField(null=True),
        ),
        ops.AddField(
            model_name="Campaign",
            name="exit",
            field=fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(",", ":")), decoder=loads),
        ),
        ops.AddField(
            model_name="Campaign",
            name="goal",
            field=fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(",", ":")), decoder=loads),
        ),
        ops.AddField(
            model_name="Campaign",
            name="launched_at",
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.AddField(
            model_name="Campaign",
            name="reentry_days",
            field=fields.FloatField(null=True),
        ),
        ops.AddField(
            model_name="Campaign",
            name="scheduled_at",
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.AddField(
            model_name="CampaignStep",
            name="origin",
            field=fields.UUIDField(null=True),
        ),
        ops.AddField(
            model_name="CampaignStep",
            name="variants",
            field=fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(",", ":")), decoder=loads),
        ),
        ops.RemoveConstraint(
            model_name="ContactCampaignProgress",
            name=None,
            fields=["tenant_id", "contact_id", "campaign_id"],
        ),
        ops.AddField(
            model_name="ContactCampaignProgress",
            name="goal_at",
            field=fields.DatetimeField(null=True, auto_now=False, auto_now_add=False),
        ),
        ops.AddField(
            model_name="ContactCampaignProgress",
            name="passed",
            field=ArrayField(null=True, element_type="UUID"),
        ),
        ops.AddField(
            model_name="ContactCampaignProgress",
            name="run",
            field=fields.IntField(default=1, db_default=1),
        ),
        ops.AddConstraint(
            model_name="ContactCampaignProgress",
            constraint=UniqueConstraint(fields=("tenant_id", "contact_id", "campaign_id", "run"), name=None),
        ),
        ops.AddField(
            model_name="Message",
            name="is_test",
            field=fields.BooleanField(default=False, db_default=False),
        ),
        ops.AddField(model_name="Reply", name="message_id", field=fields.UUIDField(null=True)),
        ops.AddField(model_name="Reply", name="campaign_id", field=fields.UUIDField(null=True)),
        ops.AddField(model_name="Reply", name="step", field=fields.IntField(null=True)),
        ops.AddField(model_name="Reply", name="step_id", field=fields.UUIDField(null=True)),
        ops.AddField(model_name="Reply", name="variant", field=fields.CharField(null=True, max_length=32)),
        ops.AddField(
            model_name="Message",
            name="step_id",
            field=fields.UUIDField(null=True),
        ),
        ops.AddField(
            model_name="Message",
            name="variant",
            field=fields.CharField(null=True, max_length=32),
        ),
        ops.RunSQL(";\n".join(STATEMENTS), reverse_sql=""),
    ]
