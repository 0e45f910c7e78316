"""A program that runs a stack on a disk of a few megabytes, made in a mount namespace of its own.

    unshare --mount python on_a_small_disk.py DIRECTORY SIZE refused LEAST_FREE
    unshare --mount python on_a_small_disk.py DIRECTORY SIZE heals

`refused` prints why the stack does not start. `heals` fills the disk with messages while the stack runs, makes room
again, and prints what was reported and whether the broker takes messages afterwards, with every earlier one in place.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import nats
from loguru import logger
from nats.js.api import StreamConfig
from nats.js.client import JetStreamContext

from harkara.embedded import supervisor
from harkara.embedded.stack import Stack, StackError

FILLER = 100_000_000


async def refused(data: Path, least_free: int) -> None:
    """Prints the line of a start that must fail."""
    try:
        await Stack(data, least_free=least_free).start()
    except StackError as error:
        print(error)


async def heals(data: Path) -> None:
    """Prints the lines of errors, the number of acknowledged messages, and how many there are at last."""
    supervisor._CHECK = timedelta(seconds=0.1)
    logger.remove()
    logger.add(sys.stdout, level="ERROR", format="{message}")
    told = asyncio.Event()
    logger.add(lambda _: told.set(), level="ERROR")
    filler = data / "filler"
    async with Stack(data, least_free=0, database_url="postgresql://none", redis_url="redis://none") as urls:
        filler.write_bytes(bytes(FILLER))
        client = await nats.connect(urls.nats, reconnect_time_wait=0.05, max_reconnect_attempts=-1, error_cb=_ignore)
        jetstream = client.jetstream()
        await jetstream.add_stream(StreamConfig(name="KEPT", subjects=["kept"]))
        acknowledged = await _publish_until(told, jetstream)
        filler.unlink()
        async with asyncio.timeout(60):
            while not await _published(jetstream, acknowledged):
                pass
        print(acknowledged, (await jetstream.stream_info("KEPT")).state.messages)
        await client.close()


async def _publish_until(told: asyncio.Event, jetstream: JetStreamContext) -> int:
    count = 0
    while not told.is_set():
        count += await _published(jetstream, count)
    return count


async def _published(jetstream: JetStreamContext, number: int) -> bool:
    try:
        # Under an id: it may have been stored although nobody heard so in time.
        await jetstream.publish("kept", bytes(500_000), timeout=0.5, headers={"Nats-Msg-Id": str(number)})
    except (nats.errors.Error, TimeoutError):
        await asyncio.sleep(0.05)
        return False
    return True


async def _ignore(_: Exception) -> None:
    """The connection is lost once, when the broker is started again."""


def main(directory: str, size: str, what: str, *rest: str) -> None:
    """Makes the disk and does what is asked."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", directory], check=True)
    data = Path(directory)
    asyncio.run(refused(data, int(rest[0])) if what == "refused" else heals(data))


if __name__ == "__main__":
    main(*sys.argv[1:])
