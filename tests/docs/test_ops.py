"""The page for operators names every command of `harkara ops`, and no other; every one explains itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from harkara.ops.commands import ops

PAGE = Path(__file__).parents[2] / "docs" / "ops.md"

ROW = re.compile(r"^\| `harkara ops ([^`]+)` \|", re.MULTILINE)


def commands(group: click.Group, *before: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield (*before, name), command


COMMANDS = dict(commands(ops))


def named(row: str) -> tuple[str, ...]:
    """The command that a row is about, without its arguments."""
    words = row.split()
    return next(tuple(words[:n]) for n in range(len(words), 0, -1) if tuple(words[:n]) in {*COMMANDS, ()} or n == 1)


def test_the_page_names_every_command() -> None:
    assert sorted(named(row) for row in ROW.findall(PAGE.read_text("utf-8"))) == sorted(COMMANDS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself_and_takes_json(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert len(command.help or "") > 20
    options = {name for one in command.params for name in one.opts}
    assert {"--json", "--data"} <= options
    silent = [one.name for one in command.params if isinstance(one, click.Option) and not one.help]
    assert silent == []
