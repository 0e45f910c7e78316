"""An honest bus in memory, for unit tests of actors: queues, dedupe, quotas, redelivery, waits and schedules.

Handling and settling are the same code as on the broker. What it cannot do is outlive its process.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import msgspec

from harkara.bus import headers
from harkara.bus.actor import Actor
from harkara.bus.errors import BusError, Full, Refused, Unavailable
from harkara.bus.handling import Handling
from harkara.bus.intake import Raw
from harkara.bus.messages import Ack, Outgoing, Packet
from harkara.bus.publisher import Unsubscribe
from harkara.bus.settle import Nacked, Verdict
from harkara.bus.subjects import matches
from harkara.bus.tasks import end
from harkara.bus.topology import Stream, Topology, load
from harkara.schemas.base import Message

M = TypeVar("M", bound=Message)


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as it lies in a stream."""

    seq: int
    packet: Packet
    at: datetime


@dataclass(slots=True)
class _Log:
    """One stream: what is stored, which ids were seen, which schedules wait."""

    config: Stream
    seq: int = 0
    stored: dict[int, Stored] = field(default_factory=dict[int, Stored])
    seen: dict[str, tuple[int, datetime]] = field(default_factory=dict[str, tuple[int, datetime]])
    schedules: dict[str, Packet] = field(default_factory=dict[str, Packet])
    durables: dict[str, _Durable] = field(default_factory=dict[str, "_Durable"])


@dataclass(slots=True)
class _Durable:
    """One reader's place in a stream; it stays when the reader stops."""

    filters: list[str]
    ready: deque[int] = field(default_factory=deque[int])
    deliveries: dict[int, int] = field(default_factory=dict[int, int])
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    readers: int = 0
    in_hand: int = 0

    @property
    def busy(self) -> bool:
        """Whether a running reader has something ready or in hand."""
        return self.in_hand > 0 or (self.readers > 0 and bool(self.ready))

    def takes(self, subject: str) -> bool:
        return any(matches(pattern, subject) for pattern in self.filters)

    def add(self, seq: int) -> None:
        self.ready.append(seq)
        self.filled.set()


