"""Opt-outs of numbers that are no contact's any more, by a keyed hash: whoever said STOP is not forgotten with them."""

from tortoise import migrations
from tortoise.migrations import operations as ops

from harkara.storage.tenancy import of_tenants, secured

#: `address` is the hash of a phone number or of WhatsApp's own id; `opted_out` when each category was opted out of last.
TABLE = """
create table suppressions (
  id uuid primary key,
  tenant_id varchar(32) not null,
  address bytea not null,
  opted_out jsonb not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  unique (tenant_id, address));

-- Nobody but the owner sees the key: without it no number can be tried against the hashes.
create table app.suppression_key (key bytea not null);
insert into app.suppression_key select sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()));
"""

#: They run as the owner, so that the application can neither read the key nor forget to ask.
FUNCTIONS = """
create function app.suppressed(of_tenant text, reached text) returns bytea
language sql stable security definer set search_path = public, pg_temp as $$
  select sha256(k.key || sha256(k.key || convert_to(of_tenant || ' ' || reached, 'utf8'))) from app.suppression_key k
$$;

-- Remembers what a contact has opted out of for those of its numbers that it has lost, unless they are somebody's again.
create function app.suppress(of_tenant text, of_contact uuid, lost text[], goes boolean) returns void
language sql security definer set search_path = public, pg_temp as $$
  with contact as (
    select k.opted_out_at, k.opt_outs from contacts k where k.tenant_id = of_tenant and k.id = of_contact),
  said as (
    select jsonb_object_agg(one.category, one.at) as outs from (
      select o.key as category, coalesce(o.value -> 'last', o.value -> 'at') as at
      from contact, jsonb_each(contact.opt_outs) o where o.key <> 'all'
      union all
      select 'all', to_jsonb(greatest(contact.opted_out_at, (contact.opt_outs -> 'all' ->> 'last')::timestamptz))
      from contact where contact.opted_out_at is not null) one)
  insert into suppressions (id, tenant_id, address, opted_out)
  select app.uuid7(), of_tenant, app.suppressed(of_tenant, n.number), said.outs
  from said, unnest(lost) as n (number)
  where said.outs is not null and n.number is not null and not exists (
    select from contacts c where c.tenant_id = of_tenant and c.phone = n.number and not (goes and c.id = of_contact)
    union all
    select from contacts c where c.tenant_id = of_tenant and c.wa_user_id = n.number and not (goes and c.id = of_contact)
    union all
    select from phone_numbers p
    where p.tenant_id = of_tenant and p.phone = n.number and not (goes and p.contact_id = of_contact))
  on conflict (tenant_id, address) do update
  set opted_out = suppressions.opted_out || excluded.opted_out, updated_at = now()
$$;

-- Gives contacts back what was remembered of the numbers that they have gained, but what they have taken back since.
create function app.recall(of_tenants text[], of_contacts uuid[], gained text[]) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
declare one record;
begin
  if not exists (select from suppressions s where s.tenant_id = any (of_tenants)) then
    return;
  end if;
  for one in
    delete from suppressions s using unnest(of_tenants, of_contacts, gained) as g (tenant_id, contact_id, number)
    where s.tenant_id = g.tenant_id and s.address = app.suppressed(g.tenant_id, g.number)
    returning g.tenant_id, g.contact_id, s.opted_out
  loop
    with remembered as (
      select k.id, (
        select jsonb_object_agg(o.key, jsonb_build_object('at', o.value, 'source', 'remembered'))
        from jsonb_each(one.opted_out) o where not exists (
          select from jsonb_each(k.opt_ins) i
          where i.key in (o.key, 'all') and (i.value ->> 'at')::timestamptz > (o.value #>> '{}')::timestamptz)) as outs
      from contacts k where k.tenant_id = one.tenant_id and k.id = one.contact_id for no key update)
    update contacts k
    set opted_out_at = coalesce(k.opted_out_at, (r.outs -> 'all' ->> 'at')::timestamptz),
        opted_out_reason = case when k.opted_out_at is null and r.outs ? 'all' then 'remembered'
                                else k.opted_out_reason end,
        opt_outs = r.outs || k.opt_outs, updated_at = now()
    from remembered r where k.tenant_id = one.tenant_id and k.id = r.id and r.outs is not null;
  end loop;
end $$;

-- Whether a number that is no contact's has opted out of a category.
create function app.opted_out(of_tenant text, reached text, category text) returns boolean
language sql stable security definer set search_path = public, pg_temp as $$
  select exists (
    select from suppressions s
    where s.tenant_id = of_tenant and of_tenant = any (app.tenants())
    and s.address = app.suppressed(of_tenant, reached) and s.opted_out ?| array['all', category])
$$;
"""

