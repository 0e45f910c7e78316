"""An opt-out is of a line, whichever way its number is written; and user ids may be as long as WhatsApp makes them."""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

#: A longer `varchar` is no other data: nothing is written anew. Two letters of a country, perhaps ENT, and 128 characters.
LONGER = [
    ops.AlterField("Contact", "wa_user_id", fields.CharField(null=True, max_length=135)),
    ops.AlterField("Message", "to", fields.CharField(max_length=135)),
]

#: A column that a trigger names can't be changed under it.
WITHOUT_TRIGGER = "drop trigger reached_changed on contacts"
WITH_TRIGGER = """
create trigger reached_changed after update of phone, wa_user_id on contacts for each row
  when (old.phone is distinct from new.phone or old.wa_user_id is distinct from new.wa_user_id)
  execute function app.contacts_reached()"""

FUNCTIONS = (
    # As `harkara/values.py:spellings`.
    r"""
create function app.spellings(number text) returns text[] language plpgsql immutable parallel safe as $$
declare
  line text[];
  found text[];
begin
  if left(number, 3) in ('+52', '+54', '+55') then
    foreach line slice 1 in array array[
      ['^(\+55[0-9]{2})(9?)([6-9][0-9]{7})$', '9'], ['^(\+52)(1?)([2-9][0-9]{9})$', '1'],
      ['^(\+54)(9?)([1-8][0-9]{9})$', '9']] loop
      found := regexp_match(number, line[1]);
      if found is not null then
        return array[number, found[1] || case when found[2] = '' then line[2] else '' end || found[3]];
      end if;
    end loop;
  end if;
  return array[number];
end $$""",
    # The other contacts that have one of a contact's numbers in another spelling.
    """
create function app.same_line(of_tenant text, of_contact uuid) returns setof uuid
language plpgsql stable rows 1 as $$
declare
  others text[] := array(
    select s.spelled from (
      select c.phone from contacts c where c.tenant_id || '' = of_tenant and c.id = of_contact
      union all
      select p.phone from phone_numbers p where p.tenant_id || '' = of_tenant and p.contact_id = of_contact) n
    cross join unnest((app.spellings(n.phone))[2:]) as s (spelled));
begin
  if others <> '{}' then
    return query select distinct o.id from unnest(others) as n (phone) cross join lateral (
      select c.id from contacts c where c.tenant_id = of_tenant and c.phone = n.phone
      union all
      select p.contact_id from phone_numbers p where p.tenant_id = of_tenant and p.phone = n.phone) o
    where o.id <> of_contact;
  end if;
end $$""",
    # When a contact has opted out of each category last; null of none.
    """
create function app.outs(k contacts) returns jsonb
language sql stable set search_path = public, pg_temp as $$
  select jsonb_object_agg(one.category, one.at) from (
    select o.key as category, coalesce(o.value -> 'last', o.value -> 'at') as at
    from jsonb_each(k.opt_outs) o where o.key <> 'all'
    union all
    select 'all', to_jsonb(greatest(k.opted_out_at, (k.opt_outs -> 'all' ->> 'last')::timestamptz))
    where k.opted_out_at is not null) one
$$""",
    # Gives contacts what was remembered of the numbers that they have gained, in any spelling, and what another contact
    # with the same line has opted out of; but not what they have taken back since. Whoever is just saying STOP there is
    # waited for. The others are looked for all at once: a plan made while the table was empty reads a whole tenant for it.
    """
create or replace function app.recall(of_tenants text[], of_contacts uuid[], gained text[]) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  one record;
  otherwise text[] := array(select unnest((app.spellings(g.number))[2:]) from unnest(gained) as g (number));
begin
  if otherwise = '{}' and not exists (select from suppressions s where s.tenant_id = any (of_tenants)) then
    return;
  end if;
  for one in
    with gains as (
      select g.tenant_id, g.contact_id, g.number, s.spelled
      from unnest(of_tenants, of_contacts, gained) as g (tenant_id, contact_id, number)
      cross join unnest(app.spellings(g.number)) as s (spelled)),
    taken as (
      delete from suppressions s using gains g
      where s.tenant_id = g.tenant_id and s.address = app.suppressed(g.tenant_id, g.spelled)
      returning g.tenant_id, g.contact_id, s.opted_out),
    others as materialized (
      select c.tenant_id, c.phone, c.id from contacts c
      where c.tenant_id = any (of_tenants) and c.phone = any (otherwise)
      union all
      select p.tenant_id, p.phone, p.contact_id from phone_numbers p
      where p.tenant_id = any (of_tenants) and p.phone = any (otherwise)),
    same as (
      select g.tenant_id, g.contact_id, app.outs(c) as opted_out
      from gains g join others o on o.tenant_id = g.tenant_id and o.phone = g.spelled
      join contacts c on c.tenant_id || '' = g.tenant_id and c.id = o.id
      where g.spelled <> g.number and o.id <> g.contact_id order by c.id for share of c)
    select * from taken union all select * from same where opted_out is not null
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
end $$""",
    # Whether whoever has this number, in any spelling, has opted out of a category; also if they are a contact by now.
    """
create or replace function app.opted_out(of_tenant text, reached text, category text) returns boolean
language plpgsql stable security definer set search_path = public, pg_temp as $$
declare
  numbers text[] := app.spellings(reached);
begin
  return of_tenant = any (app.tenants()) and (
    exists (
      select from unnest(numbers) as n (phone)
      join suppressions s on s.tenant_id = of_tenant and s.address = app.suppressed(of_tenant, n.phone)
      where s.opted_out ?| array['all', category])
    or exists (
      select from unnest(numbers) as n (phone) cross join lateral (
        select c.opted_out_at, c.opt_outs from contacts c where c.tenant_id = of_tenant and c.phone = n.phone
        union all
        select c.opted_out_at, c.opt_outs
        from phone_numbers p join contacts c on c.tenant_id = p.tenant_id and c.id = p.contact_id
        where p.tenant_id = of_tenant and p.phone = n.phone) o
      where o.opted_out_at is not null or o.opt_outs ? category));
end $$""",
    "revoke all on function app.spellings(text), app.same_line(text, uuid), app.outs(contacts) from public",
    "grant execute on function app.spellings(text), app.same_line(text, uuid) to harkara_app, harkara_worker",
)


class Migration(migrations.Migration):
    """One line, however its number is written."""

    dependencies = [("harkara", "0031_quotes")]
    operations: list[ops.Operation] = [
        ops.RunSQL(WITHOUT_TRIGGER, reverse_sql=""),
        *LONGER,
        ops.RunSQL(";\n".join((WITH_TRIGGER, *FUNCTIONS)), reverse_sql=""),
    ]
