"""Contacts that are found by what they have, their merges and imports, leads, and events that the front door tells."""

import functools
from json import dumps, loads

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from harkara.ids import uuid7
from harkara.storage.engine import current_tenant
from harkara.storage.tenancy import audited, of_tenants, refers, secured, tenant_table

#: What a contact is found by, one row each: under row-level security an index serves only `=` and `<` of plain columns,
#: not what looks into arrays, documents or texts. Triggers keep it, so no statement that writes contacts can forget it.
TERMS = """
create table contact_terms (
  tenant_id varchar(32) not null,
  term text collate "C" not null,
  contact_id uuid not null,
  primary key (tenant_id, term, contact_id));
create index contact_terms_contact on contact_terms (contact_id);

create function app.phone_terms(phone text) returns setof text language sql immutable parallel safe as $$
  select 'phone:' || substr(phone, 2) where phone is not null
  union all select 'enohp:' || reverse(substr(phone, 2)) where phone is not null $$;

create function app.contact_terms(name text, phone text, tags text[], attributes jsonb) returns setof text
language sql immutable parallel safe as $$
  select 'tag:' || tag from unnest(tags) tag
  union select 'attribute:' || left(key, 64) || e'\\x1f' || left(value, 200) from jsonb_each_text(attributes)
  where value is not null
  union select 'word:' || left(word, 64) from (select regexp_split_to_table(lower(name), '\\s+') limit 20) w (word)
  where word <> ''
  union select app.phone_terms(phone) $$;

-- Both look at contacts and further numbers as they are after the statement.
create function app.index_contacts(changed uuid[]) returns void language sql as $$
  with wanted as (
    select c.tenant_id, c.id, t.term
    from contacts c, app.contact_terms(c.name, c.phone, c.tags, c.attributes) t (term) where c.id = any (changed)
    union
    select p.tenant_id, p.contact_id, t.term
    from phone_numbers p, app.phone_terms(p.phone) t (term) where p.contact_id = any (changed)),
  gone as (
    delete from contact_terms k where k.contact_id = any (changed)
    and not exists (select from wanted w where w.id = k.contact_id and w.term = k.term))
  insert into contact_terms (tenant_id, term, contact_id) select tenant_id, term, id from wanted on conflict do nothing
$$;

create function app.on_contacts() returns trigger language plpgsql set search_path = public, pg_temp as $$
declare changed uuid[];
begin
  if tg_op = 'INSERT' then
    insert into contact_terms (tenant_id, term, contact_id)
    select c.tenant_id, t.term, c.id
    from added c, app.contact_terms(c.name, c.phone, c.tags, c.attributes) t (term) on conflict do nothing;
  elsif tg_op = 'DELETE' then
    delete from contact_terms where contact_id in (select id from gone);
  else
    select array_agg(a.id) into changed from added a join gone b on b.id = a.id
    where (a.name, a.phone, a.tags, a.attributes) is distinct from (b.name, b.phone, b.tags, b.attributes);
    if changed is not null then perform app.index_contacts(changed); end if;
  end if;
  return null;
end $$;
create trigger contacts_added after insert on contacts referencing new table as added
  for each statement execute function app.on_contacts();
create trigger contacts_changed after update on contacts referencing old table as gone new table as added
  for each statement execute function app.on_contacts();
create trigger contacts_gone after delete on contacts referencing old table as gone
  for each statement execute function app.on_contacts();

create function app.on_phone_numbers() returns trigger language plpgsql set search_path = public, pg_temp as $$
declare changed uuid[];
begin
  if tg_op <> 'INSERT' then select array_agg(distinct contact_id) into changed from gone; end if;
  if tg_op <> 'DELETE' then
    select changed || array_agg(distinct contact_id) into changed from added;
  end if;
  if changed is not null then perform app.index_contacts(changed); end if;
  return null;
end $$;
create trigger phone_numbers_added after insert on phone_numbers referencing new table as added
  for each statement execute function app.on_phone_numbers();
create trigger phone_numbers_changed after update on phone_numbers referencing old table as gone new table as added
  for each statement execute function app.on_phone_numbers();
create trigger phone_numbers_gone after delete on phone_numbers referencing old table as gone
  for each statement execute function app.on_phone_numbers();
"""

