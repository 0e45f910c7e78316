"""What operators ask for all tenants at once: which there are."""

from tortoise import migrations
from tortoise.migrations import operations as ops

#: Only slugs, which everybody may name already; whose rows are seen is still said transaction by transaction.
ALL_TENANTS = """
create function app.all_tenants() returns text[]
language sql stable security definer set search_path = public, pg_temp as $$
  select coalesce(array_agg(id::text order by id), '{}') from tenants
$$;
revoke all on function app.all_tenants() from public;
grant execute on function app.all_tenants() to harkara_app, harkara_worker;
"""


class Migration(migrations.Migration):
    """The list of all tenants."""

    dependencies = [("harkara", "0015_usage")]
    operations: list[ops.Operation] = [ops.RunSQL(ALL_TENANTS, reverse_sql="")]
