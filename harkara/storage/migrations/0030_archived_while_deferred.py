"""What waits of a campaign that is archived says so, as what is on its way does."""

from tortoise import migrations
from tortoise.migrations import operations as ops

#: As before, and with the reason if it is the campaign.
ENDING = """
create or replace function app.end_deferred() returns trigger language plpgsql set search_path = public, pg_temp as $$
declare
  gone messages;
  why text := case when new.stopped_reason in ('invoice_paid', 'invoice_void') then new.stopped_reason
                   when new.stopped_reason = 'campaign_archived' then 'campaign_inactive'
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
end $$
"""


class Migration(migrations.Migration):
    """Why what waits of an archived campaign does not leave."""

    dependencies = [("harkara", "0029_ids_in_order")]
    operations: list[ops.Operation] = [ops.RunSQL(ENDING, reverse_sql="")]
