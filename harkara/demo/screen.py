"""The campaign on the screen while it runs: a picture on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harkara.demo.progress import Counts, Progress
from harkara.demo.script import STEPS

_BAR = 22
_LEAST_BAR = 6

#: What a row needs beside its three bars: its name, the numbers, and the space between.
_BESIDE = 14 + 3 * 9

_LINE_EVERY_S = 2.0

#: A row's name, its count, and the colour of its bar.
ROWS = (
    ("due", "due", "blue"),
    ("sent", "sent", "cyan"),
    ("delivered", "delivered", "green"),
    ("read", "read", "bright_green"),
    ("failed", "failed", "red"),
    ("kept back", "kept_back", "yellow"),
)


class Screen(Protocol):
    """Where progress is shown."""

    def __enter__(self) -> Screen: ...

    def __exit__(self, *_: object) -> None: ...

    def show(self, progress: Progress) -> None:
        """Show how far it is."""
        ...


def screen(console: Console) -> Screen:
    """The picture if somebody can see it, else lines."""
    return Picture(console) if console.is_terminal else Lines(console)


class Picture:
    """Steps as columns, bars that grow, and the last things that happened."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=10, transient=False)

    def __enter__(self) -> Picture:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, progress: Progress) -> None:
        """Draw it anew."""
        self._live.update(picture(progress, self._live.console.width))


def picture(progress: Progress, width: int) -> RenderableType:
    """The whole picture, for a terminal so many columns wide."""
    bar = max(_LEAST_BAR, min(_BAR, (width - _BESIDE) // 3))
    counts, whole = progress.counts(), max(len(progress.enrolled), 1)
    table = Table(box=None, padding=(0, 2), expand=False)
    table.add_column(Text(f"T+{progress.hours:.0f} h", style="bold magenta"))
    for step in STEPS:
        table.add_column(f"{step['name']}\nT+{step['delay_hours']} h", justify="left")
    for name, field, colour in ROWS:
        table.add_row(name, *(_bar(getattr(count, field), whole, colour, bar) for count in counts))
    return Group(table, Text(summary(progress), style="bold"), *(Text(line, style="dim") for line in progress.latest))


def _bar(count: int, whole: int, colour: str, width: int) -> RenderableType:
    cell = Table.grid(padding=(0, 1))
    cell.add_column(width=width)
    cell.add_column(justify="right", min_width=4)
    cell.add_row(
        ProgressBar(total=whole, completed=count, width=width, complete_style=colour, finished_style=colour), str(count)
    )
    return cell


def summary(progress: Progress) -> str:
    """Where the people are, in one line."""
    completed = sum(how == "completed" for how in progress.ended.values())
    parts = [f"enrolled {len(progress.enrolled)}", f"on their way {progress.running}", f"completed {completed}"]
    parts += [f"stopped by {reason.replace('_', '-')} {count}" for reason, count in sorted(progress.stopped.items())]
    return " · ".join(parts)


class Lines:
    """A line every two seconds, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, progress: Progress) -> None:
        """Print a line if it is time for one."""
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY_S
            self._console.print(line(progress), highlight=False)


def line(progress: Progress) -> str:
    """All in one line: the steps that have begun, and where the people are."""
    steps = [
        f"{step['name']}: {_said(count)}" for step, count in zip(STEPS, progress.counts(), strict=True) if count.due
    ]
    return " | ".join([f"T+{progress.hours:.0f} h", summary(progress), *steps])


def _said(count: Counts) -> str:
    parts = [f"due {count.due}", f"sent {count.sent}", f"delivered {count.delivered}", f"read {count.read}"]
    parts += [f"failed {count.failed}"] if count.failed else []
    parts += [f"kept back {count.kept_back}"] if count.kept_back else []
    return ", ".join(parts)
