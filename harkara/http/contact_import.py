"""POST /contacts/import: a CSV file, streamed to disk. A small one is stored at once, a large one piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Generator, Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import islice
from typing import IO, TYPE_CHECKING, Any

import msgspec
from aiohttp import BodyPartReader, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import MultiDict

from harkara.http import contacts
from harkara.http.accepting import Expected, accept
from harkara.http.checks import Faults
from harkara.http.context import Answer, Context
from harkara.http.decoding import decode_query
from harkara.http.problems import Problem, invalid, malformed, too_large
from harkara.http.route import PREFIX
from harkara.importing.encodings import Shape, known, shape_of
from harkara.importing.hints import hints
from harkara.importing.reading import NotAFile, Reader, Row
from harkara.importing.rows import Batch, Meaning
from harkara.schemas.api import (
    ImportAccepted,
    ImportColumn,
    Imported,
    ImportPreview,
    ImportQuery,
    ImportRow,
    Outcome,
)
from harkara.schemas.commands import RunImport
from harkara.storage import importing
from harkara.storage.importing import CHUNK_CHARS, CHUNK_ROWS, Stored
from harkara.storage.models import Import

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

#: Bytes and rows of a file: larger ones have to be split.
LIMIT, MOST_ROWS = 100_000_000, 500_000

#: A file of so many bytes and lines is stored before it is answered.
SMALL, SMALL_LINES = 2_000_000, 5_000

#: Bytes of a file kept in memory; what is more goes to disk.
IN_MEMORY = 1_000_000

#: Rows that a preview shows, and errors that an answer lists.
PREVIEWED, ERRORS_LISTED = 20, 1000

#: Bytes of a field of a form that is no file.
FIELD_LIMIT = 1000

#: An upload that was never received whole is forgotten after this long.
ABANDONED = timedelta(hours=1)


@dataclass(slots=True)
class Upload:
    """What was sent: the file, its name, and the fields of the form beside it."""

    file: IO[bytes]
    name: str | None = None
    fields: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Source:
    """A file that is open for reading, and what its sender should look at."""

    reader: Reader
    shape: Shape
    meaning: Meaning
    name: str | None
    hints: list[str]


async def import_csv(ctx: Context[None, ImportQuery]) -> Answer[Imported | ImportPreview | Outcome]:
    """Make or update a contact of every good row, and say what is wrong with the others.

    A large file is answered 202: GET /contacts/imports/{id} tells how far it has come, and so does the feed. Sending
    the same file again does no harm: what a cell leaves empty stays, and each number is one contact. Only an outright
    no as `consent` takes something away: a consent that was given before, as the audit log notes. A yes leaves an
    opt-out, and a consent that was given before, as they are; the answer counts who stays opted out. `opted_out` yes is
    an opt-out of everything: as with a PATCH, what runs for the contact is stopped, and `contact.opted_out` tells it.
    Of two rows with the same number the first counts. A number that a contact has in another spelling, such as a
    Brazilian one without the ninth digit, is that contact's, and stays as the contact has it. A file of UTF-8 in which
    some rows are not is UTF-8, and those are errors.

    `tags` and `consent_categories` of a row have a comma, a semicolon or | between them, so no tag of a file has one in
    it. `consent` and `opted_out` are the date when it was said, or yes or no: yes, y, true, on, granted, opted_in / no,
    n, false, off; sim, s, verdadeiro / não, nao, falso; sí, si, verdadero / no; sì, vero / no; oui, vrai / non, faux;
    ja, j, wahr / nein, falsch; ja, waar / nee, onwaar; हाँ, हां / नहीं, नही; ya, iya / tidak; evet / hayır, hayir;
    tak / nie; да / нет; نعم / لا; 1 / 0. A mark is a yes: x, ✓, ✔. An empty cell, - and none say nothing. Columns of
    the type `boolean` are read by the same words.
    """
    with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as file:
        upload = Upload(file)
        await _receive(ctx.request, upload)
        wanted = decode_query(_both(ctx, upload.fields), ImportQuery) if upload.fields else ctx.query
        async with ctx.transaction() as con:
            region = await contacts.region(con)
        with _refusing():
            source = await asyncio.to_thread(_open, upload, wanted, region, ctx)
            try:
                return await _answer(ctx, source, preview=wanted.preview)
            finally:
                source.reader.close()


def _both(ctx: Context[Any, Any], fields: Mapping[str, str]) -> Any:
    given = MultiDict(ctx.request.query)
    for name, value in fields.items():
        given.add(name, value)
    return given


@contextlib.contextmanager
def _refusing() -> Generator[None]:
    """Tell what is wrong with the file as a whole."""
    try:
        yield
    except NotAFile as error:
        raise Problem(422, str(error), errors=[("", str(error))]) from None


def _open(upload: Upload, wanted: ImportQuery, region: str | None, ctx: Context[Any, Any]) -> Source:
    faults = Faults()
    shape = shape_of(upload.file)
    encoding = shape.encoding
    if wanted.encoding is not None:
        try:
            encoding = known(wanted.encoding)
        except ValueError as error:
            faults.add("encoding", str(error))
    faults.refuse()
    told = msgspec.to_builtins(wanted)
    mapping = {name.removeprefix("map."): title for name, title in told.items() if name.startswith("map.") and title}
    delimiter = "\t" if wanted.delimiter == "tab" else wanted.delimiter
    reader = Reader(upload.file, encoding, delimiter, mapping)
    told_of = hints(encoding, reader.columns, guessed=shape.guessed and wanted.encoding is None)
    return Source(reader, shape, Meaning(reader.columns, region, ctx.door.clock()), upload.name, told_of)


async def _answer(
    ctx: Context[Any, Any], source: Source, *, preview: bool
) -> Answer[Imported | ImportPreview | Outcome]:
    if preview:
        return Answer(await _preview(ctx, source))
    if source.shape.size <= SMALL and source.shape.lines <= SMALL_LINES:
        return Answer(await _store_all(ctx, source))
    answer: Answer[Imported | ImportPreview | Outcome] = await _lay_down(ctx, source)
    return answer


# -- receiving -------------------------------------------------------------------------------------------------------


async def _receive(request: web.Request, upload: Upload) -> None:
    """Write the upload to the file. Raises Problem 413, 415 or 400: before anything is stored."""
    if (request.content_length or 0) > LIMIT:
        raise too_large(LIMIT)
    try:
        async for chunk in _chunks(request, upload):
            if upload.file.tell() + len(chunk) > LIMIT:
                raise too_large(LIMIT)
            upload.file.write(chunk)
    except (web.RequestPayloadError, HttpProcessingError, ConnectionError, ValueError):
        raise malformed("the upload ended early or is badly encoded: send it again") from None


async def _chunks(request: web.Request, upload: Upload) -> AsyncIterator[bytes]:
    if request.content_type == "application/json":
        raise Problem(415, "send the CSV file itself, as text/csv or as a file in multipart/form-data")
    if not request.content_type.startswith("multipart/"):
        async for chunk in request.content.iter_any():
            yield chunk
        return
    found = False
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            continue
        if not found and (part.filename or part.name == "file"):
            found, upload.name = True, part.filename
            while chunk := await part.read_chunk(65_536):
                yield bytes(chunk)
        elif part.name and part.filename is None:
            await _field(part, upload)
    if not found:
        raise malformed("there is no file in the form: name the field `file`")


async def _field(part: BodyPartReader, upload: Upload) -> None:
    """A field beside the file; those that are none of ours, such as a note, are left alone."""
    text = bytearray()
    while chunk := await part.read_chunk(FIELD_LIMIT):
        text += chunk[: FIELD_LIMIT + 1 - len(text)]
    if part.name in FIELDS:
        if len(text) > FIELD_LIMIT:
            raise invalid((part.name, f"must have at most {FIELD_LIMIT} bytes"))
        upload.fields[part.name] = text.decode(errors="replace")


#: What a form may say beside the file.
FIELDS = frozenset(one.encode_name for one in msgspec.structs.fields(ImportQuery))


# -- preview, and small files ----------------------------------------------------------------------------------------


async def _preview(ctx: Context[Any, Any], source: Source) -> ImportPreview:
    rows = await asyncio.to_thread(lambda: list(islice(source.reader.rows(), PREVIEWED)))
    found = await asyncio.to_thread(importing.read, rows, source.meaning)
    async with ctx.transaction() as con:
        good, faults = await importing.respelled(con, ctx.tenant, found.rows)
        known_ = await importing.known(con, ctx.tenant, [row.phone for row in good])
        opted_out = await importing.stay_opted_out(con, ctx.tenant, good)
    return ImportPreview(
        encoding=source.reader.encoding,
        delimiter=source.reader.delimiter,
        columns=_shown(source),
        rows=[msgspec.convert(row, ImportRow, from_attributes=True) for row in good],
        errors=sorted([*found.errors, *faults], key=lambda error: error.row),
        duplicates=found.duplicates,
        known=known_,
        opted_out=opted_out,
        hints=source.hints,
    )


def _shown(source: Source) -> list[ImportColumn]:
    return [msgspec.convert(column, ImportColumn, from_attributes=True) for column in source.reader.columns]


async def _store_all(ctx: Context[Any, Any], source: Source) -> Imported:
    """With an `Idempotency-Key` all pieces are one transaction: so they are taken from the whole file in one order."""
    import_id, done = ctx.new_id(), list[Stored]()
    found = await asyncio.to_thread(lambda: importing.read(list(source.reader.rows()), source.meaning))
    rows = importing.in_order(found.rows)
    for start in range(0, len(rows), CHUNK_ROWS):
        piece = Batch(rows[start : start + CHUNK_ROWS])
        async with ctx.transaction() as con:
            done.append(await importing.store(con, ctx.tenant, import_id, piece, len(piece.rows), ctx.cause))
            ctx.telling = ctx.telling or done[-1].told
    errors = sorted([*found.errors, *(error for one in done for error in one.errors)], key=lambda error: error.row)
    return Imported(
        created=sum(one.created for one in done),
        updated=sum(one.updated for one in done),
        duplicates=found.duplicates + sum(one.duplicates for one in done),
        opted_out=sum(one.opted_out for one in done),
        errors=errors[:ERRORS_LISTED],
        encoding=source.reader.encoding,
        delimiter=source.reader.delimiter,
        errors_left_out=max(len(errors) - ERRORS_LISTED, 0),
        hints=source.hints,
    )


async def _pieces(source: Source) -> AsyncIterator[list[Row]]:
    """The rows of a file, a chunk at a time."""
    rows = source.reader.rows()
    while piece := await asyncio.to_thread(_piece, rows):
        yield piece


def _piece(rows: Iterator[Row]) -> list[Row]:
    piece: list[Row] = []
    size = 0
    for row in rows:
        piece.append(row)
        size += sum(map(len, row.cells))
        if len(piece) >= CHUNK_ROWS or size >= CHUNK_CHARS:
            break
    return piece


# -- large files -----------------------------------------------------------------------------------------------------


async def _lay_down(ctx: Context[Any, Any], source: Source) -> Any:
    """Store the rows as they are, and have them imported."""
    import_id = await _begin(ctx, source)
    try:
        await _lay_rows(ctx, source, import_id)
        expected = Expected(frozenset({"import.completed"}), import_id)
        location = f"{PREFIX}/contacts/imports/{import_id}"
        command = RunImport(import_id=str(import_id))
        accepted = ImportAccepted(
            id=import_id, encoding=source.reader.encoding, delimiter=source.reader.delimiter, hints=source.hints
        )
        answer = await accept(ctx, command, accepted, location, expected, of_rows=True)
        return answer if answer.status else replace(answer, status=202)
    except BaseException:
        # It can't be known whether the command is stored, but one that finds no file does nothing.
        # With an Idempotency-Key all this is one transaction: what has not been committed is forgotten inside it.
        forgetting = _forget(ctx, import_id)
        await (forgetting if ctx.seed is not None else asyncio.shield(forgetting))
        raise


async def _begin(ctx: Context[Any, Any], source: Source) -> UUID:
    import_id, now = ctx.new_id(), ctx.door.clock()
    async with ctx.transaction():
        await Import.filter(status="receiving", created_at__lt=now - ABANDONED).delete()
        await Import.create(
            id=import_id,
            filename=source.name and source.name[:200].replace("\x00", ""),
            encoding=source.reader.encoding,
            delimiter=source.reader.delimiter,
            header={"columns": msgspec.to_builtins(source.reader.columns), "hints": source.hints},
            region=source.meaning.region,
            acting=ctx.acting,
            cause=ctx.cause,
            read_at=source.meaning.now,
        )
    return import_id


async def _lay_rows(ctx: Context[Any, Any], source: Source, import_id: UUID) -> None:
    number = rows = 0
    async for piece in _pieces(source):
        rows += len(piece)
        if rows > MOST_ROWS:
            detail = f"the file has more than the {MOST_ROWS} rows that one import takes: split it"
            raise Problem(413, detail, errors=[("", detail)])
        async with ctx.transaction() as con:
            await importing.put(con, ctx.tenant, import_id, number, piece)
        number += 1
    async with ctx.transaction() as con:
        if number == 0:  # nothing but empty lines
            await importing.put(con, ctx.tenant, import_id, 0, [])
        await Import.filter(id=import_id).update(status="queued", rows=rows, chunks=max(number, 1))


async def _forget(ctx: Context[Any, Any], import_id: UUID) -> None:
    with contextlib.suppress(Problem):  # it is forgotten an hour later then
        async with ctx.transaction():
            await Import.filter(id=import_id).delete()