#: What contacts had before this migration. The owner's policy on contacts shows all of them; its own tables need one.
FILL = """
create policy filling on contact_terms to current_user using (true) with check (true);
create policy filling on phone_numbers to current_user using (true) with check (true);
insert into contact_terms (tenant_id, term, contact_id)
select c.tenant_id, t.term, c.id from contacts c, app.contact_terms(c.name, c.phone, c.tags, c.attributes) t (term)
union select p.tenant_id, t.term, p.contact_id from phone_numbers p, app.phone_terms(p.phone) t (term);
drop policy filling on contact_terms;
drop policy filling on phone_numbers;
"""

#: What a handler tells, written with what it did: an actor publishes it (docs/decisions/0022-the-door-tells-later.md).
OUTBOX = """
create table outbox (
  id uuid primary key,
  tenant_id varchar(32) not null,
  subject text not null,
  body text not null,
  name text not null,
  cause text not null,
  created_at timestamptz not null default now());

-- The oldest of all tenants; whoever commits this has published them.
create function app.take_outbox(most int)
returns table (tenant_id text, subject text, body text, name text, cause text)
language sql security definer set search_path = public, pg_temp as $$
  with due as materialized (select o.id from outbox o order by o.id limit most for update skip locked),
  taken as (delete from outbox o using due where o.id = due.id returning o.*)
  select t.tenant_id::text, t.subject, t.body, t.name, t.cause from taken t order by t.id
$$;
"""

INDEXES = """
create index contacts_opted_out on contacts (tenant_id, id) where opted_out_at is not null;
create index contacts_no_consent on contacts (tenant_id, id) where opted_in_at is null;
create index phone_numbers_contact on phone_numbers (contact_id);
create index leads_list on leads (tenant_id, id);
create index leads_contact on leads (tenant_id, contact_id, id);
create index leads_stage on leads (tenant_id, stage, id);
create index lead_changes_lead on lead_changes (tenant_id, lead_id, id);
create index contact_merges_contact on contact_merges (tenant_id, contact_id);
create index imports_list on imports (tenant_id, id);
create index import_faults_import on import_faults (tenant_id, import_id, id);
create index replies_contact on replies (tenant_id, contact_id, id);
create index conversations_contact on conversations (tenant_id, contact_id, id);
"""

CHECKS = """
alter table leads add constraint leads_stage_check
  check (stage in ('new', 'contacted', 'qualified', 'proposal', 'won', 'lost'));
alter table leads add constraint leads_score_check check (score between 0 and 100);
alter table imports add constraint imports_status_check
  check (status in ('receiving', 'queued', 'running', 'completed', 'cancelled'));
"""

#: Table, and whether others refer to it.
TABLES = (
    ("leads", True),
    ("lead_changes", False),
    ("contact_merges", False),
    ("imports", True),
    ("import_chunks", False),
    ("import_faults", False),
)

AUDITED = (("leads", "lead"), ("contact_merges", "contact_merge"), ("imports", "import"))

FOREIGN_KEYS = (
    ("leads", "contact_id", "contacts", "cascade"),
    ("lead_changes", "lead_id", "leads", "cascade"),
    ("contact_merges", "contact_id", "contacts", "cascade"),
    ("import_chunks", "import_id", "imports", "cascade"),
    ("import_faults", "import_id", "imports", "cascade"),
)

FUNCTIONS = (
    "app.phone_terms(text)",
    "app.contact_terms(text, text, text[], jsonb)",
    "app.index_contacts(uuid[])",
    "app.take_outbox(int)",
)


def statements() -> list[str]:
    """Every statement of this migration, in order."""
    made = [TERMS, OUTBOX, *secured("contact_terms"), *of_tenants("contact_terms"), FILL]
    made += [*secured("outbox", owner_reads=True), *of_tenants("outbox", grants="select, insert, delete")]
    for table, is_parent in TABLES:
        made += tenant_table(table, is_parent=is_parent)
    made += [refers(*key) for key in FOREIGN_KEYS]
    for table, entity in AUDITED:
        made += audited(table, entity)
    made += [INDEXES, CHECKS, "revoke all on all functions in schema app from public"]
    made += [f"grant execute on function {function} to harkara_app, harkara_worker" for function in FUNCTIONS]
    return made


