"""JetStream's own API: JSON in, JSON out, errors with their code."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from nats import errors as nats_errors
from nats.js import JetStreamContext

from harkara.bus.errors import BusError, Unavailable

NO_STREAM = 10059
NO_MESSAGE = 10037
NO_CONSUMER = 10014
STREAM_EXISTS = 10058
NO_RESOURCES = 10023
NO_STORAGE = 10047

#: The servers of a cluster have no leader, or this one isn't it any more.
_PASSING = (10008, 10009)

_ASK_AGAIN_S = 0.25

T = TypeVar("T")

Ask = Callable[[str, bytes], Awaitable[bytes]]


class ApiError(BusError):
    """JetStream refused a request; `code` is its own error code, `status` the coarse one as in HTTP."""

    def __init__(self, code: int, status: int, description: str) -> None:
        super().__init__(f"{description} ({code})")
        self.code = code
        self.status = status
        self.description = description


class Api:
    """Asks JetStream; for `patience_s` again, where nobody can answer just now."""

    def __init__(self, ask: Ask, patience_s: float = 0) -> None:
        self._ask = ask
        self.patience_s = patience_s

    @classmethod
    def over(cls, js: JetStreamContext, patience_s: float = 0) -> Api:
        """The API by way of a context of nats-py's."""
        client: Any = js._nc  # pyright: ignore[reportPrivateUsage]

        async def ask(subject: str, data: bytes) -> bytes:
            try:
                answer = await client.request(subject, data, timeout=5)
            except (nats_errors.Error, OSError, TimeoutError) as error:
                raise Unavailable(f"no answer on {subject}: is JetStream enabled on the server?") from error
            return bytes(answer.data)

        return cls(ask, patience_s)

    async def call(self, name: str, body: object = None) -> dict[str, Any]:
        """One request, such as `STREAM.INFO.EVENTS`. Raises ApiError or Unavailable."""
        data = b"" if body is None else msgspec.json.encode(body)
        return await patiently(lambda: self._call(name, data), self.patience_s)

    async def _call(self, name: str, data: bytes) -> dict[str, Any]:
        answer: dict[str, Any] = msgspec.json.decode(await self._ask(f"$JS.API.{name}", data))
        error = answer.get("error")
        if error and error.get("err_code") in _PASSING:
            raise Unavailable(f"the broker's servers have no leader for {name}: are most of them away?")
        if error:
            raise ApiError(error.get("err_code", 0), error.get("code", 0), error.get("description", "refused"))
        return answer


async def bodies(api: Api, stream: str, pattern: str, after: int = 0) -> AsyncIterator[tuple[int, bytes]]:
    """What lies in a stream under a pattern, one by one, with the sequences. Raises ApiError or Unavailable."""
    while True:
        try:
            answer = await api.call(f"STREAM.MSG.GET.{stream}", {"seq": after + 1, "next_by_subj": pattern})
        except ApiError as error:
            if error.code == NO_MESSAGE:
                return
            raise
        after = answer["message"]["seq"]
        yield after, b64decode(answer["message"].get("data", ""))


async def patiently(attempt: Callable[[], Awaitable[T]], patience_s: float) -> T:
    """Do it, and for so long again while it raises Unavailable; raises the last of these."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience_s
    while True:
        try:
            return await attempt()
        except Unavailable:
            if loop.time() >= deadline:
                raise
        await asyncio.sleep(_ASK_AGAIN_S)


def is_cluster(js: JetStreamContext) -> bool:
    """Whether the server we are connected to is one of a cluster, however many of them run now."""
    client: Any = js._nc  # pyright: ignore[reportPrivateUsage]
    return bool(client._server_info.get("cluster"))
