"""What is seen of the demo's campaign while it runs."""

from __future__ import annotations

import io
from uuid import UUID

import msgspec
from rich.console import Console

from harkara.demo import report
from harkara.demo.client import Event
from harkara.demo.progress import Progress
from harkara.demo.screen import Lines, head, line
from harkara.demo.script import STEPS
from harkara.http.examples import example
from harkara.schemas.api import Funnel, FunnelStep, Imported, RowError


def begun() -> Progress:
    """Two people who are enrolled: one message was read, one failed, and one of them has stopped."""
    progress = Progress(len(STEPS), 10_800.0)
    progress.start()
    for id_ in ("a", "b"):
        progress.take(event("enrollment.started", id=id_))
    progress.take(event("message.read", id="1", step=0))
    progress.take(event("message.failed", id="2", step=0))
    progress.take(event("enrollment.stopped", id="a", reason="opt_out"))
    return progress


def event(type_: str, **data: object) -> Event:
    return msgspec.convert({"seq": 1, "type": type_, "at": "2026-01-31T09:30:00Z", "data": data}, Event)


def funnel(*due: int) -> Funnel:
    steps = [
        msgspec.convert(
            {**example(FunnelStep), "due": n, "sent": 0, "failed": 0, "suppressed": 0, "unknown": 0}, FunnelStep
        )
        for n in due
    ]
    return Funnel(
        campaign_id=UUID(int=0),
        version=1,
        enrolled=2,
        active=2,
        completed=0,
        stopped=0,
        failed=0,
        paused=0,
        goal=0,
        stopped_by={},
        totals=example(Funnel)["totals"],
        steps=steps,
    )


def test_what_has_fallen_due_stays_so() -> None:
    progress, seen = Progress(3, 1.0), []
    for due in (496, 495, 496, 490):
        progress.look(funnel(due, 0, 0))
        seen.append(progress.counts()[0].due)
    assert seen == [496, 496, 496, 496]


def test_lines_stand_under_their_head() -> None:
    progress = begun()
    steps, names = head()
    told = line(progress)
    assert [steps.index(step["name"]) for step in STEPS] == [11, 40, 69]
    for name, number in (
        ("due", "2"),
        ("sent", "1"),
        ("delivered", "1"),
        ("read", "1"),
        ("on their way", "1"),
        ("completed", "0"),
    ):
        end = names.index(name) + len(name)
        assert told[:end].endswith(f" {number}"), f"{name}\n{names}\n{told}"
    assert told.endswith("(opt-out 1, messages failed 1)")


def test_the_last_line_is_how_it_ended() -> None:
    out, progress = io.StringIO(), begun()
    with Lines(Console(file=out, width=200)) as shown:
        shown.show(progress)
        progress.take(event("enrollment.completed", id="b"))
        shown.show(progress)
    first, last = out.getvalue().splitlines()[-2:]
    assert (first.split()[6:8], last.split()[6:8]) == (["1", "0"], ["0", "1"])


def test_an_import_says_how_many_rows_were_left_out_and_why() -> None:
    result = Imported(
        created=500,
        updated=0,
        duplicates=1,
        opted_out=0,
        errors=[RowError(row=r, path="phone", message="is none") for r in (40, 106)],
        encoding="utf-8",
        delimiter=",",
    )
    out = io.StringIO()
    Console(file=out, width=120).print(report.imported(result))
    assert "500 contacts imported from contacts.csv  left out: 2 bad rows and 1 repeated number" in out.getvalue()
