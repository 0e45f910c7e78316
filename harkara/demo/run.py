"""`harkara demo`: a platform of its own, the story on it, and a verdict."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harkara import printing
from harkara.demo import report
from harkara.demo.client import connect
from harkara.demo.errors import DemoError
from harkara.demo.platform import Platform
from harkara.demo.script import CONTACTS
from harkara.demo.story import Story

#: Exit statuses: something fell short, somebody stopped us.
SHORT, STOPPED = 1, 130


async def run_demo(*, speed: float, keep: bool) -> int:
    """Run the demo and show it. Returns the exit status: 0 if every message and every contact is accounted for."""
    screen = printing.console()
    platform = Platform(speed=speed, keep=keep)
    with _stoppable(platform) as stopped:
        try:
            return await run_on(platform, screen, speed)
        except DemoError as error:
            screen.print(Text(f"✗ {error}", style="bold red"))
            return SHORT
        except asyncio.CancelledError:
            if not stopped:
                raise
            screen.print(Text("stopped; nothing is left running", style="bold"))
            return STOPPED


@contextmanager
def _stoppable(platform: Platform) -> Generator[list[int]]:
    """Ctrl-C and SIGTERM cancel the demo, so that it takes its platform down and what it has made away.

    A second one doesn't wait for the platform to finish what it has begun, a third one for nothing.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    seen: list[int] = []

    def stop(number: int) -> None:
        seen.append(number)
        if len(seen) == 1 and task is not None:
            task.cancel()
        elif len(seen) == 2:
            platform.hurry()
        else:
            signal.raise_signal(signal.SIGKILL)  # the platform dies with us

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stop, number)
    try:
        yield seen
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def run_on(platform: Platform, console: Console, speed: float, contacts: Path = CONTACTS) -> int:
    """Start this platform, run the story on it with the contacts of a CSV file, stop it. Returns the exit status."""
    console.print(Text("Harkara demo: a WhatsApp drip campaign, from a CSV file to the last receipt", style="bold"))
    async with platform, connect(platform.door, platform.gateway) as client:
        started = platform.started_in.total_seconds()
        console.print(report.told("broker, database, cache, gateway, front door and actors run", f"{started:.1f} s"))
        csv = await asyncio.to_thread(contacts.read_bytes)
        story = Story(client, console, speed, secrets.token_urlsafe(12), csv)
        story.spent["setting up the platform"] = started
        shortfalls = await story.tell()
        console.print(report.spent(story.spent, speed))
    _kept(console, platform.directory)
    return verdict(console, shortfalls)


def _kept(console: Console, directory: Path) -> None:
    if directory.exists():
        console.print(Text(f"kept: {directory} (start it again with `harkara up --data {directory / 'data'}`)"))


def verdict(console: Console, shortfalls: list[str]) -> int:
    """Say whether all is well, or what is not. Returns the exit status."""
    if not shortfalls:
        console.print(Text("\n✓ Everybody got every step once, or stopped for the reason shown.", style="bold green"))
        return 0
    console.print(Text("\n✗ This fell short:", style="bold red"))
    for line in shortfalls:
        console.print(Text(f"  {line}"))
    return SHORT
