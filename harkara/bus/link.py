"""One connection to the broker that never gives up; the only file that knows nats-py's insides.

nats-py closes for good on some errors, its read loop can die silently, and its publish and subscribe calls cost more
than the work they carry. So a link watches its client, replaces it when it is closed, writes bytes straight into its
buffer and takes messages straight from its parser.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from loguru import logger
from nats import errors as nats_errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.protocol.parser import AWAITING_CONTROL_LINE, CRLF_SIZE, Parser

from harkara.bus import servers
from harkara.bus.errors import Unavailable
from harkara.bus.tasks import end, heeding_cancellation

Incoming = Callable[[Msg], None]

#: Takes the subject and the body of a plain message, as bytes.
Plain = Callable[[bytes, bytes], None]

#: Takes the subject of a message, its reply subject, its headers as they are on the wire, and its body.
Whole = Callable[[bytes, bytes, bytes, bytes], None]

_RECONNECT_WAIT_S = 0.2
_WATCH_EVERY_S = 3.0
_ROUND_TRIP_S = 3.0
_LONGEST_REDIAL_WAIT_S = 5.0
_PENDING_BYTES = 64 * 1024 * 1024


#: What another connection of this process said so short a time ago is not said again: they all go to one broker.
_SAID_BY_ALL_WITHIN_S = 1.0


class _Voice:
    """What the connections of a process say of their broker, once for all of them."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[float, Link]] = {}

    def say(self, who: Link, level: str, text: str) -> None:
        now = time.monotonic()
        at, by = self._last.get(text, (-math.inf, who))
        if by is not who and now - at < _SAID_BY_ALL_WITHIN_S:
            return
        self._last = {one: said for one, said in self._last.items() if now - said[0] < _SAID_BY_ALL_WITHIN_S}
        self._last[text] = now, who
        logger.log(level, "{}", text)


_voice = _Voice()


class _Straight(asyncio.Queue[Msg]):
    """Stands where nats-py queues a subscription's messages and hands each one on at once, without a task between."""

    def __init__(self, on: Incoming) -> None:
        super().__init__()
        self._on = on

    def put_nowait(self, item: Msg) -> None:
        # An exception here would end nats-py's read loop, and with it every other subscription.
        try:
            self._on(item)
        except Exception as error:
            logger.opt(exception=error).error("Taking a message from the broker failed")


#: The first line of a message that has neither headers nor anybody who waits for an answer: its subject, to which
#: subscription it belongs, and the length of its body.
_PLAIN = re.compile(rb"MSG (\S+) (\d+) (\d+)\r\n")

#: The first line of one that has both: between them where its answer goes, and the length of its headers; at the end
#: that of headers and body. What the broker says of a pull request has no reply subject.
_WHOLE = re.compile(rb"HMSG (\S+) (\d+) (\S+) (\d+) (\d+)\r\n")


class QuickParser(Parser):
    """nats-py's parser, which hands messages on at once where somebody takes them as they are.

    What is made of a message on nats-py's own way costs four times what it takes to publish one and read its answer.
    """

    def __init__(self, client: Client) -> None:
        super().__init__(client)  # pyright: ignore[reportUnknownMemberType]
        #: By the number of a subscription.
        self.plain: dict[bytes, Plain] = {}
        self.whole: dict[bytes, Whole] = {}

    async def parse(self, data: bytes = b"") -> None:
        """Take what came in."""
        if (self.plain or self.whole) and self.state == AWAITING_CONTROL_LINE:
            if self.buf:
                data = bytes(self.buf) + data
                self.buf.clear()
            data = self._quickly(data)
        if data:
            await super().parse(data)

    def _quickly(self, data: bytes) -> bytes:
        """Hand on the messages at the beginning that are taken as they are; what is left.

        One of which only a part has come is kept in the buffer: were it left to nats-py, all that follows would be.
        """
        place = 0
        while match := _PLAIN.match(data, place) or _WHOLE.match(data, place):
            subject, number, *more, size = match.groups()
            begin = match.end()
            end = begin + int(size)
            on: Callable[..., None] | None = self.whole.get(number) if more else self.plain.get(number)
            if on is None:
                break
            if len(data) < end + CRLF_SIZE:
                self.buf.extend(data[place:])
                return b""
            try:
                if more:
                    body = begin + int(more[1])
                    on(subject, more[0], data[begin:body], data[body:end])
                else:
                    on(subject, data[begin:end])
            except Exception as error:  # it would end nats-py's read loop
                logger.opt(exception=error).error("Taking a message from the broker failed")
            place = end + CRLF_SIZE
        return data[place:] if place else data


class _Client(Client):
    """nats-py's client, which forgets a connection that no server greeted in time when it dials the next one."""

    async def _connect_to_server(self, s: Any) -> None:
        left: Any = self._transport
        if left:
            left.close()
        await super()._connect_to_server(s)


