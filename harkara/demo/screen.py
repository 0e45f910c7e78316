"""The campaign on the screen while it runs: a picture on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
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
    parts = [f"enrolled {len(progress.enrolled)}", f"on their way {progress.running}"]
    parts.append(f"completed {progress.completed}")
    parts += [f"stopped by {reason.replace('_', '-')} {count}" for reason, count in sorted(progress.stopped.items())]
    return " · ".join(parts)


class Lines:
    """A line every two seconds and one at the end, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._next = 0.0
        self._unseen: str | None = None

    def __enter__(self) -> Lines:
        self._print(*head())
        return self

    def __exit__(self, *_: object) -> None:
        if self._unseen is not None:
            self._print(self._unseen)

    def show(self, progress: Progress) -> None:
        """Print a line if it is time for one."""
        self._unseen = line(progress)
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY_S
            self._print(self._unseen)
            self._unseen = None

    def _print(self, *lines: str) -> None:
        for text in lines:
            self._console.print(Text(text))


#: What a line tells of a step: the columns' names and their width.
_COLUMNS = (("due", 6), ("sent", 6), ("delivered", 11), ("read", 6))

#: What a line tells of the people.
_PEOPLE = (("on their way", 14), ("completed", 11), ("stopped", 9))


def head() -> list[str]:
    """What stands above the lines: the steps, and what is counted of each."""
    wide = sum(width for _, width in _COLUMNS)
    steps = "".join(f"   {step['name']}, T+{step['delay_hours']} h".ljust(wide) for step in STEPS)
    names = [*_COLUMNS * len(STEPS), *_PEOPLE]
    return [f"{'':8}{steps}".rstrip(), f"{'':8}" + "".join(name.rjust(width) for name, width in names)]


def line(progress: Progress) -> str:
    """All in one line: each step that has begun, where the people are, and what went another way."""
    counts = progress.counts()
    cells = "".join(
        (str(number) if count.due else "").rjust(width)
        for count in counts
        for number, (_, width) in zip((count.due, count.sent, count.delivered, count.read), _COLUMNS, strict=True)
    )
    people = (progress.running, progress.completed, progress.stopped.total())
    cells += "".join(str(number).rjust(width) for number, (_, width) in zip(people, _PEOPLE, strict=True))
    return f"T+{progress.hours:.0f} h".ljust(8) + cells + _aside(progress, counts)


def _aside(progress: Progress, counts: Sequence[Counts]) -> str:
    """Why people were stopped, and messages that did not get through."""
    said = [f"{reason.replace('_', '-')} {count}" for reason, count in sorted(progress.stopped.items())]
    for what, number in (
        ("messages failed", sum(c.failed for c in counts)),
        ("kept back", sum(c.kept_back for c in counts)),
    ):
        said += [f"{what} {number}"] if number else []
    return f"  ({', '.join(said)})" if said else ""
