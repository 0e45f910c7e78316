"""What an import reads and writes: contacts, a batch of rows at a time, and how far a file has come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec

from harkara.ids import uuid7
from harkara.importing.reading import Column, Row
from harkara.importing.rows import SOURCE, Batch, ContactRow, Meaning, batch
from harkara.schemas.api import RowError
from harkara.schemas.base import Message
from harkara.schemas.events import ContactOptedOut, EnrollmentStopped
from harkara.storage import enrolling, lines, outbox
from harkara.storage.opting import EVERYTHING, OUT_OF_MARKETING
from harkara.values import line, spellings

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Rows of a chunk, and about how many characters: a chunk is one transaction, and is in memory at once.
CHUNK_ROWS, CHUNK_CHARS = 1000, 1_000_000

#: Separates tags on their way into the database: no tag has it, because a row is split there.
SEPARATOR = "|"

#: Nothing is taken away but a consent, by an outright no: what a row leaves empty stays as it was, and an opt-out stays
#: an opt-out. A contact that this import has written already is a repetition, and none comes back for it. How it was
#: before is what the statement's own snapshot still shows.
_STORE = """
insert into contacts (id, tenant_id, name, phone, locale, timezone, attributes, tags, opted_in_at, consent_source,
                      consent_categories, opted_out_at, opted_out_reason, import_id)
select i.id, $1, i.name, i.phone, i.locale, i.timezone, i.attributes::jsonb, string_to_array(i.tags, '|'),
       i.consent_at, i.consent_source, string_to_array(i.consent_categories, '|'), i.opted_out_at,
       case when i.opted_out_at is not null then 'import' end, $2
