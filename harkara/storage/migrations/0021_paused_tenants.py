"""Tenants that an operator has paused; and what operators ask about those and about tenants that are ending."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

#: No more than operators are to look at.
STATEMENTS = (
    """
create function app.tenants_at_rest() returns table (id text, why text, is_ending boolean)
language sql stable security definer set search_path = public, pg_temp as $$
  select t.id::text, t.paused_reason, s.id is not null from tenants t left join tombstones s on s.id = t.id
  where t.paused_reason is not null or s.id is not null order by 1
$$""",
    "revoke all on function app.tenants_at_rest() from public",
    "grant execute on function app.tenants_at_rest() to harkara_app, harkara_worker",
)


class Migration(migrations.Migration):
    """Why a tenant is paused."""

    dependencies = [("harkara", "0020_found_by_invoice")]
    operations: list[ops.Operation] = [
        ops.AddField("Tenant", "paused_reason", fields.TextField(null=True)),
        ops.RunSQL(";\n".join(STATEMENTS), reverse_sql=""),
    ]
