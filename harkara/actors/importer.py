"""Stores the contacts of large files, a chunk of rows at a time.

takes: `cmd.contact.import`; `work.importer.chunk`
says: import.progressed, import.completed; contact.opted_out, enrollment.stopped
retries: while the database is away
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, ClassVar
from uuid import UUID

from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Outcome
from harkara.bus.schedule import PATIENT, Schedule
from harkara.schemas.base import Message
from harkara.schemas.commands import RunImport
from harkara.schemas.events import ImportCompleted, ImportProgressed
from harkara.schemas.work import ImportChunk
from harkara.storage import importing
from harkara.storage.importing import Job
from harkara.storage.storage import Storage

#: Of a file in one of these states there is something to store.
OPEN = ("queued", "running")


class Importer:
    """Takes chunk after chunk, each a message and a transaction: a crash repeats one at most, and counts it once."""

    name: ClassVar[str] = "importer"
    takes: ClassVar[tuple[type[Message], ...]] = (RunImport, ImportChunk)
    retries: ClassVar[Schedule] = PATIENT
    batch: ClassVar[int] = 1
    in_flight: ClassVar[int] = 2

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def handle(self, batch: Sequence[Delivery[Any]]) -> Sequence[Outcome]:
        """Store what each names."""
        return [await self._one(delivery) for delivery in batch]

    async def _one(self, d: Delivery[RunImport | ImportChunk]) -> Outcome:
        import_id, message = UUID(d.message.import_id), d.message
        number = message.number if isinstance(message, ImportChunk) else 0
        async with self._storage.tenant(d.tenant) as con:
            job = await importing.job(con, d.tenant, import_id)
        if job is None or job.status not in (*OPEN, "completed"):
            return Done()  # cancelled
        counts = await self._store(d, import_id, job, number)
        return Done(_told(d, import_id, job, number, counts))

    async def _store(self, d: Delivery[Any], import_id: UUID, job: Job, number: int) -> dict[str, int]:
        """Store one chunk, if it is there. Returns how far the file has come."""
        tenant, cause = d.tenant, d.cause or d.id
        async with self._storage.tenant(tenant, job.acting) as con:
            held = await importing.job(con, tenant, import_id)
            rows = await importing.take(con, tenant, import_id, number) if held and held.status in OPEN else None
            if held is None or rows is None:
                return (held or job).counts
            found = await asyncio.to_thread(importing.read, rows, job.meaning)
            stored = await importing.store(con, tenant, import_id, found, len(rows), cause)
            last = number + 1 >= job.chunks
            return await importing.note(con, tenant, import_id, held, stored, last=last)


def _told(d: Delivery[Any], import_id: UUID, job: Job, number: int, counts: dict[str, int]) -> tuple[Outgoing, ...]:
    """How far it has come, and what comes next. Told again after a crash, it is the same."""
    id_, cause = str(import_id), d.cause or d.id
    if number + 1 >= job.chunks:
        return (Outgoing(ImportCompleted(id=id_, **counts), d.tenant, f"{id_}.completed", cause),)
    return (
        Outgoing(ImportProgressed(id=id_, **counts), d.tenant, f"{id_}.progressed.{number}", cause),
        Outgoing(ImportChunk(import_id=id_, number=number + 1), d.tenant, f"{id_}.{number + 1}", cause),
    )
