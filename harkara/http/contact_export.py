"""Contacts as a file, all that a filter finds; and everything that is held about one. Streamed, a page at a time.

Each page is a transaction of its own, so a reader may be as slow as it likes and holds nothing up.
"""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import web
from loguru import logger

from harkara.http import contacts
from harkara.http.contact_search import Search
from harkara.http.context import Context
from harkara.http.lists import LAST
from harkara.http.trail import audit
from harkara.importing.reading import title_of
from harkara.importing.rows import guarded
from harkara.schemas.api import ContactShown, ExportQuery
from harkara.storage import holdings

if TYPE_CHECKING:
    from uuid import UUID

#: Contacts, or rows, a page.
PAGE = 500

#: The fields of a contact in a CSV file, with titles that an import reads; attributes follow.
TITLES = (
    "contact_id", "name", "phone", "locale", "timezone", "tags", "consent", "consent_source", "consent_categories",
    "opted_out", "contact_created_at",
)  # fmt: skip

BOM = "\ufeff"

#: Every attribute of some contacts and the types of its values.
ATTRIBUTES = """
select distinct a.key, case jsonb_typeof(a.value) when 'number' then 'number' when 'boolean' then 'boolean'
                       else 'string' end
from unnest($1::jsonb[]) c, jsonb_each(c) a where a.value <> 'null'
"""

_encode = msgspec.json.Encoder().encode


async def export(ctx: Context[None, ExportQuery]) -> web.StreamResponse:
    """Every contact that the filters find, newest first, as CSV that an import reads again, or as JSON lines.

    Cells that a spreadsheet would take for a formula have an apostrophe before them; an import takes it away again.
    """
    query = ctx.query
    async with ctx.transaction() as con:
        search = Search(ctx.tenant, query, await contacts.region(con) if query.phone else None)
    await audit(ctx, "export", "contact", {"filter": msgspec.to_builtins(query)})
    if query.format == "jsonl":
        return await _streamed(ctx, _lines(ctx, search), "application/jsonl", "contacts.jsonl")
    titles = await _attributes(ctx, search)
    content = _table(ctx, search, titles, BOM if query.bom else "")
    return await _streamed(ctx, content, "text/csv; charset=utf-8", "contacts.csv")


async def _pages(ctx: Context[Any, Any], search: Search) -> AsyncIterator[list[Any]]:
    after: UUID | None = LAST
    while after is not None:
        async with ctx.transaction() as con:
            found = await search.read(con, after, PAGE)
        if found.rows:
            yield found.rows
        after = found.after


async def _lines(ctx: Context[Any, Any], search: Search) -> AsyncIterator[bytes]:
    async for rows in _pages(ctx, search):
        yield b"".join(_encode(contacts.told(row)) + b"\n" for row in rows)


async def _attributes(ctx: Context[Any, Any], search: Search) -> list[tuple[str, str]]:
    """The attributes that there are, with their types: a file must name its columns before its first row."""
    found: set[tuple[str, str]] = set()
    async for rows in _pages(ctx, search):
        async with ctx.transaction() as con:
            found |= {(row[0], row[1]) for row in await con.fetch(ATTRIBUTES, [row["attributes"] for row in rows])}
    return sorted(found)


async def _table(
    ctx: Context[Any, Any], search: Search, attributes: list[tuple[str, str]], mark: str
) -> AsyncIterator[bytes]:
    text = io.StringIO()
    write = csv.writer(text)
    text.write(mark)
    write.writerow([*TITLES, *(title_of(name, kind) for name, kind in attributes)])
    async for rows in _pages(ctx, search):
        write.writerows(_cells(contacts.told(row), attributes) for row in rows)
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
    yield text.getvalue().encode()


def _cells(contact: ContactShown, attributes: list[tuple[str, str]]) -> list[str]:
    consent = contact.consent
    return [
        str(contact.id),
        guarded(contact.name),
        contact.phone or "",  # begins with +, and no spreadsheet takes digits for a formula
        contact.locale or "",
        contact.timezone or "",
        guarded(";".join(contact.tags)),
        consent.at.isoformat() if consent else "",
        guarded(consent.source or "") if consent else "",
        ";".join(consent.categories) if consent else "",
        contact.opted_out_at.isoformat() if contact.opted_out_at else "",
        contact.created_at.isoformat(),
        *(_value(contact.attributes.get(name), kind) for name, kind in attributes),
    ]


def _value(value: object, kind: str) -> str:
    """The value if it is of this type."""
    match value:
        case bool():
            return str(value).lower() if kind == "boolean" else ""
        case int() | float():
            return str(value) if kind == "number" else ""
        case str():
            return guarded(value) if kind == "string" else ""
        case _:
            return ""


async def document(ctx: Context[None, None]) -> web.StreamResponse:
    """Everything that is held about a contact, as one JSON document: its rows in every table, and who changed it."""
    async with ctx.transaction() as con:
        contact = await contacts.get(ctx)
        sections = await holdings.sections(con)
    await audit(ctx, "export", "contact", {"everything": True}, contact.id)
    return await _streamed(
        ctx, _document(ctx, contacts.told(vars(contact)), sections), "application/json", f"contact-{contact.id}.json"
    )


async def _document(ctx: Context[Any, Any], contact: ContactShown, sections: dict[str, str]) -> AsyncIterator[bytes]:
    yield b'{"contact":' + _encode(contact)
    for name, statement in sections.items():
        yield b',"%s":[' % name.encode()
        after: UUID | None = LAST
        comma = b""
        while after is not None:
            async with ctx.transaction() as con:
                rows = await con.fetch(statement, ctx.tenant, contact.id, after, PAGE)
            if rows:
                yield comma + ",".join(row[1] for row in rows).encode()
                comma = b","
            after = rows[-1][0] if len(rows) == PAGE else None
        yield b"]"
    yield b"}"


async def _streamed(
    ctx: Context[Any, Any], content: AsyncIterator[bytes], content_type: str, filename: str
) -> web.StreamResponse:
    """Send it as it comes. What fails on the way breaks the connection off: a file that only looks whole is worse."""
    first = await anext(content, b"")  # what is wrong from the beginning is still told as a problem
    headers = {"Content-Type": content_type, "Content-Disposition": f'attachment; filename="{filename}"'}
    response = web.StreamResponse(headers=headers)
    await response.prepare(ctx.request)
    try:
        await response.write(first)
        async for piece in content:
            if piece:
                await response.write(piece)
        await response.write_eof()
    except Exception as error:
        logger.bind(cause=ctx.cause).warning("an export broke off: {}", error)
        if ctx.request.transport is not None:
            ctx.request.transport.abort()
    return response
