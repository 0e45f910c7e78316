"""A durable of a key's own on the tenant's events: made when it is asked for, read with any NATS client."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal
from uuid import UUID

from harkara.bus.api import NO_CONSUMER, Api, ApiError
from harkara.bus.errors import Unavailable
from harkara.bus.overview import PARTNERS
from harkara.http.access import reads
from harkara.http.context import Context
from harkara.http.problems import unavailable
from harkara.http.route import PREFIX, Route
from harkara.schemas.base import Body

STREAM = "EVENTS"

#: The broker forgets a durable that nobody reads for as long as events are kept.
FORGOTTEN_AFTER = timedelta(days=7)

#: Taken and not acknowledged for this long, an event is delivered again.
ACK_WAIT = timedelta(seconds=30)

#: What one request for events may ask for, how long it may wait, and how many may wait at once.
MOST_AT_ONCE = 500
LONGEST_WAIT = timedelta(minutes=1)
MOST_WAITING = 32

MOST_UNACKNOWLEDGED = 1_000


class OpenDurable(Body):
    """From where on: `now`, or behind the event with this `seq`; 0 for all that is kept, which is 7 days."""

    since: int | Literal["now"] = "now"


class Durable(Body):
    """Where to read: the stream's name, and the consumer's in it."""

    stream: str
    durable: str


def name_of(key_id: UUID) -> str:
    """The durable of this key."""
    return f"{PARTNERS}{key_id}"


async def open_durable(ctx: Context[OpenDurable | None, None]) -> Durable:
    """Make this key's durable. If there is one it stays as it is, wherever it has read to."""
    name, api = _name(ctx), _api(ctx)
    wanted = ctx.body or OpenDurable()
    try:
        if not await _exists(api, name):
            await api.call(f"CONSUMER.CREATE.{STREAM}.{name}", _config(ctx.tenant, name, wanted.since))
    except Unavailable:
        raise unavailable("the broker") from None
    return Durable(stream=STREAM, durable=name)


async def close_durable(ctx: Context[None, None]) -> Durable:
    """Forget this key's durable, and what it has read. Closing one that is not there does nothing."""
    name = _name(ctx)
    try:
        await forget(_api(ctx), name)
    except Unavailable:
        raise unavailable("the broker") from None
    return Durable(stream=STREAM, durable=name)


async def forget(api: Api, name: str) -> None:
    """Delete a durable, if it is there. Raises Unavailable."""
    try:
        await api.call(f"CONSUMER.DELETE.{STREAM}.{name}")
    except ApiError as error:
        if error.code != NO_CONSUMER:
            raise


async def _exists(api: Api, name: str) -> bool:
    try:
        await api.call(f"CONSUMER.INFO.{STREAM}.{name}")
    except ApiError as error:
        if error.code != NO_CONSUMER:
            raise
        return False
    return True


def _config(tenant: str, name: str, since: int | Literal["now"]) -> dict[str, Any]:
    start: dict[str, Any] = (
        {"deliver_policy": "new"}
        if since == "now"
        else {"deliver_policy": "by_start_sequence", "opt_start_seq": max(since, 0) + 1}
    )
    config = {
        "durable_name": name,
        "filter_subject": f"t.{tenant}.evt.>",
        "ack_policy": "explicit",
        "ack_wait": _nanoseconds(ACK_WAIT),
        "max_ack_pending": MOST_UNACKNOWLEDGED,
        "max_waiting": MOST_WAITING,
        "max_batch": MOST_AT_ONCE,
        "max_expires": _nanoseconds(LONGEST_WAIT),
        "inactive_threshold": _nanoseconds(FORGOTTEN_AFTER),
        **start,
    }
    return {"stream_name": STREAM, "config": config}


def _nanoseconds(time: timedelta) -> int:
    return int(time.total_seconds() * 1e9)


def _name(ctx: Context[Any, Any]) -> str:
    if ctx.who.key_id is None:
        raise ValueError("only keys have durables")
    return name_of(ctx.who.key_id)


def _api(ctx: Context[Any, Any]) -> Api:
    if ctx.door.bus is None:
        raise unavailable("the broker")
    return Api(ctx.door.bus.link.request)


#: They are no part of the HTTP API: what they make is of no use there.
OPEN = Route(
    method="POST",
    path=f"{PREFIX}/events/open",
    handler=open_durable,
    access=reads("feed"),
    summary="Make this key's durable",
    body=OpenDurable,
    body_optional=True,
    returns=Durable,
)
CLOSE = Route(
    method="POST",
    path=f"{PREFIX}/events/close",
    handler=close_durable,
    access=reads("feed"),
    summary="Forget this key's durable",
    returns=Durable,
)
