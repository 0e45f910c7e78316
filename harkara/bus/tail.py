"""Reading a stream without consuming it: its live end, in order and without a gap, and what lies before."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec
from loguru import logger
from nats.aio.msg import Msg

from harkara.bus.api import NO_MESSAGE, Api, ApiError
from harkara.bus.errors import BusError, Unavailable
from harkara.bus.link import Link, Listener
from harkara.bus.tasks import end

_HEARTBEAT_S = 1.0
_SILENCE_S = 2.5
_FIRST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 5.0
_ANSWER_WAIT_S = 2.0
_PAGE_WAIT_S = 5.0
_PAGE_BYTES = 1024 * 1024
_NS = 1_000_000_000


class Stored(NamedTuple):
    """One message as it lies in a stream; `at` is when it was stored, RFC 3339 UTC in milliseconds.

    Its headers are there if it was read from what lies before; at the live end nobody asks for them.
    """

    seq: int
    at: str
    subject: str
    body: bytes
    headers: Mapping[str, str] | None = None


class Bounds(NamedTuple):
    """The sequences a stream still has; `first` is `last` + 1 when it is empty."""

    first: int
    last: int


class Page(NamedTuple):
    """Some messages in order, and whether there are more after them."""

    messages: list[Stored]
    more: bool


class Tail:
    """Hands on every message of a stream from now on, once and in order, however often the broker goes away.

    `on` is called straight from the parser and must be quick. `on_lost` is called when messages were lost for good: the
    stream dropped them while we were away, or was made anew; reading goes on after them.
    """

    def __init__(self, link: Link, stream: str, on: Callable[[Stored], None], on_lost: Callable[[], None]) -> None:
        self._link = link
        self._api = Api(lambda subject, data: link.request(subject, data, _ANSWER_WAIT_S))
        self._stream = stream
        self._on_message = on
        self._on_lost = on_lost
        self._created = ""
        self._task: asyncio.Task[None] | None = None
        self._session: _Session | None = None
        #: Everything up to this sequence has been handed on.
        self.position = 0
        #: Set while messages are coming.
        self.ready = asyncio.Event()

    async def start(self, within_s: float = 5.0) -> None:
        """Read from the live end. Returns when it is there, or after `within_s` seconds, and goes on trying."""
        self._link.on_up.append(self._on_up)
        self._task = asyncio.create_task(self._run())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self.ready.wait()

    async def stop(self) -> None:
        """Stop reading. Does nothing when it has stopped."""
        if self._task is None:
            return
        self._link.on_up.remove(self._on_up)
        await end(self._task)
        self._task = None
        await self._detach()

    async def _run(self) -> None:
        backoff = _FIRST_BACKOFF_S
        while True:
            try:
                session = await self._attach()
                backoff = _FIRST_BACKOFF_S
                await session.until_trouble()
            except BusError as error:
                logger.bind(stream=self._stream).warning("Reading {} waits for the broker: {}", self._stream, error)
            except Exception as error:  # a defect here must not make every feed deaf for ever
                logger.bind(stream=self._stream).opt(exception=error).error("Reading {} failed", self._stream)
            self.ready.clear()
            await self._detach()
            await asyncio.sleep(backoff)
            backoff = min(backoff * 2, _LONGEST_BACKOFF_S)

    async def _attach(self) -> _Session:
        if not await self._link.until_up(_PAGE_WAIT_S):
            raise Unavailable("there is no connection")
        await self._find_position()
        session = self._session = _Session(self, self._link)
        inbox = self._link.inbox()
        session.listener = await self._link.listen(inbox, session.on)
        name = f"tail-{secrets.token_hex(8)}"
        config = {
            "name": name,
            "deliver_subject": inbox,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self.position + 1,
            "ack_policy": "none",
            "flow_control": True,
            "idle_heartbeat": int(_HEARTBEAT_S * _NS),
            "inactive_threshold": 10 * _NS,
            "mem_storage": True,
            "num_replicas": 1,
        }
        request = {"stream_name": self._stream, "config": config, "action": "create"}
        session.consumer = f"{self._stream}.{name}"
        await self._api.call(f"CONSUMER.CREATE.{session.consumer}", request)
        self.ready.set()
        return session

    async def _find_position(self) -> None:
        info = await self._api.call(f"STREAM.INFO.{self._stream}")
        first, last, created = info["state"]["first_seq"], info["state"]["last_seq"], info["created"]
        if not self._created:
            self.position = last
        elif created != self._created or last < self.position:
            logger.bind(stream=self._stream).error("{} was made anew: what it had is lost", self._stream)
            self.position = last
            self._on_lost()
        elif first > self.position + 1:
            logger.bind(stream=self._stream).error("{} dropped messages before they were read", self._stream)
            self.position = first - 1
            self._on_lost()
        self._created = created

    async def _detach(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            session.over = True
            if session.listener is not None:
                await session.listener.close()
            if session.consumer and self._link.connected:
                # It would go by itself; but who stops and starts often would leave a crowd of them for a while.
                with contextlib.suppress(BusError):
                    await self._api.call(f"CONSUMER.DELETE.{session.consumer}")

    def _on_up(self) -> None:
        if self._session is not None:
            self._session.trouble.set()

    def hand_on(self, message: Stored) -> None:
        """One message, in its turn."""
        self._on_message(message)
        self.position = message.seq


class _Session:
    """One ephemeral consumer; over as soon as a message is missing or the broker falls silent."""

    __slots__ = ("_expected", "_heard", "_link", "_loop", "_tail", "consumer", "listener", "over", "trouble")

    def __init__(self, tail: Tail, link: Link) -> None:
        self._tail = tail
        self._link = link
        self._expected = 1
        self._loop = asyncio.get_running_loop()
        self._heard = self._loop.time()
        self.listener: Listener | None = None
        self.consumer = ""
        self.over = False
        self.trouble = asyncio.Event()

    async def until_trouble(self) -> None:
        """Return when this consumer is no good any more."""
        while (left := self._heard + _SILENCE_S - self._loop.time()) > 0:
            try:
                async with asyncio.timeout(left):
                    await self.trouble.wait()
                return
            except TimeoutError:
                continue

    def on(self, msg: Msg) -> None:
        """What the broker sends: messages, heartbeats and requests to say that we keep up."""
        if self.over:
            return
        self._heard = self._loop.time()
        if msg.headers and "Status" in msg.headers:
            self._on_status(msg, msg.headers)
            return
        stream_seq, consumer_seq, stored_ns = _where(msg.reply)
        if consumer_seq != self._expected:
            self.over = True
            self.trouble.set()
            return
        self._expected += 1
        self._tail.hand_on(Stored(stream_seq, _rfc3339(stored_ns), msg.subject, msg.data))

    def _on_status(self, msg: Msg, headers: dict[str, str]) -> None:
        if (
            headers["Status"] != "100"
            or int(headers.get("Nats-Last-Consumer", self._expected - 1)) != self._expected - 1
        ):
            self.trouble.set()
        reply = msg.reply or headers.get("Nats-Consumer-Stalled", "")
        if reply:
            self._link.write(b"PUB %s 0\r\n\r\n" % reply.encode())


class History:
    """Reads what a stream still has: no consumer, one request a page. The stream must allow direct access."""

    def __init__(self, link: Link, stream: str) -> None:
        self._link = link
        self._api = Api(link.request)
        self._stream = stream
        self._inbox = link.inbox()
        self._listener: Listener | None = None
        self._next = 0
        self._pages: dict[str, _Collected] = {}

    async def bounds(self) -> Bounds:
        """What the stream has, as its leader knows. Raises Unavailable."""
        state: dict[str, Any] = (await self._api.call(f"STREAM.INFO.{self._stream}"))["state"]
        return Bounds(state["first_seq"], state["last_seq"])

    async def next_after(self, pattern: str, after: int) -> int | None:
        """The first sequence above `after` whose subject matches, as the stream's leader knows; None if there is none.

        Raises Unavailable. A page may come from a replica that lags behind; this doesn't.
        """
        try:
            answer = await self._api.call(f"STREAM.MSG.GET.{self._stream}", {"seq": after + 1, "next_by_subj": pattern})
        except ApiError as error:
            if error.code == NO_MESSAGE:
                return None
            raise Unavailable(str(error)) from error
        return int(answer["message"]["seq"])

    async def page(self, pattern: str, after: int, most: int) -> Page:
        """The next messages above sequence `after` whose subjects match, at most `most`. Raises Unavailable."""
        if self._listener is None:
            self._listener = await self._link.listen(f"{self._inbox}.*", self._on)
        self._next += 1
        token = str(self._next)
        collected = self._pages[token] = _Collected()
        body = msgspec.json.encode({"seq": after + 1, "next_by_subj": pattern, "batch": most, "max_bytes": _PAGE_BYTES})
        try:
            self._link.write(
                b"PUB $JS.API.DIRECT.GET.%s %s.%s %d\r\n%s\r\n"
                % (self._stream.encode(), self._inbox.encode(), token.encode(), len(body), body)
            )
            async with asyncio.timeout(_PAGE_WAIT_S):
                return await collected.page
        except TimeoutError:
            raise Unavailable("the broker did not answer in time: try again") from None
        finally:
            del self._pages[token]

    async def close(self) -> None:
        """Stop listening for answers."""
        if self._listener is not None:
            await self._listener.close()

    def _on(self, msg: Msg) -> None:
        collected = self._pages.get(msg.subject.rpartition(".")[2])
        if collected is not None:
            collected.take(msg)


class _Collected:
    """One page on its way."""

    __slots__ = ("_messages", "page")

    def __init__(self) -> None:
        self._messages: list[Stored] = []
        self.page: asyncio.Future[Page] = asyncio.get_running_loop().create_future()

    def take(self, msg: Msg) -> None:
        """One part of the answer; the last one says so."""
        if self.page.done():
            return
        headers = msg.headers or {}
        status = headers.get("Status", "")
        if status == "404":
            self.page.set_result(Page([], more=False))
        elif status and status != "204":
            self.page.set_exception(_no_access(status))
        elif int(headers.get("Nats-Last-Sequence", 0)) != (self._messages[-1].seq if self._messages else 0):
            self.page.set_exception(Unavailable("a part of the answer was lost: try again"))
        elif status:
            self.page.set_result(Page(self._messages, more=headers.get("Nats-Num-Pending", "0") != "0"))
        else:
            at = _to_milliseconds(headers["Nats-Time-Stamp"])
            self._messages.append(Stored(int(headers["Nats-Sequence"]), at, headers["Nats-Subject"], msg.data, headers))


def _no_access(status: str) -> Unavailable:
    return Unavailable(f"the stream can't be read directly ({status}): run `harkara topology apply` if this stays")


def _where(reply: str) -> tuple[int, int, int]:
    """Stream sequence, consumer sequence and storing time (ns) from a delivery's reply subject, old form or new."""
    tokens = reply.split(".")
    first = 5 if len(tokens) == 9 else 7
    return int(tokens[first]), int(tokens[first + 1]), int(tokens[first + 2])


class _Clock:
    """Writes instants; the second, which hardly changes from one message to the next, is written once."""

    __slots__ = ("_second", "_text")

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self, ns: int) -> str:
        second, rest = divmod(ns, _NS)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._text}.{rest // 1_000_000:03d}Z"


_rfc3339 = _Clock()


def _to_milliseconds(text: str) -> str:
    """An RFC 3339 instant of the broker's, whose fraction has no fixed length, in the form that `_Clock` writes."""
    second, _, fraction = text.removesuffix("Z").partition(".")
    return f"{second}.{fraction[:3]:0<3}Z"
