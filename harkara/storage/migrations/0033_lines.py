"""A line is found by any spelling of its number, and by one transaction at a time; names are found without accents."""

from tortoise import migrations
from tortoise.migrations import operations as ops

#: A claim is a row that its transaction takes away again before it ends, so nobody ever sees one: whoever writes the
#: same waits for that end. Unlike locks of the server's there may be as many as a file has rows. Nothing of it is worth
#: a log.
CLAIMS = (
    "create unlogged table app.line_claims (line text primary key)",
    # In one order, so that two who claim the same lines don't block each other.
    """
create function app.claim_lines(of_tenants text[], lines text[]) returns void
language plpgsql security definer set search_path = public, pg_temp
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off as $$
declare
  claimed text[] := array(
    select distinct c.tenant_id || ' ' || c.line from unnest(of_tenants, lines) as c (tenant_id, line)
    where c.tenant_id = any (app.tenants()) order by 1);
begin
  insert into app.line_claims (line) select unnest(claimed) on conflict do nothing;
  delete from app.line_claims where line = any (claimed);
end $$""",
)

#: The contacts that have a number, in any spelling, those with this very one first. It becomes part of the statement that
#: asks, whose policies it has. A plan that is made before a table has statistics takes a tenant for hardly any rows, and
#: reads them all: by an index that only begins with the tenant, or once for a whole join. So it asks the terms, which have
#: but one index that begins with the tenant, and `offset 0` keeps it from being a join.
LINE = """
create function app.line(of_tenant text, number text) returns table (contact_id uuid, phone text)
language sql stable parallel safe rows 1 as $$
  select t.contact_id, '+' || substr(s.term, 7)
  from unnest(string_to_array(replace('phone:' || array_to_string(app.spellings(number), ' phone:'), '+', ''), ' '))
    with ordinality as s (term, place)
  cross join lateral (
    select k.contact_id from contact_terms k where k.tenant_id = of_tenant and k.term = s.term offset 0) t
  order by s.place
$$"""

#: Whoever loses a number of a line that another contact has leaves its opt-out to that one: the newest word counts.
SUPPRESS = """
create or replace function app.suppress(of_tenant text, of_contact uuid, lost text[], goes boolean) returns void
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  others uuid[];
  theirs text[];
begin
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
  set opted_out = suppressions.opted_out || excluded.opted_out, updated_at = now();
  select array_agg(o.id), array_agg(o.phone) into others, theirs
  from unnest(lost) as n (number) cross join unnest((app.spellings(n.number))[2:]) as s (phone) cross join lateral (
    select c.id, c.phone from contacts c where c.tenant_id = of_tenant and c.phone = s.phone
    union all
    select p.contact_id, p.phone from phone_numbers p where p.tenant_id = of_tenant and p.phone = s.phone) o
  where o.id <> of_contact;
  if others is not null then
    perform app.recall(array_fill(of_tenant, array[cardinality(others)]), others, theirs);
  end if;
end $$"""

#: How words are compared: small letters without accents. What accents are made of is in one block of Unicode: the signs
#: of other scripts, which make another word, stay. The last letters have no accent that could be taken away.
FOLDED = r"""
create function app.folded(words text) returns text language sql immutable parallel safe as $$
  select replace(replace(replace(translate(
    lower(regexp_replace(normalize(words, nfkd), '[\u0300-\u036f]', '', 'g')),
    'øØłŁđĐħĦıς', 'oollddhhiσ'), 'ß', 'ss'), 'æ', 'ae'), 'œ', 'oe')
$$"""

TERMS = r"""
create or replace function app.contact_terms(name text, phone text, tags text[], attributes jsonb) returns setof text
language sql immutable parallel safe as $$
  select 'tag:' || tag from unnest(tags) tag
  union select 'attribute:' || left(key, 64) || e'\x1f' || left(value, 200) from jsonb_each_text(attributes)
  where value is not null
  union select 'word:' || left(word, 64) from (select regexp_split_to_table(app.folded(name), '\s+') limit 20) w (word)
  where word <> ''
  union select app.phone_terms(phone) $$"""

#: Terms that there are. A policy for it would lock the table against everybody, so each tenant's are seen as when it is
#: erased. Only words with other than plain letters are touched.
REFOLD = r"""
do $$
declare of text;
begin
  for of in select id from tenants loop
    perform set_config('app.erasing', of, true);
    insert into contact_terms (tenant_id, term, contact_id)
    select t.tenant_id, app.folded(t.term), t.contact_id from contact_terms t
    where t.tenant_id = of and t.term >= 'word:' and t.term < 'word;' and t.term ~ '[^\x01-\x7f]'
    on conflict do nothing;
    delete from contact_terms t
    where t.tenant_id = of and t.term >= 'word:' and t.term < 'word;' and t.term ~ '[^\x01-\x7f]'
    and t.term <> app.folded(t.term);
  end loop;
  perform set_config('app.erasing', '', true);
end $$"""

FOR_ALL = "app.claim_lines(text[], text[]), app.line(text, text), app.folded(text)"

STATEMENTS = (
    *CLAIMS,
    LINE,
    SUPPRESS,
    FOLDED,
    TERMS,
    REFOLD,
    f"revoke all on function {FOR_ALL} from public",
    f"grant execute on function {FOR_ALL} to harkara_app, harkara_worker",
)


class Migration(migrations.Migration):
    """Lines, and names without accents."""

    dependencies = [("harkara", "0032_one_line")]
    operations: list[ops.Operation] = [ops.RunSQL(";\n".join(STATEMENTS), reverse_sql="")]
