"""Users, keys and log-ins: members who were added but have not come yet, sessions that end, Supabase's subjects.

`app.access` takes the place of `app.memberships`, and says at once whether the session still lasts. All that begins, goes
on with or ends a person's sessions waits for a lock of that person: without it a token that is being replaced at the very
moment in which its family is ended would leave a successor that nobody ends.
"""

from tortoise import fields, migrations
from tortoise.migrations import operations as ops

#: A member's own name for this tenant; when they first came; the subject that Supabase Auth knows a person by.
COLUMNS = """
alter table tenant_users alter column accepted_at set default now();
update tenant_users set accepted_at = created_at;
create unique index users_supabase on users (supabase_id);
create index tenant_users_user on tenant_users (user_id);
create index refresh_user on refresh_tokens (user_id);
"""

OLD = """
drop function app.memberships(uuid);
drop function app.refresh_issue(uuid, uuid, uuid, timestamptz);
drop function app.refresh_rotate(uuid, uuid, timestamptz);
drop function app.refresh_revoke(uuid);
"""

SESSIONS = """
-- `alive`: the account is active and the session, if one is named, has not been ended. The arrays are the active tenants.
create function app.access(member uuid, session uuid)
returns table (alive boolean, tenants text[], names text[], roles text[], accepted boolean[])
language sql stable security definer set search_path = public, pg_temp as $$
  select exists (select from users u where u.id = member and u.is_active)
      and (session is null or exists (
        select from refresh_tokens r where r.id = session and r.user_id = member and r.revoked_at is null)),
    coalesce(array_agg(m.tenant_id::text order by m.tenant_id), '{}'),
    coalesce(array_agg(t.name order by m.tenant_id), '{}'),
    coalesce(array_agg(m.role::text order by m.tenant_id), '{}'),
    coalesce(array_agg(m.accepted_at is not null order by m.tenant_id), '{}')
  from tenant_users m join tenants t on t.id = m.tenant_id
  where m.user_id = member and m.is_active and t.is_active
$$;

create function app.hold_sessions(member uuid) returns void
language sql security definer set search_path = public, pg_temp as $$
  select pg_advisory_xact_lock(hashtextextended('sessions of ' || member::text, 0))
$$;

-- Begins a session, unless the password that was checked is not the account's any more.
create function app.refresh_issue(token uuid, member uuid, hash text, until timestamptz) returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  perform app.hold_sessions(member);
  insert into refresh_tokens (id, user_id, family, expires_at)
  select token, u.id, token, until from users u where u.id = member and u.is_active and u.password_hash = hash;
  return found;
end $$;

-- Uses a token once and puts the next in its place: (whose it is, true). A token that was used before is stolen or
-- replayed: its whole family dies, (whose it was, false). No row for one that is good for nothing.
create function app.refresh_rotate(token uuid, next_token uuid, until timestamptz)
returns table (member uuid, good boolean)
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  of_user uuid := (select r.user_id from refresh_tokens r where r.id = token);
  row refresh_tokens;
begin
  perform app.hold_sessions(of_user);
  select * into row from refresh_tokens r where r.id = token;
  if not found or row.revoked_at is not null or row.expires_at < now()
     or not exists (select from users u where u.id = of_user and u.is_active) then return; end if;
  if row.used_at is not null then
    update refresh_tokens r set revoked_at = now() where r.family = row.family and r.revoked_at is null;
    return query select of_user, false;
    return;
  end if;
  update refresh_tokens r set used_at = now() where r.id = token;
  insert into refresh_tokens (id, user_id, family, expires_at) values (next_token, of_user, row.family, until);
  delete from refresh_tokens r where r.user_id = of_user and r.expires_at < now() - interval '1 day';
  return query select of_user, true;
end $$;

-- Ends the session that this token belongs to; whose it was.
create function app.refresh_revoke(token uuid) returns uuid
language plpgsql security definer set search_path = public, pg_temp as $$
declare of_user uuid := (select r.user_id from refresh_tokens r where r.id = token);
begin
  perform app.hold_sessions(of_user);
  update refresh_tokens r set revoked_at = now()
  where r.family = (select f.family from refresh_tokens f where f.id = token) and r.revoked_at is null;
  return of_user;
end $$;
"""

