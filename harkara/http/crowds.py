"""How many large webhooks one tenant may have stored at once: no more than can be read in a minute, by and large.

One is always taken by whoever owes nothing, however much it says. What is refused is sent again by the gateway, later.
Each front door counts by itself: this keeps the queue short for the others, and need not be exact.
"""

from __future__ import annotations

import time
from collections.abc import Callable

#: For so long a part is taken to be read, and so much of that may be owed.
PART_S = 0.1
OWED_S = 60.0

#: So many tenants are remembered before those who owe nothing are forgotten.
_REMEMBERED = 10_000


class Crowds:
    """When each tenant's parts will have been read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._read_at: dict[str, float] = {}

    def wait_s(self, tenant: str, parts: int) -> float:
        """For how many seconds a webhook of so many parts must wait; 0 if it may be stored, which is counted."""
        now = self._clock()
        read_at = max(self._read_at.get(tenant, 0.0), now)
        if read_at - now > OWED_S:
            return read_at - now - OWED_S
        self._read_at[tenant] = read_at + parts * PART_S
        if len(self._read_at) > _REMEMBERED:
            self._read_at = {one: at for one, at in self._read_at.items() if at > now}
        return 0.0