class MemoryBus:
    """A bus inside this process. `advance` moves its clock, so that nothing has to be waited for in a test."""

    def __init__(self, topology: Topology | None = None) -> None:
        self.topology = topology or load()
        self._logs = {stream.name: _Log(stream) for stream in self.topology.streams}
        self._ahead = timedelta()
        self._due: list[tuple[datetime, int, Callable[[], None]]] = []
        self._order = 0
        self._timer: asyncio.TimerHandle | None = None
        self._wakes: list[tuple[str, Callable[[bytes], None]]] = []
        #: Set whenever a batch ends, for `idle`.
        self.moved = asyncio.Event()
        self._history: list[tuple[str, Packet]] = []

    @property
    def publisher(self) -> MemoryBus:
        """This bus itself: it is its own publisher."""
        return self

    def now(self) -> datetime:
        """The bus's time: the real one and all that was advanced."""
        return datetime.now(UTC) + self._ahead

    def advance(self, by: timedelta) -> None:
        """Move the clock forward; what falls due meanwhile is delivered."""
        self._ahead += by
        self._fire()

    # Publishing

    async def publish(self, out: Outgoing) -> Ack:
        """Store one message. Raises Unavailable, Full or Refused."""
        result = (await self.publish_many([out]))[0]
        if isinstance(result, BusError):
            raise result
        return result

    async def publish_many(self, outs: Sequence[Outgoing]) -> list[Ack | BusError]:
        """Store many messages: what happened to each, in the same order."""
        results: list[Ack | BusError] = []
        for out in outs:
            try:
                results.append(self._store(out.packet()))
            except ValueError as error:
                results.append(Refused(str(error)))
            except BusError as error:
                results.append(error)
        await asyncio.sleep(0)
        return results

    async def send(self, packets: Sequence[Packet]) -> list[Ack | BusError]:
        """Store packets that are already encoded: what happened to each, in the same order."""
        results: list[Ack | BusError] = []
        for packet in packets:
            try:
                results.append(self._store(packet))
            except BusError as error:
                results.append(error)
        return results

    def wake(self, subject: str, data: bytes = b"") -> None:
        """Nudge whoever listens right now."""
        for pattern, callback in list(self._wakes):
            if matches(pattern, subject):
                callback(data)

    async def subscribe_wake(self, subject: str, callback: Callable[[bytes], None]) -> Unsubscribe:
        """Call `callback` with the data of every nudge from now on."""
        entry = (subject, callback)
        self._wakes.append(entry)

        async def unsubscribe() -> None:
            if entry in self._wakes:
                self._wakes.remove(entry)

        return unsubscribe

    def _store(self, packet: Packet) -> Ack:
        log = next((log for log in self._logs.values() if log.config.takes(packet.subject)), None)
        if log is None:
            raise Unavailable(f"no stream takes {packet.subject}: run `harkara topology apply`")
        limit = log.config.max_message_kb
        if limit > 0 and len(packet.body) > limit * 1024:
            raise Refused(f"{len(packet.body)} bytes are more than {log.config.name} takes: {limit} kB")
        seen = self._seen(log, packet)
        if seen is not None:
            return Ack(log.config.name, seen, True)
        if headers.SCHEDULE in packet.headers:
            self._schedule(log, packet)
        elif 0 < log.config.max_per_subject <= self._count(log, packet.subject):
            raise Full(f"the queue {packet.subject} is full: slow down and try again")
        seq = self._append(log, packet)
        dedupe = packet.headers.get(headers.DEDUPE)
        if dedupe:
            log.seen[dedupe] = (seq, self.now())
        return Ack(log.config.name, seq, False)

    def _seen(self, log: _Log, packet: Packet) -> int | None:
        found = log.seen.get(packet.headers.get(headers.DEDUPE, ""))
        window = timedelta(seconds=self.topology.defaults.duplicate_window_s)
        return found[0] if found and self.now() - found[1] < window else None

    def _count(self, log: _Log, subject: str) -> int:
        return sum(stored.packet.subject == subject for stored in log.stored.values())

    def _append(self, log: _Log, packet: Packet) -> int:
        log.seq += 1
        self._history.append((log.config.name, packet))
        if headers.SCHEDULE not in packet.headers:
            log.stored[log.seq] = Stored(log.seq, packet, self.now())
            for durable in log.durables.values():
                if durable.takes(packet.subject):
                    durable.add(log.seq)
        return log.seq

    def _schedule(self, log: _Log, packet: Packet) -> None:
        target = packet.headers.get(headers.SCHEDULE_TARGET, "")
        if not log.config.schedules or not log.config.takes(target):
            raise Refused(f"{log.config.name} cannot schedule {packet.subject} for {target or 'no target'}")
        log.schedules[packet.subject] = packet
        due = datetime.fromisoformat(packet.headers[headers.SCHEDULE].removeprefix("@at "))

        def fire() -> None:
            if log.schedules.get(packet.subject) is packet:
                del log.schedules[packet.subject]
                kept = {k: v for k, v in packet.headers.items() if not k.startswith(headers.OF_THE_BROKER)}
                self._append(log, Packet(target, packet.body, kept))

        self._at(due, fire)

    # Time

    def _at(self, due: datetime, then: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._due, (due, self._order, then))
        self._fire()

    def _fire(self) -> None:
        while self._due and self._due[0][0] <= self.now():
            heapq.heappop(self._due)[2]()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._due:
            wait = (self._due[0][0] - self.now()).total_seconds()
            self._timer = asyncio.get_running_loop().call_later(max(wait, 0), self._fire)

    # Looking

    def stored(self, stream: str) -> list[Stored]:
        """What lies in a stream now, oldest first."""
        return list(self._logs[stream].stored.values())

    def published(self, kind: type[M]) -> list[M]:
        """Every message of this type that was ever stored, oldest first, acked or not."""
        pattern = kind.subject_filter()
        return [
            msgspec.json.decode(packet.body, type=kind)
            for _, packet in self._history
            if matches(pattern, packet.subject)
        ]

    async def idle(self, within: timedelta = timedelta(seconds=5)) -> None:
        """Wait until nothing is ready or in hand; what waits for a later time does not count.

        Raises TimeoutError.
        """
        async with asyncio.timeout(within.total_seconds()):
            while any(durable.busy for log in self._logs.values() for durable in log.durables.values()):
                self.moved.clear()
                await self.moved.wait()

    # Actors

    @asynccontextmanager
    async def run(self, actor: Actor) -> AsyncGenerator[MemoryRunner]:
        """The actor at work inside the block."""
        runner = await self.start(actor)
        try:
            yield runner
        finally:
            await runner.stop()

    async def start(self, actor: Actor) -> MemoryRunner:
        """Start an actor; whoever starts it stops the runner."""
        runner = MemoryRunner(self, actor)
        runner.start()
        return runner

    def durable(self, stream: str, name: str, filters: list[str]) -> _Durable:
        """The reader of this name, made on first use with all that is already stored."""
        log = self._logs[stream]
        durable = log.durables.get(name)
        if durable is None:
            durable = log.durables[name] = _Durable(filters)
            for seq, stored in log.stored.items():
                if durable.takes(stored.packet.subject):
                    durable.add(seq)
        return durable

    def deliver(self, stream: str, durable: _Durable, seq: int) -> Raw:
        """Hand out one message of a durable, as a broker would."""
        stored = self._logs[stream].stored[seq]
        durable.deliveries[seq] = durable.deliveries.get(seq, 0) + 1
        return Raw(
            subject=stored.packet.subject,
            headers=dict(stored.packet.headers),
            body=stored.packet.body,
            stream=stream,
            seq=seq,
            deliveries=durable.deliveries[seq],
            stored_ns=int(stored.at.timestamp() * 1e9),
        )

    def tell(self, durable: _Durable, raw: Raw, verdict: Verdict) -> None:
        """Take a verdict: an ack finishes the message, a nak brings it back later."""
        log = self._logs[raw.stream]
        if isinstance(verdict, Nacked):
            self._at(self.now() + verdict.after, partial(durable.add, raw.seq))
            return
        durable.deliveries.pop(raw.seq, None)
        if log.config.retention == "workqueue":
            log.stored.pop(raw.seq, None)


