"""Messages that are written in the transaction of what they tell, and published after it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from harkara.ids import uuid7
from harkara.schemas.base import Message

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Nudges whoever publishes them.
WAKE = "sys.wake.outbox"

_PUT = """
insert into outbox (id, tenant_id, subject, body, name, cause)
select i.id, $2, i.subject, i.body, i.name, $6
from unnest($1::uuid[], $3::text[], $4::text[], $5::text[]) as i (id, subject, body, name)
"""

_TAKE = "select tenant_id, subject, body, name, cause from app.take_outbox($1, $2)"


_WAITING = "select waiting, oldest_s from app.outbox_waiting($1)"

#: More than this need not be told apart.
MOST_COUNTED = 10_000


async def put(con: Connection, tenant: str, message: Message, name: str, cause: str) -> None:
    """Have it published if this transaction commits: at the next tick, or at once if `WAKE` nudges somebody."""
    await put_all(con, tenant, [(message, name)], cause)


async def put_all(con: Connection, tenant: str, told: Sequence[tuple[Message, str]], cause: str) -> None:
    """The same of several, each with its name, in this order."""
    await con.execute(
        _PUT,
        [uuid7() for _ in told],
        tenant,
        [message.subject_for(tenant) for message, _ in told],
        [msgspec.json.encode(message).decode() for message, _ in told],
        [name for _, name in told],
        cause,
    )


async def take(con: Connection, most: int, but: Collection[str] = ()) -> list[Any]:
    """The oldest that wait and are not for the subjects `but`: (tenant, subject, body, name, cause).

    They are gone when this transaction commits.
    """
    return list(await con.fetch(_TAKE, most, list(but)))


async def waiting(con: Connection) -> tuple[int, float]:
    """How many wait, of all tenants and at most MOST_COUNTED, and for how many seconds the oldest does."""
    row = await con.fetchrow(_WAITING, MOST_COUNTED)
    return (int(row["waiting"]), float(row["oldest_s"])) if row is not None else (0, 0.0)
