"""One tenant can't read, change, point at or guess another's rows, whatever SQL the application is made to run."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from support import NewTenant, one_row, until
from tortoise.exceptions import IntegrityError, OperationalError

from harkara.ids import uuid7
from harkara.storage.engine import NoTenant, OtherTenant, tenants
from harkara.storage.models import Campaign, Contact, Sender, TenantUser, User
from harkara.storage.storage import Storage


@dataclass
class Two:
    """A tenant of ours and one of somebody else's, each with a contact and a number."""

    ours: str
    theirs: str
    contact: UUID
    their_contact: UUID
    sender: UUID
    their_sender: UUID


@pytest.fixture
async def two(storage: Storage, new_tenant: NewTenant) -> Two:
    made = Two(await new_tenant(), await new_tenant(), uuid7(), uuid7(), uuid7(), uuid7())
    for tenant, contact, sender in (
        (made.ours, made.contact, made.sender),
        (made.theirs, made.their_contact, made.their_sender),
    ):
        async with storage.tenant(tenant):
            await Contact.create(id=contact, name="Asha", phone="+919876543210")
            await Sender.create(
                id=sender, name="Shop", provider="cloud", phone_number_id="1", verify_token="t", window="enforce"
            )
    return made


async def every_table(owner: asyncpg.Connection) -> list[str]:
    rows = await owner.fetch(
        "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
        " and not relispartition and relname <> 'tortoise_migrations'"
    )
    return [row[0] for row in rows]


async def count(con: Any, table: str) -> int:
    """How many rows of a table this connection sees; none where it may not look at all."""
    try:
        return int(await con.fetchval(f'select count(*) from "{table}"'))
    except asyncpg.InsufficientPrivilegeError:
        return 0


@pytest.mark.parametrize("role", ["harkara_app", "harkara_worker"])
async def test_without_a_tenant_nothing_is_seen(
    app: asyncpg.Connection, owner: asyncpg.Connection, two: Two, role: str
) -> None:
    await app.execute(f"set role {role}")
    seen = {table: await count(app, table) for table in await every_table(owner)}
    assert {table: rows for table, rows in seen.items() if rows} == {}


@pytest.mark.parametrize("setting", ["", ",", "{}", "*", "%", "none", "' or true --", "T-UPPER"])
async def test_a_setting_that_names_nobody_shows_nothing(app: asyncpg.Connection, two: Two, setting: str) -> None:
    await app.execute("select set_config('app.tenant_ids', $1, false)", setting)
    assert await count(app, "contacts") == 0
    assert await count(app, "tenants") == 0
    assert await count(app, "users") == 0


async def test_a_tenant_sees_its_own_rows_alone(storage: Storage, two: Two) -> None:
    async with storage.tenant(two.ours) as con:
        assert [row["id"] for row in await con.fetch("select id from contacts")] == [two.contact]
        assert [row["id"] for row in await con.fetch("select id from tenants")] == [two.ours]
        assert await con.fetchval("select count(*) from users") == 1
        assert await Contact.get_or_none(id=two.their_contact) is None
        assert [user.email for user in await User.all()] == [f"owner@{two.ours}.example"]


async def test_a_row_without_a_tenant_is_refused(app: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.PostgresError) as caught:
        await app.execute("insert into contacts (id, name) values ($1, 'Asha')", uuid4())
    assert isinstance(caught.value, asyncpg.InsufficientPrivilegeError | asyncpg.NotNullViolationError)


async def test_a_row_of_another_tenant_cannot_be_made(storage: Storage, two: Two) -> None:
    with pytest.raises(OperationalError, match="row-level security"):
        async with storage.tenant(two.ours):
            await Contact.create(name="Mole", tenant_id=two.theirs)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with storage.tenant(two.ours) as con:
            await con.execute("insert into contacts (id, tenant_id) values ($1, $2)", uuid4(), two.theirs)


async def test_another_tenants_row_cannot_be_changed_or_deleted(storage: Storage, two: Two) -> None:
    async with storage.tenant(two.ours) as con:
        assert await Contact.filter(id=two.their_contact).update(name="Mole") == 0
        assert await con.execute("update contacts set name = 'Mole' where id = $1", two.their_contact) == "UPDATE 0"
        assert await con.execute("delete from contacts where id = $1", two.their_contact) == "DELETE 0"
        assert await con.fetch("select 1 from contacts where id = $1 for update", two.their_contact) == []
        assert await con.execute("update contacts set name = 'All of ours'") == "UPDATE 1"
    async with storage.tenant(two.theirs) as con:
        assert await con.fetchval("select name from contacts") == "Asha"


