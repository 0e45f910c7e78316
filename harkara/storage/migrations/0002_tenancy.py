"""What Tortoise can't say: the application's role, row-level security, composite keys, partitions, and the few functions
that see across tenants.

Three roles matter. The owner runs migrations and owns everything. `harkara_app` owns nothing; every statement of the
application runs as it, and forced row-level security shows it only the rows of the tenants that its transaction named.
For the length of an actor's batch it becomes `harkara_worker`, which sees exactly the same rows by a policy that no index
serves: such statements find every row by its id, and the planner must not be offered a tenant's whole index instead
(docs/decisions says why).
"""

from tortoise import migrations
from tortoise.migrations import operations as ops

from harkara.storage.tenancy import of_tenants, refers, secured, timed

TENANT_TABLES = (
    "tenant_users",
    "api_keys",
    "senders",
    "contacts",
    "phone_numbers",
    "campaigns",
    "campaign_versions",
    "campaign_steps",
    "contact_campaign_progress",
    "messages",
    "conversations",
    "replies",
)
TABLES = (*TENANT_TABLES, "tenants", "users", "refresh_tokens")

#: Tables that the functions below read or write for no tenant in particular; their owner may, nobody else.
OWNER_READS = (
    "tenants",
    "users",
    "tenant_users",
    "refresh_tokens",
    "senders",
    "contacts",
    "campaigns",
    "contact_campaign_progress",
)

#: child, column, parent, what happens to the child when the parent goes
FOREIGN_KEYS = (
    ("tenant_users", "user_id", "users", "cascade"),
    ("phone_numbers", "contact_id", "contacts", "cascade"),
    ("campaigns", "sender_id", "senders", "restrict"),
    ("campaign_versions", "campaign_id", "campaigns", "cascade"),
    ("campaign_steps", "version_id", "campaign_versions", "cascade"),
    ("contact_campaign_progress", "contact_id", "contacts", "cascade"),
    ("contact_campaign_progress", "campaign_id", "campaigns", "cascade"),
    ("contact_campaign_progress", "version_id", "campaign_versions", "restrict"),
    ("messages", "contact_id", "contacts", "set null (contact_id)"),
    ("messages", "sender_id", "senders", "restrict"),
    ("conversations", "contact_id", "contacts", "cascade"),
    ("conversations", "sender_id", "senders", "cascade"),
    ("replies", "conversation_id", "conversations", "cascade"),
    ("replies", "contact_id", "contacts", "cascade"),
)

CHECKS = (
    ("tenants", "slug", "id ~ '^[a-z][a-z0-9-]{1,30}[a-z0-9]$'"),
    ("tenant_users", "role", "role in ('owner','admin','agent','viewer')"),
    ("senders", "provider", "provider in ('cloud','evolution','waha','sandbox')"),
    ("senders", "status", "status in ('active','paused','blocked')"),
    ("senders", "rate", "mps between 1 and 10000"),
    ("campaigns", "type", "type in ('drip','broadcast')"),
    ("campaigns", "status", "status in ('draft','active','paused','archived')"),
    ("campaign_steps", "delay", "delay_hours >= 0"),
    ("contacts", "phone", r"phone ~ '^\+[1-9][0-9]{5,14}$'"),
    ("contact_campaign_progress", "status", "status in ('active','completed','stopped','paused','failed')"),
    (
        "messages",
        "status",
        "status in ('queued','sending','unknown','sent','delivered','read','failed','suppressed')",
    ),
)

#: Defaults for the statements that are written by hand; Tortoise fills them itself.
DEFAULTS = (
    ("tenants", "plan", "'standard'"),
    ("tenants", "timezone", "'UTC'"),
    ("tenants", "is_active", "true"),
    ("contacts", "name", "''"),
    ("contacts", "tags", "'{}'"),
    ("contacts", "attributes", "'{}'"),
    ("contacts", "consent_categories", "'{}'"),
    ("contact_campaign_progress", "status", "'active'"),
    ("contact_campaign_progress", "cause", "''"),
    ("contact_campaign_progress", "current_step", "0"),
    ("contact_campaign_progress", "messages_sent", "0"),
    ("conversations", "status", "'open'"),
)

