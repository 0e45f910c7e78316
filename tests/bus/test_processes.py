"""Several processes on one broker: they share the work, and what a killed one had in hand goes to the others."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from pathlib import Path

from bus.actors import Clerk, begin
from bus.test_runner import with_ack_wait
from nats_server import Server
from support import until

from harkara.bus.connection import Bus, connect

HANGING = """
    import asyncio, sys
    from bus.actors import Clerk
    from bus.test_runner import with_ack_wait
    from harkara.bus.connection import connect
    from harkara.bus.topology import load

    class Hanging(Clerk):
        async def handle(self, batch):
            print(len(batch), flush=True)
            await asyncio.Event().wait()

    async def main():
        bus = await connect(sys.argv[1], topology=with_ack_wait(load(), 1.0))
        await bus.start(Hanging())
        await asyncio.Event().wait()

    asyncio.run(main())
"""


async def test_what_a_killed_process_had_in_hand_goes_to_another(server: Server, bus: Bus) -> None:
    await bus.publisher.publish_many([begin(n) for n in range(20)])
    tests = str(Path(__file__).parents[1])
    process = subprocess.Popen(  # noqa: ASYNC220 - a fork takes a millisecond
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r})\n{textwrap.dedent(HANGING)}", server.url],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 20)
        assert int(line) > 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    bus.topology = with_ack_wait(bus.topology, 1.0)
    clerk = Clerk()
    async with bus.run(clerk):
        await until(lambda: clerk.numbers() == set(range(20)), "all twenty", timeout=10)
    assert any(one.deliveries > 1 for one in clerk.seen)


async def test_two_processes_share_the_work_and_do_none_of_it_twice(server: Server, bus: Bus) -> None:
    here, there = Clerk(), Clerk()
    async with await connect(server.url) as other, bus.run(here), other.run(there):
        for start in range(0, 1000, 50):
            await bus.publisher.publish_many([begin(n) for n in range(start, start + 50)])
            await asyncio.sleep(0.001)
        await until(lambda: len(here.seen) + len(there.seen) >= 1000, "all of it")
    assert here.numbers() | there.numbers() == set(range(1000))
    assert len(here.seen) + len(there.seen) == 1000
    assert here.seen
    assert there.seen
