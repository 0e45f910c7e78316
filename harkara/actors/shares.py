"""How much of one tenant's is taken in at once, so that nobody waits for all of it: part of the receipts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import timedelta

from harkara.bus.outcomes import Retry
from harkara.gateway.parts import MOST, SAID, TOLD
from harkara.gateway.told import Webhook

#: How long something said takes, in seconds, until it is known; and what is believed of it at most.
_TAKES_S, _TAKES_AT_MOST_S = 0.005, 0.1

#: So many tenants are remembered before those whose turns have come are forgotten.
_REMEMBERED = 10_000


def weight(webhooks: Iterable[Webhook]) -> int:
    """What a webhook's taking in costs, in the measure of `gateway/parts.py`."""
    return sum(
        SAID * (len(one.messages) + len(one.preferences) + len(one.echoes)) + TOLD * len(one.statuses)
        for one in webhooks
    )


class Shares:
    """Puts off what is more than a tenant's share of a batch: each until its turn, by how long such things take.

    What somebody says right now comes alone, and is never put off. What is put off is overtaken; that changes nothing,
    as words, replies and statuses go by their own times.
    """

    def __init__(self) -> None:
        self._turns: dict[str, float] = {}
        self._takes_s = _TAKES_S

    def put_off(self, webhooks: Sequence[tuple[str, int]], now: float) -> dict[int, Retry]:
        """By place, those of (tenant, weight) that wait. `now` is seconds of any steady clock."""
        taken, later = Counter[str](), dict[int, Retry]()
        for place, (tenant, heavy) in enumerate(webhooks):
            if heavy <= SAID or not taken[tenant] or taken[tenant] + heavy <= MOST:
                taken[tenant] += heavy
                continue
            turn = max(self._turns.get(tenant, 0.0), now) + heavy / SAID * self._takes_s
            self._turns[tenant] = turn
            later[place] = Retry(
                "its tenant has more to be read than its share", timedelta(seconds=turn - now), counts=False, park=True
            )
        if len(self._turns) > _REMEMBERED:
            self._turns = {tenant: turn for tenant, turn in self._turns.items() if turn > now}
        return later

    def took(self, heavy: int, seconds: float) -> None:
        """Learn from a batch how long such things take; little says little."""
        if heavy >= MOST // 2:
            self._takes_s = min(seconds / heavy * SAID, _TAKES_AT_MOST_S)