ACCOUNTS = """
-- Makes somebody a member of this transaction's tenant, and an account if the address has none. An account that exists
-- stays as it is. `added` is false if they were a member before. Whether there was an account is no tenant's business: so
-- no tenant's audit log notes that one was made, while that somebody became a member is noted either way.
create function app.add_member(membership uuid, account uuid, mail text, called text, hash text, as_role text)
returns table (member uuid, added boolean)
language plpgsql security definer set search_path = public, pg_temp as $$
declare
  known uuid;
  actor text := coalesce(current_setting('app.actor', true), '');
begin
  if app.tenant() is null then raise exception 'a member of which tenant?'; end if;
  perform set_config('app.actor', '', true);
  insert into users (id, email, name, password_hash, is_active) values (account, lower(mail), called, hash, true)
  on conflict (email) do nothing;
  perform set_config('app.actor', actor, true);
  select u.id into known from users u where u.email = lower(mail);
  insert into tenant_users (id, tenant_id, user_id, role, is_active, name, accepted_at)
  values (membership, app.tenant(), known, as_role, true, called, null)
  on conflict (tenant_id, user_id) do nothing;
  return query select known, found;
end $$;

create function app.account(account uuid) returns table (id uuid, email text, name text, password_hash text)
language sql stable security definer set search_path = public, pg_temp as $$
  select u.id, u.email::text, u.name, u.password_hash from users u where u.id = account and u.is_active
$$;

-- What a person changes of their own account; null leaves it. A new password needs the hash of the old one as it was
-- checked, and ends all sessions but the one that `keep` belongs to. False if the password was changed meanwhile.
create function app.change_account(account uuid, called text, old_hash text, new_hash text, keep uuid) returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  perform app.hold_sessions(account);
  update users u set name = coalesce(called, u.name), password_hash = coalesce(new_hash, u.password_hash), updated_at = now()
  where u.id = account and u.is_active and (new_hash is null or u.password_hash = old_hash);
  if not found then return false; end if;
  if new_hash is not null then
    update refresh_tokens r set revoked_at = now()
    where r.user_id = account and r.revoked_at is null
      and r.family is distinct from (select f.family from refresh_tokens f where f.id = keep);
  end if;
  return true;
end $$;

-- The same password, hashed anew; unless it was changed meanwhile.
create function app.rehash(account uuid, old_hash text, new_hash text) returns boolean
language plpgsql security definer set search_path = public, pg_temp as $$
begin
  update users u set password_hash = new_hash where u.id = account and u.password_hash = old_hash;
  return found;
end $$;

-- The account of one who logs in at Supabase: by the subject that is stored, or else by an address (null unless it is
-- confirmed) whose account has none yet; the subject is stored then.
create function app.of_supabase(subject uuid, mail text) returns uuid
language plpgsql security definer set search_path = public, pg_temp as $$
declare known uuid;
begin
  perform pg_advisory_xact_lock(hashtextextended('subject ' || subject::text, 0))
  where mail is not null and not exists (select from users u where u.supabase_id = subject);
  select u.id into known from users u where u.supabase_id = subject and u.is_active;
  if known is null and mail is not null and not exists (select from users u where u.supabase_id = subject) then
    update users u set supabase_id = subject
    where u.email = lower(mail) and u.is_active and u.supabase_id is null returning u.id into known;
  end if;
  return known;
end $$;
"""

FUNCTIONS = (
    "app.access(uuid, uuid)",
    "app.refresh_issue(uuid, uuid, text, timestamptz)",
    "app.refresh_rotate(uuid, uuid, timestamptz)",
    "app.refresh_revoke(uuid)",
    "app.add_member(uuid, uuid, text, text, text, text)",
    "app.account(uuid)",
    "app.change_account(uuid, text, text, text, uuid)",
    "app.rehash(uuid, text, text)",
    "app.of_supabase(uuid, text)",
)


def statements() -> list[str]:
    """Every statement of this migration, in order."""
    made = [COLUMNS, OLD, SESSIONS, ACCOUNTS, "revoke all on all functions in schema app from public"]
    return made + [f"grant execute on function {function} to harkara_app, harkara_worker" for function in FUNCTIONS]


class Migration(migrations.Migration):
    """Users, keys and log-ins."""

    dependencies = [("harkara", "0002_tenancy")]
    operations: list[ops.Operation] = [
        ops.AddField("TenantUser", "name", fields.TextField(null=True)),
        ops.AddField("TenantUser", "accepted_at", fields.DatetimeField(null=True)),
        ops.AddField("User", "supabase_id", fields.UUIDField(null=True)),
        ops.RunSQL(";\n".join(statements()), reverse_sql=""),
    ]
