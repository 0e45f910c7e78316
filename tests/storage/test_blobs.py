"""Files by key: in a directory, and in a bucket of a small server that speaks S3's own language."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from harkara.settings import SettingsError
from harkara.storage.blobs import PIECE, Blobs, FileBlobs, NoBlob, S3Blobs, blobs_at

KEY = "acme/01982c51-5f3a-7cc1-b4a0-3d1f6e2a9b07"

#: What a signed request of S3 names: who, when, where and what for; and a signature of 64 hexadecimal digits.
SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=key/\d{8}/[a-z0-9-]+/s3/aws4_request, SignedHeaders=[a-z0-9;-]*host[a-z0-9;-]*,"
    r" Signature=[0-9a-f]{64}"
)

MISSING = '<?xml version="1.0"?><Error><Code>NoSuchKey</Code><Message>None</Message></Error>'


class Bucket:
    """As much of S3 as is used. Whoever doesn't sign, or says another body's hash, is refused."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, str]] = {}

    async def handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        said = request.headers.get("X-Amz-Content-SHA256", "")
        if not SIGNED.fullmatch(request.headers.get("Authorization", "")):
            return web.Response(status=403)
        if said != "UNSIGNED-PAYLOAD" and said != hashlib.sha256(body).hexdigest():
            return web.Response(status=400, text=f"the body's hash is not {said}")
        if request.method == "PUT":
            self.objects[request.path] = (body, request.headers["Content-Type"])
            return web.Response(headers={"ETag": '"1"'})
        if request.method == "DELETE":
            self.objects.pop(request.path, None)
            return web.Response(status=204)
        if request.query.get("list-type") == "2":
            return self._page(request)
        found = self.objects.get(request.path)
        if found is None:
            return web.Response(status=404, text=MISSING, content_type="application/xml")
        return web.Response(body=found[0], content_type=found[1])

    def _page(self, request: web.Request) -> web.Response:
        """What begins so, two at a time."""
        bucket, after = f"{request.path.rstrip('/')}/", request.query.get("continuation-token", "")
        keys = sorted(path.removeprefix(bucket) for path in self.objects)
        found = [key for key in keys if key.startswith(request.query["prefix"]) and key > after]
        more = "".join(
            f"<IsTruncated>true</IsTruncated><NextContinuationToken>{key}</NextContinuationToken>"
            for key in found[1:2]
            if key != found[-1]
        )
        listed = "".join(f"<Contents><Key>{key}</Key></Contents>" for key in found[:2])
        body = f"<ListBucketResult>{more}{listed}</ListBucketResult>"
        return web.Response(text=body, content_type="application/xml")


@asynccontextmanager
async def bucket(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Bucket, S3Blobs]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    made, app = Bucket(), web.Application(client_max_size=1 << 28)
    app.router.add_route("*", "/{path:.*}", made.handle)
    async with TestServer(app) as server:
        endpoint = str(server.make_url("")).rstrip("/")
        blobs = blobs_at(f"s3://files/kept?endpoint={endpoint}&region=ap-south-1")
        assert isinstance(blobs, S3Blobs)
        try:
            yield made, blobs
        finally:
            await blobs.close()


@pytest.fixture(params=["file", "s3"])
async def blobs(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[Blobs]:
    if request.param == "file":
        yield blobs_at((tmp_path / "media files").as_uri())
        return
    async with bucket(monkeypatch) as (_, made):
        yield made


async def whole(blobs: Blobs, key: str) -> bytes:
    return b"".join([piece async for piece in blobs.read(key)])


async def test_what_is_stored_is_read_in_pieces_replaced_and_forgotten(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    for content in (b"first", bytes(range(256)) * 1024):
        source.write_bytes(content)
        await blobs.put(KEY, source, "image/png")
        assert await whole(blobs, KEY) == content
    assert all([len(piece) <= PIECE async for piece in blobs.read(KEY)])
    for _ in range(2):
        await blobs.delete(KEY)
    with pytest.raises(NoBlob):
        await whole(blobs, KEY)


async def test_a_tenants_files_are_listed_and_no_others(blobs: Blobs, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"a file")
    ours = [f"acme/{n}" for n in range(5)]
    for key in (*ours, "acme-2/0", "acm/0"):
        await blobs.put(key, source, "image/png")
    assert sorted([key async for key in blobs.of("acme")]) == ours
    assert [key async for key in blobs.of("nobody")] == []


async def test_a_bucket_is_told_the_type_and_keeps_files_under_its_prefix(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"a picture")
    async with bucket(monkeypatch) as (made, blobs):
        await blobs.put(KEY, source, "image/png")
        assert made.objects == {f"/files/kept/{KEY}": (b"a picture", "image/png")}


async def test_a_directory_keeps_whole_files_only_and_nothing_outside(tmp_path: Path) -> None:
    blobs = FileBlobs(tmp_path / "media")
    with pytest.raises(FileNotFoundError):
        await blobs.put(KEY, tmp_path / "not there", "image/png")
    assert [path for path in (tmp_path / "media").rglob("*") if path.is_file()] == []
    for key in ("../outside", "acme/../../outside"):
        with pytest.raises(ValueError, match="inside"):
            await blobs.put(key, tmp_path / "not there", "image/png")


@pytest.mark.parametrize("url", ["", "media", "file://", "file:///", "file://host/media", "s3://", "ftp://host/media"])
def test_an_address_that_is_none_is_refused_by_the_settings_name(url: str) -> None:
    with pytest.raises(SettingsError, match="MEDIA_URL"):
        blobs_at(url)
