"""What the broker has of some ids: events and webhooks that mention them, work that waits, dead letters, who reads."""

from __future__ import annotations

import sys
from base64 import b64decode
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from harkara.bus import headers
from harkara.bus.api import Api, ApiError
from harkara.bus.connection import Bus
from harkara.bus.dead import DeadLetter
from harkara.bus.overview import ConsumerState, consumers, streams
from harkara.bus.pausing import POOLS
from harkara.bus.subjects import as_token, matches
from harkara.bus.tail import History, Stored
from harkara.bus.topology import Stream
from harkara.masking import without_codes
from harkara.schemas.base import tenant_of

#: As much as is read of a stream that keeps things, and of a queue, where reading is dearer.
MOST_KEPT = 50_000
MOST_QUEUED = 3_000

#: As much as is told of one stream.
MOST_TOLD = 200

_PAGE = 500


@dataclass(frozen=True, slots=True)
class Lying:
    """One message in a stream. `due` is when a schedule brings it back, if it is one."""

    stream: str
    seq: int
    at: datetime
    subject: str
    body: bytes
    headers: dict[str, str]
    due: datetime | None = None

    @property
    def tenant(self) -> str:
        return tenant_of(self.subject)

    @property
    def told(self) -> dict[str, Any]:
        """What it says, without codes; empty if that can't be read."""
        said = without_codes(self.body)
        return said if isinstance(said, dict) else {}  # pyright: ignore[reportUnknownVariableType]


@dataclass(slots=True)
class Streams:
    """What was found. `webhook_at` is when the tenant's gateways reported last; `cut` names streams not read whole."""

    kept: list[Lying] = field(default_factory=list[Lying])
    queued: list[Lying] = field(default_factory=list[Lying])
    parked: list[Lying] = field(default_factory=list[Lying])
    letters: list[DeadLetter] = field(default_factory=list[DeadLetter])
    readers: list[ConsumerState] = field(default_factory=list[ConsumerState])
    paused: dict[str, datetime | None] = field(default_factory=dict[str, datetime | None])
    webhook_at: datetime | None = None
    cut: list[str] = field(default_factory=list[str])

    def reader_of(self, item: Lying) -> ConsumerState | None:
        """Whose turn it is with something that waits."""
        return next(
            (
                one
                for one in self.readers
                if one.stream == item.stream and any(matches(f, item.subject) for f in one.filters)
            ),
            None,
        )