ROLES = """
do $$ begin
  if not exists (select from pg_roles where rolname = 'harkara_app') then
    create role harkara_app nologin noinherit;
  end if;
  if not exists (select from pg_roles where rolname = 'harkara_worker') then
    create role harkara_worker nologin;
  end if;
  -- Did it inherit, each of its own queries would carry the worker's policies too, which no index serves.
  if pg_has_role('harkara_app', 'harkara_worker', 'usage') then
    alter role harkara_app noinherit;
    revoke harkara_worker from harkara_app;
  end if;
  if not pg_has_role('harkara_app', 'harkara_worker', 'member') then
    grant harkara_worker to harkara_app;
  end if;
exception when insufficient_privilege then
  raise exception 'this user may not make the application''s roles: as an administrator run CREATE ROLE harkara_app LOGIN NOINHERIT PASSWORD ''…''; CREATE ROLE harkara_worker; GRANT harkara_worker TO harkara_app; and migrate again';
end $$;
create schema if not exists app;
grant usage on schema app to harkara_app, harkara_worker;
grant usage on schema public to harkara_app, harkara_worker;
"""

TENANT_FUNCTIONS = """
create function app.tenants() returns text[] language sql stable parallel safe
  return string_to_array(nullif(current_setting('app.tenant_ids', true), ''), ',');
create function app.tenant() returns text language sql stable parallel safe
  return case when cardinality(app.tenants()) = 1 then (app.tenants())[1] end;
"""

MESSAGES = """
create table messages (
  id uuid primary key,
  tenant_id varchar(32) not null,
  contact_id uuid,
  sender_id uuid not null,
  campaign_id uuid,
  enrollment_id uuid,
  step int,
  lane varchar(16) not null,
  "to" varchar(64) not null,
  content jsonb not null,
  status varchar(16) not null,
  reason text,
  error_code int,
  wamid varchar(128),
  cause text not null default '',
  attempts int not null default 0,
  pricing jsonb,
  due_at timestamptz not null,
  attempted_at timestamptz,
  sent_at timestamptz,
  delivered_at timestamptz,
  read_at timestamptz,
  failed_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
) partition by range (id);
create index messages_tenant on messages (tenant_id, id);
create index messages_contact on messages (tenant_id, contact_id, id);
create index messages_campaign on messages (tenant_id, campaign_id, id) where campaign_id is not null;
create index messages_wamid on messages (wamid) where wamid is not null;
"""

PARTITIONS = """
create function app.uuid7_floor(at timestamptz) returns uuid language sql immutable parallel safe as $$
  select (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0') || '70008000000000000000')::uuid $$;

create function app.ensure_partitions(parent text, first date, months int) returns int
language plpgsql set search_path = public, pg_temp as $$
declare month date; part text; made int := 0;
begin
  for i in 0 .. months - 1 loop
    month := (date_trunc('month', first) + make_interval(months => i))::date;
    part := format('%s_%s', parent, to_char(month, 'YYYYMM'));
    continue when to_regclass(part) is not null;
    execute format('create table %I partition of %I for values from (%L) to (%L) with (fillfactor = 80)',
                   part, parent, app.uuid7_floor(month), app.uuid7_floor((month + interval '1 month')::date));
    made := made + 1;
  end loop;
  return made;
end $$;

-- Few partitions at a time: every one of them is planned for in every statement. The ticker calls this daily.
create function app.prepare_months(ahead int) returns int
language sql security definer set search_path = public, pg_temp as $$
  select app.ensure_partitions('messages', (now() - interval '1 month')::date, ahead + 2)
$$;
select app.prepare_months(3);
"""

