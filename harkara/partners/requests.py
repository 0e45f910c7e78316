"""A command as the HTTP request that it is, so that one way leads through all checks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, cast

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpVersion10, RawRequestMessage
from aiohttp.streams import StreamReader
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

#: A body is there as a whole: nobody waits for more of it.
_WINDOW = 1 << 24


class _Nowhere(BaseProtocol):
    """Stands where a connection would."""

    ssl_context = peername = sockname = None


def request(method: str, target: str, headers: Mapping[str, str], body: bytes, address: str) -> web.Request:
    """A request from this address, with its whole body. Nothing may be written to whoever sent it."""
    loop = asyncio.get_running_loop()
    protocol = _Nowhere(loop)
    payload = StreamReader(protocol, _WINDOW, loop=loop)
    payload.feed_data(body)
    payload.feed_eof()
    given = CIMultiDictProxy(CIMultiDict(headers))
    message = RawRequestMessage(
        method, target, HttpVersion10, given, (), True, None, False, False, URL(target, encoded=True)
    )
    nobody: Any = None
    return web.Request(
        message,
        payload,
        cast("Any", protocol),
        cast("AbstractStreamWriter", nobody),
        nobody,
        loop,
        remote=address,
    )
