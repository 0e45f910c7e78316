"""Taking all of a tenant out of the broker: what lies in streams and on schedules, and who reads it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from harkara.bus.api import NO_CONSUMER, NO_MESSAGE, NO_STREAM, Api, ApiError
from harkara.bus.overview import PARTNERS, filters_of, readers_of
from harkara.bus.topology import Topology

#: Tells every process that a tenant is being erased, and what still comes of its is done; its data is the tenant's id.
WAKE_ENDED = "sys.wake.ended"

#: Sequences of a stream that are looked through for messages to take out, before others have their turn.
PURGED_AT_ONCE = 50_000

_LOOK_EVERY_S = 0.5


@dataclass(frozen=True, slots=True)
class Ending:
    """One tenant that is being erased."""

    api: Api
    topology: Topology
    tenant: str
    #: How far each reader had been given something when it was asked first, by stream and name.
    given: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])

    @property
    def everything(self) -> str:
        """All its subjects."""
        return f"t.{self.tenant}.>"

    async def purge(self, *, unread: bool = False) -> dict[str, int]:
        """Take out all that lies in streams now; how many messages those were. Raises Unavailable.

        With `unread`, not where the tenant has readers of its own: what they have in hand could not be seen any more.
        """
        read = {stream for stream, name in await self.readers() if not name.startswith(PARTNERS)} if unread else ()
        return {one.name: await self._purge(one.name) for one in self.topology.streams if one.name not in read}

    async def _purge(self, stream: str) -> int:
        """Some sequences at a time, from one message of the tenant's to the next: a stream takes nothing meanwhile."""
        purged, seq = 0, 1
        wanted = {"next_by_subj": self.everything}
        while first := await self._ask(f"STREAM.MSG.GET.{stream}", wanted | {"seq": seq}):
            begun, seq = time.monotonic(), int(first["message"]["seq"]) + PURGED_AT_ONCE
            answer = await self._ask(f"STREAM.PURGE.{stream}", {"filter": self.everything, "seq": seq})
            purged += int(answer["purged"]) if answer else 0
            await asyncio.sleep(time.monotonic() - begun)
        return purged

    async def count(self) -> dict[str, int]:
        """How many messages lie in each stream. Raises Unavailable."""
        return {one.name: await self._count(one.name) for one in self.topology.streams}

    async def _count(self, stream: str) -> int:
        """The broker lists subjects page by page."""
        seen = found = 0
        while True:
            answer = await self._ask(f"STREAM.INFO.{stream}", {"subjects_filter": self.everything, "offset": seen})
            page: dict[str, int] = (answer or {}).get("state", {}).get("subjects") or {}
            seen, found = seen + len(page), found + sum(page.values())
            if not page or seen >= (answer or {}).get("total", 0):
                return found

    async def readers(self) -> list[tuple[str, str]]:
        """Durables that read nothing but this tenant's: its numbers' and its partners', by stream and name."""
        return [(one["stream_name"], one["name"]) for one in await self._all_readers() if self._is_its_own(one)]

    async def forget_readers(self) -> int:
        """Delete them; how many those were. Whoever pulls by them must have been told (`WAKE_ENDED`)."""
        readers = await self.readers()
        for stream, name in readers:
            await self._ask(f"CONSUMER.DELETE.{stream}.{name}")
        return len(readers)

    async def begin(self) -> None:
        """Remember what is in somebody's hands now, which `settled` waits for."""
        for one in await self._in_hand():
            self.given.setdefault((one["stream_name"], one["name"]), one["delivered"]["stream_seq"])

    async def settled(self, within: timedelta) -> bool:
        """Wait until all that was in hand is done, but no longer than this; whether it is. Raises Unavailable."""
        deadline = asyncio.get_running_loop().time() + within.total_seconds()
        while True:
            behind = [one for one in await self._in_hand() if self._is_behind(one)]
            if not behind or asyncio.get_running_loop().time() > deadline:
                return not behind
            await asyncio.sleep(_LOOK_EVERY_S)

    def _is_behind(self, reader: dict[str, Any]) -> bool:
        return bool(reader["ack_floor"]["stream_seq"] < self.given.get((reader["stream_name"], reader["name"]), 0))

    def _is_its_own(self, reader: dict[str, Any]) -> bool:
        prefix = self.everything.removesuffix(">")
        return all(subject.startswith(prefix) for subject in filters_of(reader))

    async def _in_hand(self) -> list[dict[str, Any]]:
        """Readers for all tenants who have something in hand.

        What was given back for the tenant's own numbers can't be told from what is in hand; how long that may be, can.
        """
        return [
            one
            for one in await self._all_readers()
            if one["num_ack_pending"] and any(subject.split(".")[1:2] == ["*"] for subject in filters_of(one))
        ]

    async def _all_readers(self) -> list[dict[str, Any]]:
        return [one for stream in self.topology.streams for one in await readers_of(self.api, stream.name)]

    async def _ask(self, name: str, body: object = None) -> dict[str, Any] | None:
        """None where there is no such stream, reader or message. Raises Unavailable, or ApiError if it is refused."""
        try:
            return await self.api.call(name, body)
        except ApiError as error:
            if error.code in (NO_STREAM, NO_CONSUMER, NO_MESSAGE):
                return None
            raise
