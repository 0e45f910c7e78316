"""The heart of the live feed: one reader of the event stream a process, fanned out to all who listen.

An event becomes a WebSocket frame once. Listeners of one tenant with the same filter share a group: what came for a
group within a turn is joined once and written to each listener as it is.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Any, NamedTuple, Protocol

import msgspec
from loguru import logger

from harkara.bus.link import Link
from harkara.bus.subjects import matches
from harkara.bus.tail import Stored, Tail

#: While events keep coming, they are written at most this often.
COALESCE = timedelta(milliseconds=20)

#: Writing may take at most one part in this many of the process's time.
_SHARE = 2

EVENTS = "EVENTS"


class Event(NamedTuple):
    """One event as it is told: `data` is its JSON exactly as the actor wrote it."""

    seq: int
    type: str
    at: str
    data: bytes


class Listener(Protocol):
    """Whoever is written to. Neither call may wait or raise."""

    def take(self, frames: bytes, last: int) -> None:
        """Whole WebSocket frames, to be sent as they are; `last` is the last one's sequence."""
        ...

    def lost(self) -> None:
        """Events were lost for good: what comes next does not follow what came before."""
        ...


class Patterns:
    """The types a listener wants: `message.*`, `enrollment.completed`, `*` for all."""

    __slots__ = ("_known", "key")

    def __init__(self, patterns: Collection[str]) -> None:
        #: The same for the same wishes.
        self.key = tuple(sorted({">" if pattern == "*" else pattern for pattern in patterns}))
        self._known: dict[str, bool] = {}

    def want(self, type_: str) -> bool:
        """Whether events of this type are wanted."""
        known = self._known.get(type_)
        if known is None:
            known = self._known[type_] = any(matches(pattern, type_) for pattern in self.key)
        return known

    def subject(self, tenant: str) -> str:
        """The narrowest subject filter that takes all that is wanted."""
        return f"t.{tenant}.evt.{self.key[0] if len(self.key) == 1 else '>'}"


class Group:
    """The listeners of one tenant that want the same."""

    __slots__ = ("_frames", "_last", "listeners", "patterns", "tenant")

    def __init__(self, tenant: str, patterns: Patterns) -> None:
        self.tenant = tenant
        self.patterns = patterns
        self.listeners: set[Listener] = set()
        self._frames: list[bytes] = []
        self._last = 0

    def add(self, frame: bytes, seq: int) -> None:
        """Keep a frame for the next flush."""
        self._frames.append(frame)
        self._last = seq

    def flush(self) -> None:
        """Write what has gathered to everybody."""
        if self._frames:
            frames = b"".join(self._frames)
            self._frames.clear()
            for listener in tuple(self.listeners):
                listener.take(frames, self._last)


class _Expectation:
    """Somebody waits for one event about one thing."""

    __slots__ = ("about", "came", "types")

    def __init__(self, types: frozenset[str], about: str, came: asyncio.Future[Event]) -> None:
        self.types = types
        self.about = about
        self.came = came

    def meets(self, event: Event) -> bool:
        return event.type in self.types and self.about.encode() in event.data and _id_of(event.data) == self.about


