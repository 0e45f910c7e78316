"""After a request: what became of messages is written in batches, however long the database is away."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from loguru import logger

from harkara.batching import Batcher
from harkara.storage import counting, sending
from harkara.storage.sending import Elsewhere, Result
from harkara.storage.storage import Storage, is_away, reason_of

#: What the results say of messages that WhatsApp provably did not take: for good, or this time.
NOT_TAKEN = frozenset({"failed", "queued"})


class Results:
    """Writes results, and moves enrolments on with them."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        #: The messages whose results wait for the database.
        self._kept = set[UUID]()
        self._finish: Batcher[Result, bool | Elsewhere] = Batcher(self._finish_batch)

    async def write(self, result: Result) -> bool | Elsewhere:
        """Write a result however long it takes: forgetting it would leave the message in doubt.

        Returns whether its enrolment has ended with it, or where it waits for the message now.
        """
        wait = 0.05
        try:
            while True:
                try:
                    return await self._finish(result)
                except Exception as error:
                    if not is_away(error):
                        raise
                    if not self._kept:  # once for all that wait
                        logger.warning(
                            "the database is away ({}): results of messages are kept, and written once it is there",
                            reason_of(error),
                        )
                    self._kept.add(result.message_id)
                    await asyncio.sleep(wait)
                    wait = min(wait * 2, 2.0)
        finally:
            self._kept.discard(result.message_id)

    async def _finish_batch(self, results: Sequence[Result]) -> list[bool | Elsewhere]:
        """Write results; the answer to each is whether its enrolment has ended with it."""
        async with self._storage.batch({result.tenant for result in results}) as con:
            if not_taken := [(r.message_id, r.tenant) for r in results if r.status in NOT_TAKEN and not r.resent]:
                await counting.give_back(con, not_taken)
            ended, elsewhere = await sending.finish(con, results)
        return [
            False if result.advance is None else elsewhere.get(id_ := result.advance.enrollment_id, id_ in ended)
            for result in results
        ]
