"""JetStream's own API: JSON in, JSON out, errors with their code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from nats import errors as nats_errors
from nats.js import JetStreamContext

from harkara.bus.errors import BusError, Unavailable

NO_STREAM = 10059
NO_MESSAGE = 10037
STREAM_EXISTS = 10058
NO_RESOURCES = 10023
NO_STORAGE = 10047

Ask = Callable[[str, bytes], Awaitable[bytes]]


class ApiError(BusError):
    """JetStream refused a request; `code` is its own error code, `status` the coarse one as in HTTP."""

    def __init__(self, code: int, status: int, description: str) -> None:
        super().__init__(f"{description} ({code})")
        self.code = code
        self.status = status
        self.description = description


class Api:
    """Asks JetStream."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    @classmethod
    def over(cls, js: JetStreamContext) -> Api:
        """The API by way of a context of nats-py's."""
        client: Any = js._nc  # pyright: ignore[reportPrivateUsage]

        async def ask(subject: str, data: bytes) -> bytes:
            try:
                answer = await client.request(subject, data, timeout=5)
            except (nats_errors.Error, OSError, TimeoutError) as error:
                raise Unavailable(f"no answer on {subject}: is JetStream enabled on the server?") from error
            return bytes(answer.data)

        return cls(ask)

    async def call(self, name: str, body: object = None) -> dict[str, Any]:
        """One request, such as `STREAM.INFO.EVENTS`. Raises ApiError or Unavailable."""
        data = b"" if body is None else msgspec.json.encode(body)
        answer: dict[str, Any] = msgspec.json.decode(await self._ask(f"$JS.API.{name}", data))
        error = answer.get("error")
        if error:
            raise ApiError(error.get("err_code", 0), error.get("code", 0), error.get("description", "refused"))
        return answer
