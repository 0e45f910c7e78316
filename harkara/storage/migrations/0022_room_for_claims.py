"""Room in the indexes of enrolments, and no index beside a unique key of the same columns."""

from tortoise import migrations
from tortoise.migrations import operations as ops

#: Every claim writes an entry for each enrolment into the three that are of all enrolments: beside its old one, if there
#: is room on that page; else the page is searched for entries of nobody, and split. What is there gets room when it is.
ROOM = """
do $$
declare name regclass;
begin
  for name in select indexrelid from pg_index where indrelid = 'contact_campaign_progress'::regclass and indpred is null
  loop
    execute format('alter index %s set (fillfactor = 70)', name);
  end loop;
end $$
"""

#: The keys of their tables, (tenant_id, id), serve the lists.
TWICE = tuple(f"drop index {table}_list" for table in ("contacts", "leads", "imports", "invoices"))


class Migration(migrations.Migration):
    """Fewer and roomier indexes."""

    dependencies = [("harkara", "0021_paused_tenants")]
    operations: list[ops.Operation] = [ops.RunSQL(";\n".join((ROOM, *TWICE)), reverse_sql="")]
