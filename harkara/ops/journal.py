"""The operators' journal: what was done to the platform itself, by whom. What is done to rows, the audit log notes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from harkara.bus.connection import Bus
from harkara.bus.errors import BusError
from harkara.bus.messages import Packet
from harkara.bus.tail import History
from harkara.ops.terminal import who

STREAM = "OPERATIONS"
_SUBJECT = "sys.ops.{}"
_PAGE = 500


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """Who did what, when: `detail` says to what, and how."""

    at: datetime
    by: str
    action: str
    detail: dict[str, Any]


async def note(bus: Bus, action: str, **detail: Any) -> None:
    """Note what is about to be done. Raises BusError if it can't be: then it must not be done."""
    entry = Entry(at=datetime.now(UTC), by=who(), action=action, detail=detail)
    (stored,) = await bus.publisher.send([Packet(_SUBJECT.format(action), msgspec.json.encode(entry))])
    if isinstance(stored, BusError):
        raise BusError(f"it can't be noted in the journal, so it was not done: {stored}: run `harkara topology apply`")


async def entries(bus: Bus, since: datetime | None) -> AsyncIterator[Entry]:
    """What was noted since then, oldest first. Raises Unavailable."""
    history, after, more = History(bus.link, STREAM), 0, True
    try:
        while more:
            page = await history.page(_SUBJECT.format("*"), after, _PAGE)
            for one in page.messages:
                after = one.seq
                entry = msgspec.json.decode(one.body, type=Entry)
                if since is None or entry.at >= since:
                    yield entry
            more = page.more and bool(page.messages)
    finally:
        await history.close()
