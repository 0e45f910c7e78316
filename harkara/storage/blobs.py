"""Files, by key: in a directory or in a bucket, as MEDIA_URL says.

Whoever stores one has it on disk, and whoever reads one gets it in pieces: no file is ever in memory as a whole.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import uuid4

from harkara.settings import SettingsError

#: Bytes handed on at once.
PIECE = 1 << 16


class NoBlob(Exception):
    """There is no file under this key."""


class Blobs(Protocol):
    """Where files are kept. A key is `<tenant>/<id>`."""

    async def put(self, key: str, source: Path, mime_type: str) -> None:
        """Store a file, whole or not at all; what was there is replaced."""
        ...

    def read(self, key: str) -> AsyncGenerator[bytes]:
        """A file in pieces. Raises NoBlob at the first if there is none."""
        ...

    async def delete(self, key: str) -> None:
        """Forget a file; one that is not there is forgotten already."""
        ...

    def of(self, tenant: str) -> AsyncGenerator[str]:
        """The keys of all files of a tenant, those included that were not stored to the end."""
        ...

    async def close(self) -> None:
        """Give up all connections."""
        ...


def blobs_at(url: str) -> Blobs:
    """What MEDIA_URL names: `file:///directory`, or `s3://bucket/prefix?endpoint=https://…&region=…`.

    Credentials of a bucket are AWS's own settings (AWS_ACCESS_KEY_ID …). Raises SettingsError for anything else.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.strip("/"):
        return FileBlobs(Path(unquote(parts.path)))
    if parts.scheme == "s3" and parts.netloc:
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        return S3Blobs(parts.netloc, parts.path.strip("/"), query.get("endpoint"), query.get("region"))
    raise SettingsError("MEDIA_URL: must look like file:///var/lib/harkara/media or s3://bucket?endpoint=https://…")


class FileBlobs:
    """A directory, which all processes that need it share."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def _path(self, key: str) -> Path:
        path = (self._root / key).resolve()
        if not path.is_relative_to(self._root.resolve()):
            raise ValueError(f"a key must stay inside the directory: {key!r}")
        return path

    async def put(self, key: str, source: Path, mime_type: str) -> None:
        """Copied beside its place first, then moved there."""
        await asyncio.to_thread(self._put, self._path(key), source)

    def _put(self, path: Path, source: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        half = path.with_name(f"{path.name}.{uuid4().hex}.part")
        try:
            with source.open("rb") as read, half.open("wb") as write:
                shutil.copyfileobj(read, write, PIECE)
                write.flush()
                os.fsync(write.fileno())
            half.replace(path)
        finally:
            half.unlink(missing_ok=True)

    async def read(self, key: str) -> AsyncGenerator[bytes]:
        """In pieces, read beside the event loop."""
        try:
            file = await asyncio.to_thread(self._path(key).open, "rb")
        except FileNotFoundError:
            raise NoBlob(key) from None
        with file:
            while piece := await asyncio.to_thread(file.read, PIECE):
                yield piece

    async def delete(self, key: str) -> None:
        """Forget a file."""
        await asyncio.to_thread(self._path(key).unlink, missing_ok=True)

    async def of(self, tenant: str) -> AsyncGenerator[str]:
        """The keys of what is in its directory."""
        directory = self._path(tenant)
        for path in await asyncio.to_thread(lambda: sorted(directory.iterdir()) if directory.is_dir() else []):
            yield f"{tenant}/{path.name}"

    async def close(self) -> None:
        """Nothing is open."""


class S3Blobs:
    """A bucket of anything that speaks S3. Opens its connections with the first call."""

    def __init__(self, bucket: str, prefix: str = "", endpoint: str | None = None, region: str | None = None) -> None:
        self._bucket, self._prefix = bucket, f"{prefix}/" if prefix else ""
        self._endpoint, self._region = endpoint, region
        self._opening = asyncio.Lock()
        self._stack = contextlib.AsyncExitStack()
        self._open: Any = None

    async def _client(self) -> Any:
        async with self._opening:
            if self._open is None:
                self._open = await self._stack.enter_async_context(await asyncio.to_thread(self._made))
            return self._open

    def _made(self) -> Any:
        # Its description of every service of AWS takes seconds to load: only who has a bucket pays for that.
        from aiobotocore.config import AioConfig  # type: ignore[import-untyped]
        from aiobotocore.session import get_session  # type: ignore[import-untyped]

        # Checksums of AWS's own are refused by many who speak S3 otherwise.
        config = AioConfig(
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            s3={"addressing_style": "path" if self._endpoint else "auto"},
        )
        session: Any = get_session()
        return session.create_client(
            "s3", endpoint_url=self._endpoint, region_name=self._region or "us-east-1", config=config
        )

    async def put(self, key: str, source: Path, mime_type: str) -> None:
        """In one request, of at most 5 GB."""
        client = await self._client()
        with source.open("rb") as body:
            await client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=body, ContentType=mime_type)

    async def read(self, key: str) -> AsyncGenerator[bytes]:
        """In pieces, as they come."""
        client = await self._client()
        try:
            found = await client.get_object(Bucket=self._bucket, Key=self._prefix + key)
        except client.exceptions.NoSuchKey:
            raise NoBlob(key) from None
        async with found["Body"] as body:
            async for piece in body.iter_chunks(PIECE):
                yield piece

    async def delete(self, key: str) -> None:
        """Forget a file."""
        client = await self._client()
        await client.delete_object(Bucket=self._bucket, Key=self._prefix + key)

    async def of(self, tenant: str) -> AsyncGenerator[str]:
        """The keys that begin with its id, as the bucket lists them."""
        client = await self._client()
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=f"{self._prefix}{tenant}/")
        async for page in pages:
            for found in page.get("Contents", ()):
                yield str(found["Key"]).removeprefix(self._prefix)

    async def close(self) -> None:
        """Give up all connections."""
        await self._stack.aclose()
        self._open = None
