"""What one process has done so far, in plain numbers: counted where it happens, told when Prometheus asks.

Nothing here knows a metrics library: counting is on the way of every message.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import get_args

from harkara.schemas.base import Message
from harkara.schemas.events import MessageDeferred, MessageEvent, MessageSuppressed
from harkara.schemas.reasons import Reason

#: Upper ends of a histogram's classes, in seconds.
BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

#: The same for what may take minutes.
LONG_BOUNDS = (0.001, 0.005, 0.025, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0, 60.0, 120.0, 600.0)

#: What stands for a value that is none of the few that are told apart.
OTHER = "other"

_REASONS = frozenset(get_args(Reason))


class Timing:
    """How long something took each time: a histogram."""

    __slots__ = ("bounds", "counts", "total_s")

    def __init__(self, bounds: tuple[float, ...] = BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total_s = 0.0

    def add(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total_s += seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


class Timings(dict[tuple[str, ...], Timing]):
    """A histogram for each combination of labels, made when it is first needed."""

    def __init__(self, bounds: tuple[float, ...] = BOUNDS) -> None:
        super().__init__()
        self._bounds = bounds

    def __missing__(self, labels: tuple[str, ...]) -> Timing:
        made = self[labels] = Timing(self._bounds)
        return made


class Counts(dict[tuple[str, ...], int]):
    """A number for each combination of labels."""

    def add(self, *labels: str) -> None:
        """Count one."""
        self[labels] = self.get(labels, 0) + 1


class Tally:
    """Messages that were stored by the broker, by type; what it had already is not counted again."""

    def __init__(self) -> None:
        self.stored: defaultdict[type[Message], int] = defaultdict(int)
        self.suppressed = Counts()
        self.deferred = Counts()
        #: Tenants whose messages are counted by tenant too, because somebody has asked for it.
        self.tenants: Collection[str] = frozenset()
        self.by_tenant: dict[tuple[str, type[Message]], int] = {}

    def add(self, message: Message, tenant: str) -> None:
        """Count one."""
        kind = type(message)
        self.stored[kind] += 1
        if kind is MessageSuppressed or kind is MessageDeferred:
            self._reason(message)
        if self.tenants and tenant in self.tenants:
            self.by_tenant[tenant, kind] = self.by_tenant.get((tenant, kind), 0) + 1

    def _reason(self, message: Message) -> None:
        counts = self.suppressed if isinstance(message, MessageSuppressed) else self.deferred
        reason = message.reason if isinstance(message, MessageEvent) else None
        counts.add(reason if reason in _REASONS and reason is not None else OTHER)


class Measures:
    """All that a process counts beside what its front door and its actors count themselves."""

    def __init__(self, tenants: Iterable[str] = ()) -> None:
        self.tally = Tally()
        self.tally.tenants = frozenset(tenants)
        #: From writing a message to the broker's word that it is stored.
        self.acks = Timing()
        #: Messages that were not stored: `unavailable`, `full` or `refused`.
        self.unstored = Counts()
        #: Requests to send, by provider and kind of answer; and what was refused, by provider and code.
        self.gateway = Timings()
        self.refusals = Counts()
        #: How long messages waited for their number's turn, by lane.
        self.turns = Timings(LONG_BOUNDS)
