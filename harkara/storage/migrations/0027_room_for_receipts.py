"""Half of each page of messages stays free at first, so that receipts change rows where they lie."""

from tortoise import migrations
from tortoise.migrations import operations as ops

#: Between its result and its last receipt a message is written anew two or three times, and no index has a column of what
#: changes then: with room on its page no index is touched. Of the audit log nothing is ever changed.
FUNCTION = """
create or replace function app.ensure_partitions(parent text, first date, months int) returns int
language plpgsql set search_path = public, pg_temp as $$
declare month date; part text; made int := 0;
begin
  for i in 0 .. months - 1 loop
    month := (date_trunc('month', first) + make_interval(months => i))::date;
    part := format('%s_%s', parent, to_char(month, 'YYYYMM'));
    continue when to_regclass(part) is not null;
    execute format('create table %I partition of %I for values from (%L) to (%L) with (fillfactor = %s)',
                   part, parent, app.uuid7_floor(month), app.uuid7_floor((month + interval '1 month')::date),
                   case parent when 'messages' then 50 else 100 end);
    made := made + 1;
  end loop;
  return made;
end $$
"""

#: What is written from now on.
PARTITIONS = """
do $$
declare part record;
begin
  for part in select inhrelid::regclass as name, inhparent = 'messages'::regclass as changes from pg_inherits
              where inhparent in ('messages'::regclass, 'audit_log'::regclass)
  loop
    execute format('alter table %s set (fillfactor = %s)', part.name, case when part.changes then 50 else 100 end);
  end loop;
end $$
"""


class Migration(migrations.Migration):
    """Roomier messages."""

    dependencies = [("harkara", "0026_lanes_and_windows")]
    operations: list[ops.Operation] = [ops.RunSQL(";\n".join((FUNCTION, PARTITIONS)), reverse_sql="")]