class Hub:
    """Reads the event stream's live end and hands every event to those of its tenant who want it."""

    def __init__(self, link: Link) -> None:
        self._tail = Tail(link, EVENTS, self._on_event, self._on_lost)
        self._groups: dict[str, dict[tuple[str, ...], Group]] = {}
        self._expected: dict[str, list[_Expectation]] = {}
        self._dirty: set[Group] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rest_until = 0.0
        self._arrivals: list[tuple[int, asyncio.Future[None]]] = []

    async def start(self) -> None:
        """Begin at the live end. Returns when it is reached, or after some seconds if the broker is away."""
        await self._tail.start()

    async def stop(self) -> None:
        """Hear nothing more."""
        await self._tail.stop()
        if self._timer is not None:
            self._timer.cancel()
        for arrived in [arrived for _, arrived in self._arrivals]:
            arrived.cancel()

    @property
    def position(self) -> int:
        """The sequence up to which every event has been handed on."""
        return self._tail.position

    def join(self, listener: Listener, tenant: str, patterns: Patterns) -> int:
        """From now on this listener gets every event it wants above the sequence that is returned."""
        groups = self._groups.setdefault(tenant, {})
        group = groups.get(patterns.key)
        if group is None:
            group = groups[patterns.key] = Group(tenant, patterns)
        group.flush()
        group.listeners.add(listener)
        return self.position

    def leave(self, listener: Listener, tenant: str, patterns: Patterns) -> None:
        """It gets nothing more."""
        groups = self._groups.get(tenant, {})
        group = groups.get(patterns.key)
        if group is None:
            return
        group.listeners.discard(listener)
        if not group.listeners:
            del groups[patterns.key]
            self._dirty.discard(group)
        if not groups:
            self._groups.pop(tenant, None)

    async def reach(self, seq: int) -> None:
        """Return when everything up to this sequence has been handed on."""
        while self.position < seq:
            arrived: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            entry = (seq, arrived)
            self._arrivals.append(entry)
            try:
                await arrived
            finally:
                if entry in self._arrivals:
                    self._arrivals.remove(entry)

    def expect(self, tenant: str, types: Collection[str], about: str) -> asyncio.Future[Event]:
        """The first event from now on of one of these types whose `id` is `about`. Cancel it to wait no longer."""
        came: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        expectation = _Expectation(frozenset(types), about, came)
        self._expected.setdefault(tenant, []).append(expectation)
        came.add_done_callback(lambda _: self._forget(tenant, expectation))
        return came

    def _forget(self, tenant: str, expectation: _Expectation) -> None:
        waiting = self._expected.get(tenant, [])
        if expectation in waiting:
            waiting.remove(expectation)
        if not waiting:
            self._expected.pop(tenant, None)

    def _on_event(self, stored: Stored) -> None:
        _, tenant, _, type_ = stored.subject.split(".", 3)
        groups, waiting = self._groups.get(tenant), self._expected.get(tenant)
        if groups:
            self._gather(groups, stored, type_)
        if waiting:
            event = event_of(stored)
            for expectation in tuple(waiting):
                if not expectation.came.done() and expectation.meets(event):
                    expectation.came.set_result(event)
        if self._arrivals:
            self._arrive(stored.seq)

    def _gather(self, groups: dict[tuple[str, ...], Group], stored: Stored, type_: str) -> None:
        frame: bytes | None = None
        for group in groups.values():
            if group.patterns.want(type_):
                if frame is None:
                    frame = frame_of(event_of(stored))
                group.add(frame, stored.seq)
                self._dirty.add(group)
        if frame is not None and self._timer is None:
            loop = asyncio.get_running_loop()
            # Nothing is older than this turn of the loop when it is quiet; when it is busy, frames go out together.
            self._timer = loop.call_later(max(self._rest_until - loop.time(), 0), self._flush)

    def _flush(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._timer = None
        self._rest_until = began + COALESCE.total_seconds()
        dirty, self._dirty = self._dirty, set()
        for group in dirty:
            group.flush()
        # The loop sends what was written when this turn ends, and that is most of the work.
        loop.call_soon(self._rest, began)

    def _rest(self, began: float) -> None:
        took = asyncio.get_running_loop().time() - began
        self._rest_until = max(self._rest_until, began + _SHARE * took)

    def _arrive(self, seq: int) -> None:
        for wanted, arrived in self._arrivals:
            if seq >= wanted and not arrived.done():
                arrived.set_result(None)

    def _on_lost(self) -> None:
        for groups in list(self._groups.values()):
            for group in list(groups.values()):
                group.flush()
                for listener in tuple(group.listeners):
                    listener.lost()
        self._arrive(self.position)


class _Named(msgspec.Struct):
    id: str = ""


_named = msgspec.json.Decoder(_Named).decode


def _id_of(data: bytes) -> str:
    try:
        return _named(data).id
    except msgspec.MsgspecError:
        return ""


_valid: Callable[[bytes], Any] = msgspec.json.Decoder(msgspec.Raw).decode


def event_of(stored: Stored) -> Event:
    """A stored event as it is told. Text that is no JSON would break every client, so it is told as null."""
    data = stored.body
    try:
        _valid(data)
        str(data, "utf-8")
    except (msgspec.DecodeError, UnicodeDecodeError):
        logger.bind(stream=EVENTS, seq=stored.seq).error("The body of event {} is not JSON", stored.seq)
        data = b"null"
    return Event(stored.seq, stored.subject.split(".", 3)[3], stored.at, data)


def frame_of(event: Event) -> bytes:
    """One event as one WebSocket text message, ready to be written to any client."""
    type_ = msgspec.json.encode(event.type)
    text = b'{"seq":%d,"type":%b,"at":"%b","data":%b}' % (event.seq, type_, event.at.encode(), event.data)
    size = len(text)
    if size < 126:
        return b"\x81%c%b" % (size, text)
    if size < 65536:
        return b"\x81\x7e%b%b" % (struct.pack("!H", size), text)
    return b"\x81\x7f%b%b" % (struct.pack("!Q", size), text)
