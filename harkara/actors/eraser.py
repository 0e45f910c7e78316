"""Erases a contact for good: its rows, its files, and every message in the streams that mentions it.

takes: `cmd.contact.erase`
says: contact.erased
retries: while the database or the broker is away
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar
from uuid import UUID

import msgspec

from harkara.actors.noting import BY_PARTNER, Noting
from harkara.bus.erasing import Mentions, Purged
from harkara.bus.messages import Delivery, Outgoing
from harkara.bus.outcomes import Done, Outcome, Retry
from harkara.bus.schedule import PATIENT, Schedule
from harkara.callers import Callers
from harkara.ids import uuid7
from harkara.schemas.base import Message
from harkara.schemas.commands import EraseContact
from harkara.schemas.events import ContactErased
from harkara.storage import holdings
from harkara.storage.blobs import Blobs
from harkara.storage.media import key_of
from harkara.storage.storage import Storage

#: After so long, whatever was in somebody's hands when the command came is settled, or back where it can be found.
SETTLED = timedelta(seconds=15)

#: How soon to look again, when somebody has yet to work on what mentions the contact.
AGAIN = timedelta(seconds=5)

#: Fields that say whom a message is about. A list of many is no personal data, and the others' work.
ABOUT = ("id", "contact_id", "merged_id")


class Eraser:
    """Erases at once, and once more when what was on its way meanwhile has arrived."""

    name: ClassVar[str] = "eraser"
    takes: ClassVar[tuple[type[Message], ...]] = (EraseContact,)
    retries: ClassVar[Schedule] = PATIENT
    batch: ClassVar[int] = 1
    in_flight: ClassVar[int] = 1

    def __init__(
        self,
        storage: Storage,
        purge: Callable[[str, Mentions, tuple[str, int]], Awaitable[Purged]],
        *,
        settled: timedelta = SETTLED,
        callers: Callers | None = None,
        blobs: Blobs | None = None,
    ) -> None:
        self._storage, self._purge, self._settled, self._blobs = storage, purge, settled, blobs
        self._noting = Noting(callers)

    async def handle(self, batch: Sequence[Delivery[EraseContact]]) -> Sequence[Outcome]:
        """Erase each."""
        return [await self._one(delivery) for delivery in batch]

    async def _one(self, d: Delivery[EraseContact]) -> Outcome:
        wanted, age = d.message, datetime.now(UTC) - d.at
        contact_id = UUID(wanted.contact_id)
        async with self._storage.tenant(d.tenant, self._noting.said(d) or _partner(d)) as con:
            erased = await holdings.erase(con, d.tenant, contact_id, wanted.phones, wanted.wa_user_id, uuid7(d.at))
            # Before the rows are gone for good, by which they are found.
            if self._blobs is not None:
                for file in erased.files:
                    await self._blobs.delete(key_of(d.tenant, file))
        purged = await self._purge(d.tenant, mentions(wanted), (d.stream, d.seq))
        if age < self._settled:
            return Retry("what is on its way has yet to arrive", self._settled - age, counts=False)
        if erased.waiting or purged.left:
            return Retry("somebody has yet to work on what mentions the contact", AGAIN, counts=False)
        return Done((Outgoing(ContactErased(id=wanted.contact_id), d.tenant, f"{contact_id}.erased", d.cause or d.id),))


def _partner(d: Delivery[Any]) -> str:
    """Who acts, where the front door says nothing: the audit log notes what the database deletes."""
    said = {"request_id": d.cause or d.id, "address": "", "via": f"{BY_PARTNER} contact.erase"}
    return msgspec.json.encode(said).decode()


def mentions(wanted: EraseContact) -> Mentions:
    """Whether a message is about the contact, or has one of its numbers anywhere."""
    names = [phone.removeprefix("+") for phone in wanted.phones] + ([wanted.wa_user_id] if wanted.wa_user_id else [])
    reached = re.compile(rb"(?<![\w])(?:%s)(?![\w])" % b"|".join(re.escape(name.encode()) for name in names))

    def found(body: bytes) -> bool:
        if names and reached.search(body):
            return True
        if wanted.contact_id.encode() not in body:
            return False
        try:
            told: Any = msgspec.json.decode(body)
        except msgspec.DecodeError:
            return False
        return isinstance(told, dict) and wanted.contact_id in [told.get(name) for name in ABOUT]  # pyright: ignore

    return found
