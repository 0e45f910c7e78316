"""Conversations that are assigned, closed and listed by what was said last."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from harkara.ids import uuid7

#: What was there before gets its place by the time of its last message; the rest of the id is chance, as in every id.
COLUMNS = """
update conversations set last_activity = overlay(gen_random_uuid()::text placing
  left(app.uuid7_floor(coalesce(last_inbound_at, created_at))::text, 15) from 1 for 15)::uuid
where last_activity is null;
alter table conversations
  alter column last_activity set not null, alter column last_activity set default app.uuid7(),
  add constraint conversations_status_check check (status in ('open', 'closed')),
  add constraint conversations_assigned_to_fk foreign key (tenant_id, assigned_to)
    references tenant_users (tenant_id, user_id) on delete set null (assigned_to);
"""

INDEXES = """
create index conversations_list on conversations (tenant_id, last_activity);
create index conversations_assigned on conversations (tenant_id, assigned_to, last_activity);
create index conversations_sender on conversations (tenant_id, sender_id, last_activity);
create index conversations_status on conversations (tenant_id, status, last_activity);
create index replies_list on replies (tenant_id, id);
"""


class Migration(migrations.Migration):
    """Conversations that are assigned, closed and listed by what was said last."""

    dependencies = [("harkara", "0007_gate")]
    operations: list[ops.Operation] = [
        ops.AddField("Conversation", "assigned_to", fields.UUIDField(null=True)),
        ops.AddField("Conversation", "closed_at", fields.DatetimeField(null=True)),
        ops.AddField("Conversation", "last_activity", fields.UUIDField(null=True, default=uuid7)),
        ops.RunSQL(COLUMNS, reverse_sql=""),
        ops.RunSQL(INDEXES, reverse_sql=""),
    ]
