"""Ids that the database makes sort in the order in which they were made, within a millisecond too."""

from tortoise import migrations
from tortoise.migrations import operations as ops

#: Twelve of the random bits tell the quarter of a microsecond (RFC 9562, 6.2, method 3), as in `harkara/ids.py`.
FUNCTION = """
create or replace function app.uuid7() returns uuid language sql volatile parallel safe as $$
  select encode(overlay(uuid_send(gen_random_uuid()) placing
    substring(int8send(floor(ms)::bigint) from 3) || int2send((28672 + floor((ms - floor(ms)) * 4096))::int2)
    from 1 for 8), 'hex')::uuid
  from (select extract(epoch from clock_timestamp()) * 1000 as ms) as instant $$
"""


class Migration(migrations.Migration):
    """Notes and events in their order."""

    dependencies = [("harkara", "0028_newest_migration")]
    operations: list[ops.Operation] = [ops.RunSQL(FUNCTION, reverse_sql="")]
