"""What the demo prints beside its moving picture: the import, a refusal, the timeline, the funnel and the books."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harkara.demo.books import GONE, Books
from harkara.demo.client import Accepted, Problem
from harkara.demo.script import CAMPAIGN, STEPS
from harkara.schemas.api import ContactShown, Funnel, Imported, MessageShown, ReplyShown


def told(what: str, detail: str = "") -> Text:
    """One thing that was done."""
    return Text.assemble(("✓ ", "green"), what, ("  " + detail if detail else "", "dim"))


def imported(result: Imported) -> RenderableType:
    """What the import took and what it refused, row by row."""
    bad, repeated = len(result.errors), result.duplicates
    left_out = f"left out: {bad} bad row{'s'[: bad != 1]} and {repeated} repeated number{'s'[: repeated != 1]}"
    line = told(f"{result.created} contacts imported from contacts.csv", left_out)
    rows = Table.grid(padding=(0, 2))
    for error in result.errors:
        rows.add_row("   ", Text(f"row {error.row}", style="yellow"), error.path, Text(error.message, style="dim"))
    return Group(line, rows) if result.errors else line


def refused(body: str, problem: Problem) -> RenderableType:
    """A step that can't be activated, and what the front door says about it."""
    head = Text.assemble(("✗ ", "yellow"), "activation is refused: a message would have a hole  ", (body, "dim"))
    faults = [Text(f"    {problem.status} {fault.path}: {fault.message}", style="yellow") for fault in problem.errors]
    return Group(head, *faults)


def waiting(funnel: Funnel) -> list[str]:
    """What each step waits for, for whoever has to find out why nothing happens."""
    return [
        f"step {step.step} {step.name}: due {step.due}, sent {step.sent}, failed {step.failed}" for step in funnel.steps
    ]


def timeline(contact: ContactShown, messages: Sequence[MessageShown], replies: Sequence[ReplyShown]) -> RenderableType:
    """All that passed between us and one contact, in order."""
    table = Table(title=f"Timeline of {contact.name} {contact.phone}", title_justify="left", box=None, padding=(0, 2))
    for column in ("", "due", "sent", "delivered", "read"):
        table.add_column(column, no_wrap=True)
    table.add_column("")
    lines = [(m.due_at, _message_row(m)) for m in messages] + [(r.received_at, _reply_row(r)) for r in replies]
    for _, row in sorted(lines, key=lambda line: line[0]):
        table.add_row(*row)
    return Group(Text(), table)


def _message_row(message: MessageShown) -> tuple[RenderableType, ...]:
    step = STEPS[message.step]["name"] if message.step is not None else ""
    said = Text(_said(message.content), no_wrap=True, overflow="ellipsis")
    times = (message.due_at, message.sent_at, message.delivered_at, message.read_at)
    return (Text(f"→ {step}", style="cyan"), *(Text(_clock(at)) for at in times), said)


def _reply_row(reply: ReplyShown) -> tuple[RenderableType, ...]:
    return (
        Text("← reply", style="magenta"),
        Text(""),
        Text(""),
        Text(_clock(reply.received_at)),
        Text(""),
        Text(reply.text or reply.type, no_wrap=True, overflow="ellipsis"),
    )


def _said(content: dict[str, Any]) -> str:
    interactive: dict[str, Any] = content.get("interactive") or {}
    return str(content.get("body") or interactive.get("body") or "")


def _clock(at: datetime | None) -> str:
    """The time of day; WhatsApp reports whole seconds, so nobody gets more."""
    return at.astimezone().strftime("%H:%M:%S") if at else "–"


def funnel(shown: Funnel) -> RenderableType:
    """The campaign's funnel as the front door gives it."""
    table = Table(title=f"Funnel of “{CAMPAIGN}”", title_justify="left", box=None, padding=(0, 1))
    for column in ("step", "sent", "delivered", "read", "failed", "kept back", "unknown"):
        table.add_column(column, justify="left" if column == "step" else "right", no_wrap=True)
    for step in shown.steps:
        counts = (step.sent, step.delivered, step.read, step.failed, step.suppressed, step.unknown)
        share = f" ({step.read / step.sent:.0%})" if step.sent else ""
        cells = [str(count) for count in counts]
        cells[2] += share
        table.add_row(f"{step.step} {step.name}, T+{step.delay_hours:g} h", *cells)
    people = f"enrolled {shown.enrolled}, completed {shown.completed}, stopped {shown.stopped}, failed {shown.failed}"
    return Group(Text(), table, Text(f"  {people}", style="dim"))


def books(kept: Books) -> RenderableType:
    """Everybody and everything accounted for."""
    table = Table(title="The books", title_justify="left", box=None, padding=(0, 2), show_header=False)
    table.add_row("imported contacts", str(len(kept.contacts)))
    for reason, count in kept.not_enrolled.items():
        table.add_row(f"  not enrolled: {reason}", str(count))
    for how, count in sorted(kept.ended.items()):
        table.add_row("  got every step" if how == "completed" else f"  stopped by {how.replace('_', '-')}", str(count))
    gone = sum(message.status in GONE for message in kept.messages)
    table.add_row("messages that left, by our record", f"{gone:,}")
    table.add_row("messages taken, by the gateway's record", f"{len(kept.accepted):,}")
    once = len({one.biz_opaque_callback_data for one in kept.accepted})
    table.add_row("  of these different (contact, step)", f"{once:,}")
    return Group(Text(), table)


def lateness(messages: Sequence[MessageShown], accepted: Sequence[Accepted], mps: int) -> RenderableType:
    """How long after its time each step's first and last message was with the gateway."""
    known = {str(message.id): message for message in messages}
    late: dict[int, list[timedelta]] = {}
    for one in accepted:
        if (message := known.get(one.biz_opaque_callback_data or "")) and message.step is not None:
            late.setdefault(message.step, []).append(datetime.fromisoformat(one.accepted_at) - message.due_at)
    firsts = ", ".join(f"{_ms(min(waits))} (step {step})" for step, waits in sorted(late.items()))
    last = max((max(waits).total_seconds() for waits in late.values()), default=0.0)
    text = f"  A step's first message reaches the gateway {firsts} after its time, "
    return Text(f"{text}its last after at most {last:.1f} s (the number carries {mps} a second).", style="dim")


def _ms(wait: timedelta) -> str:
    return f"{max(wait.total_seconds(), 0) * 1000:.0f} ms"


def spent(parts: dict[str, float], speed: float) -> RenderableType:
    """Where the time went."""
    table = Table(title="Where the time went", title_justify="left", box=None, padding=(0, 2), show_header=False)
    for what, seconds in parts.items():
        table.add_row(what, f"{seconds:.1f} s")
    table.add_row("together", f"{sum(parts.values()):.1f} s")
    return Group(Text(), table, Text(f"  24 hours took {24 * 3600 / speed:g} s.", style="dim"))
