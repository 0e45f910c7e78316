"""The operator's command line, as somebody at a terminal runs it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from chaos.harness import Platform, environment

#: What it complains of if the broker is too busy to let it in: then it has done nothing.
_TOO_BUSY = "no NATS server answers"


async def ops(live: Platform, *arguments: str, **environ: str) -> tuple[int, str, str]:
    """Run `harkara ops …` as somebody at a terminal would; its exit status, output and complaints.

    On a busy machine the broker may not let it in within its three seconds: then it is run again.
    """
    for _ in range(3):
        status, out, err = await _once(live, arguments, environ)
        if _TOO_BUSY not in err:
            break
    return status, out, err


async def _once(live: Platform, arguments: Sequence[str], environ: Mapping[str, str]) -> tuple[int, str, str]:
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
    """The same for machines."""
    status, out, err = await ops(live, *arguments, "--json", **environ)
    assert status in (0, 1), err
    return json.loads(out)