async def test_an_own_row_cannot_be_moved_to_another_tenant(storage: Storage, two: Two) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with storage.tenant(two.ours) as con:
            await con.execute("update contacts set tenant_id = $1", two.theirs)


async def test_an_upsert_cannot_take_another_tenants_row(storage: Storage, two: Two) -> None:
    """With row-level security `on conflict` refuses rather than tells what is there."""
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with storage.tenant(two.ours) as con:
            await con.execute(
                "insert into contacts (id, name) values ($1, 'Mole') on conflict (id) do update set name = 'Mole'",
                two.their_contact,
            )


async def test_a_row_cannot_point_at_another_tenants(storage: Storage, two: Two) -> None:
    with pytest.raises(asyncpg.ForeignKeyViolationError):
        async with storage.tenant(two.ours) as con:
            await con.execute(
                "insert into phone_numbers (id, contact_id, phone, label) values ($1, $2, '+919876500000', '')",
                uuid4(),
                two.their_contact,
            )
    with pytest.raises(IntegrityError):
        async with storage.tenant(two.ours):
            await Campaign.create(name="Mole", type="drip", sender_id=two.their_sender, version_id=uuid7())


async def test_pointing_at_another_tenants_row_tells_no_more_than_pointing_at_nothing(
    storage: Storage, two: Two
) -> None:
    told: list[str] = []
    for contact in (two.their_contact, uuid4()):
        with pytest.raises(asyncpg.ForeignKeyViolationError) as caught:
            async with storage.tenant(two.ours) as con:
                await con.execute(
                    "insert into phone_numbers (id, contact_id, phone, label) values ($1, $2, '+919876500000', '')",
                    uuid4(),
                    contact,
                )
        told.append(str(caught.value))
    assert told[0] == told[1]


async def test_two_tenants_may_have_the_same_phone(two: Two, storage: Storage) -> None:
    """Both contacts were made with one number; within one tenant a second is refused."""
    with pytest.raises(asyncpg.UniqueViolationError):
        async with storage.tenant(two.ours) as con:
            await con.execute("insert into contacts (id, phone) values ($1, '+919876543210')", uuid4())


async def test_a_batch_sees_and_writes_its_tenants_and_no_others(
    storage: Storage, two: Two, new_tenant: NewTenant
) -> None:
    third = await new_tenant()
    async with storage.batch((two.ours, third)) as con:
        rows = await con.fetch("select tenant_id from contacts")
        assert [row["tenant_id"] for row in rows] == [two.ours]
        await con.execute(
            "insert into contacts (id, tenant_id) select * from unnest($1::uuid[], $2::text[])",
            [uuid4(), uuid4()],
            [two.ours, third],
        )
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with storage.batch((two.ours, third)) as con:
            await con.execute("insert into contacts (id, tenant_id) values ($1, $2)", uuid4(), two.theirs)
    with pytest.raises(asyncpg.PostgresError):
        async with storage.batch((two.ours, third)) as con:
            await con.execute("insert into contacts (id) values ($1)", uuid4())


async def test_nothing_of_a_tenant_stays_on_the_connection(database: Any, two: Two) -> None:
    storage = Storage(database.app_url, pool=1)
    await storage.open()
    try:
        async with storage.tenant(two.ours) as con:
            backend = await con.fetchval("select pg_backend_pid()")
        async with storage.anonymous() as con:
            assert await con.fetchval("select pg_backend_pid()") == backend
            assert await con.fetchval("select count(*) from contacts") == 0
            assert await con.fetchval("select app.tenants() is null")
        with pytest.raises(ZeroDivisionError):
            async with storage.tenant(two.ours):
                raise ZeroDivisionError
        async with storage.tenant(two.theirs) as con:
            assert await con.fetchval("select pg_backend_pid()") == backend
            assert await con.fetchval("select id from contacts") == two.their_contact
    finally:
        await storage.close()


async def test_tasks_of_two_tenants_at_once_do_not_mix(storage: Storage, two: Two) -> None:
    async def look(tenant: str, contact: UUID) -> None:
        for _ in range(10):
            async with storage.tenant(tenant) as con:
                await asyncio.sleep(0)
                assert [row.id for row in await Contact.all()] == [contact]
                assert [row["id"] for row in await con.fetch("select id from contacts")] == [contact]

    async with asyncio.TaskGroup() as group:
        for _ in range(5):
            group.create_task(look(two.ours, two.contact))
            group.create_task(look(two.theirs, two.their_contact))


