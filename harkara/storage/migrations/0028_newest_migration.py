"""Whoever asks is told how new the schema is."""

from tortoise import migrations
from tortoise.migrations import operations as ops

STATEMENTS = (
    """
create function app.newest_migration() returns text
language sql stable security definer set search_path = public, pg_temp as $$
  select max(name) from tortoise_migrations where app = 'harkara'
$$""",
    "revoke all on function app.newest_migration() from public",
    "grant execute on function app.newest_migration() to harkara_app, harkara_worker",
)


class Migration(migrations.Migration):
    """The name of the newest migration."""

    dependencies = [("harkara", "0027_room_for_receipts")]
    operations: list[ops.Operation] = [ops.RunSQL(";\n".join(STATEMENTS), reverse_sql="")]
