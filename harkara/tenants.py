"""Tenants at the command line: which there are, and creating one, with the same rows as signing up over HTTP."""

from __future__ import annotations

import asyncpg
import msgspec

from harkara import values
from harkara.http.auth import SIGN_UP
from harkara.http.passwords import Passwords
from harkara.ids import uuid7
from harkara.schemas.api import NewPassword
from harkara.schemas.base import TENANT
from harkara.storage import pausing
from harkara.storage.storage import Storage, StorageError
from harkara.wording import misfit


async def known(storage: Storage) -> list[str]:
    """A line for each tenant: its id, and behind it whether it is paused or being erased."""
    async with storage.anonymous() as con:
        ids: list[str] = await con.fetchval("select app.all_tenants()")
        resting = {one.tenant: one for one in await pausing.at_rest(con)}
    return [id_ if id_ not in resting else f"{id_}  {_rest(resting[id_])}" for id_ in ids]


def _rest(one: pausing.AtRest) -> str:
    return "its erasing has not ended" if one.is_ending else f"paused: {one.why}"


def checked(tenant: str, email: str) -> str:
    """The address as it is stored. Raises StorageError, in one line, if it or the id is none."""
    if not TENANT.match(tenant):
        raise StorageError(
            f"tenant {tenant!r}: an id has 3 to 32 lower-case letters, digits and hyphens, a letter first"
        )
    try:
        return values.email(email)
    except ValueError as error:
        raise StorageError(f"email {email!r}: {error}") from None


async def create(storage: Storage, tenant: str, name: str, email: str, password: str) -> None:
    """Write a tenant and its owner. Raises StorageError, in one line, if the id or the address can't be used."""
    address = checked(tenant, email)
    try:
        msgspec.convert(password, NewPassword)
    except msgspec.ValidationError as error:
        raise StorageError(f"password: {misfit(error, NewPassword)[1]}") from None
    try:
        async with storage.anonymous() as con:
            hashed = await Passwords().hash(password)
            await con.execute(SIGN_UP, tenant, name, uuid7(), address, hashed, uuid7())
    except asyncpg.UniqueViolationError as error:
        taken = "this tenant id" if error.table_name == "tenants" else "this email"
        raise StorageError(f"{taken} is taken: choose another") from None
