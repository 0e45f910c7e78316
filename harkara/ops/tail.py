"""`harkara ops tail`: what passes on the bus, one message a line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from datetime import UTC, datetime
from heapq import heappop, heappush
from typing import Any

import msgspec
from nats.aio.msg import Msg

from harkara.bus import headers
from harkara.bus.connection import Bus
from harkara.bus.tail import History
from harkara.masking import without_codes

#: As much of a body as a line shows to people.
_SHOWN = 300

#: Lines that may wait to be shown: what comes faster than that is left out.
_WAITING = 10_000

_PAGE = 500


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One message: when it passed or was stored, where, under which id, set off by what, saying what."""

    at: str
    subject: str
    id: str
    cause: str
    body: Any

    def as_json(self) -> str:
        return msgspec.json.encode(self).decode()

    def as_text(self) -> tuple[str, str]:
        """When and where, and what: its id first, which `harkara ops trace` takes."""
        said = msgspec.json.encode(self.body).decode()
        said = said if len(said) <= _SHOWN else f"{said[:_SHOWN]}…"
        return f"{self.at}  {self.subject}", f"{self.id}  {said}"


async def read_back(bus: Bus, pattern: str, since: datetime) -> AsyncIterator[Line]:
    """What the streams that keep things still have since then, in order of time. Raises Unavailable."""
    begin = since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    async with AsyncExitStack() as stack:
        kept = [
            await stack.enter_async_context(aclosing(_kept(bus, one.name, pattern, begin)))
            for one in bus.topology.streams
            if one.retention == "limits"
        ]
        nexts: list[tuple[str, int, Line]] = []
        for place in range(len(kept)):
            await _take(kept, place, nexts)
        while nexts:
            _, place, line = heappop(nexts)
            yield line
            await _take(kept, place, nexts)


async def _take(kept: Sequence[AsyncIterator[Line]], place: int, nexts: list[tuple[str, int, Line]]) -> None:
    """The next line of this stream joins those that are next, if there is one."""
    async for line in kept[place]:
        heappush(nexts, (line.at.rstrip("Z"), place, line))  # fractions of seconds come without their zeros
        return


async def _kept(bus: Bus, stream: str, pattern: str, begin: str) -> AsyncGenerator[Line]:
    """What one stream has since then."""
    history, after, more = History(bus.link, stream), 0, True
    try:
        while more:
            page = await history.page(pattern, after, _PAGE)
            for one in page.messages:
                after = one.seq
                if one.at >= begin:
                    yield _line(one.at, one.subject, one.headers, one.body)
            more = page.more and bool(page.messages)
    finally:
        await history.close()


async def follow(bus: Bus, pattern: str) -> AsyncIterator[Line]:
    """Everything that is published from now on, until cancelled. Raises Unavailable."""
    passing: asyncio.Queue[Msg] = asyncio.Queue(_WAITING)

    def on(msg: Msg) -> None:
        if not passing.full():
            passing.put_nowait(msg)

    listener = await bus.link.listen(pattern, on)
    try:
        while True:
            msg = await passing.get()
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            yield _line(now, msg.subject, msg.headers, msg.data)
    finally:
        await listener.close()


def _line(at: str, subject: str, named: Mapping[str, str] | None, body: bytes) -> Line:
    named = named or {}
    id_, cause = named.get(headers.ID, ""), named.get(headers.CAUSE, "")
    return Line(at=at, subject=subject, id=id_, cause=cause, body=without_codes(body))
