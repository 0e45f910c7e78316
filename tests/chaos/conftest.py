"""Platforms to be broken, a seed that is told, and a way to tell what was measured."""

from __future__ import annotations

import os
import random
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from chaos.harness import Platform, running
from support import Tell, quick_directory

#: All kinds of faults at the gateway, each at its rate.
WEATHER: list[dict[str, Any]] = [
    {"kind": "drop", "rate": 0.01},
    {"kind": "hang", "rate": 0.002},
    {"kind": "http_5xx", "rate": 0.01},
    {"kind": "http_5xx", "rate": 0.01, "accept": True},
    {"kind": "error", "code": 130429, "rate": 0.003},
    {"kind": "error", "code": 131000, "rate": 0.02},
    {"kind": "error", "code": 131026, "rate": 0.005},
    {"kind": "failed", "code": 131049, "rate": 0.01},
    {"kind": "slow", "delay_ms": 300, "rate": 0.05},
    # One status of each message gets through in the end, or else nobody could ever know its fate.
    {"kind": "webhook_lost", "rate": 0.1, "status": "sent"},
    {"kind": "webhook_lost", "rate": 0.1, "status": "read"},
    {"kind": "webhook_duplicated", "rate": 0.05, "delay_ms": 400},
    {"kind": "webhook_reordered", "rate": 0.05, "delay_ms": 700},
]

#: 24 hours become this many seconds.
DAY_S = 6.0
SPEED = 24 * 3600 / DAY_S


@pytest.fixture
def dice(tell: Tell) -> random.Random:
    """What makes the moments random; HARKARA_CHAOS_SEED repeats a run."""
    seed = int(os.environ.get("HARKARA_CHAOS_SEED") or secrets.randbits(32))
    tell(f"HARKARA_CHAOS_SEED={seed}")
    return random.Random(seed)


@pytest.fixture
def weather(dice: random.Random) -> list[dict[str, Any]]:
    """Faults for the gateway, the same again for the same seed."""
    return [fault | {"seed": dice.randrange(2**31)} for fault in WEATHER]


@pytest.fixture
async def platform() -> AsyncIterator[Platform]:
    """`harkara up`, ready, for one test alone."""
    with quick_directory() as directory:
        async with running(directory, speed=SPEED) as platform:
            yield platform


@pytest.fixture(scope="module")
async def standing() -> AsyncIterator[Platform]:
    """`harkara up`, which stays up while parts of it are broken: each test has a tenant of its own."""
    with quick_directory() as directory:
        async with running(directory, speed=SPEED) as platform:
            yield platform
