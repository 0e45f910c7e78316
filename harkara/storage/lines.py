"""A line is one contact's, however its number is written (docs/decisions/0072-a-line-is-one-contacts.md).

Who has one is found with `app.line` (migration 0033), which is part of the statements that ask for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from uuid import UUID

from harkara.values import line, spellings

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

_CLAIM = "select app.claim_lines($1::text[], $2::text[])"

_OWNER = "select contact_id from app.line($1, $2) where phone is distinct from $3 limit 1"


async def claim(con: Connection, numbers: Iterable[tuple[str, str]]) -> None:
    """Keep others from giving the lines of these (tenant, number) to a contact until this transaction ends.

    No index tells two spellings of a line apart from two lines, so whoever gives one to a contact claims it before they
    look who has it, and before any lock on contacts, which another's claims may wait for. All at once: they are claimed
    in one order. A number that has one spelling needs no claim.
    """
    several = [(tenant, line(phone)) for tenant, phone in numbers if len(spellings(phone)) > 1]
    if several:
        await con.execute(_CLAIM, *map(list, zip(*several, strict=True)))


async def owner(con: Connection, tenant: str, phone: str, but: str | None = None) -> UUID | None:
    """The contact that has this number, else the one that has it in another spelling; whoever has `but` is left out."""
    found: UUID | None = await con.fetchval(_OWNER, tenant, phone, but)
    return found
