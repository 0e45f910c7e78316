"""POST /contacts/import: a CSV file, streamed to disk, read and stored a thousand rows at a time."""

from __future__ import annotations

import asyncio
import codecs
import io
import json
import tempfile
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from aiohttp import BodyPartReader, web

from harkara.http import contacts
from harkara.http.contact_rows import Batch, ContactRow, NotAFile, batches
from harkara.http.context import Context
from harkara.http.problems import Problem, malformed, too_large
from harkara.ids import uuid7
from harkara.schemas.api import Imported, RowError

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Bytes of a file; larger ones are for the asynchronous import.
LIMIT = 20_000_000

#: Bytes of a file kept in memory; what is more goes to disk.
IN_MEMORY = 1_000_000

BATCH = 1000

ERRORS_LISTED = 1000

#: Separates tags on their way into the database: no tag has it, because a row is split there.
SEPARATOR = "|"

#: Nothing is taken away: what a row leaves empty stays as it was, and an opt-out stays an opt-out.
STORE = """
insert into contacts (id, name, phone, locale, timezone, attributes, tags, opted_in_at, consent_source)
select i.id, i.name, i.phone, i.locale, i.timezone, i.attributes::jsonb, string_to_array(i.tags, '|'),
       i.consent_at, case when i.consent_at is not null then 'import' end
from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::timestamptz[])
     as i (id, name, phone, locale, timezone, attributes, tags, consent_at)
on conflict (tenant_id, phone) do update
set name = excluded.name,
    locale = coalesce(excluded.locale, contacts.locale),
    timezone = coalesce(excluded.timezone, contacts.timezone),
    attributes = contacts.attributes || excluded.attributes,
    tags = array(select distinct unnest(contacts.tags || excluded.tags)),
    opted_in_at = coalesce(contacts.opted_in_at, excluded.opted_in_at),
    consent_source = case when contacts.opted_in_at is null then excluded.consent_source
                          else contacts.consent_source end,
    updated_at = now()
returning xmax = 0
"""

FURTHER = "select phone, contact_id from phone_numbers where phone = any ($1::text[])"


async def import_csv(ctx: Context[None, None]) -> Imported:
    """Make or update a contact of every good row, and say what is wrong with the others.

    Sending the same file again does no harm: each batch is stored as it is read, so that is what to do after a failure.
    """
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as file:
        await _receive(ctx.request, file)
        async with ctx.transaction() as con:
            region = await contacts.region(con)
        text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
        try:
            return await _store_all(ctx, text, region)
        except NotAFile as error:
            raise Problem(422, str(error), errors=[("", str(error))]) from None
        finally:
            text.detach()


async def _receive(request: web.Request, file: Any) -> None:
    """Write the upload to the file. Raises Problem 413, or 422 if it isn't UTF-8: before anything is stored."""
    if (request.content_length or 0) > LIMIT:
        raise too_large(LIMIT)
    decoder, size = codecs.getincrementaldecoder("utf-8")(), 0
    try:
        async for chunk in _chunks(request):
            size += len(chunk)
            if size > LIMIT:
                raise too_large(LIMIT)
            decoder.decode(chunk)
            file.write(chunk)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        detail = "the file is not UTF-8: save it as `CSV UTF-8` and send it again"
        raise Problem(422, detail, errors=[("", detail)]) from None
    except (web.RequestPayloadError, ConnectionError, ValueError):
        raise malformed("the upload ended early or is badly encoded: send it again") from None
    file.seek(0)


async def _chunks(request: web.Request) -> AsyncIterator[bytes]:
    if request.content_type == "application/json":
        raise Problem(415, "send the CSV file itself, as text/csv or as a file in multipart/form-data")
    if not request.content_type.startswith("multipart/"):
        async for chunk in request.content.iter_any():
            yield chunk
        return
    async for part in await request.multipart():
        if isinstance(part, BodyPartReader) and (part.filename or part.name == "file"):
            while chunk := await part.read_chunk(65_536):
                yield bytes(chunk)
            return
    raise malformed("there is no file in the form: name the field `file`")


async def _store_all(ctx: Context[None, None], text: io.TextIOWrapper, region: str | None) -> Imported:
    created = updated = duplicates = wrong = 0
    errors: list[RowError] = []
    reading = batches(text, region, ctx.door.clock(), BATCH)
    # Reading phone numbers takes 0.1 ms a row: on the event loop it would hold everybody up.
    while (batch := await asyncio.to_thread(next, reading, None)) is not None:
        if batch.rows:
            async with ctx.transaction() as con:
                made, changed = await _store(con, batch)
            created, updated = created + made, updated + changed
        duplicates += batch.duplicates
        wrong += len(batch.errors)
        errors += batch.errors[: ERRORS_LISTED - len(errors)]
    return Imported(
        created=created,
        updated=updated,
        duplicates=duplicates,
        errors=errors,
        errors_left_out=wrong - len(errors),
    )


async def _store(con: Connection, batch: Batch) -> tuple[int, int]:
    """Write the good rows, in the order of their numbers so that two imports can't block each other."""
    further = await con.fetch(FURTHER, [row.phone for row in batch.rows])
    owners: dict[str, Any] = {record["phone"]: record["contact_id"] for record in further}
    for row in batch.rows:
        if row.phone in owners:
            message = f"is a further number of contact {owners[row.phone]}"
            batch.errors.append(RowError(row=row.row, path="phone", message=message))
    rows: list[ContactRow] = sorted((r for r in batch.rows if r.phone not in owners), key=lambda row: row.phone)
    written = await con.fetch(
        STORE,
        [uuid7() for _ in rows],
        [row.name for row in rows],
        [row.phone for row in rows],
        [row.locale for row in rows],
        [row.timezone for row in rows],
        [json.dumps(row.attributes, ensure_ascii=False) for row in rows],
        [SEPARATOR.join(row.tags) for row in rows],
        [row.consent_at for row in rows],
    )
    made = sum(record[0] for record in written)
    return made, len(written) - made
