"""Publishing to JetStream: acknowledged, retried under the same id, many at once on one reply subscription."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec
from nats.aio.msg import Msg

from harkara.bus.errors import BusError, Full, Refused, Unavailable
from harkara.bus.link import Link, Listener
from harkara.bus.messages import Ack, Outgoing, Packet
from harkara.bus.publisher import Unsubscribe
from harkara.measures import Measures

#: At most this many messages, and about this many bytes, are on their way unacknowledged per call.
_WINDOW = 1000
_WINDOW_BYTES = 4 * 1024 * 1024
_ACK_WAIT_S = 2.0
_SWEEP_EVERY_S = 0.1
_FIRST_BACKOFF_S = 0.05
#: A cluster that elects a leader takes messages again after some seconds: little of that time may be ours.
_LONGEST_BACKOFF_S = 0.25

_STORE_FAILED = 10077

#: An earlier try has come to the stream's leader, which waits for the other servers to have it.
_IN_PROCESS = 10158


class _Fault(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _NotStored(msgspec.Struct):
    error: _Fault


_decode_ack = msgspec.json.Decoder(Ack).decode
_decode_fault = msgspec.json.Decoder(_NotStored).decode

Result = Ack | BusError

#: Whether there is no white space in it.
_one_word = re.compile(r"\S+").fullmatch


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


class _Single(NamedTuple):
    """A message on its way alone: `done` is given its answer, or None when its time is up."""

    deadline: float
    done: asyncio.Future[Result | None]

    def answer(self, _: int, result: Result | None) -> None:
        if not self.done.done():
            self.done.set_result(result)

    def end(self) -> None:
        self.answer(0, None)


class BrokerPublisher:
    """Publishes over one link. `patience_s` bounds how long a message is retried before it is Unavailable."""

    def __init__(self, link: Link, patience_s: float = 10.0, measures: Measures | None = None) -> None:
        self.measures = measures or Measures()
        self._link = link
        self._patience_s = patience_s
        self._inbox = link.inbox()
        self._reply = f"{self._inbox}.".encode()
        self._cut = len(self._reply)
        self._next = 0
        self._waiting: dict[bytes, tuple[_Round | _Single, int, str]] = {}
        self._sweeping: asyncio.TimerHandle | None = None
        self._listener: Listener | None = None

    async def open(self) -> None:
        """Listen for answers; nothing can be published before."""
        self._link.on_up.append(self._ask_again)
        self._listener = await self._link.listen(f"{self._inbox}.*", self._on_answer, self._answered)

    async def close(self) -> None:
        """Stop listening."""
        if self._ask_again in self._link.on_up:
            self._link.on_up.remove(self._ask_again)
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
        result = await self._store(packet)
        if isinstance(result, BusError):
            raise result
        if not result.duplicate:
            self.measures.tally.add(out.message, out.tenant)
        return result

    async def _store(self, packet: Packet) -> Result:
        """Store one packet: straight, and only if that fails with what it takes to try again."""
        head = header_block(packet)
        clock = asyncio.get_running_loop().time
        begun = clock()
        result: Result | None = self._impossible(packet, head)
        if result is None and self._link.connected:
            token, answered = self._write(packet, head, begun + min(_ACK_WAIT_S, self._patience_s))
            try:
                result = await answered
            finally:
                self._waiting.pop(token, None)
        if result is None or isinstance(result, Unavailable):
            [result] = await self._send_window((packet,), begun + self._patience_s)
        if isinstance(result, BusError):
            self._count_unstored(result)
        else:
            self.measures.acks.add(clock() - begun)
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
        told = [next(stored) if result is None else result for result in results]
        for out, answer in zip(outs, told, strict=True):
            if type(answer) is Ack and not answer.duplicate:
                self.measures.tally.add(out.message, out.tenant)
        return told

    async def send(self, packets: Sequence[Packet]) -> list[Result]:
        """Store packets that are already encoded: what happened to each, in the same order."""
        if len(packets) == 1:
            return [await self._store(packets[0])]
        results: list[Result] = []
        clock = asyncio.get_running_loop().time
        for window in _windows(packets):
            begun = clock()
            answers = await self._send_window(window, begun + self._patience_s)
            self.measures.acks.add(clock() - begun)
            for answer in answers:
                if isinstance(answer, BusError):
                    self._count_unstored(answer)
            results.extend(answers)
        return results

    def _count_unstored(self, error: BusError) -> None:
        self.measures.unstored.add(type(error).__name__.lower())

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

    def _write(self, packet: Packet, head: bytes, deadline: float) -> tuple[bytes, asyncio.Future[Result | None]]:
        """Write one: the token of its answer, and the answer; None if it hasn't come by `deadline`."""
        loop = asyncio.get_running_loop()
        current = _Single(deadline, loop.create_future())
        self._next += 1
        token = b"%d" % self._next
        self._waiting[token] = (current, 0, packet.subject)
        if self._sweeping is None:
            self._sweeping = loop.call_later(_SWEEP_EVERY_S, self._sweep)
        self._link.write(encoded(packet, head, self._reply + token))
        return token, current.done

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
        tokens: list[bytes] = []
        parts: list[bytes] = []
        for index in missing:
            results[index] = None
            self._next += 1
            token = b"%d" % self._next
            tokens.append(token)
            packet = packets[index]
            self._waiting[token] = (current, index, packet.subject)
            parts.append(encoded(packet, heads[index], self._reply + token))
        if self._sweeping is None:
            self._sweeping = loop.call_later(_SWEEP_EVERY_S, self._sweep)
        try:
            self._link.write(b"".join(parts))
            await current.done
        finally:
            if current.left:
                for token in tokens:
                    self._waiting.pop(token, None)

    def _ask_again(self) -> None:
        """The connection was lost and is back: answers that were on their way will not come."""
        for current, _, _ in list(self._waiting.values()):
            current.end()

    def _sweep(self) -> None:
        """End what is on its way and whose time is up: one timer for all, because nearly all end long before."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for current, _, _ in self._waiting.values():
            if current.deadline <= now:
                current.end()
        self._sweeping = loop.call_later(_SWEEP_EVERY_S, self._sweep) if self._waiting else None

    def _on_answer(self, msg: Msg) -> None:
        self._answered(msg.subject.encode(), msg.data)

    def _answered(self, inbox: bytes, data: bytes) -> None:
        waiting = self._waiting.pop(inbox[self._cut :], None)
        if waiting is not None:
            current, index, subject = waiting
            current.answer(index, _result(data, subject))

    def _impossible(self, packet: Packet, head: bytes) -> Refused | None:
        """Why a packet can never be sent: the server would close the connection over it."""
        lines, subject = len(packet.headers) + 2, packet.subject
        if head.count(b"\n") != lines or head.count(b"\r") != lines or not _one_word(subject):
            return Refused(f"a header or the subject {subject!r} holds a line break or a space")
        size = len(head) + len(packet.body)
        if size > self._link.max_payload:
            return Refused(f"{size} bytes are more than the broker's {self._link.max_payload}: send less at once")
        return None


def _result(data: bytes, subject: str) -> Result:
    if not data:
        return Unavailable(f"no stream takes {subject} right now: run `harkara topology apply` if this stays")
    if b'"error"' not in data:
        return _decode_ack(data)
    fault = _decode_fault(data).error
    if fault.err_code == _STORE_FAILED and "per subject" in fault.description:
        return Full(f"the queue {subject} is full: slow down and try again")
    if fault.code >= 500 or fault.err_code in (_STORE_FAILED, _IN_PROCESS):
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
    return "\r\n".join(["NATS/1.0", *map(": ".join, packet.headers.items()), "", ""]).encode()


def encoded(packet: Packet, head: bytes, reply: bytes) -> bytes:
    """One message as it goes over the wire, to be answered on `reply`."""
    return b"HPUB %s %s %d %d\r\n%s%s\r\n" % (
        packet.subject.encode(),
        reply,
        len(head),
        len(head) + len(packet.body),
        head,
        packet.body,
    )
