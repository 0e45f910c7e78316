"""Gives a rival a task for each id on standard input: `python enqueue.py celery|taskiq`."""

from __future__ import annotations

import asyncio
import sys


def celery(ids: list[str]) -> None:
    """One after the other, as a scheduler's task does."""
    from celery_app import send

    for one in ids:
        send.delay(one)


def taskiq(ids: list[str]) -> None:
    """The same."""
    from taskiq_app import broker, send

    async def main() -> None:
        await broker.startup()
        for one in ids:
            await send.kiq(one)
        await broker.shutdown()

    asyncio.run(main())


if __name__ == "__main__":
    {"celery": celery, "taskiq": taskiq}[sys.argv[1]](sys.stdin.read().split())