class MemoryRunner:
    """One actor reading its durables."""

    def __init__(self, bus: MemoryBus, actor: Actor) -> None:
        self._bus = bus
        self._actor = actor
        self._handling = Handling(actor, bus.send, bus.now)
        self.counters = self._handling.counters
        self._slots = asyncio.Semaphore(actor.in_flight)
        self._durables: list[_Durable] = []
        self._pumps: list[asyncio.Task[None]] = []
        self._working: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin to read."""
        patterns = [kind.subject_filter() for kind in self._actor.takes]
        for stream, filters in self._bus.topology.filters(self._actor.name, patterns).items():
            durable = self._bus.durable(stream, self._actor.name, filters)
            durable.readers += 1
            self._durables.append(durable)
            self._pumps.append(asyncio.create_task(self._pump(stream, durable)))

    async def stop(self, grace: timedelta = timedelta(seconds=5)) -> None:
        """Stop reading, let what was started end within `grace`, then give the rest back."""
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        if self._working:
            await asyncio.wait(self._working, timeout=grace.total_seconds())
        await asyncio.gather(*(end(task) for task in self._working))
        for durable in self._durables:
            durable.readers -= 1
        self._durables.clear()

    async def _pump(self, stream: str, durable: _Durable) -> None:
        while True:
            await durable.filled.wait()
            await self._slots.acquire()
            seqs = [durable.ready.popleft() for _ in range(min(len(durable.ready), self._actor.batch))]
            if not durable.ready:
                durable.filled.clear()
            durable.in_hand += len(seqs)
            task = asyncio.create_task(self._work(stream, durable, seqs))
            self._working.add(task)
            task.add_done_callback(self._working.discard)

    async def _work(self, stream: str, durable: _Durable, seqs: list[int]) -> None:
        settled: set[int] = set()
        try:
            raws = [self._bus.deliver(stream, durable, seq) for seq in seqs]
            verdicts = await self._handling.work(raws)
            for raw, verdict in zip(raws, verdicts, strict=True):
                settled.add(raw.seq)
                self._bus.tell(durable, raw, verdict)
        finally:
            for seq in seqs:
                if seq not in settled:
                    durable.add(seq)
            durable.in_hand -= len(seqs)
            self._slots.release()
            self._bus.moved.set()
