"""What lies in the streams is what somebody has to do: the broker's own clocks are none of it."""

from __future__ import annotations

from datetime import UTC, datetime

from bus.actors import Page
from support import until

from harkara.bus.api import Api
from harkara.bus.connection import Bus
from harkara.bus.messages import Outgoing
from harkara.bus.overview import StreamState, streams


async def test_schedules_that_lie_there_for_ever_are_no_backlog(bus: Bus) -> None:
    begun = datetime.now(UTC)

    async def work() -> StreamState:
        await bus.js.purge_stream("WORK", subject="sys.tick.*")  # which nobody takes here
        return next(one for one in await streams(Api(bus.link.request), bus.topology) if one.name == "WORK")

    async def holds(messages: int) -> StreamState | None:
        found = await work()
        return found if found.messages == messages else None

    empty = await until(lambda: holds(0), "nothing lies in WORK")
    assert (empty.first_at, empty.bytes > 0) == (None, True)
    await bus.publisher.publish(Outgoing(Page(number=1), "acme", "p1"))
    one = await until(lambda: holds(1), "one message lies in WORK")
    assert one.first_at is not None
    assert one.first_at >= begun
