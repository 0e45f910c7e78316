"""The closed set of answers an actor gives about a delivery; `settle` alone turns them into acks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from harkara.bus.messages import Outgoing


@dataclass(frozen=True, slots=True)
class Done:
    """Handled. `events` (and further work) are published first; only then is the delivery acked."""

    events: tuple[Outgoing, ...] = ()


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again `after` that long, or by the actor's schedule when it is None.

    With `counts=False` it is no failed attempt and never runs out: what it needs is away, or its time has
    not come.
    """

    reason: str
    after: timedelta | None = None
    counts: bool = True


@dataclass(frozen=True, slots=True)
class Drop:
    """Never possible: it goes to the dead letters, where it can be seen, repaired and replayed."""

    reason: str


Outcome = Done | Retry | Drop
