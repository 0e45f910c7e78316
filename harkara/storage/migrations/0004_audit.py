"""The audit log and the keys of requests that came before."""

import functools
from json import dumps, loads

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

from harkara.ids import uuid7
from harkara.storage.engine import current_tenant
from harkara.storage.partitions import StateOnly
from harkara.storage.tenancy import audited, of_tenants, secured, tenant_table

#: Few messages are in these. Both are left with a write that renews every index of the row anyway (the one that brings
#: WhatsApp's id, or the failure), so receipts stay as cheap as they were.
MESSAGES_IN_THE_WAY = """
create index if not exists messages_not_sent on messages (tenant_id, id) where sent_at is null;
create index if not exists messages_failed on messages (tenant_id, id) where failed_at is not null;
"""

AUDIT_LOG = """
create table audit_log (
  id uuid primary key,
  tenant_id varchar(32) not null,
  user_id uuid,
  api_key_id uuid,
  action varchar(32) not null,
  entity varchar(32) not null,
  entity_id varchar(64),
  request_id text not null,
  address text not null,
  via text not null,
  before jsonb,
  after jsonb,
  created_at timestamptz not null default now()
) partition by range (id);
create index audit_log_tenant on audit_log (tenant_id, id);
create index audit_log_entity on audit_log (tenant_id, entity, id);
create index audit_log_entity_id on audit_log (tenant_id, entity_id, id) where entity_id is not null;
create index audit_log_user on audit_log (tenant_id, user_id, id) where user_id is not null;
create index audit_log_api_key on audit_log (tenant_id, api_key_id, id) where api_key_id is not null;
"""

#: Called daily: it prepares all that is partitioned.
PARTITIONS = """
create or replace function app.prepare_months(ahead int) returns int
language sql security definer set search_path = public, pg_temp as $$
  select sum(app.ensure_partitions(parent, (now() - interval '1 month')::date, ahead + 2))::int
  from unnest(array['messages', 'audit_log']) as parent
$$;
select app.prepare_months(3);
"""

#: A statement's changes are noted by one statement. On an update only what changed is noted, and an update that changed
#: nothing but its time is none. Rows that fall with their parent are noted too.
AUDIT = """
create function app.uuid7() returns uuid language sql volatile parallel safe as $$
  select encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing
    substring(int8send((extract(epoch from clock_timestamp()) * 1000)::bigint) from 3) from 1 for 6), 52, 1), 53, 1),
    'hex')::uuid $$;

create function app.masked(row_ jsonb, hidden text[]) returns jsonb language sql immutable parallel safe as $$
  select row_ - '{tenant_id,updated_at}'::text[] || coalesce(
    (select jsonb_object_agg(name, '…') from unnest(hidden) as name where row_ ->> name is not null), '{}') $$;

create function app.changed(row_ jsonb, other jsonb) returns jsonb language sql immutable parallel safe as $$
  select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(row_) where value is distinct from other -> key $$;

create function app.audit() returns trigger language plpgsql set search_path = public, pg_temp as $$
declare
  actor jsonb := current_setting('app.actor')::jsonb;
  hidden text[] := tg_argv[3:];
  verb text := lower(tg_op);
begin
  if verb = 'insert' then
    insert into audit_log (id, tenant_id, user_id, api_key_id, action, entity, entity_id, request_id, address, via, after)
    select app.uuid7(), coalesce(row_ ->> tg_argv[2], app.tenant()), (actor ->> 'user_id')::uuid, (actor ->> 'api_key_id')::uuid,
           'create', tg_argv[0], row_ ->> tg_argv[1], actor ->> 'request_id', actor ->> 'address', actor ->> 'via',
           app.masked(row_, hidden)
    from (select to_jsonb(f) as row_ from fresh f) one
    where coalesce(row_ ->> tg_argv[2], app.tenant()) is not null;
  elsif verb = 'delete' then
    insert into audit_log (id, tenant_id, user_id, api_key_id, action, entity, entity_id, request_id, address, via, before)
    select app.uuid7(), coalesce(row_ ->> tg_argv[2], app.tenant()), (actor ->> 'user_id')::uuid, (actor ->> 'api_key_id')::uuid,
           'delete', tg_argv[0], row_ ->> tg_argv[1], actor ->> 'request_id', actor ->> 'address', actor ->> 'via',
           app.masked(row_, hidden)
    from (select to_jsonb(g) as row_ from gone g) one
    where coalesce(row_ ->> tg_argv[2], app.tenant()) is not null;
  else
    insert into audit_log (id, tenant_id, user_id, api_key_id, action, entity, entity_id, request_id, address, via, before, after)
    select app.uuid7(), coalesce(row_ ->> tg_argv[2], app.tenant()), (actor ->> 'user_id')::uuid, (actor ->> 'api_key_id')::uuid,
           'update', tg_argv[0], row_ ->> tg_argv[1], actor ->> 'request_id', actor ->> 'address', actor ->> 'via',
           app.masked(app.changed(old_row, row_), hidden), app.masked(app.changed(row_, old_row), hidden)
    from (select to_jsonb(g) as old_row, to_jsonb(f) as row_ from gone g join fresh f on f.id = g.id) one
    where coalesce(row_ ->> tg_argv[2], app.tenant()) is not null
      and old_row - 'updated_at' is distinct from row_ - 'updated_at';
  end if;
  return null;
end $$;

-- A person who is erased for good must not live on in what was noted of them: who did what and when stays.
create function app.audit_forget(entities text[]) returns int
language sql security definer set search_path = public, pg_temp as $$
  with gone as (
    update audit_log set before = case when before is not null then '{}'::jsonb end,
                         after = case when after is not null then '{}'::jsonb end
    where tenant_id = app.tenant() and entity_id = any (entities) returning 1)
  select count(*)::int from gone
$$;
"""

