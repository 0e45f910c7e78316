"""Migrations: one at a time, all or nothing."""

from __future__ import annotations

import asyncio
import sys
from importlib import import_module
from itertools import pairwise
from typing import Any

import asyncpg
import pytest
from support import Database, NewDatabase, until
from tortoise.fields import Field
from tortoise.migrations import operations as ops
from tortoise.migrations.schema_generator.state import State
from tortoise.migrations.schema_generator.state_apps import StateApps

from harkara.embedded.stack import Urls
from harkara.storage.migrate import LOCK, bootstrap, migrate, names
from harkara.storage.storage import Storage, StorageError


async def relations(database: Database) -> set[str]:
    """The tables there are, and our schema."""
    connection = await asyncpg.connect(database.owner_url)
    try:
        rows = await connection.fetch(
            "select relname::text from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
            " union all select nspname::text from pg_namespace where nspname = 'app'"
        )
    finally:
        await connection.close()
    return {row[0] for row in rows}


async def test_a_database_is_brought_to_the_newest_schema_once(new_database: NewDatabase) -> None:
    database, told = await new_database(), list[str]()
    assert await migrate(database.owner_url, told.append) == len(names())
    assert told == names()
    assert await migrate(database.owner_url, told.append) == 0
    assert told == names()
    storage = Storage(database.app_url)
    await storage.open()
    await storage.close()


