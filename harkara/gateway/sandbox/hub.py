"""What open phone pages hear live: coalesced, bounded, and never in the way of a send."""

from __future__ import annotations

import asyncio
from typing import Any

#: Pages hear of news this often at most.
_PAUSE_S = 0.1

#: A burst bigger than this is not told one by one: the page is asked to look again.
_MOST = 100


class Hub:
    """Tells listeners the news. Without listeners it costs nothing."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[list[dict[str, Any]] | None]] = set()
        self._news: list[dict[str, Any]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def listening(self) -> bool:
        """Whether more news are worth telling: somebody listens, and is not yet asked to look again."""
        return bool(self._listeners) and len(self._news) <= _MOST

    def tell(self, news: dict[str, Any]) -> None:
        """Tell all listeners within a tenth of a second."""
        if not self.listening:
            return
        self._news.append(news)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE_S, self._spread)

    def _spread(self) -> None:
        self._timer = None
        news, self._news = self._news, []
        if len(news) > _MOST:
            news = [{"kind": "reload"}]
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
                queue.put_nowait([{"kind": "reload"}])
            else:
                queue.put_nowait(news)

    def listen(self) -> asyncio.Queue[list[dict[str, Any]] | None]:
        """A queue that gets the news from now on, and None at the end."""
        queue: asyncio.Queue[list[dict[str, Any]] | None] = asyncio.Queue(50)
        self._listeners.add(queue)
        if self._closed:
            queue.put_nowait(None)
        return queue

    def leave(self, queue: asyncio.Queue[list[dict[str, Any]] | None]) -> None:
        """Stop listening."""
        self._listeners.discard(queue)

    def close(self) -> None:
        """Send everybody home."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for queue in self._listeners:
            while not queue.empty():
                queue.get_nowait()
            queue.put_nowait(None)
