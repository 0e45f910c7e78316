"""Publishing to JetStream: acknowledged, retried under the same id, many at once on one reply subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence

import msgspec
from nats.aio.msg import Msg

from harkara.bus.errors import BusError, Full, Refused, Unavailable
from harkara.bus.link import Link, Listener
from harkara.bus.messages import Ack, Outgoing, Packet
from harkara.bus.publisher import Unsubscribe

#: At most this many messages, and about this many bytes, are on their way unacknowledged per call.
_WINDOW = 1000
_WINDOW_BYTES = 4 * 1024 * 1024
_ACK_WAIT_S = 2.0
_SWEEP_EVERY_S = 0.1
_FIRST_BACKOFF_S = 0.05
_LONGEST_BACKOFF_S = 1.0

_STORE_FAILED = 10077


class _Fault(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _PubAck(msgspec.Struct):
    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _Fault | None = None


_decode = msgspec.json.Decoder(_PubAck).decode

Result = Ack | BusError


class _Round:
    """Messages on their way: fills `results` as the answers come, and is done with the last one."""

    __slots__ = ("deadline", "done", "left", "results")

    def __init__(self, results: list[Result | None], left: int, deadline: float, done: asyncio.Future[None]) -> None:
        self.results = results
        self.left = left
        self.deadline = deadline
        self.done = done

    def answer(self, index: int, result: Result) -> None:
        self.results[index] = result
        self.left -= 1
        if not self.left:
            self.end()

    def end(self) -> None:
        """Whoever waits goes on, with the answers there are."""
        if not self.done.done():
            self.done.set_result(None)


class BrokerPublisher:
    """Publishes over one link. `patience_s` bounds how long a message is retried before it is Unavailable."""

    def __init__(self, link: Link, patience_s: float = 10.0) -> None:
        self._link = link
        self._patience_s = patience_s
        self._inbox = link.inbox()
        self._cut = len(self._inbox) + 1
        self._next = 0
        self._waiting: dict[str, tuple[_Round, int, str]] = {}
        self._rounds: set[_Round] = set()
        self._sweeping: asyncio.TimerHandle | None = None
        self._listener: Listener | None = None

    async def open(self) -> None:
        """Listen for answers; nothing can be published before."""
        self._listener = await self._link.listen(f"{self._inbox}.*", self._on_answer)

    async def close(self) -> None:
        """Stop listening."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        if self._listener is not None:
            await self._listener.close()

    async def publish(self, out: Outgoing) -> Ack:
        """Store one message. Raises Unavailable (it may or may not be stored), Full or Refused."""
        try:
            packet = out.packet()
        except (ValueError, TypeError) as error:
            raise _not_published(out, error) from None
        head = header_block(packet)
        results: list[Result | None] = [self._impossible(packet, head)]
        deadline = asyncio.get_running_loop().time() + self._patience_s
        if results[0] is None and self._link.connected:  # straight, without what it takes to try again
            await self._round((packet,), [head], [0], results, min(_ACK_WAIT_S, self._patience_s))
        result = results[0]
        if result is None or isinstance(result, Unavailable):
            [result] = await self._send_window((packet,), deadline)
        if isinstance(result, BusError):
            raise result
        return result

    async def publish_many(self, outs: Sequence[Outgoing]) -> list[Result]:
        """Store many messages at once: what happened to each, in the same order. Raises no BusError."""
        packets: list[Packet] = []
        results: list[Result | None] = []
        for out in outs:
            try:
                packets.append(out.packet())
                results.append(None)
            except (ValueError, TypeError) as error:
                results.append(_not_published(out, error))
        stored = iter(await self.send(packets))
        return [next(stored) if result is None else result for result in results]

    async def send(self, packets: Sequence[Packet]) -> list[Result]:
        """Store packets that are already encoded: what happened to each, in the same order."""
        results: list[Result] = []
        for window in _windows(packets):
            deadline = asyncio.get_running_loop().time() + self._patience_s
            results.extend(await self._send_window(window, deadline))
        return results

    def wake(self, subject: str, data: bytes = b"") -> None:
        """Nudge whoever listens right now: not stored, lost while there is no connection."""
        if self._link.connected:
            self._link.write(b"PUB %s %d\r\n%s\r\n" % (subject.encode(), len(data), data))

    async def subscribe_wake(self, subject: str, callback: Callable[[bytes], None]) -> Unsubscribe:
        """Call `callback` with each nudge's data from now on. Raises Unavailable."""
        listener = await self._link.listen(subject, lambda msg: callback(msg.data))
        return listener.close

    async def _send_window(self, packets: Sequence[Packet], deadline: float) -> list[Result]:
        """Send until all are stored or refused, or the loop's clock says `deadline`."""
        loop = asyncio.get_running_loop()
        heads = [header_block(packet) for packet in packets]
        results: list[Result | None] = [
            self._impossible(packet, head) for packet, head in zip(packets, heads, strict=True)
        ]
        backoff = _FIRST_BACKOFF_S
        while missing := [i for i, one in enumerate(results) if one is None or isinstance(one, Unavailable)]:
            left = deadline - loop.time()
            if left <= 0:
                break
            if await self._link.until_up(left):
                await self._round(packets, heads, missing, results, min(_ACK_WAIT_S, left))
            if any(one is None or isinstance(one, Unavailable) for one in results):
                await asyncio.sleep(min(backoff, max(deadline - loop.time(), 0)))
                backoff = min(backoff * 2, _LONGEST_BACKOFF_S)
        trouble = f" ({self._link.trouble})" if self._link.trouble else ""
        return [one or Unavailable(f"the broker did not answer in time{trouble}: try again") for one in results]

    async def _round(
        self,
        packets: Sequence[Packet],
        heads: list[bytes],
        missing: list[int],
        results: list[Result | None],
        within_s: float,
    ) -> None:
        """Write the missing ones once and wait for their answers, at most so long."""
        loop = asyncio.get_running_loop()
        current = _Round(results, len(missing), loop.time() + within_s, loop.create_future())
        tokens: list[str] = []
        parts: list[bytes] = []
        for index in missing:
            results[index] = None
            self._next += 1
            token = str(self._next)
            tokens.append(token)
            packet = packets[index]
            self._waiting[token] = (current, index, packet.subject)
            parts.append(encoded(packet, heads[index], f"{self._inbox}.{token}"))
        self._rounds.add(current)
        if self._sweeping is None:
            self._sweeping = loop.call_later(_SWEEP_EVERY_S, self._sweep)
        try:
            self._link.write(b"".join(parts))
            await current.done
        finally:
            self._rounds.discard(current)
            if current.left:
                for token in tokens:
                    self._waiting.pop(token, None)

    def _sweep(self) -> None:
        """End the rounds whose time is up: one timer for all, because nearly all end long before."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for current in self._rounds:
            if current.deadline <= now:
                current.end()
        self._sweeping = loop.call_later(_SWEEP_EVERY_S, self._sweep) if self._rounds else None

    def _on_answer(self, msg: Msg) -> None:
        waiting = self._waiting.pop(msg.subject[self._cut :], None)
        if waiting is not None:
            current, index, subject = waiting
            current.answer(index, _result(msg, subject))

    def _impossible(self, packet: Packet, head: bytes) -> Refused | None:
        """Why a packet can never be sent: the server would close the connection over it."""
        lines = len(packet.headers) + 2
        if head.count(b"\n") != lines or head.count(b"\r") != lines or packet.subject.split() != [packet.subject]:
            return Refused(f"a header or the subject {packet.subject!r} holds a line break or a space")
        size = len(head) + len(packet.body)
        if size > self._link.max_payload:
            return Refused(f"{size} bytes are more than the broker's {self._link.max_payload}: send less at once")
        return None


def _result(msg: Msg, subject: str) -> Result:
    if not msg.data:
        return Unavailable(f"no stream takes {subject} right now: run `harkara topology apply` if this stays")
    answer = _decode(msg.data)
    fault = answer.error
    if fault is None:
        return Ack(answer.stream, answer.seq, answer.duplicate)
    if fault.err_code == _STORE_FAILED and "per subject" in fault.description:
        return Full(f"the queue {subject} is full: slow down and try again")
    if fault.code == 503 or fault.err_code == _STORE_FAILED:
        return Unavailable(f"the broker cannot store {subject}: {fault.description}")
    return Refused(f"the broker refused {subject}: {fault.description} ({fault.err_code})")


def _not_published(out: Outgoing, error: Exception) -> Refused:
    return Refused(f"{type(out.message).__name__} cannot be published: {error}")


def _windows(packets: Sequence[Packet]) -> Iterator[Sequence[Packet]]:
    start, size = 0, 0
    for index, packet in enumerate(packets):
        if index > start and (index - start >= _WINDOW or size + len(packet.body) > _WINDOW_BYTES):
            yield packets[start:index]
            start, size = index, 0
        size += len(packet.body)
    if start < len(packets):
        yield packets[start:]


def header_block(packet: Packet) -> bytes:
    """The headers as they go over the wire."""
    lines = "".join([f"{name}: {value}\r\n" for name, value in packet.headers.items()])
    return f"NATS/1.0\r\n{lines}\r\n".encode()


def encoded(packet: Packet, head: bytes, reply: str) -> bytes:
    """One message as it goes over the wire, to be answered on `reply`."""
    return b"HPUB %s %s %d %d\r\n%s%s\r\n" % (
        packet.subject.encode(),
        reply.encode(),
        len(head),
        len(head) + len(packet.body),
        head,
        packet.body,
    )
