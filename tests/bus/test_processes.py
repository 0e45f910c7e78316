"""Several processes on one broker: they share the work, and what a killed one had in hand goes to the others."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
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

DYING = """
    import asyncio, os, sys
    from bus.actors import Clerk
    from bus.test_runner import with_ack_wait
    from harkara.bus import handling, runner
    from harkara.bus.connection import connect
    from harkara.bus.topology import load

    runner.SUSPECT, handling.UNSETTLED = 1, 8

    class Dying(Clerk):
        async def handle(self, batch):
            if any(one.message.number == 7 for one in batch):
                os._exit(1)
            print(*(one.message.number for one in batch), flush=True)
            return await super().handle(batch)

    async def main():
        bus = await connect(sys.argv[1], topology=with_ack_wait(load(), 0.5))
        await bus.start(Dying())
        await asyncio.Event().wait()

    asyncio.run(main())
"""


@asynccontextmanager
async def running(program: str, server: Server) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process with an actor of its own, killed at the end of the block."""
    tests = str(Path(__file__).parents[1])
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", f"import sys; sys.path.insert(0, {tests!r})\n{textwrap.dedent(program)}", server.url),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_what_a_killed_process_had_in_hand_goes_to_another(server: Server, bus: Bus) -> None:
    await bus.publisher.publish_many([begin(n) for n in range(20)])
    async with running(HANGING, server) as process:
        assert process.stdout
        assert int(await asyncio.wait_for(process.stdout.readline(), 60)) > 0
    bus.topology = with_ack_wait(bus.topology, 1.0)
    clerk = Clerk()
    async with bus.run(clerk):
        await until(lambda: clerk.numbers() == set(range(20)), "all twenty")
    assert any(one.deliveries > 1 for one in clerk.seen)


# Each of them has to start, and what it had in hand to come again.
@pytest.mark.timeout(400)
async def test_what_ends_every_process_that_takes_it_is_a_dead_letter(server: Server, bus: Bus) -> None:
    """And what was in hand together with it is handled."""
    await bus.publisher.publish_many([begin(n) for n in range(20)])
    handled: set[int] = set()
    ended = 0

    async def run_till_it_ends() -> None:
        async with running(DYING, server) as process:
            assert process.stdout
            async for line in process.stdout:
                handled.update(map(int, line.split()))

    async def is_dead() -> bool:
        return (await bus.js.stream_info("DEAD")).state.messages > 0

    until_dead = asyncio.create_task(until(is_dead, "one is dead", 250, every=0.1))
    while not until_dead.done():
        run = asyncio.create_task(run_till_it_ends())
        await asyncio.wait((run, until_dead), return_when=asyncio.FIRST_COMPLETED)
        ended += run.done()
        if until_dead.done():
            await until(lambda: len(handled) >= 19, "all the others are handled", 60)
            run.cancel()
        await asyncio.wait((run,))
    await until_dead
    assert ended >= 2
    assert handled == set(range(20)) - {7}
    (letter,) = [one async for one in bus.dead.find()]
    assert "has it in hand ends" in letter.reason


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
