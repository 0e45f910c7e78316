"""Tells readers when the broker's servers have agreed on a new leader for their durable."""

from __future__ import annotations

from collections.abc import Callable

from nats.aio.msg import Msg

from harkara.bus.link import Link, Listener

_ADVISORY = "$JS.EVENT.ADVISORY.CONSUMER.LEADER_ELECTED"

Call = Callable[[], None]


class Elections:
    """What was asked of a leader that is gone is never answered: who is told of the next one asks at once.

    Otherwise only the silence would tell, after a while. A single server elects nobody, so nothing is heard of it.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._calls: dict[bytes, list[Call]] = {}
        self._listener: Listener | None = None

    async def open(self) -> None:
        """Listen. Raises Unavailable."""
        self._listener = await self._link.listen(f"{_ADVISORY}.>", self._on_message, self._elected)

    async def close(self) -> None:
        """Listen no more."""
        if self._listener is not None:
            await self._listener.close()

    def watch(self, stream: str, durable: str, call: Call) -> None:
        """Call this after each election of the durable's leader; it must not raise or wait."""
        self._calls.setdefault(_subject(stream, durable), []).append(call)

    def unwatch(self, stream: str, durable: str, call: Call) -> None:
        """Call it no more."""
        subject = _subject(stream, durable)
        left = [one for one in self._calls.get(subject, ()) if one != call]
        if left:
            self._calls[subject] = left
        else:
            self._calls.pop(subject, None)

    def _on_message(self, msg: Msg) -> None:
        self._elected(msg.subject.encode(), msg.data)

    def _elected(self, subject: bytes, _: bytes) -> None:
        for call in self._calls.get(subject, ()):
            call()


def _subject(stream: str, durable: str) -> bytes:
    return f"{_ADVISORY}.{stream}.{durable}".encode()
