"""What three brokers cost beside one: `python -m bench.cluster` starts both and prints how fast each stores messages.

On one machine the three share its processors, and there is no network between them: read ratios.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from bench.bus import out
from harkara.bus import topology
from harkara.bus.connection import Bus, connect
from harkara.bus.errors import BusError
from harkara.bus.messages import Outgoing
from harkara.bus.placement import faults, placed
from harkara.embedded.nats import config
from harkara.nkeys import AccountKey

ROUNDS = 3

#: Nobody connects as a partner, but the servers want to know whose word they would believe.
_PARTNERS = AccountKey.derived("secret")

_numbers = itertools.count()


@contextmanager
def servers(count: int) -> Iterator[str]:
    """So many brokers that know each other; the URL of all of them."""
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(2 * count)]
    ports = [one.getsockname()[1] for one in listening]
    for one in listening:
        one.close()
    clients, between = ports[:count], ports[count:]
    routes = ", ".join(f'"nats://route:secret@127.0.0.1:{port}"' for port in between)
    with tempfile.TemporaryDirectory() as directory:
        processes = [
            subprocess.Popen(
                [Path(sys.executable).with_name("nats-server"), "-c", _config(count)],
                env=os.environ | _variables(place, clients[place], between[place], routes, directory),
                stderr=subprocess.DEVNULL,
            )
            for place in range(count)
        ]
        try:
            yield ",".join(f"nats://svc:secret@127.0.0.1:{port}" for port in clients)
        finally:
            for process in processes:
                process.kill()
                process.wait()


def _config(count: int) -> Path:
    return config() if count == 1 else config().with_name("cluster.conf")


def _variables(place: int, client: int, between: int, routes: str, directory: str) -> dict[str, str]:
    return {
        "NATS_NAME": f'"n{place}"',
        "NATS_LISTEN": f'"127.0.0.1:{client}"',
        "NATS_MONITOR": '"127.0.0.1:-1"',
        "NATS_CLUSTER_LISTEN": f'"127.0.0.1:{between}"',
        "NATS_ROUTES": f"[{routes}]",
        "NATS_STORE": f'"{directory}/n{place}"',
        "NATS_PORTS_DIR": f'"{directory}"',
        "NATS_WEBSOCKET": '"127.0.0.1:-1"',
        "NATS_PASSWORD": '"secret"',
        "NATS_PARTNERS_ISSUER": f'"{_PARTNERS.public}"',
    }


async def measure(url: str, replicas: int) -> list[float]:
    """Messages a second one by one, a hundred at a time, and many in one call; each the best of some rounds."""
    async with await connect(url, within=timedelta(seconds=30)) as bus:
        await topology.apply(bus.js)
        while replicas > 1 and faults(await placed(bus.js), replicas):
            await asyncio.sleep(0.2)

        async def one_by_one(count: int) -> None:
            for _ in range(count):
                await bus.publisher.publish(_message())

        async def concurrently(count: int) -> None:
            for _ in range(count // 100):
                await asyncio.gather(*(bus.publisher.publish(_message()) for _ in range(100)))

        works = [(1000, one_by_one), (5000, concurrently), (10_000, lambda count: _many(bus, count))]
        return [max([await rate(count, work) for _ in range(ROUNDS)]) for count, work in works]


def _message() -> Outgoing:
    return out(next(_numbers), "cluster")


async def _many(bus: Bus, count: int) -> None:
    results = await bus.publisher.publish_many([_message() for _ in range(count)])
    refused = [one for one in results if isinstance(one, BusError)]
    assert not refused, refused[0]


async def rate(count: int, store: Callable[[int], Awaitable[None]]) -> float:
    """Messages a second."""
    began = time.perf_counter()
    await store(count)
    return count / (time.perf_counter() - began)


async def main() -> None:
    """Measure one broker, then three."""
    with servers(1) as url:
        alone = await measure(url, 1)
    with servers(3) as url:
        three = await measure(url, 3)
    for name, one, all_ in zip(("one by one", "100 at a time", "many in one call"), alone, three, strict=True):
        print(f"{name:<18} {one:9,.0f}/s on one broker, {all_:9,.0f}/s on three ({all_ / one:.2f})")


if __name__ == "__main__":
    asyncio.run(main())
