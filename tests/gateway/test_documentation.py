"""The sandbox's page in docs: every command on it works, and no fault or rule is missing from it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import get_args

from gateway.sandboxes import Caller

from harkara.gateway.sandbox.control import InboundBody
from harkara.gateway.sandbox.faults import Fault, Kind
from harkara.gateway.sandbox.policy import Policy
from harkara.gateway.sandbox.state import Pace

_PAGE = (Path(__file__).parents[2] / "docs" / "sandbox.md").read_text()


async def test_every_command_works(sandbox: Caller) -> None:
    commands = re.findall(r"^curl .*$", _PAGE, re.MULTILINE)
    for command in commands:
        words = shlex.split(command)
        (url,) = [word for word in words if word.startswith("http")]
        method = words[words.index("-X") + 1] if "-X" in words else "GET"
        data = words[words.index("-d") + 1] if "-d" in words else None
        # What curl calls such a body when nothing else is said.
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        said = [words[place + 1].partition(": ") for place, word in enumerate(words) if word == "-H"]
        headers |= {name: value for name, _, value in said}
        status, answer = await sandbox.call(
            method, url.removeprefix("http://127.0.0.1:3001"), data=data, headers=headers
        )
        assert status == 200, (command, answer)
    assert len(commands) >= 8


def test_the_defaults_are_the_ones_named() -> None:
    (pace,) = re.findall(r"/sandbox/pace -d '(.*)'", _PAGE)
    assert Pace(**json.loads(pace)) == Pace()


def test_nothing_is_missing() -> None:
    fields = {*Fault.__struct_fields__, *Policy.__struct_fields__, *InboundBody.__struct_fields__, *get_args(Kind)}
    for name in sorted(fields - {"from_", "fired", "rolled", "username", "kind"}):
        assert f"`{name}`" in _PAGE or f'"{name}"' in _PAGE, name
