"""After SECRET_KEY was changed: every stored secret under the newest key, so that the one before is not needed."""

from __future__ import annotations

from uuid import UUID

import asyncpg

from harkara.settings import Settings, require
from harkara.storage.storage import StorageError, reason_of
from harkara.vault import Vault

#: Where secrets are kept.
SEALED = (("senders", ("access_token", "app_secret")),)

#: Rows changed in one transaction.
AT_ONCE = 500


async def reseal(settings: Settings) -> int:
    """Seal all anew that was sealed with a key before the newest; how many secrets that were.

    Needs DATABASE_DIRECT_URL, as migrations do. Raises StorageError, in one line, for a secret that no key opens.
    """
    require(settings, "database_direct_url", "secret_key")
    vault = Vault(*settings.secret_keys)
    try:
        con = await asyncpg.connect(settings.database_direct_url)
        try:
            return sum([await _reseal(con, vault, table, columns) for table, columns in SEALED])
        finally:
            await con.close()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise StorageError(f"{reason_of(error)}: check DATABASE_DIRECT_URL") from error


async def _reseal(con: asyncpg.Connection[asyncpg.Record], vault: Vault, table: str, columns: tuple[str, ...]) -> int:
    """Page by page in the order of ids, each page locked while it is changed."""
    names, done = ", ".join(columns), 0
    after = UUID(int=0)
    page = f"select id, {names} from {table} where id > $1 order by id limit {AT_ONCE} for update"  # noqa: S608
    while True:
        async with con.transaction():
            rows = await con.fetch(page, after)
            for row in rows:
                for column in columns:
                    sealed = _resealed(vault, row[column], f"{table} {row['id']}")
                    if sealed is not None:
                        await con.execute(f"update {table} set {column} = $2 where id = $1", row["id"], sealed)  # noqa: S608
                        done += 1
        if len(rows) < AT_ONCE:
            return done
        after = rows[-1]["id"]


def _resealed(vault: Vault, sealed: bytes | None, where: str) -> bytes | None:
    try:
        return vault.resealed(sealed)
    except ValueError as error:
        raise StorageError(f"{where}: {error}") from None