from unnest($3::uuid[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::timestamptz[],
            $11::text[], $12::text[], $13::timestamptz[])
     as i (id, name, phone, locale, timezone, attributes, tags, consent_at, consent_source, consent_categories,
           opted_out_at)
on conflict (tenant_id, phone) do update
set name = excluded.name,
    locale = coalesce(excluded.locale, contacts.locale),
    timezone = coalesce(excluded.timezone, contacts.timezone),
    attributes = contacts.attributes || excluded.attributes,
    tags = contacts.tags || array(select tag from unnest(excluded.tags) tag where tag <> all (contacts.tags)),
    opted_in_at = case when {withdrawn} then null else coalesce(contacts.opted_in_at, excluded.opted_in_at) end,
    consent_source = case when contacts.opted_in_at is null or {withdrawn} then excluded.consent_source
                          else contacts.consent_source end,
    consent_categories = case when contacts.opted_in_at is null or {withdrawn} then excluded.consent_categories
                              else contacts.consent_categories end,
    opted_out_at = coalesce(contacts.opted_out_at, excluded.opted_out_at),
    opted_out_reason = case when contacts.opted_out_at is null then excluded.opted_out_reason
                            else contacts.opted_out_reason end,
    import_id = excluded.import_id,
    updated_at = now()
where contacts.import_id is distinct from excluded.import_id
returning id, xmax = 0 as made, phone,
          opted_out_reason = 'import' and xmax <> 0
          and (select k.opted_out_at is null from contacts k where k.id = contacts.id) as now_out
""".replace("{withdrawn}", "excluded.phone = any ($14::text[])")

#: Who has these numbers, how they spell them, and whether it is a further one there: no join, which might begin with
#: all contacts of the tenant.
_OWNERS = """
select i.phone, l.contact_id, l.phone,
       l.phone is distinct from (select k.phone from contacts k where k.id = l.contact_id and k.tenant_id || '' = $1)
from unnest($2::text[]) as i (phone) cross join lateral (select * from app.line($1, i.phone) limit 1) l
"""

#: Numbers that have opted out of what campaigns send, as a contact's or as what is remembered of one that is gone.
_OPTED_OUT = f"""
select count(*) from unnest($2::text[]) as i (phone)
left join contacts k on k.tenant_id = $1 and k.phone = i.phone
where {OUT_OF_MARKETING} or k.id is null and app.opted_out($1, i.phone, 'marketing')
"""  # noqa: S608 - our own words

_KNOWN = "select count(*) from contacts where tenant_id = $1 and phone = any ($2::text[])"


@dataclass(frozen=True, slots=True)
class Stored:
    """What became of some rows."""

    rows: int
    created: int
    updated: int
    duplicates: int
    opted_out: int
    errors: list[RowError]
    #: Something is in the outbox, to be told once this is committed.
    told: bool


async def store(con: Connection, tenant: str, import_id: UUID, found: Batch, rows: int, cause: str) -> Stored:
    """Write the good rows; in `in_order`, so that two imports can't block each other.

    Whoever opts out by it hears nothing more of any campaign, and that is told, as if they had said it themselves.
    """
    await lines.claim(con, [(tenant, row.phone) for row in found.rows])
    rows_, faults = await respelled(con, tenant, found.rows)
    good, errors = in_order(rows_), [*found.errors, *faults]
    written = await con.fetch(_STORE, tenant, import_id, *_columns(good)) if good else []
    created = sum(record["made"] for record in written)
    repeated = found.duplicates + len(good) - len(written)
    out_now = [record["id"] for record in written if record["now_out"]]
    if out_now:
        await _stop(con, tenant, import_id, out_now, cause)
    phones = {record["phone"] for record in written}
    out = await stay_opted_out(con, tenant, [row for row in good if row.phone in phones])
    errors.sort(key=lambda error: error.row)
    return Stored(rows, created, len(written) - created, repeated, out, errors, told=bool(out_now))


def in_order(rows: Sequence[ContactRow]) -> list[ContactRow]:
    """These rows as they are written: those of lines that are claimed first, then all others by their numbers.

    A transaction that writes several chunks takes them from all rows of its file in this order.
    """
    return sorted(rows, key=lambda row: (len(spellings(row.phone)) == 1, line(row.phone)))


async def respelled(
    con: Connection, tenant: str, rows: Sequence[ContactRow]
) -> tuple[list[ContactRow], list[RowError]]:
    """These rows, each with its number as the contact of that line has it; and what is wrong with the others.

    A number that is a contact's in just this spelling is that one's.
    """
    found = await con.fetch(_OWNERS, tenant, [row.phone for row in rows])
    owners = {asked: (contact, phone, further) for asked, contact, phone, further in found}
    good, errors = list[ContactRow](), list[RowError]()
    for row in rows:
        contact, phone, further = owners.get(row.phone, (None, row.phone, False))
        if further:
            errors.append(RowError(row=row.row, path="phone", message=f"is a further number of contact {contact}"))
        else:
            good.append(row if phone == row.phone else replace(row, phone=phone))
    return good, errors


async def _stop(con: Connection, tenant: str, import_id: UUID, contacts: Sequence[UUID], cause: str) -> None:
    told: list[tuple[Message, str]] = [
        (
            ContactOptedOut(id=str(id_), reason=SOURCE, category=EVERYTHING, source=SOURCE),
            f"{id_}.opted_out.{EVERYTHING}.{import_id}",
        )
        for id_ in contacts
    ]
    for row in await enrolling.stop_contacts(con, [(tenant, id_, "opt_out") for id_ in contacts]):
        event = EnrollmentStopped(id=str(row[0]), campaign_id=str(row[2]), contact_id=str(row[3]), reason=row[4])
        told.append((event, f"{row[0]}.stopped"))
    await outbox.put_all(con, tenant, told, cause)


def _columns(rows: Sequence[ContactRow]) -> list[list[Any]]:
    return [
        [uuid7() for _ in rows],
        [row.name for row in rows],
        [row.phone for row in rows],
        [row.locale for row in rows],
        [row.timezone for row in rows],
        [json.dumps(row.attributes, ensure_ascii=False) for row in rows],
        [SEPARATOR.join(row.tags) for row in rows],
        [row.consent_at for row in rows],
        [row.consent_source for row in rows],
        [SEPARATOR.join(row.consent_categories) for row in rows],
        [row.opted_out_at for row in rows],
        [row.phone for row in rows if row.withdraws_consent],
    ]


async def known(con: Connection, tenant: str, phones: Sequence[str]) -> int:
    """How many of these numbers are contacts."""
    found: int = await con.fetchval(_KNOWN, tenant, list(phones))
    return found


async def stay_opted_out(con: Connection, tenant: str, rows: Sequence[ContactRow]) -> int:
    """How many of these stay opted out of what campaigns send, though their row doesn't say so."""
    phones = [row.phone for row in rows if row.opted_out_at is None]
    found: int = await con.fetchval(_OPTED_OUT, tenant, phones)
    return found


# -- chunks: rows that wait in the database --------------------------------------------------------------------------

_PUT = "insert into import_chunks (id, tenant_id, import_id, number, rows) values ($1, $2, $3, $4, $5)"

_JOB = """
select status, coalesce(header -> 'columns', header)::text as columns, region, read_at, acting, chunks, rows, rows_done,
       created, updated, duplicates, opted_out, errors, created_at
from imports where tenant_id = $1 and id = $2 for no key update
"""

_TAKE = "delete from import_chunks where tenant_id = $1 and import_id = $2 and number = $3 returning rows"

_FAULTS = """
insert into import_faults (id, tenant_id, import_id, row, path, message)
select * from unnest($1::uuid[], $2::text[], $3::uuid[], $4::int[], $5::text[], $6::text[])
"""

#: The audit log has every contact with who sent the file; how far it has come is nobody's deed.
_UNSAID = "select set_config('app.actor', '', true)"

_PROGRESS = """
update imports
set rows_done = rows_done + $3, created = created + $4, updated = updated + $5, duplicates = duplicates + $6,
    opted_out = opted_out + $7, errors = errors + $8,
    status = case when $9 then 'completed' else 'running' end,
    finished_at = case when $9 then now() end, updated_at = now()
where tenant_id = $1 and id = $2
returning rows, rows_done, created, updated, duplicates, opted_out, errors
"""

_COUNTS = ("rows", "rows_done", "created", "updated", "duplicates", "opted_out", "errors")


@dataclass(frozen=True, slots=True)
class Job:
    """A file that is stored piece by piece."""

    status: str
    meaning: Meaning
    acting: str
    chunks: int
    created_at: datetime
    counts: dict[str, int]


_rows = msgspec.json.Decoder(list[tuple[int, list[str], str]])
_header = msgspec.json.Decoder(list[Column])


async def put(con: Connection, tenant: str, import_id: UUID, number: int, rows: Sequence[Row]) -> None:
    """Lay down the next rows of a file."""
    body = msgspec.json.encode([(row.number, row.cells, row.fault) for row in rows]).decode()
    await con.execute(_PUT, uuid7(), tenant, import_id, number, body)


async def job(con: Connection, tenant: str, import_id: UUID) -> Job | None:
    """The file, held until this transaction ends; None if there is none any more."""
    found = await con.fetchrow(_JOB, tenant, import_id)
    if found is None:
        return None
    meaning = Meaning(_header.decode(found["columns"]), found["region"], found["read_at"])
    counts = {name: found[name] for name in _COUNTS}
    return Job(found["status"], meaning, found["acting"], found["chunks"], found["created_at"], counts)


async def take(con: Connection, tenant: str, import_id: UUID, number: int) -> list[Row] | None:
    """The rows of a chunk, which is gone when this transaction commits; None if it was taken before."""
    text = await con.fetchval(_TAKE, tenant, import_id, number)
    return None if text is None else [Row(*row) for row in _rows.decode(text)]


def read(rows: Sequence[Row], meaning: Meaning) -> Batch:
    """The contacts of these rows: a tenth of a millisecond each, so not for the event loop."""
    return batch(rows, meaning)


async def note(con: Connection, tenant: str, import_id: UUID, of: Job, stored: Stored, *, last: bool) -> dict[str, int]:
    """Add what became of a chunk. Returns how far the file has come."""
    errors = stored.errors
    # In the order of the rows, by the time in their ids.
    ids = [uuid7(of.created_at + timedelta(milliseconds=error.row)) for error in errors]
    await con.execute(
        _FAULTS,
        ids,
        [tenant for _ in errors],
        [import_id for _ in errors],
        [error.row for error in errors],
        [error.path for error in errors],
        [error.message for error in errors],
    )
    await con.execute(_UNSAID)
    counted = (stored.rows, stored.created, stored.updated, stored.duplicates, stored.opted_out, len(errors))
    return dict(await con.fetchrow(_PROGRESS, tenant, import_id, *counted, last) or {})
