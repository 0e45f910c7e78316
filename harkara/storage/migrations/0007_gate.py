"""What the gate judges by: templates, quiet hours, frequency caps, what is deferred, and what a month has used."""

import functools
from json import dumps, loads

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from harkara.ids import uuid7
from harkara.storage.engine import current_tenant
from harkara.storage.tenancy import refers, tenant_table

#: As before, and with what tells quiet hours. A step that was deferred leaves when that is over.
CLAIM_DUE = """
drop function app.claim_due(int, interval, interval);
create function app.claim_due(most int, horizon interval, lease interval)
returns table (enrollment_id uuid, tenant_id text, campaign_id uuid, contact_id uuid, message_id uuid, step int,
               step_id uuid, due_at timestamptz, leaves_at timestamptz, cause text, sender_id uuid, phone text, name text,
               locale text, attributes text, quiet_hours text, timezone text, tenant_timezone text)
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  return query execute format($q$
    with due as materialized (
      select p.id, p.campaign_id, p.next_claim_at from contact_campaign_progress p
      where p.status = 'active' and p.next_claim_at <= now() + $1
      order by p.next_claim_at limit %s for no key update skip locked),
    campaign as materialized (
      select c.id, case when c.status = 'active' then c.sender_id end as sender_id, c.quiet_hours from campaigns c
      where c.id in (select due.campaign_id from due) for share skip locked),
    claimed as (
      update contact_campaign_progress p
      set next_claim_at = case when c.sender_id is not null then now() + $1 + $2 else 'infinity' end
      from due, campaign c
      where p.id = due.id and c.id = due.campaign_id
      returning p.id, p.tenant_id, p.campaign_id, p.contact_id, p.next_message_id, p.current_step, p.next_step_id,
                p.next_step_scheduled_at, p.deferred_until, p.cause, c.sender_id, c.quiet_hours,
                due.next_claim_at as place)
    select d.id, d.tenant_id::text, d.campaign_id, d.contact_id, d.next_message_id, d.current_step, d.next_step_id,
           d.next_step_scheduled_at, greatest(d.next_step_scheduled_at, d.deferred_until), d.cause, d.sender_id,
           coalesce(k.phone, k.wa_user_id)::text, k.name, k.locale::text, k.attributes::text,
           coalesce(d.quiet_hours, t.quiet_hours)::text, k.timezone::text, t.timezone::text
    from claimed d join contacts k on k.id = d.contact_id join tenants t on t.id = d.tenant_id
    order by greatest(d.next_step_scheduled_at, d.deferred_until), d.place, d.next_step_scheduled_at $q$, most)
  using horizon, lease;
end $$;
revoke all on function app.claim_due(int, interval, interval) from public;
grant execute on function app.claim_due(int, interval, interval) to harkara_app, harkara_worker;
"""

#: A step that was deferred has a message that waits. If its enrolment ends meanwhile nobody takes it up any more, so
#: whatever ends the enrolment ends the message, and has it told.
ENDING = """
create function app.end_deferred() returns trigger language plpgsql set search_path = public, pg_temp as $$
declare gone messages;
begin
  update messages set status = 'suppressed', reason = 'enrollment_stopped', deferred_until = null, updated_at = now()
  where id = old.next_message_id and tenant_id || '' = old.tenant_id and status = 'queued' returning * into gone;
  if found then
    insert into outbox (id, tenant_id, subject, body, name, cause) values (
      app.uuid7(), old.tenant_id, 't.' || old.tenant_id || '.evt.message.suppressed',
      jsonb_strip_nulls(jsonb_build_object(
        'id', gone.id, 'contact_id', old.contact_id, 'sender_id', gone.sender_id, 'campaign_id', gone.campaign_id,
        'enrollment_id', gone.enrollment_id, 'step', gone.step, 'variant', gone.variant,
        'reason', 'enrollment_stopped'))::text,
      gone.id || '.suppressed', gone.cause);
  end if;
  return null;
end $$;
create trigger deferred_stopped after update of status on contact_campaign_progress
  for each row when (old.deferred_until is not null and old.status in ('active', 'paused')
                     and new.status not in ('active', 'paused'))
  execute function app.end_deferred();
revoke all on function app.end_deferred() from public;
"""

