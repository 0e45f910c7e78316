"""Actors that are paused: the broker hands them nothing, whoever restarts, until they are resumed or the time is over.

A durable consumer is paused by the broker itself. The sender has one for each number and lane, made when needed: its
stream's metadata says that those to come are paused too (`harkara/actors/send_pool.py` looks there).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from harkara.bus.api import Api, ApiError
from harkara.bus.errors import BusError
from harkara.bus.overview import FOR_EVER, PARTNERS, PAUSED, paused_until, readers_of
from harkara.bus.settle import rfc3339
from harkara.bus.topology import Topology

#: Actors with a durable for each number: their name for operators, and their stream.
POOLS = {"sender": "SEND"}

#: Tells pools of senders that something was paused or resumed.
WAKE_PAUSED = "sys.wake.paused"

#: Actors that don't only do what the broker hands them, and what to pause instead.
NOT_PAUSED = {
    "ticker": "it also looks by itself for what is due: pause the sender, a campaign or a tenant instead",
    "herald": "it also looks by itself for what is to be told: stop `harkara actor herald` instead",
}


class NoActor(BusError):
    """There is no such actor on the broker, or it can't be paused."""


async def pause(api: Api, topology: Topology, actor: str, until: datetime | None) -> list[str]:
    """Pause an actor until then, or until somebody resumes it, with all its durables; their names.

    Raises NoActor or Unavailable.
    """
    if why := NOT_PAUSED.get(actor):
        raise NoActor(f"{actor} can't be paused: {why}")
    end = rfc3339(until or datetime.now(UTC) + FOR_EVER)
    if actor in POOLS:
        await _note(api, POOLS[actor], end)
    return await _each(api, topology, actor, {"pause_until": end})


async def resume(api: Api, topology: Topology, actor: str) -> list[str]:
    """Have an actor go on; the names of its durables. Raises NoActor or Unavailable."""
    if actor in POOLS:
        await _note(api, POOLS[actor], "")
    return await _each(api, topology, actor, {})


async def is_paused(api: Api, actor: str) -> bool:
    """Whether an actor of `POOLS`, or one that takes commands, is paused. Raises ApiError or Unavailable."""
    if actor not in POOLS:
        return bool((await api.call(f"CONSUMER.INFO.COMMANDS.{actor}")).get("paused"))
    config: dict[str, Any] = (await api.call(f"STREAM.INFO.{POOLS[actor]}"))["config"]
    return paused_until(config.get("metadata"), datetime.now(UTC)) is not None


async def actors(api: Api, topology: Topology) -> list[str]:
    """The names of all actors that may be paused; what partners read by is theirs. Raises Unavailable."""
    found = {name for stream in topology.streams for name in _names(await readers_of(api, stream.name), stream.name)}
    return sorted((found | set(POOLS)) - set(NOT_PAUSED))


def _names(infos: Sequence[dict[str, Any]], stream: str) -> list[str]:
    ours = [info["name"] for info in infos if not info["name"].startswith(PARTNERS)]
    return [] if stream in POOLS.values() else ours


async def _each(api: Api, topology: Topology, actor: str, body: dict[str, str]) -> list[str]:
    names: list[str] = []
    for stream in topology.streams:
        for info in await readers_of(api, stream.name):
            if info["name"] == actor or POOLS.get(actor) == stream.name:
                await api.call(f"CONSUMER.PAUSE.{stream.name}.{info['name']}", body)
                names.append(info["name"])
    if not names and actor not in POOLS:
        known = ", ".join(await actors(api, topology))
        raise NoActor(f"no actor {actor} has ever run on this broker: choose from {known}")
    return names


async def _note(api: Api, stream: str, until: str) -> None:
    """Write into a stream's metadata until when its pool rests; empty: no longer."""
    try:
        config: dict[str, Any] = (await api.call(f"STREAM.INFO.{stream}"))["config"]
        kept: dict[str, str] = dict(config.get("metadata") or {})
        kept.pop(PAUSED, None)
        metadata = kept | ({PAUSED: until} if until else {})
        await api.call(f"STREAM.UPDATE.{stream}", {**config, "metadata": metadata})
    except ApiError as error:
        raise NoActor(f"stream {stream} can't be told: {error}: run `harkara topology apply`") from error


def end_of(until: datetime | None) -> str:
    """When a pause ends, in words."""
    return "until somebody resumes it" if until is None else f"until {until.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
