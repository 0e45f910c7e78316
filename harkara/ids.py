"""Identifiers: UUIDv7 (RFC 9562), new ones and ones that are the same for the same cause."""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from datetime import UTC, datetime
from uuid import UUID

#: Random bytes for the next ids: asking the system for each one alone is most of what an id costs.
_random: deque[bytes] = deque()
_AT_ONCE = 256
_BYTES = 10

os.register_at_fork(after_in_child=_random.clear)


def uuid7(at: datetime | None = None) -> UUID:
    """A new UUIDv7 whose time is `at` (aware; now if not given), with 74 random bits."""
    try:
        random = _random.pop()
    except IndexError:
        fresh = os.urandom(_AT_ONCE * _BYTES)
        _random.extend(fresh[place : place + _BYTES] for place in range(_BYTES, len(fresh), _BYTES))
        random = fresh[:_BYTES]
    return _assemble(_milliseconds(at), int.from_bytes(random, "big"))


def uuid7_for(at: datetime, *parts: str) -> UUID:
    """The UUIDv7 that always comes out for this instant and these parts: what makes a redelivery hit the same row."""
    digest = hashlib.blake2b("\x00".join(parts).encode(), digest_size=10).digest()
    return _assemble(_milliseconds(at), int.from_bytes(digest, "big"))


def time_of(id_: UUID) -> datetime:
    """The instant inside a UUIDv7, in whole milliseconds, UTC."""
    return datetime.fromtimestamp((id_.int >> 80) / 1000, UTC)


def _milliseconds(at: datetime | None) -> int:
    return time.time_ns() // 1_000_000 if at is None else int(at.timestamp() * 1000)


def _assemble(milliseconds: int, random: int) -> UUID:
    high = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    return UUID(int=high | 0x7 << 76 | (random >> 62 & 0xFFF) << 64 | 0b10 << 62 | random & 0x3FFF_FFFF_FFFF_FFFF)
