"""Invoices, and messages and enrolments that are about one."""

from typing import Any

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from harkara.ids import uuid7
from harkara.storage.engine import current_tenant
from harkara.storage.tenancy import audited, refers, tenant_table

#: As before, and with what a step may say of the invoice that its enrolment is about: JSON, null if about none.
CLAIM_DUE = """
drop function app.claim_due(int, interval, interval);
create function app.claim_due(most int, horizon interval, lease interval)
returns table (enrollment_id uuid, tenant_id text, campaign_id uuid, contact_id uuid, message_id uuid, step int,
               step_id uuid, due_at timestamptz, leaves_at timestamptz, cause text, sender_id uuid, phone text, name text,
               locale text, attributes text, quiet_hours text, timezone text, tenant_timezone text, invoice_id uuid,
               invoice text)
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
                due.next_claim_at as place, p.invoice_id)
    select d.id, d.tenant_id::text, d.campaign_id, d.contact_id, d.next_message_id, d.current_step, d.next_step_id,
           d.next_step_scheduled_at, greatest(d.next_step_scheduled_at, d.deferred_until), d.cause, d.sender_id,
           coalesce(k.phone, k.wa_user_id)::text, k.name, k.locale::text, k.attributes::text,
           coalesce(d.quiet_hours, t.quiet_hours)::text, k.timezone::text, t.timezone::text, d.invoice_id,
           case when d.invoice_id is not null then (
             select jsonb_build_object('number', b.number, 'amount', b.amount, 'currency', b.currency, 'due_at', b.due_at)::text
             from invoices b where b.id = d.invoice_id and b.tenant_id = d.tenant_id) end
    from claimed d join contacts k on k.id = d.contact_id join tenants t on t.id = d.tenant_id
    order by greatest(d.next_step_scheduled_at, d.deferred_until), d.place, d.next_step_scheduled_at $q$, most)
  using horizon, lease;
end $$;
revoke all on function app.claim_due(int, interval, interval) from public;
grant execute on function app.claim_due(int, interval, interval) to harkara_app, harkara_worker;
"""

#: As before, and with the reason if it is the invoice.
ENDING = """
create or replace function app.end_deferred() returns trigger language plpgsql set search_path = public, pg_temp as $$
declare
  gone messages;
  why text := case when new.stopped_reason in ('invoice_paid', 'invoice_void') then new.stopped_reason
                   else 'enrollment_stopped' end;
begin
  update messages set status = 'suppressed', reason = why, deferred_until = null, updated_at = now()
  where id = old.next_message_id and tenant_id || '' = old.tenant_id and status = 'queued' returning * into gone;
  if found then
    insert into outbox (id, tenant_id, subject, body, name, cause) values (
      app.uuid7(), old.tenant_id, 't.' || old.tenant_id || '.evt.message.suppressed',
      jsonb_strip_nulls(jsonb_build_object(
        'id', gone.id, 'contact_id', old.contact_id, 'sender_id', gone.sender_id, 'campaign_id', gone.campaign_id,
        'enrollment_id', gone.enrollment_id, 'step', gone.step, 'variant', gone.variant, 'reason', why))::text,
      gone.id || '.suppressed', gone.cause);
  end if;
  return null;
end $$;
"""

STATEMENTS = (
    *tenant_table("invoices", is_parent=True, owner_reads=True),
    refers("invoices", "contact_id", "contacts", "cascade"),
    *audited("invoices", "invoice"),
    "alter table invoices add constraint invoices_status_check check (status in ('open', 'paid', 'void'))",
    "alter table invoices add constraint invoices_amount_check check (amount > 0)",
    "alter table invoices alter column status set default 'open'",
    "create index invoices_list on invoices (tenant_id, id)",
    "create index invoices_contact on invoices (tenant_id, contact_id, id)",
    "create index invoices_status on invoices (tenant_id, status, id)",
    refers("contact_campaign_progress", "invoice_id", "invoices", "set null (invoice_id)"),
    "create index progress_invoice on contact_campaign_progress (tenant_id, invoice_id) where invoice_id is not null",
    CLAIM_DUE,
    ENDING,
)


def _row() -> list[tuple[str, Any]]:
    return [
        ("id", fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
        ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
        ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
        ("tenant_id", fields.CharField(default=current_tenant, max_length=32)),
    ]


class Migration(migrations.Migration):
    """Invoices."""

    dependencies = [("harkara", "0016_operators")]
    operations: list[ops.Operation] = [
        ops.CreateModel(
            name="Invoice",
            fields=[
                *_row(),
                ("contact_id", fields.UUIDField()),
                ("number", fields.CharField(max_length=64)),
                ("amount", fields.BigIntField()),
                ("currency", fields.CharField(max_length=3)),
                ("due_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("status", fields.CharField(default="open", max_length=8)),
                ("paid_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
                ("external_id", fields.CharField(null=True, max_length=200)),
            ],
            options={
                "table": "invoices",
                "app": "harkara",
                "unique_together": (("tenant_id", "number"),),
                "pk_attr": "id",
                "table_description": "What a contact owes: open → paid, or void. `amount` is in the currency's minor"
                " units.",
            },
            bases=["TenantRow"],
        ),
        ops.AddField("ContactCampaignProgress", "invoice_id", fields.UUIDField(null=True)),
        ops.AddField("Message", "invoice_id", fields.UUIDField(null=True)),
        ops.RunSQL(";\n".join(STATEMENTS), reverse_sql=""),
    ]