class Migration(migrations.Migration):
    """Contacts, leads and imports."""

    dependencies = [("harkara", "0004_audit")]

    operations = [
        ops.CreateModel(
            name="ContactMerge",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
                ("tenant_id", fields.CharField(default=current_tenant, max_length=32)),
                ("contact_id", fields.UUIDField()),
            ],
            options={
                "table": "contact_merges",
                "app": "harkara",
                "pk_attr": "id",
                "table_description": "The contact with this id is part of `contact_id` now.",
            },
            bases=["TenantRow"],
        ),
        ops.CreateModel(
            name="Import",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
                ("tenant_id", fields.CharField(default=current_tenant, max_length=32)),
                ("status", fields.CharField(default="receiving", max_length=16)),
                ("filename", fields.TextField(null=True, unique=False)),
                ("encoding", fields.CharField(max_length=32)),
                ("delimiter", fields.CharField(max_length=1)),
                ("header", fields.JSONField(encoder=functools.partial(dumps, separators=(",", ":")), decoder=loads)),
                ("region", fields.CharField(null=True, max_length=2)),
                (
                    "acting",
                    fields.TextField(
                        default="", description="Who sent it, as the audit log notes what it changes.", unique=False
                    ),
                ),
                ("cause", fields.TextField(default="", unique=False)),
                ("read_at", fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ("rows", fields.IntField(default=0)),
                ("rows_done", fields.IntField(default=0)),
                ("chunks", fields.IntField(default=0)),
                ("created", fields.IntField(default=0)),
                ("updated", fields.IntField(default=0)),
                ("duplicates", fields.IntField(default=0)),
                ("errors", fields.IntField(default=0)),
                ("finished_at", fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={
                "table": "imports",
                "app": "harkara",
                "pk_attr": "id",
                "table_description": "A file of contacts that is stored piece by piece: how to read it, and how far it has come.",
            },
            bases=["TenantRow"],
        ),
        ops.CreateModel(
            name="ImportChunk",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
                ("tenant_id", fields.CharField(default=current_tenant, max_length=32)),
                ("import_id", fields.UUIDField()),
                ("number", fields.IntField()),
                ("rows", fields.TextField(unique=False)),
            ],
            options={
                "table": "import_chunks",
                "app": "harkara",
                "unique_together": (("tenant_id", "import_id", "number"),),
                "pk_attr": "id",
                "table_description": "Some rows of a file, as cells, that wait to be stored; gone when they are.",
            },
            bases=["TenantRow"],
        ),
        ops.CreateModel(
            name="ImportFault",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
                ("tenant_id", fields.CharField(default=current_tenant, max_length=32)),
                ("import_id", fields.UUIDField()),
                ("row", fields.IntField()),
                ("path", fields.TextField(unique=False)),
                ("message", fields.TextField(unique=False)),
            ],
            options={
                "table": "import_faults",
                "app": "harkara",
                "pk_attr": "id",
                "table_description": "What is wrong with one row of a file; ids are in the order of the rows.",
            },
            bases=["TenantRow"],
        ),
        ops.CreateModel(
            name="Lead",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
                ("tenant_id", fields.CharField(default=current_tenant, max_length=32)),
                ("contact_id", fields.UUIDField()),
                ("stage", fields.CharField(default="new", max_length=16)),
                ("score", fields.IntField(default=0)),
                ("source", fields.TextField(null=True, unique=False)),
            ],
            options={
                "table": "leads",
                "app": "harkara",
                "pk_attr": "id",
                "table_description": "What may become of a contact: how far it has come, and how promising it is from 0 to 100.",
            },
            bases=["TenantRow"],
        ),
        ops.CreateModel(
            name="LeadChange",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
                ("tenant_id", fields.CharField(default=current_tenant, max_length=32)),
                ("lead_id", fields.UUIDField()),
                ("by_user", fields.UUIDField(null=True)),
                ("by_key", fields.UUIDField(null=True)),
                (
                    "before",
                    fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(",", ":")), decoder=loads),
                ),
                ("after", fields.JSONField(encoder=functools.partial(dumps, separators=(",", ":")), decoder=loads)),
            ],
            options={
                "table": "lead_changes",
                "app": "harkara",
                "pk_attr": "id",
                "table_description": "Who changed what of a lead: `by_user` or `by_key`, and the columns that changed, before and after.",
            },
            bases=["TenantRow"],
        ),
        ops.AddField(
            model_name="Contact",
            name="import_id",
            field=fields.UUIDField(
                null=True,
                description="The import that wrote it last: a second row with its number in the same file is a repetition.",
            ),
        ),
        ops.RunSQL(";\n".join(statements()), reverse_sql=""),
    ]
