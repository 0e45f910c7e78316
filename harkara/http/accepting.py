"""Handing a command to the bus: answered when it is stored, or with its outcome for whoever prefers to wait."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar, overload
from uuid import UUID

import msgspec

from harkara.http.context import Answer, Context
from harkara.http.hub import Event
from harkara.schemas.api import Accepted, Outcome
from harkara.schemas.base import Message

A = TypeVar("A", bound=Accepted)

#: Seconds that a caller may wait at most, whatever it prefers.
LONGEST_WAIT_S = 30

_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,4})(?:$|[,;\s])")


class Expected(NamedTuple):
    """The events that end a command's way, of which the first to come is its outcome: about the thing with this id."""

    types: frozenset[str]
    about: UUID


@overload
async def accept(
    ctx: Context[Any, Any], command: Message, accepted: A, location: str, expected: None, *, of_rows: bool = False
) -> Answer[A]: ...


@overload
async def accept(
    ctx: Context[Any, Any],
    command: Message,
    accepted: A,
    location: str,
    expected: Expected | None,
    *,
    of_rows: bool = False,
) -> Answer[A | Outcome]: ...


async def accept(
    ctx: Context[Any, Any],
    command: Message,
    accepted: A,
    location: str,
    expected: Expected | None,
    *,
    of_rows: bool = False,
) -> Answer[A] | Answer[A | Outcome]:
    """Store the command under `accepted.id`: 202, or 200 with its outcome if the caller prefers to wait for that.

    Nothing is waited for if no outcome is `expected`. `of_rows`: the command is about rows which this request has
    written. Raises what `Context.publish` raises. An outcome that does not come in time is no failure: 202 then too.
    """
    headers = {"Location": location}
    seconds = preferred_wait(ctx.request.headers)
    if not seconds or expected is None or ctx.door.feed is None:
        await ctx.publish(command, accepted.id, of_rows=of_rows)
        return Answer(accepted, headers)
    came = ctx.door.feed.expect(ctx.tenant, expected.types, str(expected.about))
    # In case nobody comes to wait: whoever waits does so for `seconds` from the commit on.
    asyncio.get_running_loop().call_later(LONGEST_WAIT_S * 2, came.cancel)
    try:
        await ctx.publish(command, accepted.id, of_rows=of_rows)
    except BaseException:
        came.cancel()
        raise

    async def wait() -> Answer[A | Outcome]:
        done, _ = await asyncio.wait({came}, timeout=seconds)
        if not done or came.cancelled():
            came.cancel()
            return Answer(accepted, headers)
        applied = {"Preference-Applied": f"wait={seconds}"}
        return Answer(_outcome(accepted.id, came.result()), headers | applied, status=200)

    return Answer(accepted, headers, afterwards=wait)


def preferred_wait(headers: Mapping[str, str]) -> int:
    """The seconds of `Prefer: wait=…` (RFC 7240), at most LONGEST_WAIT_S; 0 if there is no such preference."""
    preference = headers.get("Prefer")
    if preference is None:
        return 0
    found = _WAIT.search(preference)
    return min(int(found[1]), LONGEST_WAIT_S) if found else 0


def _outcome(id_: UUID, event: Event) -> Outcome:
    return Outcome(
        id=id_,
        status=event.type.rpartition(".")[2],
        type=event.type,
        at=event.at,
        data=msgspec.json.decode(event.data),
    )
