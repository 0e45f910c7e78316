"""What waits to be tried again is told with why it does; what the broker doesn't bring back is told too."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

from bus.actors import Clerk, Page
from support import until

from harkara.bus import headers
from harkara.bus.api import Api, ApiError
from harkara.bus.connection import Bus
from harkara.bus.messages import Outgoing
from harkara.bus.outcomes import Retry
from harkara.bus.parked import LOOKED_AT, Parked, parked
from harkara.bus.settle import rfc3339
from harkara.bus.topology import load


async def test_of_what_an_actor_put_off_the_one_is_told_that_failed(bus: Bus) -> None:
    clerk = Clerk(
        lambda one: Retry(f"{one.message.number} is out", timedelta(hours=1), counts=one.message.number == 2, park=True)
    )
    async with bus.run(clerk):
        for number in range(1, 4):
            await bus.publisher.publish(Outgoing(Page(number=number), "acme", f"p{number}"))

        async def told() -> list[Parked]:
            found = await parked(Api(bus.link.request), bus.topology)
            return found if [one.failed for one in found] == [1] else []

        (one,) = await until(told, "the one that failed is told")
    assert (one.actor, one.tenant, one.reason) == ("enrollment", "acme", "2 is out")
    assert timedelta(minutes=59) < one.due_at - datetime.now(UTC) <= timedelta(hours=1)
    assert 0 <= one.age_s < 60
    assert one.overdue_s == 0


class Stuck:
    """A broker that holds schedules whose time is past."""

    def __init__(self, overdue: list[timedelta]) -> None:
        now = datetime.now(UTC)
        self.messages = [self._message(number, now - by) for number, by in enumerate(overdue, 1)]

    def _message(self, seq: int, due: datetime) -> dict[str, Any]:
        block = f"NATS/1.0\r\n{headers.SCHEDULE}: @at {rfc3339(due)}\r\n\r\n"
        subject, at = f"t.acme.at.receipts.id.WORK-{seq}", rfc3339(due)
        return {"seq": seq, "subject": subject, "time": at, "hdrs": b64encode(block.encode()).decode()}

    async def call(self, _: str, which: dict[str, Any]) -> dict[str, Any]:
        if which["next_by_subj"] != "t.*.at.receipts.>" or which["seq"] > len(self.messages):
            raise ApiError(10037, 404, "no message found")
        return {"message": self.messages[which["seq"] - 1]}


async def test_what_should_have_been_back_is_told_as_far_as_one_looks() -> None:
    late = [timedelta(seconds=5), timedelta(seconds=70), *[timedelta(hours=-1)] * LOOKED_AT, timedelta(hours=9)]
    api: Any = Stuck(late)
    (one,) = await parked(api, load())
    assert (one.actor, one.failed, one.reason) == ("receipts", 0, "")
    assert 70 <= one.overdue_s < 100