@pytest.mark.parametrize(
    "slug", ["", "A", "acme'; drop table contacts; --", "acme,other", "acme other", "acme\n", "-acme", "a" * 33, "%"]
)
async def test_what_is_no_tenants_id_never_reaches_the_database(storage: Storage, slug: str) -> None:
    with pytest.raises(NoTenant):
        async with storage.tenant(slug):
            pass
    with pytest.raises(NoTenant):
        async with storage.batch(("acme", slug)):
            pass


async def test_one_tenants_transaction_cannot_be_opened_inside_anothers(storage: Storage, two: Two) -> None:
    async with storage.tenant(two.ours):
        with pytest.raises(OtherTenant, match=two.ours):
            async with storage.tenant(two.theirs):
                pass
        assert await Contact.all().count() == 1
    assert tenants.get() is None


async def test_inside_the_same_tenants_transaction_it_is_a_savepoint(storage: Storage, two: Two) -> None:
    async with storage.tenant(two.ours):
        await Contact.create(name="kept")
        with suppress(ZeroDivisionError):
            async with storage.tenant(two.ours):
                await Contact.create(name="undone")
                raise ZeroDivisionError
        async with storage.tenant(two.ours):
            await Contact.create(name="kept too")
    async with storage.tenant(two.ours):
        names = [one.name for one in await Contact.all()]
    assert sorted(names) == ["Asha", "kept", "kept too"]


FORBIDDEN = (
    "set role harkara_owner",
    "set session authorization harkara_owner",
    "alter table contacts disable row level security",
    "alter table contacts no force row level security",
    "drop policy tenant on contacts",
    "create policy mole on contacts using (true)",
    "alter role harkara_app bypassrls",
    "truncate contacts",
    "create table mole (x int)",
    "create function app.mole() returns int language sql as 'select 1'",
    "select count(*) from {partition}",
    "update audit_log set action = 'nothing'",
    "delete from audit_log",
    "select count(*) from anonymous_keys",
    "drop trigger audited_insert on contacts",
    "insert into tenants (id, name) values ('mole', 'mole')",
    "insert into users (id, email, name, password_hash) values (gen_random_uuid(), 'mole', '', '')",
    "select * from refresh_tokens",
    "select app.ensure_partitions('messages', now()::date, 1)",
    "select * from tortoise_migrations",
    "copy contacts to program 'true'",
    "select pg_read_file('/etc/passwd')",
    "set row_security = off; select count(*) from contacts",
)


@pytest.mark.parametrize("role", ["harkara_app", "harkara_worker"])
@pytest.mark.parametrize("statement", FORBIDDEN)
async def test_the_application_cannot_free_itself(
    app: asyncpg.Connection, owner: asyncpg.Connection, statement: str, role: str
) -> None:
    partition = await owner.fetchval(
        "select relname from pg_class where relispartition and relkind = 'r' and relname like 'messages_2%'"
    )
    await app.execute(f"set role {role}")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute(statement.format(partition=partition))


async def signed_up(app: asyncpg.Connection) -> tuple[str, UUID, str]:
    """A tenant, its owner and their address."""
    tenant, user, mail = f"t-{uuid4().hex[:12]}", uuid7(), f"{uuid4().hex}@Example.com"
    await app.execute("select app.signup($1, $1, $2, $3, 'a hash', $4)", tenant, user, mail, uuid7())
    return tenant, user, mail


async def test_signing_up_cannot_take_what_is_somebody_elses(app: asyncpg.Connection) -> None:
    tenant, user, mail = await signed_up(app)
    for taken in ((tenant, uuid7(), "new@example.com"), ("new-tenant", uuid7(), mail.upper()), ("newer", user, "x@y")):
        with pytest.raises(asyncpg.UniqueViolationError):
            await app.execute("select app.signup($1, $1, $2, $3, 'hash', $4)", *taken, uuid7())
    with pytest.raises(asyncpg.CheckViolationError):
        await app.execute("select app.signup('No Slug', 'x', $1, 'y@z', 'hash', $2)", uuid7(), uuid7())
    assert await app.fetchval("select count(*) from app.login('new@example.com')") == 0


