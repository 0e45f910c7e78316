"""What lies on the broker right now: streams, who reads them, and how far behind they are."""

from __future__ import annotations

import asyncio
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from harkara.bus import headers
from harkara.bus.api import Api, ApiError
from harkara.bus.topology import Topology

#: Questions that are asked of the broker at the same time.
_AT_ONCE = 32

#: What the names of partners' own readers begin with.
PARTNERS = "partner-"

#: In the metadata of a stream whose readers are paused, those to come too.
PAUSED = "harkara-paused-until"

#: What the broker is told of a pause that somebody is to end, because it wants a time.
FOR_EVER = timedelta(days=365 * 100)

#: A copy of a stream that was not heard of for so long, or lacks so many messages, is told of.
_SILENT_NS = 3_000_000_000
_MOST_LAG = 1_000

#: For so many readers that are behind it is looked up since when; for the rest it would only cost.
_AGED = 100


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """One stream: what it holds, and when the oldest of it was stored. `missing` if there is none of that name.

    The schedules of the topology lie there for ever, and count for nothing.
    `paused` are all who read it, those to come too (`harkara/bus/pausing.py`): until `paused_until`, or, without that,
    until somebody resumes them. `behind` are the servers of a cluster that should have a copy of it and have none that
    is complete: away, or catching up.
    """

    name: str
    missing: bool = False
    messages: int = 0
    bytes: int = 0
    consumers: int = 0
    replicas: int = 0
    behind: tuple[str, ...] = ()
    first_at: datetime | None = None
    paused: bool = False
    paused_until: datetime | None = None


class ConsumerState(msgspec.Struct, frozen=True, kw_only=True):
    """One reader of a stream.

    `pending` wait to be delivered, `in_hand` are delivered and not acked, `redelivered` of these more than once;
    `oldest_s` is for how long the oldest of all these has been stored, if anything waits. `pullers` are requests for
    more that wait at the broker: without any, nobody who would take them runs, or all are busy. One that is `paused`
    is so until `paused_until`, or, without that, until somebody resumes it. `delivered` is the sequence that was handed
    out last.
    """

    stream: str
    name: str
    pending: int
    in_hand: int
    redelivered: int
    oldest_s: float | None = None
    pullers: int = 0
    paused: bool = False
    paused_until: datetime | None = None
    delivered: int = 0
    filters: tuple[str, ...] = ()

    @property
    def lag(self) -> int:
        """What is not done."""
        return self.pending + self.in_hand


def paused_until(metadata: Mapping[str, str] | None, now: datetime) -> datetime | None:
    """Until when a stream's metadata says that its readers rest; None if it doesn't."""
    try:
        until = msgspec.convert((metadata or {}).get(PAUSED, ""), datetime)
    except msgspec.ValidationError:
        return None
    return until if until > now else None


def _end_of(until: datetime | None) -> datetime | None:
    """The end of a pause, if it has one."""
    return until if until is not None and until - datetime.now(UTC) < FOR_EVER / 2 else None


async def streams(api: Api, topology: Topology) -> list[StreamState]:
    """The streams of the topology, as it names them. Raises Unavailable."""
    clocks = frozenset(schedule.subject for schedule in topology.schedules)
    return list(await asyncio.gather(*(_stream(api, stream.name, clocks) for stream in topology.streams)))


async def _stream(api: Api, name: str, clocks: frozenset[str]) -> StreamState:
    try:
        info = await api.call(f"STREAM.INFO.{name}", {"subjects_filter": "sys.at.*"})
        state: dict[str, Any] = info["state"]
        found: dict[str, int] = state.get("subjects") or {}
        messages = state["messages"] - sum(count for subject, count in found.items() if subject in clocks)
        first_at = await _first_at(api, name, clocks, state["first_seq"]) if messages else None
    except ApiError:
        return StreamState(name=name, missing=True)
    until = paused_until(info["config"].get("metadata"), datetime.now(UTC))
    return StreamState(
        name=name,
        messages=messages,
        bytes=state["bytes"],
        consumers=state["consumer_count"],
        replicas=info["config"]["num_replicas"],
        behind=_behind(info),
        first_at=first_at,
        paused=until is not None,
        paused_until=_end_of(until),
    )


