"""Files that were uploaded or received: kept on disk, known by their id."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from pathlib import Path

import msgspec

from harkara.gateway.sandbox.graph_error import GraphError
from harkara.gateway.sandbox.store import Store

#: How long the address of a file works.
URL_LIFE_S = 300

_MB = 1024 * 1024
_KINDS = {
    "image/jpeg": 5 * _MB,
    "image/png": 5 * _MB,
    "image/webp": 5 * _MB // 10,
    "audio/aac": 16 * _MB,
    "audio/mp4": 16 * _MB,
    "audio/mpeg": 16 * _MB,
    "audio/amr": 16 * _MB,
    "audio/ogg": 16 * _MB,
    "audio/opus": 16 * _MB,
    "video/mp4": 16 * _MB,
    "video/3gpp": 16 * _MB,
    "text/plain": 100 * _MB,
    "application/pdf": 100 * _MB,
    "application/msword": 100 * _MB,
    "application/vnd.ms-excel": 100 * _MB,
    "application/vnd.ms-powerpoint": 100 * _MB,
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": 100 * _MB,
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": 100 * _MB,
    "application/vnd.openxmlformats-officedocument.presentationml.presentation": 100 * _MB,
}

#: The largest file of any kind.
LARGEST = 100 * _MB


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A stored file; `size` is in bytes."""

    id: str
    mime_type: str
    sha256: str
    size: int
    number: str


class Media:
    """The files, beside the database."""

    def __init__(self, store: Store, folder: Path) -> None:
        self._store = store
        self._folder = folder
        self._key = self._signing_key()

    def _signing_key(self) -> bytes:
        """Signs addresses; kept, so that an address survives a restart like everything else."""
        key = self._store.setting("media_key", str, "")
        if not key:
            key = secrets.token_hex(16)
            self._store.save_setting("media_key", key)
        return key.encode()

    def add(self, number: str, mime_type: str, data: bytes) -> File:
        """Keep a file. Raises GraphError if its type or size is not allowed."""
        kind = mime_type.partition(";")[0].strip().lower()
        limit = _KINDS.get(kind)
        if limit is None:
            choices = ", ".join(sorted(_KINDS))
            raise GraphError(
                100, f"Param file must be a file with one of these types: {choices}. Received {mime_type!r}."
            )
        if len(data) > limit:
            raise GraphError(100, f"Param file of type {kind} must have at most {limit} bytes, has {len(data)}.")
        if not data:
            raise GraphError(100, "Param file must not be empty.")
        digest = hashlib.sha256(data).hexdigest()
        file = File(
            id=str(10**14 + secrets.randbelow(9 * 10**14)),
            mime_type=mime_type,
            sha256=digest,
            size=len(data),
            number=number,
        )
        self._write(self.path(file.id), data)
        self._store.write("INSERT INTO media VALUES (?, ?)", file.id, msgspec.json.encode(file))
        return file

    def _write(self, path: Path, data: bytes) -> None:
        """Whole or not at all, also when killed half-way."""
        self._folder.mkdir(parents=True, exist_ok=True)
        half = path.with_suffix(".part")
        half.write_bytes(data)
        half.replace(path)

    def get(self, media_id: str) -> File | None:
        """A file by its id."""
        found = self._store.select("SELECT body FROM media WHERE id = ?", media_id)
        return msgspec.json.decode(found[0][0], type=File) if found else None

    def remove(self, media_id: str) -> None:
        """Forget a file."""
        self._store.write("DELETE FROM media WHERE id = ?", media_id)
        self.path(media_id).unlink(missing_ok=True)

    def path(self, media_id: str) -> Path:
        """Where a file's bytes are."""
        return self._folder / os.path.basename(media_id)

    def address(self, base: str, media_id: str) -> str:
        """An address that works for `URL_LIFE_S` seconds."""
        expires = int(time.time()) + URL_LIFE_S
        return f"{base}/sandbox/media/{media_id}?ext={expires}&hash={self._hash(media_id, expires)}"

    def allowed(self, media_id: str, expires: str, signature: str) -> bool:
        """Whether an address was given out by us and still works."""
        if not (expires.isascii() and expires.isdecimal() and len(expires) < 12) or int(expires) < time.time():
            return False
        return hmac.compare_digest(self._hash(media_id, int(expires)).encode(), signature.encode())

    def _hash(self, media_id: str, expires: int) -> str:
        return hmac.new(self._key, f"{media_id} {expires}".encode(), hashlib.sha256).hexdigest()[:32]