#: Keys of requests that belong to no tenant yet: signing up, logging in. Reached by the functions below alone.
ANONYMOUS_KEYS = """
create table anonymous_keys (
  id uuid primary key,
  key bytea not null unique,
  fingerprint bytea not null,
  answer bytea,
  created_at timestamptz not null default now()
);
"""

KEYS = """
create index idempotency_keys_age on idempotency_keys (created_at);
create index anonymous_keys_age on anonymous_keys (created_at);

create function app.key_reserve(of_key bytea, seed uuid, print bytea) returns void
language sql security definer set search_path = public, pg_temp as $$
  insert into anonymous_keys (id, key, fingerprint) values (seed, of_key, print) on conflict do nothing
$$;

create function app.key_lock(of_key bytea) returns table (id uuid, fingerprint bytea, answer bytea, old boolean)
language sql security definer set search_path = public, pg_temp as $$
  select k.id, k.fingerprint, k.answer, k.created_at < now() - interval '24 hours'
  from anonymous_keys k where k.key = of_key for update
$$;

create function app.key_answer(seed uuid, given bytea) returns void
language sql security definer set search_path = public, pg_temp as $$
  update anonymous_keys set answer = given where id = seed
$$;

create function app.key_release(seed uuid) returns void
language sql security definer set search_path = public, pg_temp as $$
  delete from anonymous_keys where id = seed
$$;

-- A bounded number at a time, so that nobody waits for it.
create function app.forget_keys(most int) returns int
language sql security definer set search_path = public, pg_temp as $$
  with old as (select id from idempotency_keys where created_at < now() - interval '24 hours' order by created_at limit most
               for update skip locked),
  older as (select id from anonymous_keys where created_at < now() - interval '24 hours' order by created_at limit most
            for update skip locked),
  gone as (delete from idempotency_keys k using old where k.id = old.id returning 1),
  gone_too as (delete from anonymous_keys k using older where k.id = older.id returning 1)
  select ((select count(*) from gone) + (select count(*) from gone_too))::int
$$;
"""