#: The tenants themselves and the people who work for them: no tenant's own rows, so they are written by hand.
PEOPLE = """
create policy tenant on tenants to harkara_app
  using (id = any ((select app.tenants())::text[])) with check (id = any ((select app.tenants())::text[]));
create policy batch on tenants for select to harkara_worker using (id || '' = any ((select app.tenants())::text[]));
grant select, update on tenants to harkara_app;
grant select on tenants to harkara_worker;
create policy colleagues on users to harkara_app
  using (id in (select user_id from tenant_users)) with check (id in (select user_id from tenant_users));
grant select, update on users to harkara_app;
"""

INDEXES = """
alter table contact_campaign_progress set (fillfactor = 80);
create index progress_due on contact_campaign_progress (next_claim_at) where status = 'active';
create index progress_campaign on contact_campaign_progress (tenant_id, campaign_id, id);
create index contacts_list on contacts (tenant_id, id);
create index replies_conversation on replies (tenant_id, conversation_id, id);
create index refresh_family on refresh_tokens (family);
"""

#: What may be asked before a tenant is known, or for all tenants at once. Each answers with as little as its caller needs.
ACROSS_TENANTS = """
create function app.signup(tenant text, tenant_name text, user_id uuid, mail text, hash text, member uuid) returns void
language sql security definer set search_path = public, pg_temp as $$
  insert into tenants (id, name) values (tenant, tenant_name);
  insert into users (id, email, name, password_hash, is_active) values (user_id, lower(mail), '', hash, true);
  insert into tenant_users (id, tenant_id, user_id, role, is_active) values (member, tenant, user_id, 'owner', true);
$$;

create function app.login(mail text) returns table (user_id uuid, password_hash text)
language sql stable security definer set search_path = public, pg_temp as $$
  select id, password_hash from users where email = lower(mail) and is_active
$$;

create function app.memberships(member uuid)
returns table (tenant_id text, tenant_name text, role text)
language sql stable security definer set search_path = public, pg_temp as $$
  select m.tenant_id, t.name, m.role
  from tenant_users m join tenants t on t.id = m.tenant_id join users u on u.id = m.user_id
  where m.user_id = member and m.is_active and u.is_active and t.is_active order by m.tenant_id
$$;

create function app.refresh_issue(token uuid, owner uuid, of_family uuid, until timestamptz) returns void
language sql security definer set search_path = public, pg_temp as $$
  insert into refresh_tokens (id, user_id, family, expires_at) values (token, owner, of_family, until)
$$;

-- Uses a token once and puts the next in its place. A token that was used before is stolen or replayed: its whole family dies.
create function app.refresh_rotate(token uuid, next_token uuid, until timestamptz) returns uuid
language plpgsql security definer set search_path = public, pg_temp as $$
declare row refresh_tokens;
begin
  select * into row from refresh_tokens where id = token for update;
  if not found or row.revoked_at is not null or row.expires_at < now() then return null; end if;
  if row.used_at is not null then
    update refresh_tokens set revoked_at = now() where family = row.family and revoked_at is null;
    return null;
  end if;
  update refresh_tokens set used_at = now() where id = token;
  insert into refresh_tokens (id, user_id, family, expires_at) values (next_token, row.user_id, row.family, until);
  return row.user_id;
end $$;

create function app.refresh_revoke(token uuid) returns void
language sql security definer set search_path = public, pg_temp as $$
  update refresh_tokens set revoked_at = now()
  where family = (select family from refresh_tokens where id = token) and revoked_at is null
$$;

create function app.sender_tenant(sender uuid) returns text
language sql stable security definer set search_path = public, pg_temp as $$
  select s.tenant_id from senders s join tenants t on t.id = s.tenant_id where s.id = sender and t.is_active
$$;

-- Takes the steps that fall due within `horizon`, soonest first, and holds each for `lease`. A step whose campaign is not
-- active is set aside until the campaign is resumed, and comes without a sender. Campaigns are held meanwhile, because one
-- that is resumed at this moment would never find what is set aside; steps of those that somebody changes now are left for
-- the next time. The limit is written into the statement because a plan made for an unknown limit reads the whole table.
create function app.claim_due(most int, horizon interval, lease interval)
returns table (enrollment_id uuid, tenant_id text, campaign_id uuid, contact_id uuid, message_id uuid, step int,
               step_id uuid, due_at timestamptz, cause text, sender_id uuid, phone text, name text, locale text, attributes text)
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  return query execute format($q$
    with due as materialized (
      select p.id, p.campaign_id from contact_campaign_progress p
      where p.status = 'active' and p.next_claim_at <= now() + $1
      order by p.next_claim_at limit %s for no key update skip locked),
    campaign as materialized (
      select c.id, case when c.status = 'active' then c.sender_id end as sender_id from campaigns c
      where c.id in (select due.campaign_id from due) for share skip locked),
    claimed as (
      update contact_campaign_progress p
      set next_claim_at = case when c.sender_id is not null then now() + $1 + $2 else 'infinity' end
      from due, campaign c
      where p.id = due.id and c.id = due.campaign_id
      returning p.id, p.tenant_id, p.campaign_id, p.contact_id, p.next_message_id, p.current_step, p.next_step_id,
                p.next_step_scheduled_at, p.cause, c.sender_id)
    select d.id, d.tenant_id::text, d.campaign_id, d.contact_id, d.next_message_id, d.current_step, d.next_step_id,
           d.next_step_scheduled_at, d.cause, d.sender_id, coalesce(k.phone, k.wa_user_id)::text, k.name, k.locale::text, k.attributes::text
    from claimed d join contacts k on k.id = d.contact_id
    order by d.next_step_scheduled_at $q$, most)
  using horizon, lease;
end $$;
"""

