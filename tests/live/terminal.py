"""The operator's command line, as somebody at a terminal runs it."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from chaos.harness import Platform, environment


async def ops(live: Platform, *arguments: str, **environ: str) -> tuple[int, str, str]:
    """Run `harkara ops …` as somebody at a terminal would; its exit status, output and complaints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "harkara", "ops", *arguments, "--data", str(live.data)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(**environ),
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def told(live: Platform, *arguments: str, **environ: str) -> Any:
    """The same for machines; on a busy one the broker may not let it in in time, and it is run again."""
    for _ in range(3):
        status, out, err = await ops(live, *arguments, "--json", **environ)
        if status in (0, 1):
            return json.loads(out)
    raise AssertionError(err)