class Search:
    """Reads the streams of a bus for what mentions some ids."""

    def __init__(self, bus: Bus, ids: Iterable[str], tenant: str, since: datetime, *, whole: bool = False) -> None:
        """`whole`: everything is read, however much that is."""
        self._most_kept, self._most_queued, self._most_told = (
            (sys.maxsize,) * 3 if whole else (MOST_KEPT, MOST_QUEUED, MOST_TOLD)
        )
        self._bus, self._api = bus, Api(bus.link.request)
        self._ids = {one for one in ids if one}
        self._bytes = [one.encode() for one in self._ids]
        self._tenant, self._since = tenant or "*", since
        self._found = Streams()

    async def run(self) -> Streams:
        """All of it. Raises Unavailable."""
        found = self._found
        for stream in self._bus.topology.streams:
            if stream.name == "DEAD":
                found.letters += await self._letters()
            elif stream.retention == "limits":
                found.kept += await self._kept(stream)
            else:
                found.queued += await self._queued(stream)
                found.parked += await self._parked(stream)
        last = await self._get("INBOUND", {"last_by_subj": f"t.{self._tenant}.in.*"})
        found.webhook_at = last.at if last else None
        found.readers = await consumers(self._api, self._bus.topology)
        pools = {stream: actor for actor, stream in POOLS.items()}
        held = await streams(self._api, self._bus.topology)
        found.paused = {pools[one.name]: one.paused_until for one in held if one.paused}
        return found

    def _mentioned(self, body: bytes, named: dict[str, str]) -> bool:
        if {named.get(headers.ID), named.get(headers.CAUSE)} & self._ids:
            return True
        dedupe = named.get(headers.DEDUPE, "")
        return any(one in dedupe for one in self._ids) or any(one in body for one in self._bytes)

    async def _kept(self, stream: Stream) -> list[Lying]:
        history, found, read = History(self._bus.link, stream.name), list[Lying](), 0
        pattern = f"t.{self._tenant}.>"
        first = await self._first(stream.name, pattern)
        if first is None:
            return found
        try:
            after, more = first.seq - 1, True
            while more and len(found) < self._most_told:
                page = await history.page(pattern, after, _PAGE)
                for one in page.messages:
                    after, read = one.seq, read + 1
                    if self._mentioned(one.body, dict(one.headers or {})):
                        found.append(_lying(stream.name, one))
                more = page.more and bool(page.messages)
                if more and read >= self._most_kept:
                    break
            if more:
                self._found.cut.append(stream.name)
        finally:
            await history.close()
        return found

    async def _queued(self, stream: Stream) -> list[Lying]:
        """What waits in a queue: it is read one by one, from about the time at which it can have come."""
        found, read = list[Lying](), 0
        for kind in ("cmd", "work"):
            pattern = f"t.{self._tenant}.{kind}.>"
            if not any(matches(f"*.*.{kind}.>", subject) for subject in stream.subjects):
                continue
            async for one in self._walk(stream.name, pattern):
                read += 1
                if self._mentioned(one.body, one.headers):
                    found.append(one)
                if read >= self._most_queued:
                    self._found.cut.append(stream.name)
                    return found
        return found

    async def _parked(self, stream: Stream) -> list[Lying]:
        """Copies that a schedule brings back, by their subjects: each has the message's id in it."""
        found: list[Lying] = []
        for one in self._ids if stream.schedules else ():
            info = await self._api.call(
                f"STREAM.INFO.{stream.name}", {"subjects_filter": f"t.{self._tenant}.at.*.{as_token(one)}.>"}
            )
            subjects: dict[str, int] = info["state"].get("subjects") or {}
            for subject in subjects:
                found += [item] if (item := await self._get(stream.name, {"last_by_subj": subject})) else []
        return found

    async def _letters(self) -> list[DeadLetter]:
        found: list[DeadLetter] = []
        async for letter in self._bus.dead.find(self._tenant):
            if str(letter.id) in self._ids or self._mentioned(letter.body, letter.headers):
                found.append(letter)
        return found[-self._most_told :]

    async def _walk(self, stream: str, pattern: str) -> AsyncIterator[Lying]:
        one = await self._first(stream, pattern)
        while one is not None:
            yield one
            one = await self._get(stream, {"seq": one.seq + 1, "next_by_subj": pattern})

    async def _first(self, stream: str, pattern: str) -> Lying | None:
        since = self._since.isoformat().replace("+00:00", "Z")
        return await self._get(stream, {"start_time": since, "next_by_subj": pattern})

    async def _get(self, stream: str, which: dict[str, Any]) -> Lying | None:
        try:
            message: dict[str, Any] = (await self._api.call(f"STREAM.MSG.GET.{stream}", which))["message"]
        except ApiError:
            return None
        named = _headers(b64decode(message.get("hdrs", "")))
        return Lying(
            stream,
            message["seq"],
            msgspec.convert(message["time"], datetime).astimezone(UTC),
            message["subject"],
            b64decode(message.get("data", "")),
            named,
            _due(named.get(headers.SCHEDULE, "")),
        )


def _lying(stream: str, one: Stored) -> Lying:
    at = datetime.fromisoformat(one.at.replace("Z", "+00:00"))
    return Lying(stream, one.seq, at, one.subject, one.body, dict(one.headers or {}))


def _headers(block: bytes) -> dict[str, str]:
    lines = block.decode("utf-8", "replace").split("\r\n")[1:]
    return {name: value.strip() for name, colon, value in (line.partition(":") for line in lines) if colon}


def _due(schedule: str) -> datetime | None:
    kind, _, text = schedule.partition(" ")
    return datetime.fromisoformat(text.replace("Z", "+00:00")) if kind == "@at" else None


def ids_in(letters: Sequence[DeadLetter]) -> set[str]:
    """What dead letters are about: for one that is named by its own id."""
    return {one for letter in letters for one in (letter.message_id, letter.cause) if one}
