"""People who ask for codes all the time, whatever happens; those who were answered 202 must get theirs, once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from itertools import cycle
from typing import Any

from aiohttp import ClientError
from chaos.harness import PATIENCE, Tenant, a_phone


class Customers:
    """They ask at each of one tenant's front doors in turn."""

    def __init__(self, doors: Sequence[Tenant], sender: str, every_s: float = 0.1) -> None:
        self._doors, self._sender, self._every_s = doors, sender, every_s
        self.answered: list[str] = []
        #: When each of these was answered, on this machine's clock.
        self.at: list[float] = []

    async def ask_for_ever(self) -> None:
        """Until cancelled."""
        for door in cycle(self._doors):
            await asyncio.sleep(self._every_s)
            wanted = {"sender_id": self._sender, "to": a_phone(), "body": "Your code is 4711", "lane": "otp"}
            with contextlib.suppress(ClientError, OSError):
                status, answer = await door.ask("POST", "/messages", wanted, timeout=PATIENCE)
                assert status in (202, 503), answer
                if status == 202:
                    self.answered.append(answer["id"])
                    self.at.append(time.time())

    def check(self, accepted: list[dict[str, Any]], unknown: set[str]) -> None:
        """Fail unless everybody got one message, or one that is known to be in doubt."""
        got = Counter(one["biz_opaque_callback_data"] for one in accepted)
        assert got, "nobody has got a code"
        assert max(got.values()) == 1, "a code was sent twice"
        lost = {id_ for id_ in self.answered if id_ not in got and id_ not in unknown}
        assert not lost, f"{len(lost)} codes were promised and never sent"
