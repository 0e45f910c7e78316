"""The outbox is emptied past what is for a full queue: it waits, and nobody behind it does."""

from tortoise import migrations
from tortoise.migrations import operations as ops

#: Beside the function that it follows, which copies of before call while they are replaced.
STATEMENTS = (
    """
create function app.take_outbox(most int, but text[])
returns table (tenant_id text, subject text, body text, name text, cause text)
language sql security definer set search_path = public, pg_temp as $$
  with due as materialized (
    select o.id from outbox o where o.subject <> all (but) order by o.id limit most for update skip locked),
  taken as (delete from outbox o using due where o.id = due.id returning o.*)
  select t.tenant_id::text, t.subject, t.body, t.name, t.cause from taken t order by t.id
$$""",
    "revoke all on function app.take_outbox(int, text[]) from public",
    "grant execute on function app.take_outbox(int, text[]) to harkara_app, harkara_worker",
)


class Migration(migrations.Migration):
    """What the outbox gives out."""

    dependencies = [("harkara", "0018_tombstones")]
    operations: list[ops.Operation] = [ops.RunSQL(";\n".join(STATEMENTS), reverse_sql="")]
