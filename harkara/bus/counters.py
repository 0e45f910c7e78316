"""What an actor has done so far: plain numbers for metrics and the ops CLI."""

from __future__ import annotations

import msgspec


class Counters(msgspec.Struct):
    """Counts since the start of the process; `in_flight` is how many deliveries are in hand right now."""

    handled: int = 0
    retried: int = 0
    dead: int = 0
    in_flight: int = 0
