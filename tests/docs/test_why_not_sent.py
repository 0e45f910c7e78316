"""The block about invoices, run as it stands there, against a platform of the test's own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from chaos.harness import new_tenant, running
from support import quick_directory, until

PAGE = Path(__file__).parents[2] / "docs" / "why-not-sent.md"

TESTED = re.compile(r"<!-- tested: [^>]*-->\n```sh\n(.*?)```", re.DOTALL)


def knows_tomorrow() -> bool:
    """Whether this shell's `date` is GNU's."""
    date = shutil.which("date")
    return date is not None and subprocess.run([date, "-d", "+1 day"], capture_output=True, check=False).returncode == 0


@pytest.mark.skipif(not knows_tomorrow(), reason="the block is for a GNU shell")
async def test_an_invoice_is_reminded_of_and_paid_as_the_page_says() -> None:
    [text] = TESTED.findall(PAGE.read_text("utf-8"))
    with quick_directory() as directory:
        async with running(directory) as platform:
            tenant = await new_tenant(platform.session, platform.url)
            key = (await tenant.post("/api-keys", {}))["key"]
            text = re.sub(r"^KEY=.*$", f"KEY={key}", text, flags=re.MULTILINE)
            shell = await asyncio.create_subprocess_exec(
                *("bash", "-eo", "pipefail", "-c", text.replace("http://127.0.0.1:3000", platform.url)),
                env=dict(os.environ),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            out, _ = await shell.communicate()
            assert shell.returncode == 0, out.decode()
            answers = [json.loads(line) for line in out.decode().splitlines()]
            assert [one for one in answers if one.get("status", 200) in range(400, 600)] == []
            paid, enrollments, _, message = answers[-4:]
            assert (paid["number"], paid["status"]) == ("2026-0042", "paid")
            assert {one["stopped_reason"] for one in enrollments["items"]} <= {"invoice_paid"}

            async def says_why() -> bool:
                told = await tenant.get(f"/messages/{message['id']}")
                return (told["status"], (told.get("why") or {}).get("code")) == ("queued", "invoice_paid")

            await until(says_why, "what waits for its time says that it will not leave")
