"""What commands print, where nobody watches."""

from __future__ import annotations

import pytest
from rich.table import Table

from harkara.printing import console, fitted, messages_wait


def test_what_goes_into_a_pipe_is_not_broken_into_lines(capsys: pytest.CaptureFixture[str]) -> None:
    line = " ".join(["word"] * 150)
    console().print(line)
    assert capsys.readouterr().out == f"{line}\n"


def test_what_goes_into_a_pipe_ends_where_there_is_nothing_more_to_see(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table("name", "what", box=None)
    table.add_row("a", "much longer than the next")
    table.add_row("b", "short")
    console().print(table)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines[2:]] == [["b", "short"]]
    assert all(line == line.rstrip() for line in lines)


def test_one_message_waits_and_several_wait() -> None:
    assert [messages_wait(n) for n in range(3)] == ["0 messages wait", "1 message waits", "2 messages wait"]


def test_a_line_is_cut_in_a_terminal_by_how_wide_it_is_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "10")
    assert fitted("x" * 500) == "x" * 500
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert [fitted(line) for line in ("x" * 10, "x" * 11, "नमस्ते", "\N{HIRAGANA LETTER A}" * 6)] == [
        "x" * 10,
        "x" * 9 + "…",
        "नमस्ते",
        "\N{HIRAGANA LETTER A}" * 4 + " …",
    ]


def test_parts_of_a_line_have_lines_of_their_own_in_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = ("where", "i" * 36 + "  " + "x" * 500)
    assert fitted(*parts) == "  ".join(parts)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    assert fitted(*parts) == "where\n  " + "i" * 36 + "  " + "x" * 39 + "…"
    monkeypatch.setenv("COLUMNS", "150")
    assert fitted(*parts) == "where  " + "i" * 36 + "  " + "x" * 104 + "…"
