"""What waits on a schedule comes back at once when it is hurried, and once only."""

from __future__ import annotations

from datetime import timedelta

from bus.actors import Clerk, Page
from support import until

from harkara.bus.connection import Bus
from harkara.bus.messages import Outgoing
from harkara.bus.outcomes import Done, Retry


def anything(_: bytes) -> bool:
    return True


async def waits_on_a_schedule(bus: Bus, count: int) -> bool:
    subjects = (await bus.js.stream_info("WORK", subjects_filter="t.*.at.enrollment.>")).state.subjects
    return len(subjects or ()) == count


async def test_what_is_hurried_comes_back_now_and_all_else_at_its_time(bus: Bus) -> None:
    waits = True
    clerk = Clerk(lambda _: Retry("later", timedelta(hours=1), counts=False, park=True) if waits else Done())
    running = await bus.start(clerk)
    for number in range(1, 5):
        tenant = "acme" if number < 4 else "other"
        await bus.publisher.publish(Outgoing(Page(number=number), tenant, f"p{number % 4}"))
    await until(lambda: len(clerk.seen) == 4 and not running.counters.in_flight, "all wait")
    assert not await bus.has_read("WORK", clerk.name, "acme", anything)
    await until(lambda: bus.has_read("WORK", clerk.name, "nobody", anything), "all that waits for nothing is done")
    waits = False
    hurry = bus.hurry()
    assert await hurry("acme", clerk.name, ["p1", "p3", "p0", "nobody"]) == 2
    await until(lambda: len(clerk.seen) == 6, "two are back")
    assert {one.message.number for one in clerk.seen[4:]} == {1, 3}
    assert {(one.tenant, one.id, one.attempt) for one in clerk.seen[4:]} == {("acme", "p1", 1), ("acme", "p3", 1)}
    # They wait no more: there is nothing left to hurry of them, and the others are where they were.
    await until(lambda: waits_on_a_schedule(bus, 2), "the schedules that came are gone")
    assert await hurry("acme", clerk.name, ["p1", "p3"]) == 0
    assert await hurry("other", clerk.name, ["p0"]) == 1
    await until(lambda: len(clerk.seen) == 7, "another's is back")
    await until(lambda: bus.has_read("WORK", clerk.name, "other", anything), "all of its is done")
    assert not await bus.has_read("WORK", clerk.name, "acme", anything)
