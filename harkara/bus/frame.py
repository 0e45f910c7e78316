"""The same actors declared in FastStream: for routing tests in memory, and as another carrier under the same contract.

The pull runner carries them in production; `docs/decisions/0002-who-carries-the-messages.md` says why.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from nats import errors as nats_errors
from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig

from harkara.bus.actor import Actor
from harkara.bus.api import Api
from harkara.bus.durable import declare
from harkara.bus.handling import Handling
from harkara.bus.intake import Raw
from harkara.bus.runner import raw_of
from harkara.bus.settle import Acked, Send, Verdict
from harkara.bus.tasks import end
from harkara.bus.topology import Topology, load

#: FastStream collects a batch for this long before it hands it over; shorter polls the server more often.
_COLLECT_S = 0.05


class Frame:
    """A FastStream broker with actors on it: one batch subscriber per actor and stream, on the runner's durables.

    A batch holds messages of many tenants while FastStream's path parameters tell those of its first message, so the
    tenant is read from each message's own subject, as everywhere.
    """

    def __init__(
        self, url: str, send: Send, topology: Topology | None = None, *, middlewares: Sequence[Any] = ()
    ) -> None:
        self.broker = NatsBroker(
            url,
            max_reconnect_attempts=-1,
            reconnect_time_wait=1,
            middlewares=middlewares,
            apply_types=False,
            logger=None,
            graceful_timeout=15.0,
        )
        self._send = send
        self._topology = topology or load()
        self._durables: list[tuple[str, str, list[str]]] = []

    def declare(self, actor: Actor) -> Handling:
        """Declare an actor: what it takes, from which streams, settled message by message. Gives its counters."""
        handling = Handling(actor, self._send, lambda: datetime.now(UTC))
        patterns = [kind.subject_filter() for kind in actor.takes]
        for stream, filters in self._topology.filters(actor.name, patterns).items():
            self._durables.append((stream, actor.name, filters))
            self._subscribe(actor, stream, filters, handling)
        return handling

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[NatsBroker]:
        """The declared actors at work inside the block. Raises TopologyError or Unavailable."""
        client: Any = await self.broker.connect()
        api = Api.over(client.jetstream())
        for stream, durable, filters in self._durables:
            await declare(api, stream, durable, filters, self._topology.consumers)
        await self.broker.start()
        try:
            yield self.broker
        finally:
            await self.broker.stop()

    def _subscribe(self, actor: Actor, stream: str, filters: list[str], handling: Handling) -> None:
        subscriber: Callable[..., Any] = self.broker.subscriber
        subscribed = subscriber(
            config=ConsumerConfig(filter_subjects=filters),
            durable=actor.name,
            stream=JStream(stream, declare=False),
            pull_sub=PullSub(batch_size=actor.batch, timeout=_COLLECT_S, batch=True),
            ack_policy=AckPolicy.MANUAL,
            decoder=_undecoded,
            include_in_schema=False,
        )
        beat_s = self._topology.consumers.ack_wait_s / 3

        async def handle(batch: list[Msg]) -> None:
            async with _still_busy(batch, beat_s):
                verdicts = await handling.work([_raw(msg, stream) for msg in batch])
            for msg, verdict in zip(batch, verdicts, strict=True):
                await _tell(msg, verdict)

        subscribed(handle)


async def _undecoded(message: Any) -> Any:
    """The raw messages: opening them is the intake's work, whose errors never quote a body."""
    return message.raw_message


def _raw(msg: Msg, stream: str) -> Raw:
    """The delivery; FastStream's test broker has none of what the server says about it."""
    if msg.reply.startswith("$JS.ACK."):
        return raw_of(msg)
    return Raw(msg.subject, msg.headers or {}, msg.data, stream, seq=1, deliveries=1, stored_ns=0)


async def _tell(msg: Msg, verdict: Verdict) -> None:
    if isinstance(verdict, Acked):
        await msg.ack()
    else:
        await msg.nak(delay=verdict.after.total_seconds())


@asynccontextmanager
async def _still_busy(batch: list[Msg], beat_s: float) -> AsyncGenerator[None]:
    """Tell the broker now and then that the batch is still in hand."""

    async def beat() -> None:
        while True:
            await asyncio.sleep(beat_s)
            for msg in batch:
                with contextlib.suppress(nats_errors.Error, OSError):
                    await msg.in_progress()

    beating = asyncio.create_task(beat())
    try:
        yield
    finally:
        await end(beating)
