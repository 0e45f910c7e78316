"""Taking single messages out of streams for good: those of one tenant that mention somebody who is to be forgotten."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

from harkara.bus.api import Api, ApiError, bodies
from harkara.bus.link import Link
from harkara.bus.overview import PARTNERS
from harkara.bus.tail import History
from harkara.bus.topology import Stream, Topology

QUEUE = "workqueue"

#: Messages read at once.
PAGE = 500

#: Says whether a body mentions them.
Mentions = Callable[[bytes], bool]


@dataclass(frozen=True, slots=True)
class Purged:
    """How many messages were taken out, and how many must stay a little longer: somebody has yet to work on them."""

    erased: int
    left: int


class Purge:
    """Reads all that a tenant has in the streams of a page, and erases what mentions somebody."""

    def __init__(self, link: Link, topology: Topology) -> None:
        self._link, self._topology = link, topology
        self._api = Api(link.request)

    async def __call__(self, tenant: str, mentions: Mentions, but: tuple[str, int]) -> Purged:
        """Erase what mentions them, but not the message that is being worked on. Raises Unavailable."""
        erased = left = 0
        for stream in self._topology.streams:
            done = await self._done(stream)
            async for seq, body in self._messages(stream, f"t.{tenant}.>"):
                if (stream.name, seq) == but or not mentions(body):
                    continue
                if seq > done:
                    left += 1
                else:
                    erased += await self._erase(stream.name, seq)
        return Purged(erased, left)

    async def _messages(self, stream: Stream, pattern: str) -> AsyncIterator[tuple[int, bytes]]:
        if stream.retention == QUEUE:
            async for one in bodies(self._api, stream.name, pattern):  # a queue has no direct access
                yield one
            return
        history, after, more = History(self._link, stream.name), 0, True
        try:
            while more:
                page = await history.page(pattern, after, PAGE)
                for message in page.messages:
                    yield message.seq, message.body
                    after = message.seq
                more = page.more and bool(page.messages)
        finally:
            await history.close()

    async def _done(self, stream: Stream) -> float:
        """Up to where all who work on a stream have done so. In a queue, what waits is not to be done any more.

        Partners do no work on it: one who is away for days must not keep alive what was to be erased.
        """
        done = float("inf")
        if stream.retention == QUEUE:
            return done
        for consumer in await self._consumers(stream.name):
            named = consumer["config"].get("durable_name") or PARTNERS
            if not named.startswith(PARTNERS) and (consumer["num_pending"] or consumer["num_ack_pending"]):
                done = min(done, consumer["ack_floor"]["stream_seq"])
        return done

    async def _consumers(self, stream: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while True:
            answer = await self._api.call(f"CONSUMER.LIST.{stream}", {"offset": len(found)})
            found += answer["consumers"] or []
            if len(found) >= answer["total"]:
                return found

    async def _erase(self, stream: str, seq: int) -> int:
        """Overwrite a message where it lies; one that is gone already counts for none."""
        try:
            await self._api.call(f"STREAM.MSG.DELETE.{stream}", {"seq": seq})
        except ApiError:
            return 0
        return 1
