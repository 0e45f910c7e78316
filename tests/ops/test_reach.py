"""Beside a `harkara up` commands find its servers; beside one that is gone they say so."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from chaos.harness import environment

from harkara.ops.reach import FILE, filled, told
from harkara.settings import DOTENV, load

URL = "nats://127.0.0.1:1"

#: What `harkara up` does while it runs.
UP = f"""
import sys, time
from pathlib import Path
from harkara.ops.reach import told
from harkara.settings import load

with told(load({{"NATS_URL": "{URL}"}}), Path(sys.argv[1])):
    print("ready", flush=True)
    time.sleep(3600)
"""


def test_one_that_runs_is_found_by_all_who_ask_at_once(tmp_path: Path) -> None:
    with told(load({"NATS_URL": URL}), tmp_path):
        assert [filled(load({}), tmp_path).nats_url for _ in range(2)] == [URL, URL]
    assert not filled(load({}), tmp_path).nats_url


def test_what_the_dotenv_file_names_goes_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("NATS_URL=nats://elsewhere:4222\n")
    with told(load({"NATS_URL": URL, "REDIS_URL": "redis://127.0.0.1:1"}), tmp_path):
        found = filled(load({}, dotenv=DOTENV), tmp_path)
    assert (found.nats_url, found.redis_url) == ("nats://elsewhere:4222", "redis://127.0.0.1:1")


def test_who_joins_in_goes_as_fast(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with told(load({}, speed=3600.0), tmp_path):
        assert filled(load({}), tmp_path).speed == 3600.0
        monkeypatch.setenv("SPEED", "2")
        assert filled(load(), tmp_path).speed == 2.0


async def test_one_that_was_killed_is_no_longer_believed_and_the_next_is(tmp_path: Path) -> None:
    up = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", UP, str(tmp_path)), stdout=asyncio.subprocess.PIPE, env=environment()
    )
    try:
        assert up.stdout is not None
        assert await up.stdout.readline() == b"ready\n"
        assert filled(load({}), tmp_path).nats_url == URL
    finally:
        up.kill()
        await up.wait()
    assert (tmp_path / FILE).exists()
    status = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "harkara", "ops", "status", "--data", str(tmp_path)),
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    _, err = await status.communicate()
    assert f"no `harkara up` runs on {tmp_path}: start it" in err.decode()
    with told(load({"NATS_URL": URL}), tmp_path):
        assert filled(load({}), tmp_path).nats_url == URL
