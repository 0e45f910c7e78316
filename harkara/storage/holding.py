"""Stops that win every race: what was accepted and may stop something holds the contact until it is done.

Whoever accepts a word of a contact, or a command to stop, writes a hold before it answers. The gate sends nothing to a
contact that is held; it waits until whoever does what was accepted has taken the hold away, in the same transaction. A
gate that has already looked is waited for: it looks and writes attempts under a shared lock on the contact's bucket,
and a hold is written under the exclusive one. What was let through before that is in the air, and seen as such
(docs/decisions/0041-stop-wins-every-race.md).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID
from zlib import crc32

from harkara.ids import uuid7

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: A hold that nobody took away counts no longer: by then what was accepted is among the dead letters.
EXPIRES = timedelta(hours=12)

#: Whether contact `k` is held, as SQL. Nearly always the table is empty.
HELD = """exists (select from contact_holds h
               where h.contact_id = k.id and h.created_at > now() - interval '12 h')"""

#: Locks by contact would be too many for the server's table of locks; two contacts of one bucket seldom meet.
BUCKETS = 256

#: Sets these locks apart from any others; chosen freely.
_KIND = 0x57_0B

_SHARE = "select pg_advisory_xact_lock_shared($1, bucket) from unnest($2::int[]) bucket"
_EXCLUDE = "select pg_advisory_xact_lock($1, bucket) from unnest($2::int[]) bucket"

_WHO = """
select l.contact_id from unnest($2::text[]) as said (phone) cross join lateral app.line($1, said.phone) l
union select id from contacts where tenant_id = $1 and wa_user_id = any ($3::text[])
union select app.same_line($1, id) from contacts where tenant_id = $1 and wa_user_id = any ($3::text[])
union select contact_id from messages
where wamid = any ($4::text[]) and tenant_id || '' = $1 and contact_id is not null
"""

_HOLD = """
insert into contact_holds (id, tenant_id, contact_id, word)
select i.id, $1, i.contact_id, $2 from unnest($3::uuid[], $4::uuid[]) as i (id, contact_id)
on conflict (tenant_id, word, contact_id) do nothing returning contact_id
"""

_RELEASE = """
delete from contact_holds h using unnest($1::text[], $2::uuid[]) as i (tenant_id, word)
where h.word = i.word and h.tenant_id || '' = i.tenant_id
"""

_RELEASE_OF = "delete from contact_holds where tenant_id = $1 and word = $2 and contact_id = any ($3::uuid[])"

#: An attempt without a result may still be on its way for as long as a request may take.
_IN_THE_AIR = """
select exists (select from messages where tenant_id = $1 and contact_id = any ($2::uuid[]) and status = 'sending'
               and attempted_at > clock_timestamp() - interval '15 s')
"""


@dataclass(frozen=True, slots=True)
class Held:
    """The contacts that something may stop, and those that it held just now: a repetition holds nobody anew."""

    contacts: Sequence[UUID] = ()
    new: Sequence[UUID] = ()


def _buckets(contacts: Iterable[UUID]) -> list[int]:
    """In one order, so that nobody waits for somebody who waits for them."""
    return sorted({crc32(contact.bytes) % BUCKETS for contact in contacts})


async def share(con: Connection, contacts: Collection[UUID]) -> None:
    """Keep holds on these contacts from being written until this transaction ends. The gate's first statement."""
    if contacts:
        await con.execute(_SHARE, _KIND, _buckets(contacts))


async def exclude(con: Connection, contacts: Collection[UUID]) -> None:
    """Wait for the gates that look at these contacts, and keep others out until this transaction ends.

    Before any lock on the contacts themselves, which the gates may wait for.
    """
    await con.execute(_EXCLUDE, _KIND, _buckets(contacts))


class Speakers(NamedTuple):
    """Who says something: their numbers, their business-scoped user ids, and messages of ours that they quote."""

    phones: Sequence[str] = ()
    users: Sequence[str] = ()
    quoted: Sequence[str] = ()


async def who(con: Connection, tenant: str, speakers: Speakers) -> list[UUID]:
    """The contacts who say something, as far as they are known."""
    return [row[0] for row in await con.fetch(_WHO, tenant, *map(list, speakers))]


async def hold(con: Connection, tenant: str, word: UUID, contacts: Sequence[UUID]) -> Held:
    """Hold these contacts until `release` of the same word."""
    await exclude(con, contacts)
    rows = await con.fetch(_HOLD, tenant, word, [uuid7() for _ in contacts], list(contacts))
    return Held(contacts, [row[0] for row in rows])


async def release(con: Connection, words: Sequence[tuple[str, UUID]]) -> None:
    """What these (tenant, word) said is done."""
    if words:
        await con.execute(_RELEASE, *map(list, zip(*words, strict=True)))


async def give_up(con: Connection, tenant: str, word: UUID, contacts: Sequence[UUID]) -> None:
    """A word was not accepted after all, or was done long ago."""
    await con.execute(_RELEASE_OF, tenant, word, list(contacts))


async def in_the_air(con: Connection, tenant: str, contacts: Sequence[UUID]) -> bool:
    """Whether a message to one of these has left, and it is not known yet whether it arrived."""
    found: bool = await con.fetchval(_IN_THE_AIR, tenant, list(contacts))
    return found
