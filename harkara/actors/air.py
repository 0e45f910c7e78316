"""How many requests each number has in the air: all numbers of a process share its connections to the gateways."""

from __future__ import annotations

from collections.abc import Callable

#: The gateways' clients keep so many connections (`Exchange`).
CONNECTIONS = 1000

#: So many a number may always have in the air, however many others do.
FEW = 8


class Air:
    """Leaves room for others: a number may have half as many requests in the air as there are connections free.

    So one whose gateway takes long has at most a third of them, and of several the last one leaves some too: what a
    number must wait for is its own gateway, and never a connection that another's requests hang on.
    """

    def __init__(self, connections: int = CONNECTIONS) -> None:
        self._free = connections
        self._of: dict[str, int] = {}
        self._waiting: dict[str, Callable[[], None]] = {}

    def room(self, sender_id: str) -> int:
        """How many requests more a number may make now."""
        return max(FEW, self._free // 2) - self._of.get(sender_id, 0)

    def wait(self, sender_id: str, call: Callable[[], None]) -> None:
        """Call this, once, when the next request of this number has landed."""
        self._waiting[sender_id] = call

    def took_off(self, sender_id: str) -> None:
        """A request of this number's leaves; `landed` must follow."""
        self._free -= 1
        self._of[sender_id] = self._of.get(sender_id, 0) + 1

    def landed(self, sender_id: str) -> None:
        """It was answered, or nobody waits for that any more."""
        self._free += 1
        if left := self._of.pop(sender_id) - 1:
            self._of[sender_id] = left
        if call := self._waiting.pop(sender_id, None):
            call()