FUNCTIONS = (
    "app.uuid7()",
    "app.masked(jsonb, text[])",
    "app.changed(jsonb, jsonb)",
    "app.audit()",
    "app.audit_forget(text[])",
    "app.key_reserve(bytea, uuid, bytea)",
    "app.key_lock(bytea)",
    "app.key_answer(uuid, bytea)",
    "app.key_release(uuid)",
    "app.forget_keys(int)",
)

SENDERS_SECRETS = ("access_token", "app_secret", "verify_token")


def statements() -> list[str]:
    """Every statement of this migration, in order."""
    made = [MESSAGES_IN_THE_WAY, AUDIT_LOG]
    made += secured("audit_log", owner_reads=True)  # for its partitions nobody has a grant
    made += of_tenants("audit_log", grants="select, insert")
    made += [PARTITIONS, AUDIT]
    made += audited("tenants", "tenant", tenant="id")
    made += audited("users", "user", tenant="", masked=("password_hash",))
    made += audited("tenant_users", "member")
    made += audited("api_keys", "api_key", masked=("key_hash",))
    made += audited("senders", "sender", masked=SENDERS_SECRETS)
    made += audited("contacts", "contact")
    made += audited("phone_numbers", "phone_number")
    made += audited("campaigns", "campaign")
    made += audited("campaign_versions", "campaign_version")
    made += audited("campaign_steps", "campaign_step")
    made += audited("conversations", "conversation")
    made += tenant_table("idempotency_keys", owner_reads=True)
    made += [ANONYMOUS_KEYS, *secured("anonymous_keys", owner_reads=True), KEYS]
    made += [f"revoke all on function {function} from public" for function in FUNCTIONS]
    made += [f"grant execute on function {function} to harkara_app, harkara_worker" for function in FUNCTIONS]
    return made


class Migration(migrations.Migration):
    """The audit log and the keys of requests that came before."""

    dependencies = [("harkara", "0003_identity")]
    operations: list[ops.Operation] = [
        StateOnly(
            name="AuditEntry",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ("tenant_id", fields.CharField(default=current_tenant, max_length=32)),
                ("user_id", fields.UUIDField(null=True)),
                ("api_key_id", fields.UUIDField(null=True)),
                ("action", fields.CharField(max_length=32)),
                ("entity", fields.CharField(max_length=32)),
                ("entity_id", fields.CharField(null=True, max_length=64)),
                ("request_id", fields.TextField(unique=False)),
                ("address", fields.TextField(unique=False)),
                ("via", fields.TextField(unique=False)),
                (
                    "before",
                    fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(",", ":")), decoder=loads),
                ),
                (
                    "after",
                    fields.JSONField(null=True, encoder=functools.partial(dumps, separators=(",", ":")), decoder=loads),
                ),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
            ],
            options={
                "table": "audit_log",
                "app": "harkara",
                "pk_attr": "id",
                "table_description": "One change that somebody made: the columns that changed, before and after."
                " Partitioned by the month in its id.",
            },
            bases=["Model"],
        ),
        ops.CreateModel(
            name="IdempotencyKey",
            fields=[
                ("id", fields.UUIDField(primary_key=True, default=uuid7, unique=True, db_index=True)),
                ("created_at", fields.DatetimeField(auto_now=False, auto_now_add=True)),
                ("updated_at", fields.DatetimeField(auto_now=True, auto_now_add=False)),
                ("tenant_id", fields.CharField(default=current_tenant, max_length=32)),
                ("who", fields.UUIDField()),
                ("key", fields.CharField(max_length=255)),
                ("fingerprint", fields.BinaryField()),
                ("answer", fields.BinaryField(null=True)),
            ],
            options={
                "table": "idempotency_keys",
                "app": "harkara",
                "unique_together": (("tenant_id", "who", "key"),),
                "pk_attr": "id",
                "table_description": "A request that said under which key it may come again, and its answer, encrypted,"
                " once there is one.",
            },
            bases=["TenantRow"],
        ),
        ops.RunSQL(";\n".join(statements()), reverse_sql=""),
    ]
