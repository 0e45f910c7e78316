"""A platform that is told to stop before it is ready: it takes down what it has begun, and nothing is spoilt."""

from __future__ import annotations

from functools import partial

from chaos.harness import Platform
from support import quick_directory, until


async def test_what_is_told_to_stop_while_it_starts_stops() -> None:
    with quick_directory() as directory:
        platform = Platform(directory, LOG_LEVEL="DEBUG")

        def says(moment: str, before: int) -> bool:
            return moment in platform.process.output()[before:]

        try:
            before = 0
            for moment in ("migrated: 0001", "at work"):
                await platform.process.spawn()
                await until(partial(says, moment, before), f"{moment!r}", 60, every=0.002)
                assert await platform.process.stop() == 0, platform.process.output()
                assert "Traceback" not in platform.process.output()
                before = len(platform.process.output())
            await platform.start()
        finally:
            await platform.close()
