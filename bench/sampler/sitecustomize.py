"""Samples the process that Python starts with this directory on its path: where its CPU time goes, part by part.

Python runs this module by itself at every start; it does something only if PROFILE_OUT names a file, to which the
shares are written as JSON when the process ends.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
from collections import Counter
from pathlib import Path
from types import FrameType

#: CPU seconds between samples.
EVERY_S = 0.001

#: Where a sample belongs: to the first of these that a file on its stack is in, from the innermost frame outwards.
PARTS = (
    ("importlib", "starting"),
    ("/aiohttp/", "HTTP client"),
    ("/harkara/gateway/", "what the gateway is told and answers"),
    ("/asyncpg/", "database driver"),
    ("/harkara/storage/", "statements and their rows"),
    ("/redis/", "budgets"),
    ("/harkara/actors/budget", "budgets"),
    ("/harkara/policy/gate", "gate"),
    ("/harkara/policy/", "gate"),
    ("/harkara/templating", "what the message says"),
    ("/harkara/rendering", "what the message says"),
    ("/harkara/actors/steps", "what the message says"),
    ("/harkara/actors/", "the sender itself, with its events"),
    ("/harkara/batching", "the sender itself, with its events"),
    ("/nats/", "broker: connection"),
    ("/harkara/bus/", "broker: deliveries, settling, publishing"),
    ("", "event loop"),
)

_shares: Counter[str] = Counter()


def _sample(_: int, frame: FrameType | None) -> None:
    best = len(PARTS) - 1
    while frame is not None:
        file = frame.f_code.co_filename
        if "importlib" in file:
            best = 0
            break
        if best == len(PARTS) - 1:
            best = next(place for place, (mark, _) in enumerate(PARTS) if mark in file)
        frame = frame.f_back
    _shares[PARTS[best][1]] += 1


def _write(path: str) -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)
    _shares.pop("starting", None)
    Path(path).write_text(json.dumps(_shares.most_common()))


if path := os.environ.get("PROFILE_OUT"):
    signal.signal(signal.SIGPROF, _sample)
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
    atexit.register(_write, path)
