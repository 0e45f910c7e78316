"""How much waits in the outbox, and for how long: for metrics, which see no tenant's rows."""

from tortoise import migrations
from tortoise.migrations import operations as ops

STATEMENTS = (
    """
create function app.outbox_waiting(most int)
returns table (waiting bigint, oldest_s double precision)
language sql security definer set search_path = public, pg_temp as $$
  select count(*), coalesce(extract(epoch from now() - min(o.created_at)), 0)::double precision
  from (select created_at from outbox order by id limit most) o
$$""",
    "revoke all on function app.outbox_waiting(int) from public",
    "grant execute on function app.outbox_waiting(int) to harkara_app, harkara_worker",
)


class Migration(migrations.Migration):
    """The outbox's age."""

    dependencies = [("harkara", "0012_resting")]
    operations: list[ops.Operation] = [ops.RunSQL(";\n".join(STATEMENTS), reverse_sql="")]
