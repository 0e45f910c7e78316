"""`harkara ops tail` says whether it hears anything."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import signal
import sys
import termios
from datetime import UTC, datetime, timedelta
from pathlib import Path

import nats
import pytest
from chaos.harness import environment
from nats_server import connected, serving
from support import until

from harkara.bus import headers
from harkara.bus.messages import Outgoing
from harkara.ops.commands import ops
from harkara.ops.tail import read_back
from harkara.schemas.events import MessageSent

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


ID = "01a218c5-35ee-7401-8a40-294d607fbacb.sent"


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
async def test_a_terminal_is_shown_ids_whole_and_as_much_of_a_body_as_it_is_wide(
    more: list[str], tmp_path: Path
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

        async def has_two_lines() -> bool:
            nonlocal shown
            await client.publish("t.acme.evt.message.sent", b'{"id":"%b"}' % (b"x" * 200), headers={headers.ID: ID})
            if select.select([ours], [], [], 0.05)[0]:
                shown += os.read(ours, 10_000)
            return shown.count(b"\n") >= 2

        try:
            await until(has_two_lines, "two lines are shown", LIMIT_S)
        finally:
            process.kill()
            await process.wait()
            os.close(ours)
            await client.close()
    first, second, *_ = shown.decode().splitlines()
    if more:
        assert (len(first) > 200, ID in first) == (True, True)
        return
    assert first.endswith("  t.acme.evt.message.sent")
    assert second.startswith(f"  {ID}  ")
    assert (len(second), second[-1]) == (80, "…")


async def test_what_lies_in_the_streams_has_its_ids(tmp_path: Path) -> None:
    async with serving(tmp_path / "nats") as server, connected(server) as bus:
        await bus.publisher.publish(Outgoing(MessageSent(id="1"), "acme", ID, cause="a request"))
        found = [line async for line in read_back(bus, "t.acme.>", datetime.now(UTC) - timedelta(hours=1))]
    assert [(line.id, line.cause) for line in found] == [(ID, "a request")]


async def test_an_id_as_it_is_shown_can_be_traced(tmp_path: Path) -> None:
    async with serving(tmp_path / "nats") as server, connected(server) as bus:
        await bus.publisher.publish(Outgoing(MessageSent(id=ID.partition(".")[0]), "acme", ID))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "harkara", "ops", "trace", ID, "--json", "--data", str(tmp_path)),
            stdout=asyncio.subprocess.PIPE,
            env=environment(NATS_URL=server.url),
        )
        out, _ = await process.communicate()
    told = json.loads(out)
    assert (told["id"], [one["what"] for one in told["timeline"]]) == (ID.partition(".")[0], ["told: message.sent"])


@pytest.mark.parametrize("subject", ["evt message", "evt..sent", ".evt", ""])
@pytest.mark.parametrize("words", [["tail"], ["replay", "INBOUND", "receipts"]], ids=" ".join)
def test_what_is_no_subject_is_refused(words: list[str], subject: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        ops([*words, "--subject", subject])
    assert ended.value.code == 2
    assert "give a subject such as" in capsys.readouterr().err