async def test_logging_in_asks_for_one_address(app: asyncpg.Connection, owner: asyncpg.Connection) -> None:
    _, user, mail = await signed_up(app)
    assert [tuple(row) for row in await app.fetch("select * from app.login($1)", mail.upper())] == [(user, "a hash")]
    assert await app.fetch("select * from app.login('%')") == []
    await owner.execute("update users set is_active = false where id = $1", user)
    assert await app.fetch("select * from app.login($1)", mail) == []


async def test_memberships_are_those_that_count(app: asyncpg.Connection, owner: asyncpg.Connection) -> None:
    tenant, user, _ = await signed_up(app)
    second, _, _ = await signed_up(app)
    await owner.execute(
        "insert into tenant_users (id, tenant_id, user_id, role, is_active) values ($1, $2, $3, 'viewer', true)",
        uuid7(),
        second,
        user,
    )

    async def memberships() -> set[tuple[str, str]]:
        row = await one_row(app, "select * from app.access($1, null)", user)
        return set(zip(row["tenants"], row["roles"], strict=True))

    assert await memberships() == {(tenant, "owner"), (second, "viewer")}
    await owner.execute("update tenant_users set is_active = false where user_id = $1 and tenant_id = $2", user, second)
    assert await memberships() == {(tenant, "owner")}
    await owner.execute("update tenants set is_active = false where id = $1", tenant)
    assert await memberships() == set()


async def test_a_member_of_two_tenants_is_a_colleague_in_both(
    storage: Storage, app: asyncpg.Connection, owner: asyncpg.Connection
) -> None:
    tenant, user, _ = await signed_up(app)
    other, _, _ = await signed_up(app)
    async with storage.tenant(other):
        assert await User.get_or_none(id=user) is None
    async with storage.tenant(other):
        await TenantUser.create(user_id=user, role="agent")
    async with storage.tenant(other):
        assert await User.get_or_none(id=user) is not None
    assert tenant != other


async def test_a_refresh_token_is_good_once(app: asyncpg.Connection) -> None:
    _, user, _ = await signed_up(app)
    first, second, third = uuid7(), uuid7(), uuid7()
    assert await begins(app, first, user)
    assert await rotated(app, first, second) == (user, True)
    assert await rotated(app, first, third) == (user, False), "used twice: it was stolen"
    assert await rotated(app, second, third) is None, "so the whole family is dead"
    assert await rotated(app, uuid7(), third) is None
    assert await begins(app, third, user)
    assert await app.fetchval("select app.refresh_revoke($1)", third) == user
    assert await rotated(app, third, uuid7()) is None
    old = uuid7()
    assert await begins(app, old, user, "- interval '1 second'")
    assert await rotated(app, old, uuid7()) is None


async def begins(app: asyncpg.Connection, token: UUID, user: UUID, until: str = "+ interval '1 day'") -> bool:
    """Whether a session began."""
    return bool(await app.fetchval(f"select app.refresh_issue($1, $2, 'a hash', now() {until})", token, user))


async def rotated(app: Any, token: UUID, following: UUID) -> tuple[UUID, bool] | None:
    """Whose token it was, and whether it was good."""
    row = await app.fetchrow("select * from app.refresh_rotate($1, $2, now() + interval '1 day')", token, following)
    return tuple(row) if row else None


async def test_a_refresh_token_used_by_two_at_once_is_good_for_one(app: asyncpg.Connection, database: Any) -> None:
    _, user, _ = await signed_up(app)
    token = uuid7()
    assert await begins(app, token, user)
    second = await asyncpg.connect(database.app_url)
    try:
        answers = await asyncio.gather(*(rotated(con, token, uuid7()) for con in (app, second)))
    finally:
        await second.close()
    assert sorted(answers, key=str) == [(user, False), (user, True)]


async def test_a_token_that_is_replaced_while_its_family_dies_leaves_no_successor(
    app: asyncpg.Connection, owner: asyncpg.Connection, database: Any
) -> None:
    _, user, _ = await signed_up(app)
    first, second, third = uuid7(), uuid7(), uuid7()
    assert await begins(app, first, user)
    assert await rotated(app, first, second) == (user, True)
    thief = await asyncpg.connect(database.app_url)
    try:
        async with app.transaction():
            assert await rotated(app, second, third) == (user, True)
            replay = asyncio.create_task(rotated(thief, first, uuid7()))
            await until(lambda: waits_for_a_lock(owner), "the replay waits for the session's lock")
        assert await replay == (user, False)
    finally:
        await thief.close()
    assert await rotated(app, third, uuid7()) is None


