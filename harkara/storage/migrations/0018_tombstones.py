"""Tenants that are erased: what stays of one is its bare id, which is nobody's any more; and who may take out its rows."""

from tortoise import migrations
from tortoise.migrations import operations as ops

from harkara.storage.tenancy import ENDING, secured

#: A tenant that is ending has a stone from the moment it begins to end, and keeps it for good.
TOMBSTONES = """
create table tombstones (
  id varchar(32) primary key,
  created_at timestamptz not null default now(),
  erased_at timestamptz);
"""

#: The ids of tenants are in subjects, addresses and keys: one that was used becomes no other's, whoever writes the row.
FIXED_FOR_LIFE = """
create function app.fixed_for_life() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  if (tg_op = 'INSERT' or new.is_active) and exists (select from tombstones s where s.id = new.id) then
    raise unique_violation using table = 'tenants',
      message = format('the tenant %s was erased, and its id becomes no other''s', new.id);
  end if;
  return new;
end $$;
create trigger fixed_for_life before insert or update of is_active on tenants
  for each row execute function app.fixed_for_life();
"""

#: Lets this transaction, which must be the owner's, see and delete the rows of a tenant that is ending, and no other's.
#: That it is must have been committed before: by then nobody is let in for it any more.
ERASING = """
create function app.erasing(of_tenant text) returns void
language plpgsql set search_path = public, pg_temp as $$
begin
  if not exists (select from tombstones s where s.id = of_tenant and s.created_at < now())
     or exists (select from tenants t where t.id = of_tenant and t.is_active) then
    raise exception 'the tenant % is not ending: its rows stay', of_tenant;
  end if;
  perform set_config('app.erasing', of_tenant, true);
end $$;
"""

#: Tables that were made before `of_tenants` gave them this policy.
POLICIES = """
do $$
declare name text;
begin
  for name in
    select c.relname from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'tenant_id'
    where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
    and not a.attisdropped and not exists (select from pg_policy p where p.polrelid = c.oid and p.polname = 'ending')
  loop
    execute format($q$create policy ending on %I to current_user using ({rule})$q$, name);
  end loop;
end $$;
""".replace("{rule}", ENDING)


def statements() -> list[str]:
    """Every statement of this migration, in order."""
    made = [TOMBSTONES, *secured("tombstones", owner_reads=True), FIXED_FOR_LIFE, ERASING, POLICIES]
    return [*made, "revoke all on function app.fixed_for_life(), app.erasing(text) from public"]


class Migration(migrations.Migration):
    """Tombstones."""

    dependencies = [("harkara", "0017_invoices")]
    operations: list[ops.Operation] = [ops.RunSQL(";\n".join(statements()), reverse_sql="")]
