"""Pulls one durable's messages for one actor: bounded, without barrier or linger, and it heals itself.

Nothing here loops: everything happens because a message, an answer, a finished batch or a timer came. Pull credit is
kept outstanding for what there is room for, so a slow batch never holds the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from datetime import timedelta
from typing import Any

from loguru import logger
from nats.aio.msg import Msg

from harkara.bus import headers
from harkara.bus.actor import Actor
from harkara.bus.api import Api
from harkara.bus.counters import Counters
from harkara.bus.durable import declare
from harkara.bus.elections import Elections
from harkara.bus.errors import BusError, TopologyError, Unavailable
from harkara.bus.handling import SUSPECT, Handling, Judged, young
from harkara.bus.intake import Raw
from harkara.bus.link import Link, Listener
from harkara.bus.settle import Acked, Nacked, Verdict
from harkara.bus.tasks import end
from harkara.bus.topology import Consumers

_PULL_EXPIRES_S = 30.0
_PULL_HEARTBEAT_S = 5.0
_SHORTEST_BACKOFF_S = 0.1
_LONGEST_BACKOFF_S = 5.0
_FIRST_REST_S = 0.5
_START_WITHIN_S = 10.0
#: While the credit hook says none, it is asked again this often (and at once on `nudge`).
_ASK_CREDIT_EVERY_S = 0.1
_GATHER_S = 0.005
_LAST_WAIT_S = 2.0
#: Batches whose acks are kept, to be sent again when they may have been lost.
_KEPT_ACKS = 1000
_UNSETTLED_WAIT = timedelta(seconds=5)

#: Says how many more messages may be delivered now. What was asked for and has not come yet is counted against it here;
#: what is in hand is the owner's to count (`in_hand`).
Credit = Callable[[], int]


class Slots:
    """How many batches of one actor may be handled at once, over all the durables it reads."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._waiting: list[Callable[[], None]] = []

    def take(self) -> bool:
        """Take a slot if one is free."""
        if self._free:
            self._free -= 1
            return True
        return False

    def give(self, count: int = 1) -> None:
        """Give slots back, and let whoever waits look again."""
        self._free += count
        # Whoever was asked first is asked last next time: a busy stream must not starve a quiet one.
        self._waiting[:] = self._waiting[1:] + self._waiting[:1]
        for call in self._waiting:
            call()

    def watch(self, call: Callable[[], None]) -> None:
        """Call this whenever a slot becomes free."""
        self._waiting.append(call)

    def unwatch(self, call: Callable[[], None]) -> None:
        """Call it no more."""
        if call in self._waiting:
            self._waiting.remove(call)