async def waits_for_a_lock(owner: asyncpg.Connection) -> bool:
    return bool(
        await owner.fetchval("select exists (select from pg_locks where locktype = 'advisory' and not granted)")
    )


async def test_no_session_begins_with_a_password_that_was_changed_meanwhile(app: asyncpg.Connection) -> None:
    _, user, _ = await signed_up(app)
    kept, other = uuid7(), uuid7()
    assert await begins(app, kept, user)
    assert await begins(app, other, user)
    change = "select app.change_account($1, null, $2, 'a new hash', $3)"
    assert not await app.fetchval(change, user, "not the hash", kept)
    assert await app.fetchval(change, user, "a hash", kept)
    assert not await begins(app, uuid7(), user), "with the old password"
    assert await rotated(app, other, uuid7()) is None
    assert await rotated(app, kept, uuid7()) is not None


async def test_an_inactive_account_has_no_session(app: asyncpg.Connection, owner: asyncpg.Connection) -> None:
    _, user, _ = await signed_up(app)
    token = uuid7()
    assert await begins(app, token, user)
    alive = "select alive from app.access($1, $2)"
    assert await app.fetchval(alive, user, token)
    assert not await app.fetchval(alive, user, uuid7())
    assert not await app.fetchval(alive, uuid7(), token), "another's session"
    await owner.execute("update users set is_active = false where id = $1", user)
    assert not await app.fetchval(alive, user, token)
    assert await rotated(app, token, uuid7()) is None
    assert not await begins(app, uuid7(), user)


async def test_a_member_is_added_only_to_the_transactions_tenant(
    app: asyncpg.Connection, storage: Storage, new_tenant: NewTenant
) -> None:
    _, user, mail = await signed_up(app)
    add = "select * from app.add_member($1, $2, $3, 'Asha', 'another hash', 'viewer')"
    with pytest.raises(asyncpg.RaiseError, match="which tenant"):
        await app.fetchrow(add, uuid7(), uuid7(), mail)
    tenant = await new_tenant()
    async with storage.tenant(tenant) as con:
        assert tuple(await one_row(con, add, uuid7(), uuid7(), mail.upper())) == (user, True)
        assert tuple(await one_row(con, add, uuid7(), uuid7(), mail)) == (user, False)
    row = await one_row(app, "select * from app.login($1)", mail)
    assert row["password_hash"] == "a hash", "an account that exists stays as it is"
    access = await one_row(app, "select * from app.access($1, null)", user)
    assert dict(zip(access["tenants"], access["accepted"], strict=True))[tenant] is False


async def test_a_subject_of_supabase_is_taken_once_and_for_good(app: asyncpg.Connection) -> None:
    of = "select app.of_supabase($1, $2)"
    _, user, mail = await signed_up(app)
    _, second, other_mail = await signed_up(app)
    subject = uuid4()
    assert await app.fetchval(of, subject, None) is None
    assert await app.fetchval(of, subject, mail.upper()) == user
    assert await app.fetchval(of, subject, None) == user
    assert await app.fetchval(of, subject, other_mail) == user, "the subject counts, not the address"
    assert await app.fetchval(of, uuid4(), mail) is None, "an account has one subject"
    assert await app.fetchval(of, uuid4(), other_mail) == second


async def test_a_senders_tenant_is_told_only_while_the_tenant_is_active(
    app: asyncpg.Connection, owner: asyncpg.Connection, two: Two
) -> None:
    assert await app.fetchval("select app.sender_tenant($1)", two.sender) == two.ours
    assert await app.fetchval("select app.sender_tenant($1)", uuid4()) is None
    await owner.execute("update tenants set is_active = false where id = $1", two.ours)
    assert await app.fetchval("select app.sender_tenant($1)", two.sender) is None


async def test_a_message_outside_every_partition_is_refused_loudly(storage: Storage, two: Two) -> None:
    with pytest.raises(asyncpg.CheckViolationError, match="no partition"):
        async with storage.tenant(two.ours) as con:
            await con.execute(
                'insert into messages (id, sender_id, lane, "to", content, status, due_at)'
                " values ('00000000-0000-7000-8000-000000000000', $1, 'utility', '+91', '{}', 'queued', now())",
                two.sender,
            )