FUNCTIONS = (
    "app.tenants()",
    "app.tenant()",
    "app.uuid7_floor(timestamptz)",
    "app.prepare_months(int)",
    "app.signup(text, text, uuid, text, text, uuid)",
    "app.login(text)",
    "app.memberships(uuid)",
    "app.refresh_issue(uuid, uuid, uuid, timestamptz)",
    "app.refresh_rotate(uuid, uuid, timestamptz)",
    "app.refresh_revoke(uuid)",
    "app.sender_tenant(uuid)",
    "app.claim_due(int, interval, interval)",
)


def statements() -> list[str]:
    """Every statement of this migration, in order."""
    parents = {parent for _, _, parent, _ in FOREIGN_KEYS}
    made = [ROLES, TENANT_FUNCTIONS, MESSAGES]
    for table in TABLES:
        made += [timed(table)] if table != "messages" else []
        made += secured(table, owner_reads=table in OWNER_READS)
    for table in TENANT_TABLES:
        made += of_tenants(table, is_parent=table in parents)
    made.append(PEOPLE)
    made += [refers(*key) if key[2] != "users" else member(*key) for key in FOREIGN_KEYS]
    made += [f"alter table {table} add constraint {table}_{name}_check check ({rule})" for table, name, rule in CHECKS]
    made += [f"alter table {table} alter column {column} set default {value}" for table, column, value in DEFAULTS]
    made += [INDEXES, PARTITIONS, ACROSS_TENANTS, "revoke all on all functions in schema app from public"]
    made += [f"grant execute on function {function} to harkara_app, harkara_worker" for function in FUNCTIONS]
    return made


def member(child: str, column: str, parent: str, on_delete: str) -> str:
    """A foreign key to what belongs to no tenant."""
    return (
        f"alter table {child} add constraint {child}_{column}_fk foreign key ({column}) references {parent} (id)"
        f" on delete {on_delete}"
    )


class Migration(migrations.Migration):
    """Tenancy, in the database."""

    dependencies = [("harkara", "0001_initial")]
    # One operation: Tortoise builds the state of all models anew after each.
    operations = [ops.RunSQL(";\n".join(statements()), reverse_sql="")]
