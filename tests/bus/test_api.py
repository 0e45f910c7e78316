"""Asking JetStream while its servers have no leader."""

from __future__ import annotations

import pytest

from harkara.bus.api import patiently
from harkara.bus.errors import Unavailable


class Broker:
    """Has no leader the first so many times it is asked."""

    def __init__(self, without: int) -> None:
        self.without = without

    async def ask(self) -> str:
        self.without -= 1
        if self.without >= 0:
            raise Unavailable(f"no leader, {self.without} more times")
        return "taken"


async def test_what_nobody_takes_during_an_election_is_asked_again() -> None:
    assert await patiently(Broker(2).ask, 20) == "taken"


async def test_without_patience_it_is_asked_once() -> None:
    broker = Broker(2)
    with pytest.raises(Unavailable, match="1 more times"):
        await patiently(broker.ask, 0)
    assert broker.without == 1
