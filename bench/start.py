"""How long `harkara up` takes to be ready: `python -m bench.start`.

Cold is an empty directory (initdb, migrations, topology, demo tenant); warm the same directory again. From starting the
process to 200 on /readyz, so the interpreter and the imports count. Medians of five.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.stack import family, memory_mb, until_ready
from harkara.embedded.ports import free_ports

ROUNDS = 5


async def once(data: Path) -> tuple[float, float, float]:
    """Start, measure, stop: seconds to ready, seconds to stop, MB at rest."""
    door, gateway = free_ports(2)
    command = [sys.executable, "-m", "harkara", "up", "--data", str(data), "--port", str(door)]
    command += ["--gateway-port", str(gateway), "--nats-port", "0"]
    begun = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "LOG_LEVEL": "ERROR"})
    try:
        await until_ready(f"http://127.0.0.1:{door}", process)
        ready = time.monotonic() - begun
        await asyncio.sleep(2)
        memory = memory_mb(family(process.pid))
    finally:
        begun = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    return ready, time.monotonic() - begun, memory


async def main() -> None:
    """Cold and warm starts."""
    cold, warm, stop, memory = list[float](), list[float](), list[float](), list[float]()
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(prefix="harkara-bench-") as directory:
            data = Path(directory) / "data"
            cold.append((await once(data))[0])
            ready, stopped, used = await once(data)
            warm.append(ready)
            stop.append(stopped)
            memory.append(used)
    for name, values, unit in (
        ("cold", cold, "s"),
        ("warm", warm, "s"),
        ("stop", stop, "s"),
        ("at rest", memory, "MB"),
    ):
        print(f"{name:8} median {statistics.median(values):7.2f} {unit}   worst {max(values):7.2f} {unit}")


if __name__ == "__main__":
    asyncio.run(main())
