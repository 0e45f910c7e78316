"""What the commands have in common."""

from __future__ import annotations

import asyncio
import io
import shlex
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from chaos.harness import environment

from harkara.app import ACTORS
from harkara.cli import main
from harkara.ops.reach import data_option
from harkara.printing import console

#: These are servers: where they keep things is their own.
ROLES = {"up", "demo", "gateway"}


def commands(group: click.Group, *before: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, *before, name)
        else:
            yield " ".join((*before, name)), command


COMMANDS = dict(commands(main))


def option(command: click.Command, name: str) -> click.Option | None:
    found = [one for one in command.params if isinstance(one, click.Option) and name in one.opts]
    return found[0] if found else None


@pytest.mark.parametrize("words", sorted(COMMANDS.keys() - ROLES))
def test_every_command_finds_the_servers_in_the_same_way(words: str) -> None:
    @click.command()
    @data_option
    def any_command() -> None: ...

    found, expected = option(COMMANDS[words], "--data"), option(any_command, "--data")
    assert found
    assert expected
    assert (found.help, found.default) == (expected.help, expected.default)


def test_it_says_which_version_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, capsys.readouterr().out) == (0, f"harkara {version('harkara')}\n")


def test_what_a_terminal_cannot_show_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = io.TextIOWrapper(io.BytesIO(), encoding="ascii", write_through=True)
    monkeypatch.setattr("sys.stdout", narrow)
    with pytest.raises(SystemExit):
        main(["tenant", "list", "--help"])
    console().print("✓ Zoë ✗ ends …")
    assert narrow.buffer.getvalue().endswith(b"+ Zo? x ends ...\n")


#: Settings with which nothing answers, and that is soon known.
NOWHERE = {
    "NATS_URL": "nats://127.0.0.1:1",
    "DATABASE_URL": "postgresql://harkara_app@127.0.0.1:1/harkara",
    "REDIS_URL": "redis://127.0.0.1:1",
    "PUBLIC_URL": "http://127.0.0.1:1",
    "WHATSAPP_GATEWAY_URL": "http://127.0.0.1:1",
}


async def in_a_shell(command: str, directory: Path) -> tuple[int | None, str, str]:
    """Run `harkara …` by a shell, which leads its streams elsewhere: its exit status, output and complaints."""
    process = await asyncio.create_subprocess_shell(
        f"exec {shlex.quote(sys.executable)} -m harkara {command}",
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(PYTHONUNBUFFERED="", **NOWHERE),  # as users have it
    )
    out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


@pytest.mark.parametrize("words", ["ops status", "ops status --json", "ops --help"])
async def test_output_that_is_full_is_told_in_a_line(words: str, tmp_path: Path) -> None:
    told = "harkara: the output can't be written: No space left on device: make room, or lead it elsewhere\n"
    assert await in_a_shell(f"{words} >/dev/full", tmp_path) == (2, "", told)


async def test_output_that_is_closed_is_not_complained_of(tmp_path: Path) -> None:
    assert await in_a_shell("ops status <&- >&-", tmp_path) == (1, "", "")
    status, out, _ = await in_a_shell("ops status 2>&-", tmp_path)
    assert (status, "broker does not answer" in out) == (1, True)


async def test_a_pipe_that_nobody_reads_any_more_is_not_complained_of(tmp_path: Path) -> None:
    _, out, err = await in_a_shell("ops status | true", tmp_path)
    assert (out, err) == ("", "")


async def test_a_setting_in_a_dotenv_file_that_does_nothing_is_told_and_refuses_nothing(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOGLEVEL=DEBUG\n")
    status, _, err = await in_a_shell("tenant list", tmp_path)
    remark, refusal = err.splitlines()
    assert "WARNING" in remark
    assert remark.endswith(".env, line 1: there is no setting LOGLEVEL, so it does nothing: is LOG_LEVEL meant?")
    assert (status, "check DATABASE_URL" in refusal) == (2, True)


def groups(group: click.Group) -> Iterator[click.Group]:
    yield group
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        if isinstance(command, click.Group):
            yield from groups(command)


@pytest.mark.parametrize("group", list(groups(main)), ids=lambda group: group.name)
def test_lists_of_commands_say_whole_sentences(group: click.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert "..." not in group.get_help(click.Context(group)).partition("Commands:")[2]


def test_the_help_names_every_actor() -> None:
    told = " ".join((COMMANDS["actor"].help or "").replace(",", " ").replace(".", " ").split())
    assert [name for name in ACTORS if name not in told.split()] == []


@pytest.mark.parametrize("words", COMMANDS)
def test_every_option_says_what_it_is_for(words: str) -> None:
    assert [one.name for one in COMMANDS[words].params if isinstance(one, click.Option) and not one.help] == []
