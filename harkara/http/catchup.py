"""How a listener that comes back meets the live feed: history first, then on, without a gap and nothing twice."""

from __future__ import annotations

import asyncio

from loguru import logger

from harkara.bus.errors import Unavailable
from harkara.bus.tail import History, Stored
from harkara.http.hub import Hub, Patterns, event_of, frame_of
from harkara.http.listener import OUR_FAULT, Socket

PAGE = 500

#: A replica that answers may lag behind the stream's leader by about this long.
_LAG_S = 0.05
_RETRY_S = 0.5


class CatchUp:
    """One listener's way from the last sequence it has seen to the live end."""

    def __init__(
        self, hub: Hub, history: History, turns: asyncio.Semaphore, socket: Socket, patterns: Patterns, since: int
    ) -> None:
        self._hub = hub
        self._history = history
        self._turns = turns
        self._socket = socket
        self._patterns = patterns
        self._tenant = socket.who.tenant
        self._subject = patterns.subject(self._tenant)
        #: Everything up to here has been written.
        self._seen = since
        self._checked = False

    async def run(self) -> None:
        """Go the whole way, waiting for the broker whenever it is away. Ends early when the socket does."""
        while self._socket.ended is None:
            try:
                if await self._go():
                    return
            except Unavailable as error:
                logger.bind(tenant=self._tenant).debug("A feed's history waits for the broker: {}", error)
                await asyncio.sleep(_RETRY_S)
            except Exception as error:  # nobody awaits this task: a defect must still reach the client
                logger.bind(tenant=self._tenant).opt(exception=error).error("Reading a feed's history failed")
                self._socket.end(OUR_FAULT, "past events could not be read: come back with your last seq")

    async def _go(self) -> bool:
        """Whether the live end was met. It wasn't if more came meanwhile than could be kept: read on, then."""
        if not self._checked:
            await self._tell_gap()
            self._checked = True
        if not await self._read():
            return False
        await self._hub.reach(self._seen)
        self._socket.hold()
        top = self._hub.join(self._socket, self._tenant, self._patterns)
        try:
            if await self._read(top) and self._socket.release():
                return True
        except BaseException:
            self._give_up_joining()
            raise
        self._give_up_joining()
        return False

    def _give_up_joining(self) -> None:
        self._hub.leave(self._socket, self._tenant, self._patterns)
        self._socket.forget_held()

    async def _tell_gap(self) -> None:
        """Tell it if what comes next doesn't follow what the client has seen."""
        if not self._seen:
            return  # it has seen nothing, and gets all there is
        first, last = await self._history.bounds()
        if self._seen < first - 1:
            reason = "events between these two are no longer kept: fetch what you need from the API"
            self._socket.tell("feed.gap", first - 1, {"since": self._seen, "first": first, "reason": reason})
            self._seen = first - 1
        elif self._seen > last:
            reason = "there is no such event yet: this stream is newer than your seq; fetch what you need from the API"
            self._socket.tell("feed.gap", last, {"since": self._seen, "first": last + 1, "reason": reason})
            self._seen = last

    async def _read(self, top: int | None = None) -> bool:
        """Write history: up to the sequence `top`, surely all of it; or without `top` until little may be left.

        False if the socket is closing.
        """
        while top is None or self._seen < top:
            async with self._turns:
                page = await self._history.page(self._subject, self._seen, PAGE)
            self._write([one for one in page.messages if top is None or one.seq <= top])
            if not await self._socket.drained():
                return False
            if page.messages and top is not None and page.messages[-1].seq > top:
                self._seen = top
            if page.more:
                continue
            if top is None:
                return True
            await self._make_sure(top)
        return True

    async def _make_sure(self, top: int) -> None:
        """A page may come from a replica that lags behind: only the stream's leader can say that nothing is missing."""
        following = await self._history.next_after(self._subject, self._seen)
        if following is None or following > top:
            self._seen = top
        else:
            await asyncio.sleep(_LAG_S)

    def _write(self, messages: list[Stored]) -> None:
        if not messages:
            return
        frames = [frame_of(event) for event in map(event_of, messages) if self._patterns.want(event.type)]
        if frames:
            self._socket.write(b"".join(frames), messages[-1].seq)
        self._seen = messages[-1].seq