@dataclass(eq=False, slots=True)
class Listener:
    """A subscription that outlives reconnections and replaced clients."""

    link: Link
    subject: str
    on: Incoming
    plain: Plain | None
    whole: Whole | None
    queue: str = ""
    sub: Any = field(default=None)

    async def close(self) -> None:
        """End it; messages already on their way are still handed on before this returns."""
        await self.link.forget(self)


class Link:
    """A connection that stays: to write, to listen, to ask. Made by `Link.open`."""

    def __init__(self, url: str, creds: str | None, name: str) -> None:
        self._options: dict[str, Any] = {
            **servers.options(url),
            "name": name,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": _RECONNECT_WAIT_S,
            "connect_timeout": 2,
            "pending_size": _PENDING_BYTES,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_down,
            "reconnected_cb": self._on_up,
            "closed_cb": self._on_closed,
            **({"user_credentials": creds} if creds else {}),
        }
        self._where = servers.without_secrets(url)
        self._client: Any = None
        self._listeners: list[Listener] = []
        self._up = asyncio.Event()
        self._look_now = asyncio.Event()
        self._refused = asyncio.Event()
        self._last_error = ""
        self._complaints: set[str] = set()
        self._closing = False
        self._watch: asyncio.Task[None] | None = None
        #: Called after each time the connection was lost, and after each time it came back; must not raise or wait.
        self.on_down: list[Callable[[], None]] = []
        self.on_up: list[Callable[[], None]] = []

    @classmethod
    async def open(cls, url: str, creds: str | None, name: str, within_s: float) -> Link:
        """Connect. Raises Unavailable, in one line, when nobody answers for `within_s` seconds or we are refused."""
        link = cls(url, creds, name)
        dialling = asyncio.create_task(link._dial())
        refused = asyncio.create_task(link._refused.wait())
        try:
            await asyncio.wait({dialling, refused}, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            if not dialling.done():
                raise Unavailable(link._why_not())
        except BaseException:
            # Left alone it would connect all the same, and nobody would ever end that connection.
            await end(dialling)
            if link._client is not None:
                await link.close()
            raise
        finally:
            refused.cancel()
        try:
            dialling.result()
        except ImportError as error:
            raise Unavailable("NATS_CREDS needs one package more: pip install 'nats-py[nkeys]'") from error
        except (nats_errors.Error, OSError, ValueError) as error:
            text = f"cannot connect to NATS at {link._where}: {error}; check NATS_URL and NATS_CREDS"
            raise Unavailable(text) from error
        link._watch = asyncio.create_task(link._keep())
        return link

    def _why_not(self) -> str:
        if self._refused.is_set():
            return f"NATS at {self._where} refuses us ({self._last_error}): check NATS_URL and NATS_CREDS"
        last = self._last_error or "no answer"
        return f"no NATS server answers at {self._where} ({last}): start one, or set NATS_URL and NATS_CREDS"

    async def close(self) -> None:
        """Flush what was written, and end the connection."""
        self._closing = True
        if self._watch is not None:
            await end(self._watch)
        if self._up.is_set():
            with contextlib.suppress(nats_errors.Error, OSError, TimeoutError):
                await self._client.flush(timeout=2)
        self._up.clear()
        # RuntimeError is how uvloop says that what could not be flushed has no socket any more.
        with contextlib.suppress(nats_errors.Error, OSError, RuntimeError):
            await self._client.close()

    @property
    def connected(self) -> bool:
        """Whether there is a server at the other end right now, as far as we know."""
        return self._up.is_set() and bool(self._client.is_connected)

    @property
    def max_payload(self) -> int:
        """Most bytes of headers and body together that the server takes."""
        return int(self._client.max_payload)

    @property
    def jetstream(self) -> JetStreamContext:
        """nats-py's own JetStream context on the current client, for what is not on a hot path."""
        context: JetStreamContext = self._client.jetstream()
        return context

    @property
    def trouble(self) -> str:
        """The last thing the connection complained of since it was up; empty when there is none."""
        return self._last_error

    def inbox(self) -> str:
        """A subject that only we listen on."""
        return str(self._client.new_inbox())

    async def until_up(self, within_s: float) -> bool:
        """Wait for a connection; False when there is none within that time."""
        if self.connected:
            return True
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._up.wait()
        return self.connected

    def write(self, data: bytes) -> None:
        """Write protocol lines, sent with whatever else this turn of the loop writes; kept while reconnecting."""
        client = self._client
        client._pending.append(data)
        client._pending_data_size += len(data)
        if client._flush_queue.empty():
            client._flush_queue.put_nowait(asyncio.get_running_loop().create_future())

    async def listen(
        self, subject: str, on: Incoming, plain: Plain | None = None, whole: Whole | None = None, queue: str = ""
    ) -> Listener:
        """Call `on` for each message, straight from the parser: it must be quick. Raises Unavailable.

        If there is a `plain`, it is called instead of `on` for messages without headers that nobody wants answered; a
        `whole`, for those with headers that are to be answered. Of all who listen in the same `queue` one gets each
        message.
        """
        listener = Listener(self, subject, on, plain, whole, queue)
        if not await self.until_up(_ROUND_TRIP_S):
            raise Unavailable(f"no NATS server answers at {self._where}: try again")
        await self._subscribe(listener)
        self._listeners.append(listener)
        return listener

    async def forget(self, listener: Listener) -> None:
        """End a listener, handing on what is already on its way."""
        if listener not in self._listeners:
            return
        self._listeners.remove(listener)
        number = b"%d" % listener.sub._id
        self._client._ps.plain.pop(number, None)
        self._client._ps.whole.pop(number, None)
        with heeding_cancellation(), contextlib.suppress(nats_errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(_ROUND_TRIP_S):
                await (self._hear_out(listener.sub) if self.connected else listener.sub.unsubscribe())

    async def _hear_out(self, sub: Any) -> None:
        """End a subscription once everything has come that the server sent to it.

        nats-py's drain writes its PING straight to the socket, past what still waits in its buffer: the answer would
        come before the server has read that the subscription ends, and what it sends in between would be lost.
        """
        await self._client._send_unsubscribe(sub._id)
        await self._client._flush_pending(force_flush=True)
        await sub.drain()

    async def request(self, subject: str, data: bytes, within_s: float = 5.0) -> bytes:
        """Ask and await the answer. Raises Unavailable when there is none."""
        try:
            with heeding_cancellation():
                answer: Msg = await self._client.request(subject, data, timeout=within_s)
        except nats_errors.NoRespondersError:
            raise Unavailable(f"nobody answers on {subject}: is JetStream enabled on the server?") from None
        except (nats_errors.Error, OSError, TimeoutError) as error:
            raise Unavailable(f"no answer on {subject}: {error or type(error).__name__}") from error
        return answer.data

    async def _subscribe(self, listener: Listener) -> None:
        # With nats-py's byte limit off, nothing is ever dropped here; pull credit bounds what can arrive.
        listener.sub = await self._client.subscribe(listener.subject, listener.queue, pending_bytes_limit=0)
        listener.sub._pending_queue = _Straight(listener.on)
        number = b"%d" % listener.sub._id
        if listener.plain is not None:
            self._client._ps.plain[number] = listener.plain
        if listener.whole is not None:
            self._client._ps.whole[number] = listener.whole

    async def _dial(self) -> None:
        client: Any = _Client()
        client._ps = QuickParser(client)
        self._client = client
        try:
            await client.connect(**self._options)
        except BaseException:
            with contextlib.suppress(Exception):
                await client.close()
            raise
        for listener in self._listeners:
            await self._subscribe(listener)
        self._up.set()

    async def _keep(self) -> None:
        """Look after the client: one that is closed is replaced, one that answers nothing is made to reconnect."""
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_WATCH_EVERY_S):
                    await self._look_now.wait()
            self._look_now.clear()
            try:
                await self._look_after()
            except Exception as error:
                logger.warning("Watching the connection to NATS failed: {}", type(error).__name__)

    async def _look_after(self) -> None:
        client = self._client
        if client.is_closed:
            await self._redial()
        elif client.is_connected and not await self._alive(client):
            _voice.say(self, "WARNING", f"NATS at {self._where} does not answer: reconnecting")
            await client.force_reconnect()

    async def _alive(self, client: Any) -> bool:
        if client._reading_task is None or client._reading_task.done():
            return bool(client.is_reconnecting)
        try:
            with heeding_cancellation():
                await client.flush(timeout=_ROUND_TRIP_S)
        except (nats_errors.Error, OSError, TimeoutError):
            return bool(client.is_reconnecting)
        return True

    async def _redial(self) -> None:
        _voice.say(self, "WARNING", f"The connection to NATS was closed ({self._last_error}): opening a new one")
        self._up.clear()
        wait = _RECONNECT_WAIT_S
        while True:
            try:
                async with asyncio.timeout(_LONGEST_REDIAL_WAIT_S):
                    await self._dial()
            except (nats_errors.Error, OSError, TimeoutError):
                await asyncio.sleep(wait)
                wait = min(wait * 2, _LONGEST_REDIAL_WAIT_S)
            else:
                await self._on_up()
                return

    async def _on_error(self, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        # Several servers that are away complain in turn: each is told once, until one of them is there again.
        if text not in self._complaints and not self._closing:
            _voice.say(self, "WARNING", f"NATS at {self._where}: {text}")
        self._complaints.add(text)
        self._last_error = text
        if "authorization" in text.lower():
            self._refused.set()

    async def _on_down(self) -> None:
        self._up.clear()
        if self._closing:
            return
        _voice.say(self, "WARNING", f"Lost NATS at {self._where}: reconnecting")
        for call in list(self.on_down):
            call()

    async def _on_closed(self) -> None:
        self._look_now.set()

    async def _on_up(self) -> None:
        self._up.set()
        self._last_error = ""
        self._complaints.clear()
        _voice.say(self, "INFO", f"Connected to NATS at {self._where} again")
        for call in list(self.on_up):
            call()