#: A number's opt-out is in one place: with the contact that has the number, or here if none has. A tenant that is erased
#: leaves nothing.
TRIGGERS = """
create function app.contacts_reached() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  if tg_op = 'INSERT' then
    perform app.recall(array_agg(a.tenant_id), array_agg(a.id), array_agg(a.number)) from (
      select tenant_id, id, phone as number from added where phone is not null
      union all select tenant_id, id, wa_user_id from added where wa_user_id is not null) a;
    return null;
  elsif tg_op = 'UPDATE' then
    if new.opted_out_at is not null or new.opt_outs <> '{}' then
      perform app.suppress(old.tenant_id, old.id, array[old.phone, old.wa_user_id], false);
    end if;
    perform app.recall(array[new.tenant_id, new.tenant_id], array[new.id, new.id], array[new.phone, new.wa_user_id]);
    return null;
  end if;
  if (old.opted_out_at is not null or old.opt_outs <> '{}')
     and current_setting('app.erasing', true) is distinct from old.tenant_id then
    perform app.suppress(old.tenant_id, old.id, array[old.phone, old.wa_user_id] || array(
      select p.phone::text from phone_numbers p where p.tenant_id = old.tenant_id and p.contact_id = old.id), true);
  end if;
  return old;
end $$;
create trigger reached_added after insert on contacts referencing new table as added
  for each statement execute function app.contacts_reached();
create trigger reached_changed after update of phone, wa_user_id on contacts for each row
  when (old.phone is distinct from new.phone or old.wa_user_id is distinct from new.wa_user_id)
  execute function app.contacts_reached();
create trigger reached_gone before delete on contacts for each row execute function app.contacts_reached();

create function app.phone_numbers_reached() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  if tg_op <> 'INSERT' and current_setting('app.erasing', true) is distinct from old.tenant_id then
    perform app.suppress(old.tenant_id, old.contact_id, array[old.phone]::text[], false);
  end if;
  if tg_op <> 'DELETE' then
    perform app.recall(array[new.tenant_id], array[new.contact_id], array[new.phone]);
  end if;
  return null;
end $$;
create trigger reached_added after insert on phone_numbers for each row
  execute function app.phone_numbers_reached();
create trigger reached_changed after update of phone on phone_numbers for each row
  when (old.phone is distinct from new.phone) execute function app.phone_numbers_reached();
create trigger reached_gone after delete on phone_numbers for each row execute function app.phone_numbers_reached();
"""

MADE = (
    "app.suppressed(text, text)",
    "app.suppress(text, uuid, text[], boolean)",
    "app.recall(text[], uuid[], text[])",
    "app.opted_out(text, text, text)",
    "app.contacts_reached()",
    "app.phone_numbers_reached()",
)


def statements() -> list[str]:
    """Every statement of this migration, in order."""
    made = [TABLE, *secured("suppressions", owner_reads=True), *of_tenants("suppressions", grants="select")]
    made += ["create policy owner on phone_numbers to current_user using (true) with check (true)"]
    made += [FUNCTIONS, TRIGGERS, f"revoke all on function {', '.join(MADE)} from public"]
    return [*made, "grant execute on function app.opted_out(text, text, text) to harkara_app, harkara_worker"]


class Migration(migrations.Migration):
    """Suppressions."""

    dependencies = [("harkara", "0023_paused_campaigns")]
    operations: list[ops.Operation] = [ops.RunSQL(";\n".join(statements()), reverse_sql="")]
