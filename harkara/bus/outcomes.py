"""The closed set of answers an actor gives about a delivery; `settle` alone turns them into acks."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from harkara.bus.messages import Outgoing


class Done(msgspec.Struct, frozen=True, gc=False):
    """Handled. `events` (and further work) are published first; only then is the delivery acked."""

    events: tuple[Outgoing, ...] = ()


class Retry(msgspec.Struct, frozen=True, gc=False):
    """Try again `after` that long, or by the actor's schedule when it is None.

    With `counts=False` it is no failed attempt and never runs out: what it needs is away, or its time has
    not come. With `park` it waits on a schedule however short the wait is, because many may wait at once and a delayed
    nak keeps its place in the consumer's window. `events` are published first, as with Done.
    """

    reason: str
    after: timedelta | None = None
    counts: bool = True
    park: bool = False
    events: tuple[Outgoing, ...] = ()


class Drop(msgspec.Struct, frozen=True, gc=False):
    """Never possible: it goes to the dead letters, where it can be seen, repaired and replayed."""

    reason: str


Outcome = Done | Retry | Drop