async def _first_at(api: Api, stream: str, besides: frozenset[str], seq: int) -> datetime | None:
    """When the first message from `seq` on was stored, besides those of some subjects; None if it is gone by now."""
    for _ in range(len(besides) + 1):
        try:
            found = (await api.call(f"STREAM.MSG.GET.{stream}", {"seq": seq, "next_by_subj": ">"}))["message"]
        except ApiError:
            break
        if found["subject"] not in besides:
            return msgspec.convert(found["time"], datetime)
        seq = found["seq"] + 1
    return None


def _behind(info: Mapping[str, Any]) -> tuple[str, ...]:
    cluster: dict[str, Any] = info.get("cluster") or {}
    copies: list[dict[str, Any]] = cluster.get("replicas") or []
    return tuple(one["name"] for one in copies if one.get("offline") or (not one["current"] and _lacks(one)))


def _lacks(copy: Mapping[str, Any]) -> bool:
    """Whether it is more than the moment that a copy of a busy stream is always behind."""
    return bool(copy["active"] > _SILENT_NS or copy.get("lag", 0) > _MOST_LAG)


async def durables(api: Api, topology: Topology) -> list[ConsumerState]:
    """Everybody who reads a stream under a lasting name, without since when. Raises Unavailable."""
    return [_shown(one, None) for stream in topology.streams for one in await readers_of(api, stream.name)]


async def consumers(api: Api, topology: Topology) -> list[ConsumerState]:
    """Everybody who reads a stream under a lasting name, those who are furthest behind first. Raises Unavailable."""
    found = [one for stream in topology.streams for one in await readers_of(api, stream.name)]
    found.sort(key=lambda one: (-_lag(one), one["stream_name"], one["name"]))
    limit = asyncio.Semaphore(_AT_ONCE)
    behind = [one for one in found[:_AGED] if _lag(one)]
    ages = await asyncio.gather(*(_age(api, one, limit) for one in behind))
    aged = [*ages, *(None for _ in found[len(behind) :])]
    return [_shown(one, age) for one, age in zip(found, aged, strict=True)]


async def readers_of(api: Api, stream: str) -> list[dict[str, Any]]:
    """What the broker says of everybody who reads a stream under a lasting name. Raises Unavailable."""
    found: list[dict[str, Any]] = []
    while True:
        try:
            answer = await api.call(f"CONSUMER.LIST.{stream}", {"offset": len(found)})
        except ApiError:
            return found
        page: list[dict[str, Any]] = answer["consumers"] or []
        found += page
        if not page or len(found) >= answer["total"]:
            return [one for one in found if one["config"].get("durable_name")]


def _lag(info: dict[str, Any]) -> int:
    return int(info["num_pending"] + info["num_ack_pending"])


async def _age(api: Api, info: dict[str, Any], limit: asyncio.Semaphore) -> float | None:
    """For how many seconds the first that a reader has not acked has been stored."""
    filters = filters_of(info)
    async with limit:
        after = info["ack_floor"]["stream_seq"] + 1
        ages = [await stored_for(api, info["stream_name"], one, after) for one in filters]
    known = [age for age in ages if age is not None]
    return max(known, default=None)


async def stored_for(api: Api, stream: str, subject: str, seq: int = 1) -> float | None:
    """For how many seconds the first message of these subjects, from `seq` on, has been in a stream; None without one.

    One that was put off and came back counts from when it first came.
    """
    try:
        message = (await api.call(f"STREAM.MSG.GET.{stream}", {"seq": seq, "next_by_subj": subject}))["message"]
    except ApiError:
        return None
    first = headers.read(b64decode(message.get("hdrs", ""))).get(headers.AT) or message["time"]
    return (datetime.now(UTC) - msgspec.convert(first, datetime)).total_seconds()


def filters_of(info: dict[str, Any]) -> list[str]:
    """The subjects that a reader is given."""
    config = info["config"]
    return config.get("filter_subjects") or [config.get("filter_subject") or ">"]


def _shown(info: dict[str, Any], age: float | None) -> ConsumerState:
    until = msgspec.convert(info["config"]["pause_until"], datetime) if info.get("paused") else None
    return ConsumerState(
        stream=info["stream_name"],
        name=info["name"],
        pending=info["num_pending"],
        in_hand=info["num_ack_pending"],
        redelivered=info["num_redelivered"],
        oldest_s=age,
        pullers=info["num_waiting"],
        paused=until is not None,
        paused_until=_end_of(until),
        delivered=info["delivered"]["stream_seq"],
        filters=tuple(filters_of(info)),
    )