#: Numbers whose templates were not asked for lately: whoever gets them asks.
STALE = """
create function app.stale_templates(most int, age interval) returns table (tenant_id text, sender_id uuid)
language sql security definer set search_path = public, pg_temp as $$
  with stale as materialized (
    select s.id from senders s
    where s.waba_id is not null and s.provider in ('cloud', 'sandbox') and s.status <> 'blocked'
      and (s.templates_tried_at is null or s.templates_tried_at < now() - age)
      and s.tenant_id in (select t.id from tenants t where t.is_active)
    order by s.templates_tried_at nulls first limit most for no key update skip locked)
  update senders s set templates_tried_at = now() from stale where s.id = stale.id
  returning s.tenant_id::text, s.id
$$;
revoke all on function app.stale_templates(int, interval) from public;
grant execute on function app.stale_templates(int, interval) to harkara_app, harkara_worker;
"""

STATEMENTS = (
    *tenant_table("templates"),
    refers("templates", "sender_id", "senders", "cascade"),
    "alter table templates alter column category set default '', alter column components set default '[]'",
    # By which the gate finds them; the unique key begins with the tenant, by which no batch finds anything.
    "create index templates_sender on templates (sender_id, name, language)",
    *tenant_table("monthly_usage"),
    "alter table monthly_usage alter column messages set default 0",
    CLAIM_DUE,
    ENDING,
    STALE,
)


class Migration(migrations.Migration):
    """What the gate judges by."""

    dependencies = [("harkara", "0006_versions")]
    operations: list[ops.Operation] = [
        ops.CreateModel(
            name="Template",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
                ("tenant_id", fields.CharField(default=current_tenant, max_length=32)),
                ("sender_id", fields.UUIDField()),
                ("name", fields.CharField(max_length=512)),
                ("language", fields.CharField(max_length=16)),
                ("category", fields.CharField(default="", max_length=32)),
                ("status", fields.CharField(max_length=32)),
                ("reason", fields.TextField(null=True, unique=False)),
                ("quality", fields.CharField(null=True, max_length=16)),
                (
                    "components",
                    fields.JSONField(
                        default=list, encoder=functools.partial(dumps, separators=(",", ":")), decoder=loads
                    ),
                ),
            ],
            options={
                "table": "templates",
                "app": "harkara",
                "unique_together": (("tenant_id", "sender_id", "name", "language"),),
                "pk_attr": "id",
                "table_description": "A message template as WhatsApp has it, for one number of the account that it belongs to.",
            },
            bases=["TenantRow"],
        ),
        ops.AddField("Sender", "templates_synced_at", fields.DatetimeField(null=True)),
        ops.AddField("Sender", "templates_tried_at", fields.DatetimeField(null=True)),
        ops.CreateModel(
            name="MonthlyUsage",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
                ("tenant_id", fields.CharField(default=current_tenant, max_length=32)),
                ("month", fields.DateField()),
                ("messages", fields.BigIntField(default=0)),
                ("exhausted_at", fields.DatetimeField(null=True)),
            ],
            options={
                "table": "monthly_usage",
                "app": "harkara",
                "unique_together": (("tenant_id", "month"),),
                "pk_attr": "id",
                "table_description": "How many messages a tenant has sent in a month of the calendar, in UTC.",
            },
            bases=["TenantRow"],
        ),
        ops.AddField(
            "Tenant",
            "quiet_hours",
            fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(",", ":")), decoder=loads),
        ),
        ops.AddField(
            "Tenant",
            "frequency_caps",
            fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(",", ":")), decoder=loads),
        ),
        ops.AddField("CampaignStep", "expires_after_hours", fields.FloatField(null=True)),
        ops.AddField("ContactCampaignProgress", "deferred_until", fields.DatetimeField(null=True)),
        ops.AddField("Message", "deferred_until", fields.DatetimeField(null=True)),
        ops.RunSQL(";\n".join(STATEMENTS), reverse_sql=""),
    ]
