"""A body that is read whole before anybody handles it, without being held in memory, and then read again."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO

from aiohttp import StreamReader, web
from aiohttp.base_protocol import BaseProtocol

from harkara.http.pipeline import pieces

#: Bytes handed on at once.
CHUNK = 65_536


async def receive(request: web.Request, file: IO[bytes], limit: int) -> None:
    """Write the body, at most `limit` bytes, to the file. Raises what `pieces` raises."""
    async for chunk in pieces(request, limit):
        file.write(chunk)
    file.seek(0)


@contextmanager
def read_again(request: web.Request, file: IO[bytes]) -> Generator[None]:
    """Inside the block whoever handles the request reads its body from the file.

    After it the body is the one that was read to its end: the connection waits for none of it.
    """
    source = _Source(file)
    source.feed()
    before = _put(request, source.stream)
    try:
        yield
    finally:
        _put(request, before)


def _put(request: web.Request, body: StreamReader) -> StreamReader:
    """Nothing public replaces a body; `content` is remembered from when it was asked for. Returns the one before."""
    before = request._payload  # pyright: ignore[reportPrivateUsage]
    request._payload = body  # pyright: ignore[reportPrivateUsage]
    request._cache.pop("content", None)  # pyright: ignore[reportPrivateUsage]
    return before


class _Source(BaseProtocol):
    """Feeds a stream from a file, no faster than it is read."""

    __slots__ = ("_file", "stream")

    def __init__(self, file: IO[bytes]) -> None:
        loop = asyncio.get_running_loop()
        super().__init__(loop)
        self._file = file
        self.stream = StreamReader(self, CHUNK, loop=loop)

    def pause_reading(self) -> None:
        """The stream holds enough."""
        self._reading_paused = True

    def resume_reading(self, resume_parser: bool = True) -> None:
        """The stream was read from."""
        self._reading_paused = False
        self.feed()

    def feed(self) -> None:
        """Hand on until the stream holds enough, or this was all."""
        while not self._reading_paused and not self.stream.is_eof():
            chunk = self._file.read(CHUNK)
            if chunk:
                self.stream.feed_data(chunk)
            else:
                self.stream.feed_eof()
