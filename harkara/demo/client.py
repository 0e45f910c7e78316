"""What a user of the platform does: calls the front door, listens to the feed; and, for the demo, plays the phones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from urllib.parse import urlencode

import aiohttp
import msgspec

from harkara.demo.errors import DemoError
from harkara.schemas.api import Page

T = TypeVar("T")

#: The most that the front door gives at once.
PAGE = 200

#: No answer takes longer; the feed has no such limit.
PATIENCE = aiohttp.ClientTimeout(total=30)

_RECONNECT_S = 0.3


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong with a request."""

    path: str
    message: str


class Problem(msgspec.Struct, frozen=True):
    """A refusal as the front door gives it."""

    status: int
    title: str = ""
    detail: str = ""
    errors: list[Fault] = []


class Refused(DemoError):
    """The front door said no, and why."""

    def __init__(self, call: str, problem: Problem) -> None:
        super().__init__(f"{call} was answered {problem.status}: {problem.detail or problem.title}")
        self.problem = problem


class Event(msgspec.Struct, frozen=True):
    """One event of the feed."""

    seq: int
    type: str
    data: dict[str, Any]


class Accepted(msgspec.Struct, frozen=True):
    """A message as the gateway has recorded it. `biz_opaque_callback_data` is our id of it."""

    id: str
    to: str
    biz_opaque_callback_data: str | None
    accepted_at: str
    status: str


class Pace(msgspec.Struct, frozen=True):
    """When the sandbox's phones report, in milliseconds after the report before."""

    sent_ms: int | None
    delivered_ms: int | None
    read_ms: int | None

    @property
    def seconds(self) -> float:
        """How long after a message was accepted its last report comes."""
        return sum(wait or 0 for wait in (self.sent_ms, self.delivered_ms, self.read_ms)) / 1000


class Client:
    """One user's connection. Made by `connect`."""

    def __init__(self, session: aiohttp.ClientSession, door: str, gateway: str) -> None:
        self._session, self._door, self._gateway = session, f"{door}/api/v1", gateway
        self._headers: dict[str, str] = {}

    def use_token(self, token: str) -> None:
        """Be a person who has logged in."""
        self._headers = {"Authorization": f"Bearer {token}"}

    def use_key(self, key: str) -> None:
        """Be a machine."""
        self._headers = {"X-API-Key": key}

    async def get(self, path: str, type_: type[T], **query: object) -> T:
        """GET from the front door. Raises Refused, or DemoError if it doesn't answer."""
        return await self._call("GET", path + _query(query), type_)

    async def post(self, path: str, type_: type[T], body: object = None) -> T:
        """POST to the front door: a body of bytes is a CSV file, any other is JSON."""
        return await self._call("POST", path, type_, body)

    async def patch(self, path: str, type_: type[T], body: object) -> T:
        """PATCH at the front door."""
        return await self._call("PATCH", path, type_, body)

    async def all(self, path: str, page_type: type[Page[T]], **query: object) -> list[T]:
        """All items of a list, page by page."""
        found: list[T] = []
        cursor: dict[str, str] = {}
        while True:
            page = await self.get(path, page_type, limit=PAGE, **query, **cursor)
            found += page.items
            if page.next is None:
                return found
            cursor = {"cursor": page.next}

    async def events(self) -> AsyncIterator[Event]:
        """Every event of this tenant from the first one on; a broken connection is taken up where it broke."""
        seen = 0
        while True:
            try:
                async with self._session.ws_connect(f"{self._door}/feed", headers=self._headers) as ws:
                    await ws.send_json({"subscribe": ["*"], "since": seen})
                    async for message in ws:
                        event = msgspec.json.decode(message.data, type=Event)
                        seen = event.seq
                        yield event
            except (aiohttp.ClientError, OSError):
                pass
            await asyncio.sleep(_RECONNECT_S)

    # -- the other side: what the sandbox knows, and what its phones write -----------------------------------------

    async def accepted(self, phone_number_id: str) -> list[Accepted]:
        """Every message that the gateway has taken from this number, by its own record."""
        path = f"/sandbox/messages?{urlencode({'from': phone_number_id, 'limit': 100_000})}"
        page: Page[Accepted] = await self._request("GET", self._gateway + path, Page[Accepted])
        return page.items

    async def pace(self) -> Pace:
        """How fast the sandbox's phones report."""
        return await self._request("GET", f"{self._gateway}/sandbox/pace", Pace)

    async def write_from_phone(self, message: dict[str, Any]) -> None:
        """Make a phone write to us."""
        await self._request("POST", f"{self._gateway}/sandbox/inbound", dict[str, Any], message)

    # -- how ------------------------------------------------------------------------------------------------------

    async def _call(self, method: str, path: str, type_: type[T], body: object = None) -> T:
        return await self._request(method, self._door + path, type_, body, self._headers)

    async def _request(
        self, method: str, url: str, type_: type[T], body: object = None, headers: dict[str, str] | None = None
    ) -> T:
        data, kind = (body, "text/csv") if isinstance(body, bytes) else (msgspec.json.encode(body), "application/json")
        sent = {**(headers or {}), **({} if body is None else {"Content-Type": kind})}
        try:
            async with self._session.request(
                method, url, data=None if body is None else data, headers=sent, timeout=PATIENCE
            ) as answer:
                raw, status = await answer.read(), answer.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise DemoError(f"{method} {url} was not answered: {error or type(error).__name__}") from None
        if status >= 400:
            raise Refused(f"{method} {url}", _problem(raw, status))
        return msgspec.json.decode(raw, type=type_)


def _query(query: dict[str, object]) -> str:
    return f"?{urlencode(query)}" if query else ""


def _problem(raw: bytes, status: int) -> Problem:
    try:
        return msgspec.json.decode(raw, type=Problem)
    except msgspec.MsgspecError:
        return Problem(status, detail=raw[:200].decode(errors="replace"))


@asynccontextmanager
async def connect(door: str, gateway: str) -> AsyncGenerator[Client]:
    """A client of this front door, who can also play this sandbox gateway's phones."""
    async with aiohttp.ClientSession() as session:
        yield Client(session, door, gateway)
