"""Identifiers: UUIDv7 (RFC 9562), new ones and ones that are the same for the same cause."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec
from asyncpg.pgproto import pgproto

#: Random digits of the next ids, in the groups in which they are shown: asking the system for each id alone is most of
#: what an id costs.
_random: list[tuple[str, str, str]] = []
_AT_ONCE = 256
_BYTES = 8
_groups = re.compile(r"(.)(...)(.{12})").findall

#: Nanoseconds in a millisecond.
_MS = 1_000_000

#: The variant and two random bits in one digit.
_VARIANT = {f"{digit:x}": "89ab"[digit >> 2] for digit in range(16)}

#: Of the 74 bits that are no time, what `uuid7_beside` takes for the order: the neighbour's time without its last bits.
#: 54 bits stay to tell a million apart that lie beside the same neighbours.
_ORDER_BITS, _ORDER_DROPPED, _HASHED_BITS = 20, 8, 54

#: Of the same 74 bits, what `uuid7_within` takes: how late something came (microseconds, up to 71 minutes), and its
#: place among what came with it. 34 bits stay.
_LATE_BITS, _PLACE_BITS, _REST_BITS = 32, 8, 34

os.register_at_fork(after_in_child=_random.clear)


#: An id as text, without Python's own formatting: a third of the cost, several times a request.
text_of: Callable[[UUID], str] = msgspec.to_builtins

#: The id that a text names: the driver's own kind of UUID, an eighth of the cost, ten times a message. Raises
#: ValueError if it names none.
id_of: Callable[[str], UUID] = pgproto.UUID


def uuid7(at: datetime | None = None) -> UUID:
    """A new UUIDv7 whose time is `at` (aware; now if not given), with 62 random bits.

    The other twelve tell the quarter of a microsecond (RFC 9562, 6.2, method 3), so that what one process makes sorts
    in the order in which it was made.
    """
    return msgspec.convert(uuid7_text(at), UUID)  # three times as fast as UUID's own __init__


def uuid7_text(at: datetime | None = None) -> str:
    """The same as text."""
    try:
        a, b, c = _random.pop()
    except IndexError:
        (a, b, c), *others = _groups(os.urandom(_AT_ONCE * _BYTES).hex())
        _random.extend(others)
    ms, ns = divmod(time.time_ns(), _MS) if at is None else (_milliseconds(at), at.microsecond % 1000 * 1000)
    begin = f"{ms & 0xFFFF_FFFF_FFFF:012x}"
    return f"{begin[:8]}-{begin[8:]}-7{(ns << 12) // _MS:03x}-{_VARIANT[a]}{b}-{c}"


def uuid7_for(at: datetime, *parts: str) -> UUID:
    """The UUIDv7 that always comes out for this instant and these parts: what makes a redelivery hit the same row."""
    return _assemble(_milliseconds(at), _digest(parts))


def uuid7_beside(neighbour: UUID, at: datetime, *parts: str) -> UUID:
    """The same, but those of one instant sort as the UUIDv7s they are made for do, by and large (quarters of a second).

    Rows that are written and changed together then lie together in every index by id, instead of a page for each.
    """
    order = neighbour.int >> (80 + _ORDER_DROPPED) & (1 << _ORDER_BITS) - 1
    return _assemble(_milliseconds(at), order << _HASHED_BITS | _digest(parts) & (1 << _HASHED_BITS) - 1)


def uuid7_within(second: datetime, came: datetime, place: int, *parts: str) -> UUID:
    """The UUIDv7 of what happened in a second of which no more is known than when we heard of it.

    Those of one second sort as they came, and by `place` if they came at once. Their time is when they came if that was
    within the second, else its last millisecond: they never leave it.
    """
    late = min(max((came - second) // timedelta(microseconds=1), 0), (1 << _LATE_BITS) - 1)
    order = late << _PLACE_BITS | min(place, (1 << _PLACE_BITS) - 1)
    hashed = _digest(parts) & (1 << _REST_BITS) - 1
    return _assemble(_milliseconds(second) + min(late // 1000, 999), order << _REST_BITS | hashed)


def second_of(second: datetime) -> tuple[UUID, UUID]:
    """Before and after all UUIDv7s of the second that begins then."""
    begin = _milliseconds(second)
    return _assemble(begin, 0), _assemble(begin + 1000, 0)


def uuid7_near(neighbour: UUID, at: datetime) -> UUID:
    """A new UUIDv7 whose time is `at`. Those of one instant sort as those of one instant do that they are made for."""
    fresh = uuid7_text(at)
    return id_of(fresh[:15] + text_of(neighbour)[15:22] + fresh[22:])


def _digest(parts: tuple[str, ...]) -> int:
    return int.from_bytes(hashlib.blake2b("\x00".join(parts).encode(), digest_size=10).digest(), "big")


def time_of(id_: UUID) -> datetime:
    """The instant inside a UUIDv7, in whole milliseconds, UTC."""
    return datetime.fromtimestamp((id_.int >> 80) / 1000, UTC)


def _milliseconds(at: datetime) -> int:
    return int(at.timestamp() * 1000)


def _assemble(milliseconds: int, random: int) -> UUID:
    high = (milliseconds & 0xFFFF_FFFF_FFFF) << 80
    return UUID(int=high | 0x7 << 76 | (random >> 62 & 0xFFF) << 64 | 0b10 << 62 | random & 0x3FFF_FFFF_FFFF_FFFF)
