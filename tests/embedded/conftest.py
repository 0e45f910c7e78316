"""A data directory that was used and closed, and what is logged."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from embedded.support import fill
from loguru import logger
from support import quick_directory

from harkara.embedded.stack import Stack


@pytest.fixture(scope="session")
async def used() -> AsyncIterator[Path]:
    """A data directory with one row and one message, its servers stopped. To be copied, never opened."""
    with quick_directory() as directory:
        async with Stack(directory / "data") as urls:
            await fill(urls)
        yield directory / "data"


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Where a test's own stack keeps its data: pytest's own directory of this name, only quicker."""
    with quick_directory() as directory:
        yield directory


@pytest.fixture
def data(used: Path, tmp_path: Path) -> Path:
    """A copy of the used data directory."""
    copy = tmp_path / "data"
    shutil.copytree(used, copy, ignore=shutil.ignore_patterns("run"))
    return copy


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """What is logged during the test, one line each."""
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), format="{level} {message}", level="DEBUG")
    yield lines
    logger.remove(sink)
