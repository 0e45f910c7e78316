"""Migrations: one at a time, all or nothing. Stock Tortoise takes no lock, and records a migration after its commit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import asyncpg
from tortoise.context import TortoiseContext
from tortoise.migrations.executor import MigrationExecutor
from tortoise.migrations.graph import MigrationKey
from tortoise.migrations.schema_generator.state import ModelState, State
from tortoise.migrations.schema_generator.state_apps import StateApps
from tortoise.transactions import in_transaction

from harkara.storage.storage import DATABASE_ERRORS, StorageError, credentials, is_away, reason_of, tortoise_config

#: Any number will do as long as it stays the same: the name of the lock that migrators wait for.
LOCK = 0x4841524B

#: Never queue behind a long reader with an exclusive lock for longer: everybody else queues behind us.
LOCK_TIMEOUT = "5s"


#: What the application becomes for the length of an actor's batch; nobody logs in as it.
WORKER = "harkara_worker"

#: The application becomes the worker only when it says so. Did it inherit, every query of its own would carry the
#: worker's policies too, which no index serves. It is granted anew then: newer servers note that at the grant.
_IS_NO_PLAIN_MEMBER = "select pg_has_role($1, $2, 'usage') or not pg_has_role($1, $2, 'member')"


class Before(State):
    """The models as an operation found them. They are made classes of only if it looks, which few operations do."""

    def __init__(self, models: dict[tuple[str, str], ModelState], after: StateApps) -> None:
        self.models, self._after = models, after

    @cached_property
    def apps(self) -> StateApps:  # type: ignore[override]
        return self._after.clone(model_states=self.models)


class Models(State):
    """As Tortoise's, which makes all classes anew before every operation: most of what migrating from nothing costs."""

    def clone(self) -> State:
        """The models as they are now, whatever becomes of these."""
        return Before({key: model.clone() for key, model in self.models.items()}, self.apps)


class Executor(MigrationExecutor):
    """Tortoise's, with models that cost less."""

    async def _project_state(self, applied: set[MigrationKey], *, upto: MigrationKey | None = None) -> State:
        state = await super()._project_state(applied, upto=upto)
        return Models(state.models, state.apps)


async def migrate(url: str, progress: Callable[[str], None] = lambda _: None) -> int:
    """Bring the database to the newest schema and return how many migrations ran.

    `url` must lead to the server itself (DATABASE_DIRECT_URL), as a role that may create tables. Several may call this
    at once: the others wait, then find nothing to do. Raises StorageError with what to do if the database refuses.
    """
    ran: list[str] = []

    def note(event: str, app: str, name: str) -> None:
        if event == "apply_done":
            ran.append(name)
            progress(name)

    config = tortoise_config(url, pool=1, engine="tortoise.backends.asyncpg", setting="DATABASE_DIRECT_URL")
    reached = False
    try:
        async with TortoiseContext() as context:
            await context.init(config=config)
            async with in_transaction("default") as opened:
                transaction: Any = opened  # Tortoise types its clients only in part
                reached = True
                await transaction.execute_query(f"select pg_advisory_xact_lock({LOCK})")
                await transaction.execute_query(f"set local lock_timeout = '{LOCK_TIMEOUT}'")
                executor: Any = Executor(transaction, config["apps"])
                # Its own question whether its table exists fails inside a transaction, so make the table first.
                await executor.recorder.ensure_schema(executor._schema_editor(atomic=False))
                await executor.migrate(progress=note)
    except DATABASE_ERRORS as error:
        if not reached:
            raise StorageError(f"{reason_of(error)}: check DATABASE_DIRECT_URL, and that the database runs") from error
        # Over a connection that is gone nothing can be rolled back either: what comes before that says why.
        why = error.__context__ if isinstance(error, asyncpg.InterfaceError) and error.__context__ else error
        todo = ": start again once the database runs" if is_away(why) else ""
        raise StorageError(f"the migration was rolled back: {reason_of(why)}{todo}") from error
    return len(ran)


async def bootstrap(admin_url: str, *, database: str, owner: str, app: str, password: str | None = None) -> None:
    """Make the roles and the database on a fresh server, as its administrator. What is there is left as it is.

    Raises StorageError if the server refuses, or ends meanwhile.
    """
    try:
        await _bootstrap(credentials(admin_url), database, owner, app, password)
    except DATABASE_ERRORS as error:
        raise StorageError(
            f"the database can't be set up: {reason_of(error)}: see that PostgreSQL runs, then start again; what is set"
            " up already is kept"
        ) from error


async def _bootstrap(settings: dict[str, Any], database: str, owner: str, app: str, password: str | None) -> None:
    connection: Any = await asyncpg.connect(
        host=settings["host"],
        port=settings["port"],
        user=settings["user"],
        password=settings["password"],
        database=settings["database"],
    )
    try:
        for role in (owner, app):
            if not await connection.fetchval("select 1 from pg_roles where rolname = $1", role):
                quoted = await connection.fetchval("select quote_literal($1)", password) if password else None
                await connection.execute(f'create role "{role}" login' + (f" password {quoted}" if quoted else ""))
        if not await connection.fetchval("select 1 from pg_roles where rolname = $1", WORKER):
            await connection.execute(f"create role {WORKER} nologin")
        if await connection.fetchval(_IS_NO_PLAIN_MEMBER, app, WORKER):
            await connection.execute(f'alter role "{app}" noinherit; revoke {WORKER} from "{app}"')
            await connection.execute(f'grant {WORKER} to "{app}"')
        if not await connection.fetchval("select 1 from pg_database where datname = $1", database):
            await connection.execute(f'create database "{database}" owner "{owner}"')
    finally:
        await connection.close()


def names() -> list[str]:
    """The migrations there are, oldest first."""
    package = import_module("harkara.storage.migrations")
    return sorted(module.name for module in iter_modules(package.__path__))