class Runner:
    """Reads one durable consumer, made when it is missing, and hands its messages to one actor."""

    def __init__(
        self,
        link: Link,
        elections: Elections,
        handling: Handling,
        *,
        stream: str,
        durable: str,
        filters: Sequence[str],
        consumers: Consumers,
        slots: Slots | None = None,
        inactive_threshold: timedelta | None = None,
        credit: Credit | None = None,
    ) -> None:
        self._link = link
        self._elections = elections
        self._handling = handling
        self._actor: Actor = handling.actor
        self._stream = stream
        self._durable = durable
        self._filters = list(filters)
        self._consumers = consumers
        self._slots = slots or Slots(self._actor.in_flight)
        self._inactive = inactive_threshold
        self._credit = credit
        self._window = self._actor.batch * self._actor.in_flight
        self._beat_s = consumers.ack_wait_s / 3

        self._api = Api(link.request)
        self._pull_subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}".encode()
        self._log = logger.bind(actor=self._actor.name, stream=stream, durable=durable)
        self._listener: Listener | None = None
        self._ready: deque[Raw] = deque()
        self._suspects: list[Raw] = []
        self._alone = False
        self._held: dict[str, float] = {}
        self._acks: deque[tuple[float, list[bytes]]] = deque(maxlen=_KEPT_ACKS)
        self._asked = 0
        self._heard = 0.0
        self._active = 0.0
        self._running = False
        self._healing: asyncio.Task[None] | None = None
        self._working: set[asyncio.Task[None]] = set()
        self._judged: list[Judged] = []
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._looking = False
        self._rests = 0
        self._ills = 0

    # What its owner sees

    @property
    def counters(self) -> Counters:
        """What the actor has done so far."""
        return self._handling.counters

    @property
    def idle_for(self) -> timedelta:
        """How long there has been nothing to do; zero while messages are in hand."""
        return timedelta(seconds=0 if self._held else max(self._now() - self._active, 0))

    @property
    def in_hand(self) -> int:
        """How many messages were delivered to us and are not settled yet."""
        return len(self._held)

    @property
    def asked(self) -> int:
        """How many messages were asked for and have not come yet."""
        return self._asked

    def nudge(self) -> None:
        """Ask the credit hook again now."""
        self._top_up()

    async def start(self) -> None:
        """Declare the durable and begin to pull. Raises TopologyError or Unavailable if that can't be done."""
        await self._declare_soon()
        self._listener = await self._link.listen(self._link.inbox(), self._on_message, whole=self._on_whole)
        self._running = True
        self._active = self._now()
        self._link.on_up.append(self._on_up)
        self._elections.watch(self._stream, self._durable, self._on_elected)
        self._slots.watch(self._look)
        self._set_timer("beat", self._beat_s, self._beat)
        self._top_up()

    async def stop(self, grace: timedelta = timedelta(seconds=15)) -> None:
        """Take nothing new, give back what was not started, and wait `grace` for what was; then return that too."""
        if not self._running:
            return
        self._running = False
        self._slots.unwatch(self._look)
        self._link.on_up.remove(self._on_up)
        self._elections.unwatch(self._stream, self._durable, self._on_elected)
        for name in ("pause", "credit", "gather"):
            self._cancel_timer(name)
        if self._healing is not None:
            await end(self._healing)
        self._give_back()
        if self._listener is not None:
            await self._listener.close()
        self._give_back()
        until = self._now() + grace.total_seconds()
        # Whoever has handled something begins to settle it before it ends.
        while self._working and (left := until - self._now()) > 0:
            await asyncio.wait(self._working, timeout=left)
        stuck: set[asyncio.Task[None]] = set()
        while working := self._working - stuck:
            ended = await asyncio.gather(*(end(task, _LAST_WAIT_S) for task in working))
            stuck |= {task for task, done in zip(working, ended, strict=True) if not done}
        if stuck:
            self._log.error("{} batches did not end when told to; they come back to another worker", len(stuck))
        self._cancel_timer("beat")

    # Pulling

    def _top_up(self, *, gathered: bool = False) -> None:
        """Keep credit outstanding for what there is room for, in requests of decent size."""
        if not self._running or self._healing is not None or "pause" in self._timers or not self._link.connected:
            return
        room = self._room()
        want = room - self._asked
        if room <= 0 and not self._asked and len(self._held) < self._window:
            self._soon("credit", _ASK_CREDIT_EVERY_S, self._ask_again)
        if want <= 0 or self._asked * 2 > room:
            return
        if self._held and not gathered and want * 4 < room + len(self._held):
            # Under load places come free one by one: a request for each would cost more than the message.
            self._soon("gather", _GATHER_S, self._gathered)
            return
        self._ask(want)

    def _room(self) -> int:
        """How many more may be delivered, those asked for included."""
        room = self._window - len(self._held)
        return room if self._credit is None else min(room, self._credit())

    def _ask_again(self) -> None:
        self._timers.pop("credit", None)
        self._top_up()

    def _gathered(self) -> None:
        self._timers.pop("gather", None)
        self._top_up(gathered=True)

    def _ask(self, want: int) -> None:
        if self._listener is None:
            return
        self._asked += want
        self._heard = self._now()
        body = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % (
            want,
            int(_PULL_EXPIRES_S * 1e9),
            int(_PULL_HEARTBEAT_S * 1e9),
        )
        reply = self._listener.subject.encode()
        self._link.write(b"PUB %s %s %d\r\n%s\r\n" % (self._pull_subject, reply, len(body), body))

    def _pause(self, seconds: float) -> None:
        """Pull nothing for a while."""
        self._set_timer("pause", seconds, self._resume)

    def _resume(self) -> None:
        self._timers.pop("pause", None)
        self._top_up()

    def _set_timer(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        self._cancel_timer(name)
        self._timers[name] = asyncio.get_running_loop().call_later(seconds, call)

    def _soon(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        if name not in self._timers:
            self._set_timer(name, seconds, call)

    def _cancel_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    # What comes in

    def _on_message(self, msg: Msg) -> None:
        if msg.reply:
            self._take(raw_of(msg))
        else:
            self._on_status(msg)

    def _on_whole(self, subject: bytes, reply: bytes, head: bytes, body: bytes) -> None:
        self._take(delivered(subject.decode(), reply.decode(), headers.read(head), body))

    def _take(self, raw: Raw) -> None:
        self._heard = self._now()
        self._ills = 0
        self._asked = max(self._asked - 1, 0)
        self._held[raw.reply] = self._heard
        (self._suspects if raw.deliveries > SUSPECT and young() else self._ready).append(raw)
        self._look()

    def _on_status(self, msg: Msg) -> None:
        """The broker says something about a pull request instead of answering it."""
        status = (msg.headers or {}).get("Status", "")
        self._heard = self._now()
        if status in ("100", "408"):
            self._ills = 0
        if status == "100":
            return
        left = (msg.headers or {}).get("Nats-Pending-Messages", "")
        self._asked = max(self._asked - int(left), 0) if left.isdecimal() else 0
        if status in ("404", "408"):
            self._top_up()
        else:
            self._heal(" ".join(f"{status} {(msg.headers or {}).get('Description', '')}".split()))

    # Handing on

    def _look(self) -> None:
        """Hand on what is ready, after everything that has arrived with it was taken in."""
        if (self._ready or self._suspects) and not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._hand_on)

    def _hand_on(self) -> None:
        self._looking = False
        if self._suspects and not young():
            self._ready.extend(self._suspects)
            self._suspects.clear()
        if self._suspects and not self._alone and self._running and self._slots.take():
            self._alone = True
            self._start(self._work_alone(self._next_suspect()))
        while self._ready and self._running and self._slots.take():
            batch = [self._ready.popleft() for _ in range(min(len(self._ready), self._actor.batch))]
            self._start(self._work(batch))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _work(self, batch: list[Raw]) -> None:
        try:
            judged = await self._handling.judge(batch)
        except asyncio.CancelledError:
            self._done(batch, 1, ())
            raise
        except Exception as error:
            self._done(batch, 1, self._unsettled(batch, error))
            return
        self._judged.append(judged)
        if len(self._judged) == 1:
            self._start(self._settle())

    def _next_suspect(self) -> Raw:
        """The oldest, or where the process before began with that, the youngest: two crashes leave only the guilty."""
        crashes = max(raw.deliveries for raw in self._suspects)
        found = (min if crashes % 2 else max)(self._suspects, key=lambda raw: raw.seq)
        self._suspects.remove(found)
        return found

    async def _work_alone(self, raw: Raw) -> None:
        """Handle and settle one suspect, and see that the broker knows, before the next one is begun."""
        verdicts: Sequence[Verdict] = ()
        try:
            verdicts = await self._handling.work([raw])
        except Exception as error:
            verdicts = self._unsettled([raw], error)
        finally:
            self._done([raw], 1, verdicts)
        with contextlib.suppress(Unavailable):
            await self._link.request(f"$JS.API.CONSUMER.INFO.{self._stream}.{self._durable}", b"")
        self._alone = False
        self._look()

    async def _settle(self) -> None:
        """Settle all that was handled in one turn of the loop: events are published together, and acks written."""
        judged, self._judged = self._judged, []
        batch = [raw for one in judged for raw in one.batch]
        verdicts: Sequence[Verdict] = ()
        try:
            verdicts = await self._handling.settle(judged)
        except Exception as error:
            verdicts = self._unsettled(batch, error)
        finally:
            self._done(batch, len(judged), verdicts)

    def _unsettled(self, batch: list[Raw], error: Exception) -> Sequence[Verdict]:
        """What becomes of deliveries that a defect of ours kept from being settled."""
        self._log.opt(exception=error).error("Settling failed; the batch comes back")
        return [Nacked(_UNSETTLED_WAIT)] * len(batch)

    def _done(self, batch: list[Raw], slots: int, verdicts: Sequence[Verdict]) -> None:
        """Tell the verdicts, and go on with what waited for these slots."""
        self._tell(batch, verdicts)
        self._slots.give(slots)
        self._rest(verdicts)
        self._top_up()

    def _rest(self, verdicts: Sequence[Verdict]) -> None:
        """Pull more and more slowly while what everything needs is away."""
        if not verdicts or not all(verdict.away for verdict in verdicts):
            self._rests = 0
        elif self._running:
            self._pause(min(_FIRST_REST_S * 2**self._rests, _LONGEST_BACKOFF_S))
            self._rests = min(self._rests + 1, 10)

    def _tell(self, batch: list[Raw], verdicts: Sequence[Verdict]) -> None:
        """Tell the broker each verdict, in one write; without one, that the message is to come back now."""
        parts: list[bytes] = []
        acks: list[bytes] = []
        for index, raw in enumerate(batch):
            verdict = verdicts[index] if index < len(verdicts) else None
            self._held.pop(raw.reply, None)
            parts.append(answer(raw.reply, verdict))
            if isinstance(verdict, Acked):
                acks.append(parts[-1])
        self._active = self._now()
        self._link.write(b"".join(parts))
        if acks:
            self._acks.append((self._active, acks))

    def _give_back(self) -> None:
        """Return everything that was not started, so that another worker gets it at once."""
        batch = [*self._ready, *self._suspects]
        self._ready.clear()
        self._suspects.clear()
        if batch:
            self._tell(batch, ())

    # Staying alive

    def _beat(self) -> None:
        """Say that what is in hand for long is still being worked on, and notice when the broker has gone silent."""
        now = self._now()
        busy = [reply for reply, since in self._held.items() if now - since >= self._beat_s / 2]
        if busy and self._link.connected:
            self._link.write(b"".join([b"PUB %s 4\r\n+WPI\r\n" % reply.encode() for reply in busy]))
        if self._running and self._asked and self._link.connected and now - self._heard > 3 * _PULL_HEARTBEAT_S:
            self._heal("nothing heard")
        self._top_up()
        if self._running or self._held:
            self._set_timer("beat", self._beat_s, self._beat)

    def _on_up(self) -> None:
        """The connection is back: what was asked for before is forgotten on the other side, so ask again.

        Should the consumer be gone, or not be back yet, the answer says so.
        """
        self._asked = 0
        self._ack_again()
        self._top_up()

    def _ack_again(self) -> None:
        """Say anew what is done: of what was said last, nobody knows whether anybody has heard it.

        An ack that got lost lets its message come once more, to be found done: that costs its number a turn.
        """
        since = self._now() - self._consumers.ack_wait_s
        again = b"".join([ack for at, acks in self._acks if at >= since for ack in acks])
        if again and self._link.connected:
            self._link.write(again)

    def _on_elected(self) -> None:
        """The consumer has a new leader, which knows nothing of what was asked for before."""
        if self._healing is not None:
            self._healing.cancel()
        else:
            self._on_up()

    def _heal(self, why: str) -> None:
        if self._running and self._healing is None:
            self._log.info("Declaring the consumer again: {}", why)
            self._healing = asyncio.create_task(self._heal_until_well())
            self._healing.add_done_callback(self._healed)

    async def _heal_until_well(self) -> None:
        while self._running:
            backoff = min(_SHORTEST_BACKOFF_S * 2**self._ills, _LONGEST_BACKOFF_S)
            self._ills = min(self._ills + 1, 10)
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 - spreads load
            try:
                await self._declare()
                break
            except (BusError, TopologyError) as error:
                self._log.warning("Cannot read yet: {}", error)
            except Exception as error:
                self._log.opt(exception=error).error("Declaring the consumer failed")

    def _healed(self, _: asyncio.Task[None]) -> None:
        self._healing = None
        self._on_up()

    async def _declare_soon(self) -> None:
        """Declare, waiting a little for a server that is just starting."""
        deadline = self._now() + _START_WITHIN_S
        while True:
            try:
                return await self._declare()
            except Unavailable:
                if self._now() > deadline:
                    raise
                await asyncio.sleep(_SHORTEST_BACKOFF_S)

    async def _declare(self) -> None:
        await declare(self._api, self._stream, self._durable, self._filters, self._consumers, self._inactive)

    def _now(self) -> float:
        return time.monotonic()


def raw_of(msg: Msg) -> Raw:
    """A delivery as nats-py hands it on."""
    return delivered(msg.subject, msg.reply, msg.headers or {}, msg.data)


def delivered(subject: str, reply: str, named: dict[str, str], body: bytes) -> Raw:
    """A delivery as the broker sent it; where it lies is told by its reply subject."""
    tokens = reply.split(".")
    # $JS.ACK.<stream>.<consumer>.<deliveries>.<stream seq>.<consumer seq>.<time>.<pending>; newer servers may put a
    # domain and an account before the stream.
    start = 2 if len(tokens) == 9 else 4
    return Raw(
        subject=subject,
        headers=named,
        body=body,
        stream=tokens[start],
        deliveries=int(tokens[start + 2]),
        seq=int(tokens[start + 3]),
        stored_ns=int(tokens[start + 5]),
        reply=reply,
    )


def answer(reply: str, verdict: Verdict | None) -> bytes:
    """The protocol line that tells the broker a verdict; None asks for the message to come back now."""
    if isinstance(verdict, Acked):
        return b"PUB %s 4\r\n+ACK\r\n" % reply.encode()
    body = b"-NAK"
    if verdict is not None and verdict.after:
        body += b' {"delay":%d}' % int(verdict.after.total_seconds() * 1e9)
    return b"PUB %s %d\r\n%s\r\n" % (reply.encode(), len(body), body)