async def test_what_an_operation_found_is_made_for_whoever_looks_alone(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrations = [import_module(f"harkara.storage.migrations.{name}").Migration for name in names()]
    look = (ops.RemoveConstraint, ops.AlterField)
    lookers = [one for each in migrations for one in each.operations if isinstance(one, look)]
    made, seen = list[StateApps](), list[bool]()
    clone, forward = StateApps.clone, ops.AddField.database_forward

    def counted(of: StateApps, *given: Any, **named: Any) -> StateApps:
        made.append(of)
        return clone(of, *given, **named)

    async def looking(one: ops.AddField, app: str, before: State, after: State, editor: Any = None) -> None:
        if not seen:
            seen.extend(
                one.name in state.apps.get_model(app, one.model_name)._meta.fields_map for state in (before, after)
            )
        await forward(one, app, before, after, editor)

    monkeypatch.setattr(StateApps, "clone", counted)
    monkeypatch.setattr(ops.AddField, "database_forward", looking)
    assert await migrate((await new_database()).owner_url) == len(names())
    assert seen == [False, True]
    assert len(made) == 1 + len(lookers), "what removes a constraint or alters a field looks, the others don't"


@pytest.mark.parametrize("name", names())
async def test_a_field_that_is_added_has_a_value_for_the_rows_that_are_there(name: str) -> None:
    migration = import_module(f"harkara.storage.migrations.{name}").Migration
    for one in migration.operations:
        if isinstance(one, ops.AddField):
            assert isinstance(one.field, Field), one.name
            assert one.field.null or one.field.has_db_default(), one.name


async def test_three_at_once_do_it_once(new_database: NewDatabase) -> None:
    database = await new_database()
    async with asyncio.timeout(100):
        ran = await asyncio.gather(*(migrate(database.owner_url) for _ in range(3)))
    assert sorted(ran) == [0, 0, len(names())]


async def test_three_processes_at_once_do_it_once(new_database: NewDatabase) -> None:
    database = await new_database()
    program = (
        "import asyncio,sys; from harkara.storage.migrate import migrate; print(asyncio.run(migrate(sys.argv[1])))"
    )
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, database.owner_url, stdout=asyncio.subprocess.PIPE
        )
        for _ in range(3)
    ]
    async with asyncio.timeout(100):
        outputs = [(await process.communicate())[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sorted(int(output) for output in outputs) == [0, 0, len(names())]


async def test_a_migration_that_fails_leaves_nothing(new_database: NewDatabase) -> None:
    database = await new_database()
    connection = await asyncpg.connect(database.owner_url)
    await connection.execute("create table replies (in_the_way int)")
    with pytest.raises(StorageError, match="replies") as caught:
        await migrate(database.owner_url)
    assert "\n" not in str(caught.value)
    assert "rolled back" in str(caught.value)
    assert await relations(database) == {"replies"}
    await connection.execute("drop table replies")
    await connection.close()
    assert await migrate(database.owner_url) == len(names())


async def test_the_second_migrations_failure_undoes_the_first(new_database: NewDatabase) -> None:
    database = await new_database()
    connection = await asyncpg.connect(database.owner_url)
    await connection.execute("create schema app; create function app.tenants() returns int language sql as 'select 1'")
    await connection.close()
    with pytest.raises(StorageError, match="tenants"):
        await migrate(database.owner_url)
    assert await relations(database) == {"app"}


async def test_a_migration_does_not_queue_behind_a_long_reader(
    new_database: NewDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = await new_database()
    connection = await asyncpg.connect(database.owner_url)
    await connection.execute("create table tortoise_migrations (x int)")
    monkeypatch.setattr("harkara.storage.migrate.LOCK_TIMEOUT", "200ms")
    async with asyncio.timeout(60), connection.transaction():
        await connection.execute("lock table tortoise_migrations")
        with pytest.raises(StorageError, match="rolled back"):
            await migrate(database.owner_url)
    await connection.close()


async def test_the_applications_role_cannot_migrate(new_database: NewDatabase) -> None:
    database = await new_database()
    with pytest.raises(StorageError, match="permission denied"):
        await migrate(database.app_url)


@pytest.mark.parametrize("change", [("/harkara?", "/no_such_database?"), ("host=", "host=%2Fnowhere")])
async def test_a_database_that_cannot_be_reached_is_one_clear_line(database: Database, change: tuple[str, str]) -> None:
    with pytest.raises(StorageError, match="DATABASE_DIRECT_URL") as caught:
        await migrate(database.owner_url.replace(*change))
    assert "\n" not in str(caught.value)


async def test_a_url_that_is_none_is_named() -> None:
    with pytest.raises(StorageError, match="DATABASE_DIRECT_URL"):
        await migrate("nonsense")


async def cut_off_who_waits_for(holder: asyncpg.Connection) -> None:
    """End the connections that wait for this one, as a server that is killed does."""
    own = await holder.fetchval("select pg_backend_pid()")

    async def one_is_ended() -> bool:
        # Not pg_stat_activity, which in a transaction goes on to show who was there when it was first looked at.
        waiting = "not granted and $1 = any (pg_blocking_pids(pid))"
        return bool(await holder.fetch(f"select pg_terminate_backend(pid) from pg_locks where {waiting}", own))

    await until(one_is_ended, "somebody waits, and is ended", 60)


async def test_a_server_that_ends_while_it_is_set_up_is_one_clear_line(stack: Urls) -> None:
    holder = await asyncpg.connect(stack.database_admin)
    try:
        made = holder.transaction()
        await made.start()
        await holder.execute("create role owner_in_the_making")
        setting_up = asyncio.create_task(
            bootstrap(stack.database_admin, database="harkara_never", owner="owner_in_the_making", app="harkara_app")
        )
        await cut_off_who_waits_for(holder)
        with pytest.raises(StorageError, match="see that PostgreSQL runs, then start again") as caught:
            await setting_up
        await made.rollback()
    finally:
        await holder.close()
    assert "\n" not in str(caught.value)


async def test_a_server_that_ends_while_it_is_migrated_is_one_clear_line(database: Database) -> None:
    holder = await asyncpg.connect(database.owner_url)
    try:
        await holder.execute(f"select pg_advisory_lock({LOCK})")
        migrating = asyncio.create_task(migrate(database.owner_url))
        await cut_off_who_waits_for(holder)
        with pytest.raises(StorageError, match=r"rolled back: .*: start again once the database runs") as caught:
            await migrating
    finally:
        await holder.close()
    assert "\n" not in str(caught.value)


async def test_setting_up_twice_changes_nothing(stack: Urls, new_database: NewDatabase) -> None:
    database = await new_database()
    name = database.app_url.partition("?")[0].rpartition("/")[2]
    await bootstrap(stack.database_admin, database=name, owner="harkara_owner", app="harkara_app")
    assert await migrate(database.owner_url) == len(names())


async def test_roles_get_their_password(stack: Urls, database: Database) -> None:
    password = "it's a 'secret'"
    await bootstrap(
        stack.database_admin, database="harkara_with", owner="owner_with", app="app_with", password=password
    )
    admin = await asyncpg.connect(stack.database_admin)
    try:
        stored = await admin.fetch("select rolpassword from pg_authid where rolname in ('owner_with', 'app_with')")
        assert [row[0][:14] for row in stored] == ["SCRAM-SHA-256$"] * 2
    finally:
        await admin.execute("drop database harkara_with")
        await admin.execute("drop role owner_with")
        await admin.execute("drop role app_with")
        await admin.close()


async def test_words_of_names_that_were_there_are_found_without_accents_and_no_table_is_locked(
    new_database: NewDatabase, stack: Urls
) -> None:
    database = await new_database()
    await migrate(database.owner_url)
    admin = await asyncpg.connect(stack.database("postgres", database.owner_url.rpartition("/")[2].partition("?")[0]))
    owner = await asyncpg.connect(database.owner_url)
    app = await asyncpg.connect(database.app_url)
    try:
        await admin.execute(
            "insert into tenants (id, name) values ('one', 'one'), ('two', 'two');"
            "insert into contacts (id, tenant_id, name) select app.uuid7(), tenant, 'José Núñez'"
            " from unnest('{one,two}'::text[]) tenant;"
            # As they were before; one has the words without accents, too.
            "delete from contact_terms where tenant_id = 'two';"
            "insert into contact_terms (tenant_id, term, contact_id)"
            " select tenant_id, term, id from contacts, unnest('{word:josé,word:núñez,tag:josé}'::text[]) term"
        )
        refold = import_module("harkara.storage.migrations.0033_lines").REFOLD
        async with owner.transaction():
            await owner.execute(refold)
            await app.execute("set app.tenant_ids = 'one'; set lock_timeout = '1s'")
            await app.execute("insert into contacts (id, tenant_id, name) values (app.uuid7(), 'one', 'Zoë')")
        found = await admin.fetch("select tenant_id, term from contact_terms where term not like '%zo%'")
        assert sorted(map(tuple, found)) == [
            (tenant, term) for tenant in ("one", "two") for term in ("tag:josé", "word:jose", "word:nunez")
        ]
        assert await owner.fetchval("select current_setting('app.erasing', true)") in (None, "")
    finally:
        for con in (admin, owner, app):
            await con.close()


def test_migrations_stand_in_one_line_by_their_numbers() -> None:
    after = {name: import_module(f"harkara.storage.migrations.{name}").Migration.dependencies for name in names()[1:]}
    assert after == {name: [("harkara", before)] for before, name in pairwise(names())}
