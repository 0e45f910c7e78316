"""One open feed: written to without waiting, and given up when it doesn't read."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import msgspec
from aiohttp import web

from harkara.http.hub import Event, frame_of
from harkara.http.identity import Identity, utc_now

#: Bytes that wait for a listener; one that lets more gather is too slow.
BACKLOG = 1024 * 1024

#: So many bytes may still wait when more history is read for a listener.
READ_ON_BELOW = 256 * 1024

#: How long a listener that catches up may read nothing at all.
PATIENCE = timedelta(seconds=30)

#: How long a socket that is closed has to take what it was sent.
CLOSING = timedelta(seconds=5)

#: WebSocket close codes (RFC 6455, and the registry at IANA).
GOING_AWAY, WRONG_KIND, NOT_ALLOWED, OUR_FAULT, TRY_AGAIN = 1001, 1003, 1008, 1011, 1013

_REASON_BYTES = 123


class Socket:
    """A WebSocket of one tenant's. `who` is whoever opened it; `ended` is set once it is being closed."""

    __slots__ = ("_held", "_held_bytes", "_last", "_transport", "_ws", "ended", "who")

    def __init__(self, ws: web.WebSocketResponse, transport: asyncio.Transport, who: Identity) -> None:
        self._ws = ws
        self._transport = transport
        self._held: list[tuple[bytes, int]] | None = None
        self._held_bytes = 0
        self._last = 0
        self.who = who
        self.ended: asyncio.Task[None] | None = None

    def begins_after(self, seq: int) -> None:
        """All up to `seq` is known to the client, or not wanted."""
        self._last = seq

    def take(self, frames: bytes, last: int) -> None:
        """Write these frames now, or keep them while older ones are read; `last` is the last one's sequence."""
        if self._held is not None:
            self._keep(frames, last)
        elif self._transport.get_write_buffer_size() > BACKLOG:
            self.end(TRY_AGAIN, "too slow: read faster or subscribe to less, and come back with your last seq")
        else:
            self.write(frames, last)

    def lost(self) -> None:
        """The stream lost events: the next subscription tells which."""
        self.end(TRY_AGAIN, "the stream of events was interrupted: come back with your last seq")

    def write(self, frames: bytes, last: int) -> None:
        """Write whole frames, unless the socket is closing."""
        if self.ended is None and not self._transport.is_closing():
            self._transport.write(frames)
            self._last = last

    def hold(self) -> None:
        """Keep what comes from now on."""
        self._held, self._held_bytes = [], 0

    def release(self) -> bool:
        """Write what was kept and go on live; False if it was too much to keep, and is gone."""
        held, self._held = self._held or [], None
        for frames, last in held:
            self.write(frames, last)
        return self._held_bytes <= BACKLOG

    def forget_held(self) -> None:
        """What was kept is not needed."""
        self._held = None

    def _keep(self, frames: bytes, last: int) -> None:
        self._held_bytes += len(frames)
        if self._held_bytes > BACKLOG:
            self._held = []
        elif self._held is not None:
            self._held.append((frames, last))

    async def drained(self) -> bool:
        """True when more may be written, False when the socket is closing, which it is if nothing is read for long."""
        loop = asyncio.get_running_loop()
        least, since = self._transport.get_write_buffer_size(), loop.time()
        while self.ended is None and not self._transport.is_closing():
            waiting = self._transport.get_write_buffer_size()
            if waiting <= READ_ON_BELOW:
                return True
            if waiting < least:
                least, since = waiting, loop.time()
            elif loop.time() - since > PATIENCE.total_seconds():
                self.end(TRY_AGAIN, "too slow: nothing was read for a while; come back with your last seq")
            await asyncio.sleep(0.02)
        return False

    def tell(self, type_: str, seq: int, data: dict[str, Any]) -> None:
        """Write a message about the feed itself, after which the client has seen everything up to `seq`."""
        at = utc_now().isoformat(timespec="milliseconds").replace("+00:00", "Z")
        self.write(frame_of(Event(seq, type_, at, msgspec.json.encode(data))), seq)

    def end(self, code: int, reason: str) -> None:
        """Say why, close, and cut the connection if the client takes no notice."""
        if self.ended is None:
            self.tell("feed.closed", self._last, {"reason": reason})
            self.ended = asyncio.create_task(self._close(code, reason))

    async def _close(self, code: int, reason: str) -> None:
        try:
            async with asyncio.timeout(CLOSING.total_seconds()):
                with contextlib.suppress(ConnectionError):
                    await self._ws.close(code=code, message=reason.encode()[:_REASON_BYTES])
                while self._transport.get_write_buffer_size():  # noqa: ASYNC110 - nothing tells when it is empty
                    await asyncio.sleep(0.05)
        except TimeoutError:
            self._transport.abort()
