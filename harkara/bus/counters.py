"""What an actor has done so far: plain numbers for metrics and the ops CLI."""

from __future__ import annotations

import msgspec

from harkara.measures import LONG_BOUNDS, Timing


class Counters(msgspec.Struct):
    """Counts since the start of the process; `in_flight` is how many deliveries are in hand right now.

    `batches` is how long each batch took, its settling included.
    """

    handled: int = 0
    retried: int = 0
    dead: int = 0
    in_flight: int = 0
    batches: Timing = msgspec.field(default_factory=lambda: Timing(LONG_BOUNDS))
