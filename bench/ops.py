"""How quickly operators are answered: `python -m bench.ops [MESSAGES] [READERS]`.

A stack of servers without any actor: MESSAGES wait for READERS, a durable for each number, all of which are behind.
Then `harkara ops status` and `harkara ops lag` are run as somebody at a terminal runs them.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from uuid import UUID

import uvloop
from loguru import logger

from bench.stack import prepared
from harkara.bus.api import Api
from harkara.bus.connection import Bus, connect
from harkara.bus.durable import declare
from harkara.bus.messages import Packet
from harkara.ids import uuid7

MESSAGES, READERS, ROUNDS, CHUNK = 1_000_000, 1_000, 7, 5_000


async def main(messages: int, readers: int) -> None:
    """Fill the broker, and ask."""
    logger.remove()
    async with prepared() as made, await connect(made.urls.nats) as bus:
        await _fill(bus, messages, [uuid7() for _ in range(readers)])
        print(f"{messages} messages wait for {readers} readers; medians of {ROUNDS}, fastest and slowest")
        for command in (("--help",), ("status", "--json"), ("lag", "--json")):
            took = sorted([await _timed(made.environment, readers, *command) for _ in range(ROUNDS)])
            print(
                f"harkara ops {' '.join(command):16} {statistics.median(took):5.2f} s  {took[0]:.2f} to {took[-1]:.2f}"
            )


async def _fill(bus: Bus, messages: int, senders: list[UUID]) -> None:
    api = Api(bus.link.request)
    subjects = [f"t.bench.work.send.{sender}.marketing" for sender in senders]
    for sender, subject in zip(senders, subjects, strict=True):
        await declare(api, "SEND", f"send-bench-{sender}-marketing", [subject], bus.topology.consumers)
    for first in range(0, messages, CHUNK):
        count = min(CHUNK, messages - first)
        packets = [Packet(subjects[(first + n) % len(subjects)], b'{"lane":"marketing"}') for n in range(count)]
        for result in await bus.publisher.send(packets):
            if isinstance(result, Exception):
                raise result


async def _timed(environ: dict[str, str], readers: int, *arguments: str) -> float:
    begun = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harkara", "ops", *arguments), stdout=asyncio.subprocess.PIPE, env=environ
    )
    out, _ = await process.communicate()
    took = time.monotonic() - begun
    if "--json" in arguments:
        told = json.loads(out)
        found = told["consumers"] if "status" in arguments else told
        if len(found) != readers:
            raise SystemExit(f"{' '.join(arguments)} told of {len(found)} readers")
    return took


if __name__ == "__main__":
    given = [int(text) for text in sys.argv[1:]]
    uvloop.run(main(*(given + [MESSAGES, READERS][len(given) :])))
