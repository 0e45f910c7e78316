"""The files that came with messages."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import UUID

from aiohttp import web
from loguru import logger

from harkara.http.context import Context
from harkara.http.problems import Problem, conflict, not_found, unavailable
from harkara.http.route import PREFIX
from harkara.schemas.api import MediaShown
from harkara.storage.blobs import NoBlob
from harkara.storage.media import key_of
from harkara.storage.models import Media

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: Types that a browser shows without running anything; all others are saved.
SHOWN_INLINE = re.compile(r"^(image/(jpeg|png|webp|gif)|audio/[a-z0-9.+-]+|video/(mp4|3gpp))$")

OF_REPLIES = """
select id, reply_id, status, reason, mime_type, size, filename from media
where tenant_id = $1 and reply_id = any ($2::uuid[])
"""


async def show(ctx: Context[None, None]) -> web.StreamResponse:
    """The bytes of a file that came with a message.

    409 while it has not been fetched from WhatsApp yet, 410 if it can't be had: the problem says why.
    """
    async with ctx.transaction():
        row = await Media.get_or_none(id=ctx.id("media_id"))
    if row is None:
        raise not_found("file")
    if row.status == "waiting":
        raise conflict("this file is being fetched from WhatsApp: ask again in a moment")
    if row.status == "failed":
        raise Problem(410, f"this file can't be had: {row.reason}")
    return await _streamed(ctx, row)


async def _streamed(ctx: Context[None, None], row: Media) -> web.StreamResponse:
    blobs = ctx.door.blobs
    if blobs is None:
        raise unavailable("the store of files (MEDIA_URL is not set here)", retry_after_s=60)
    response = web.StreamResponse(headers=_headers(row))
    response.content_length = row.size
    async with aclosing(blobs.read(key_of(row.tenant_id, row.id))) as pieces:
        try:
            first = await anext(pieces, b"")
        except NoBlob:
            raise Problem(410, "this file is not where it was kept any more") from None
        except Exception as error:
            logger.bind(tenant=row.tenant_id, media=str(row.id)).warning("a file can't be read: {}", error)
            raise unavailable("the store of files") from error
        await response.prepare(ctx.request)
        await response.write(first)
        async for piece in pieces:
            await response.write(piece)
    await response.write_eof()
    return response


def _headers(row: Media) -> dict[str, str]:
    """Whatever somebody sent, no browser runs it in our name."""
    mime_type = row.mime_type or "application/octet-stream"
    how = "inline" if SHOWN_INLINE.match(mime_type) else "attachment"
    name = f"; filename*=UTF-8''{quote(row.filename, safe='')}" if row.filename else ""
    return {
        "Content-Type": mime_type,
        "Content-Disposition": f"{how}{name}",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Cache-Control": "private, max-age=3600",
    }


async def of_replies(con: Connection, tenant: str, replies: list[UUID]) -> dict[UUID, MediaShown]:
    """The files that came with these replies, by the reply."""
    if not replies:
        return {}
    return {row["reply_id"]: _shown(row) for row in await con.fetch(OF_REPLIES, tenant, replies)}


def _shown(row: Any) -> MediaShown:
    return MediaShown(
        id=row["id"],
        status=row["status"],
        reason=row["reason"],
        mime_type=row["mime_type"],
        size=row["size"],
        filename=row["filename"],
        url=f"{PREFIX}/media/{row['id']}",
    )
