"""Tables are shown in terminals of any width: nothing of them is cut away."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
import pytest
from rich.console import Console, RenderableType

from harkara.bus import headers
from harkara.bus.dead import DeadLetter
from harkara.bus.overview import ConsumerState
from harkara.bus.parked import Parked
from harkara.bus.tail import Stored
from harkara.ops.commands import group_table, lag_table, letter_table, parked_table, show_lag
from harkara.ops.journal import Entry
from harkara.ops.pausing import entry_table
from harkara.ops.replaying import range_table
from harkara.ops.trace.command import timeline
from harkara.ops.trace.story import Moment

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ID = "01a218c5-35ee-7401-8a40-294d607fbacb"
WHY = "there is no sender of this id any more: it was deleted after the message was accepted"
READER = f"send-the-longest-tenant-of-them-all-{ID}-marketing"

MOMENT = Moment(at=NOW, where=f"stream t.demo.work.send.{ID}", what=WHY, id=ID)
BEHIND = ConsumerState(stream="COMMANDS", name=READER, pending=6, in_hand=0, redelivered=0, oldest_s=90)
LETTER = DeadLetter(
    1, NOW, "t.demo.dead.enrollment", b"{}", {headers.REASON: WHY, headers.ACTOR: "enrollment", headers.ATTEMPT: "12"}
)
PARKED = Parked(actor="enrollment", tenant="demo", failed=4, reason=WHY, age_s=90, due_at=NOW, overdue_s=9)
ENTRY = Entry(
    at=NOW, by="operator@a-machine-with-a-long-name", action="replay", detail={"actor": READER, "messages": 7}
)
STORED = Stored(seq=1, at="2026-01-02T03:04:05Z", subject=f"t.demo.work.send.{ID}.marketing", body=b"{}", headers={})

#: What each shows, and the words that must be seen of it.
TABLES: dict[str, tuple[Callable[[int], RenderableType], str]] = {
    "trace": (lambda width: timeline([MOMENT, MOMENT], width), f"{WHY} {ID}"),
    "lag": (lambda _: lag_table([BEHIND]), READER),
    "dead list": (lambda _: group_table([LETTER]), f"enrollment {WHY}"),
    "dead list --ids": (lambda width: letter_table([LETTER], width), f"{LETTER.id} enrollment {WHY}"),
    "status": (lambda _: parked_table([PARKED], NOW), f"enrollment {WHY}"),
    "journal": (lambda _: entry_table([ENTRY]), f"{ENTRY.by} actor={READER}"),
    "replay": (lambda _: range_table([STORED]), STORED.subject),
}


def test_partners_who_are_away_fill_no_table() -> None:
    screen = Console(width=150, file=io.StringIO())
    away = [msgspec.structs.replace(BEHIND, stream="EVENTS", name=f"partner-{n}", pending=20) for n in range(50)]
    show_lag(screen, [BEHIND, *away])
    *table, partners = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert len(table) == 2
    assert partners.startswith("50 readers of partners have 1000 events to read yet")


def test_a_pause_is_noted_with_its_end_and_one_without_an_end_with_none() -> None:
    ends = (None, NOW)
    noted = [msgspec.json.decode(msgspec.json.encode({"actor": "sender", "until": end})) for end in ends]
    screen = Console(width=150, file=io.StringIO())
    screen.print(entry_table([msgspec.structs.replace(ENTRY, detail=one) for one in noted]))
    _, *lines = screen.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert [line.partition("actor=sender  ")[2].rstrip() for line in lines] == [
        "until somebody resumes it",
        "until 2026-01-02 03:04:05",
    ]


@pytest.mark.parametrize("width", [80, 100, 120, 150, 200])
@pytest.mark.parametrize(("table", "words"), TABLES.values(), ids=TABLES)
def test_no_word_is_cut_away(table: Callable[[int], RenderableType], words: str, width: int) -> None:
    screen = Console(width=width, file=io.StringIO())
    screen.print(table(width))
    shown = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown
    # A word that is longer than its column goes on below; what is beside it comes between.
    lines = shown.splitlines()
    for word in words.split():
        assert word in shown.split() or _down(lines, word), (word, shown)


def _down(lines: list[str], word: str) -> bool:
    """Whether the word can be read downwards, a piece a line from the same column on."""
    for number, line in enumerate(lines):
        for column in range(len(line)):
            rest = word
            for below in lines[number:]:
                piece = below[column:].split(" ")[0]
                if not piece or not rest.startswith(piece):
                    break
                rest = rest.removeprefix(piece)
            if not rest:
                return True
    return False
