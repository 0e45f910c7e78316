"""A program that runs a stack until it is told to stop, for tests that kill it.

    python parent.py DATA main|thread

Prints the servers' process ids and addresses as one line of JSON once they answer, and `stopped` after a clean stop.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from pathlib import Path

import msgspec

from harkara.embedded.stack import Stack


async def run(data: Path) -> None:
    """Runs the stack until SIGINT or for ever."""
    stack = Stack(data)
    async with stack as urls:
        stop = asyncio.Event()
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
        print(json.dumps({"pids": dict(stack.pids), "urls": msgspec.to_builtins(urls)}), flush=True)
        await stop.wait()
    print("stopped", flush=True)


if __name__ == "__main__":
    if sys.argv[2] == "thread":
        thread = threading.Thread(target=lambda: asyncio.run(run(Path(sys.argv[1]))))
        thread.start()
        thread.join()
    else:
        asyncio.run(run(Path(sys.argv[1])))
