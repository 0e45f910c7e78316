"""Creating a tenant from the command line: the same rows as signing up over HTTP."""

from __future__ import annotations

import asyncpg

from harkara.http.auth import SIGN_UP
from harkara.http.passwords import Passwords
from harkara.ids import uuid7
from harkara.schemas.base import TENANT
from harkara.settings import Settings, require
from harkara.storage.storage import Storage, StorageError


async def create(settings: Settings, tenant: str, name: str, email: str, password: str) -> None:
    """Write a tenant and its owner. Raises StorageError, in one line, if the id or the address can't be used."""
    require(settings, "database_url")
    if not TENANT.match(tenant):
        raise StorageError(
            f"tenant {tenant!r}: an id has 3 to 32 lower-case letters, digits and hyphens, a letter first"
        )
    if "@" not in email:
        raise StorageError(f"email {email!r}: is no address")
    storage = Storage(settings.database_url, pool=2)
    await storage.open()
    try:
        async with storage.anonymous() as con:
            hashed = await Passwords().hash(password)
            await con.execute(SIGN_UP, tenant, name, uuid7(), email, hashed, uuid7())
    except asyncpg.UniqueViolationError as error:
        taken = "this tenant id" if error.table_name == "tenants" else "this email"
        raise StorageError(f"{taken} is taken: choose another") from None
    finally:
        await storage.close()
