"""Opt-outs by category and the words of each tenant, what holds sending back, remarks in conversations, media."""

import functools
from json import dumps, loads
from typing import Any

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from harkara.ids import uuid7
from harkara.storage.engine import current_tenant
from harkara.storage.tenancy import audited, refers, tenant_table


def _json() -> fields.JSONField[Any]:
    return fields.JSONField(
        default=dict, db_default={}, encoder=functools.partial(dumps, separators=(",", ":")), decoder=loads
    )


def _row() -> list[tuple[str, Any]]:
    return [
        ("id", fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
        ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
        ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
        ("tenant_id", fields.CharField(default=current_tenant, max_length=32)),
    ]


STATEMENTS = (
    "alter table contacts alter column opt_outs set default '{}', alter column opt_ins set default '{}'",
    "alter table tenants alter column keywords set default '{}'",
    *tenant_table("conversation_notes"),
    refers("conversation_notes", "conversation_id", "conversations", "cascade"),
    refers("conversation_notes", "contact_id", "contacts", "cascade"),
    *audited("conversation_notes", "conversation_note"),
    "create index conversation_notes_list on conversation_notes (tenant_id, conversation_id, id)",
    *tenant_table("media"),
    refers("media", "contact_id", "contacts", "cascade"),
    "alter table media add constraint media_status_check check (status in ('waiting', 'stored', 'failed'))",
    "alter table media alter column status set default 'waiting'",
    "create index media_reply on media (tenant_id, reply_id)",
    "create index media_contact on media (tenant_id, contact_id)",
    *tenant_table("contact_holds"),
    refers("contact_holds", "contact_id", "contacts", "cascade"),
    # By which the gate finds them; nearly always there is none.
    "create index contact_holds_contact on contact_holds (contact_id)",
)


class Migration(migrations.Migration):
    """Opt-outs, holds and remarks."""

    dependencies = [("harkara", "0010_alerts")]
    operations: list[ops.Operation] = [
        ops.AddField("Contact", "opt_outs", _json()),
        ops.AddField("Contact", "opt_ins", _json()),
        ops.AddField("Tenant", "keywords", _json()),
        ops.AddField("Conversation", "read_at", fields.DatetimeField(null=True)),
        ops.CreateModel(
            name="ConversationNote",
            fields=[
                *_row(),
                ("conversation_id", fields.UUIDField()),
                ("contact_id", fields.UUIDField()),
                ("text", fields.TextField(unique=False)),
                ("by_user", fields.UUIDField(null=True)),
                ("by_key", fields.UUIDField(null=True)),
            ],
            options={
                "table": "conversation_notes",
                "app": "harkara",
                "pk_attr": "id",
                "table_description": "A remark of a member (`by_user`) or a key (`by_key`) in a conversation, for"
                " colleagues.",
            },
            bases=["TenantRow"],
        ),
        ops.CreateModel(
            name="Media",
            fields=[
                *_row(),
                ("reply_id", fields.UUIDField()),
                ("contact_id", fields.UUIDField()),
                ("gateway_id", fields.TextField(unique=False)),
                ("status", fields.CharField(default="waiting", max_length=8)),
                ("reason", fields.TextField(null=True, unique=False)),
                ("mime_type", fields.CharField(null=True, max_length=255)),
                ("filename", fields.TextField(null=True, unique=False)),
                ("size", fields.IntField(null=True)),
                ("sha256", fields.CharField(null=True, max_length=64)),
                ("stored_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "media",
                "app": "harkara",
                "pk_attr": "id",
                "table_description": "A file that came with a reply: waiting → stored, or failed. Its bytes are kept under"
                " its tenant and id.",
            },
            bases=["TenantRow"],
        ),
        ops.CreateModel(
            name="ContactHold",
            fields=[*_row(), ("contact_id", fields.UUIDField()), ("word", fields.UUIDField())],
            options={
                "table": "contact_holds",
                "app": "harkara",
                "unique_together": (("tenant_id", "word", "contact_id"),),
                "pk_attr": "id",
                "table_description": "Something accepted and not done yet that may stop what is sent to a contact: until"
                " it is done, nothing is.",
            },
            bases=["TenantRow"],
        ),
        ops.RunSQL(";\n".join(STATEMENTS), reverse_sql=""),
    ]
