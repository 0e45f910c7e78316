"""Fetches the files that came with messages, and forgets those of contacts who are deleted.

takes: `work.media.fetch`, `.forget`
says: media.stored, .failed
retries: for a day; the gateway keeps a file for thirty
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, ClassVar
from uuid import UUID

from harkara.actors.numbers import Numbers
from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Drop, Outcome, Retry
from harkara.bus.schedule import Schedule
from harkara.gateway.errors import Action
from harkara.gateway.protocol import DOWNLOAD_LIMIT, Fetched, Gateway, MediaInfo, Problem, Refused
from harkara.schemas.base import Message
from harkara.schemas.events import MediaFailed, MediaStored
from harkara.schemas.work import FetchMedia, ForgetMedia
from harkara.storage import media
from harkara.storage.blobs import Blobs
from harkara.storage.media import key_of
from harkara.storage.storage import Storage

_MIME_TYPE = re.compile(r"^[a-z0-9][a-z0-9!#$&^_.+-]{0,63}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}$")

UNKNOWN_TYPE = "application/octet-stream"


@dataclass
class Sink:
    """Takes a file in pieces, and knows how long it is and what its SHA-256 is."""

    file: BinaryIO
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)

    async def write(self, piece: bytes) -> None:
        """One more piece. The system writes it to disk when it likes: it is copied from there."""
        self.size += len(piece)
        self.digest.update(piece)
        self.file.write(piece)


class Media:
    """Few files at a time, each by way of the disk: however large they are, memory stays as it is."""

    name: ClassVar[str] = "media"
    takes: ClassVar[tuple[type[Message], ...]] = (FetchMedia, ForgetMedia)
    retries: ClassVar[Schedule] = Schedule.seconds(2, 15, 120, 900, 3600, 21600, 57600)
    batch: ClassVar[int] = 1
    in_flight: ClassVar[int] = 4

    def __init__(self, storage: Storage, gateway: Gateway, numbers: Numbers, blobs: Blobs) -> None:
        self._storage, self._gateway, self._numbers, self._blobs = storage, gateway, numbers, blobs

    async def handle(self, batch: Sequence[Delivery[FetchMedia | ForgetMedia]]) -> Sequence[Outcome]:
        """Each in turn."""
        return [await self._one(delivery) for delivery in batch]

    async def _one(self, d: Delivery[Any]) -> Outcome:
        if isinstance(d.message, ForgetMedia):
            for id_ in d.message.media_ids:
                await self._blobs.delete(key_of(d.tenant, id_))
            return Done()
        async with self._storage.batch((d.tenant,)) as con:
            known = await media.state(con, d.tenant, UUID(d.message.media_id))
        if known is None:
            return Done()  # its contact was deleted meanwhile
        return await self._fetch(d)

    async def _fetch(self, d: Delivery[FetchMedia]) -> Outcome:
        wanted = d.message
        number = await self._numbers.get(d.tenant, wanted.sender_id)
        if number is None:
            return await self._failed(d, "its number is not a sender any more")
        info = await self._gateway.media_info(number.credentials, wanted.gateway_id)
        if not isinstance(info, MediaInfo):
            return await self._not_now(d, info)
        if info.size > DOWNLOAD_LIMIT:
            return await self._failed(d, f"it has {info.size} bytes, and {DOWNLOAD_LIMIT} are the most that is kept")
        with tempfile.NamedTemporaryFile(prefix="harkara-media-") as file:
            sink = Sink(file)  # type: ignore[arg-type]
            fetched = await self._gateway.fetch(number.credentials, info.url, sink.write)
            if not isinstance(fetched, Fetched):
                return await self._not_now(d, fetched)
            file.flush()
            if info.sha256 and sink.digest.hexdigest() != info.sha256.lower():
                return await self._again(d, "what came is not what the gateway's SHA-256 says")
            return await self._store(d, Path(file.name), sink, info.mime_type, fetched.mime_type)

    async def _store(self, d: Delivery[FetchMedia], source: Path, sink: Sink, *types: str) -> Outcome:
        id_ = UUID(d.message.media_id)
        mime_type = next((one for one in map(_plain_type, types) if one != UNKNOWN_TYPE), UNKNOWN_TYPE)
        await self._blobs.put(key_of(d.tenant, id_), source, mime_type)
        async with self._storage.batch((d.tenant,)) as con:
            about = await media.stored(con, d.tenant, id_, mime_type, sink.size, sink.digest.hexdigest())
        if about is None:  # its contact was deleted meanwhile
            await self._blobs.delete(key_of(d.tenant, id_))
            return Done()
        event = MediaStored(
            id=str(id_), contact_id=str(about[0]), reply_id=str(about[1]), mime_type=mime_type, size=sink.size
        )
        return Done((Outgoing(event, d.tenant, f"{id_}.stored", d.cause),))

    async def _not_now(self, d: Delivery[FetchMedia], answer: Problem) -> Outcome:
        if isinstance(answer, Refused) and answer.rule.action is Action.GIVE_UP:
            return await self._failed(d, f"the gateway does not have it: {answer.title}")
        return await self._again(d, answer.title if isinstance(answer, Refused) else answer.reason)

    async def _again(self, d: Delivery[FetchMedia], reason: str) -> Outcome:
        if d.attempt <= len(self.retries.delays):
            return Retry(reason)
        outcome = await self._failed(d, reason)
        return Drop(reason) if isinstance(outcome, Done) else outcome  # it can be replayed for as long as it is kept

    async def _failed(self, d: Delivery[FetchMedia], reason: str) -> Outcome:
        id_ = UUID(d.message.media_id)
        async with self._storage.batch((d.tenant,)) as con:
            about = await media.failed(con, d.tenant, id_, reason)
        if about is None:
            return Done()
        event = MediaFailed(id=str(id_), contact_id=str(about[0]), reply_id=str(about[1]), reason=reason)
        return Done((Outgoing(event, d.tenant, f"{id_}.failed", d.cause),))


def _plain_type(mime_type: str) -> str:
    """A type without parameters; what is none is just bytes."""
    plain = mime_type.partition(";")[0].strip().lower()
    return plain if _MIME_TYPE.match(plain) else UNKNOWN_TYPE
