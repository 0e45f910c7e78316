"""`harkara ops tail` says whether it hears anything."""

from __future__ import annotations

import asyncio
import os
import pty
import select
import signal
import sys
import termios
from pathlib import Path

import nats
import pytest
from chaos.harness import environment
from nats_server import serving
from support import until

from harkara.ops.commands import ops

LIMIT_S = 60


async def test_it_says_that_the_broker_went_away_and_that_it_is_there_again(tmp_path: Path) -> None:
    async with serving(tmp_path / "nats") as server:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "harkara", "ops", "tail", "--data", str(tmp_path)),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(NATS_URL=server.url),
        )
        assert process.stderr is not None
        async with asyncio.timeout(LIMIT_S):
            first = (await process.stderr.readline()).decode()
            server.kill()
            lost = (await process.stderr.readline()).decode()
            await server.start()
            found = (await process.stderr.readline()).decode()
            process.send_signal(signal.SIGINT)
            assert await process.wait() == 0
    assert first == "harkara: listening to t.*.>; Ctrl-C ends it\n"
    assert lost.startswith("harkara: the broker is away: waiting for it")
    assert found.startswith("harkara: the broker is there again")


@pytest.mark.parametrize(("more", "whole"), [([], False), (["--json"], True)], ids=["text", "json"])
async def test_a_terminal_is_shown_as_much_of_a_line_as_it_is_wide(
    more: list[str], whole: bool, tmp_path: Path
) -> None:
    ours, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    async with serving(tmp_path / "nats") as server:
        client = await nats.connect(server.url)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "harkara", "ops", "tail", "--data", str(tmp_path), *more),
            stdout=terminal,
            stderr=asyncio.subprocess.DEVNULL,
            env=environment(NATS_URL=server.url, COLUMNS="0"),
        )
        os.close(terminal)
        shown = b""

        async def has_a_line() -> bool:
            nonlocal shown
            await client.publish("t.acme.evt.message.sent", b'{"id":"%b"}' % (b"x" * 200))
            if select.select([ours], [], [], 0.05)[0]:
                shown += os.read(ours, 10_000)
            return b"\n" in shown

        try:
            await until(has_a_line, "a line is shown", LIMIT_S)
        finally:
            process.kill()
            await process.wait()
            os.close(ours)
            await client.close()
    line = shown.decode().splitlines()[0]
    assert "t.acme.evt.message.sent" in line
    assert (len(line) > 200) if whole else (len(line) == 80 and line.endswith("…"))


@pytest.mark.parametrize("subject", ["evt message", "evt..sent", ".evt", ""])
@pytest.mark.parametrize("words", [["tail"], ["replay", "INBOUND", "receipts"]], ids=" ".join)
def test_what_is_no_subject_is_refused(words: list[str], subject: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        ops([*words, "--subject", subject])
    assert ended.value.code == 2
    assert "give a subject such as" in capsys.readouterr().err
