"""How the front door accepts what may stop something: nothing more leaves once it has answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING
from uuid import UUID

from harkara.http.context import database_errors
from harkara.http.problems import Problem, unavailable
from harkara.storage import holding
from harkara.storage.holding import Held, Speakers
from harkara.storage.storage import Storage

if TYPE_CHECKING:
    from harkara.storage.storage import Connection

#: How long an answer waits for a message that has just left: most are answered by WhatsApp within a tenth of it.
PATIENCE = timedelta(seconds=3)

_EVERY_S = 0.02


@asynccontextmanager
async def holding_words(
    storage: Storage, tenant: str, words: Mapping[UUID, Speakers]
) -> AsyncGenerator[Mapping[UUID, Held]]:
    """Hold the contacts who say something, each by its word, while the words are stored; given up if that fails.

    Raises Problem 503 if the database is away, or if a message to one of them is still in the air at the end.
    """
    with database_errors():
        async with storage.batch((tenant,)) as con:
            contacts = {word: await holding.who(con, tenant, speakers) for word, speakers in words.items()}
            everybody = list(chain(*contacts.values()))
            if everybody:
                await holding.exclude(con, everybody)  # all at once, and so in one order
            held = {word: await holding.hold(con, tenant, word, them) for word, them in contacts.items() if them}
    try:
        yield held
    except BaseException:
        for word, them in held.items():
            await not_accepted(storage, tenant, word, them)
        raise
    await landed(lambda: storage.batch((tenant,)), tenant, everybody)


async def not_accepted(storage: Storage, tenant: str, word: UUID, held: Held) -> None:
    """Take back what was held for a word that is not accepted, or was done before."""
    if held.new:
        with suppress(Problem), database_errors():  # then they are held until it expires
            async with storage.batch((tenant,)) as con:
                await holding.give_up(con, tenant, word, held.new)


async def landed(
    transaction: Callable[[], AbstractAsyncContextManager[Connection]], tenant: str, contacts: Sequence[UUID]
) -> None:
    """Wait until no message to these contacts is in the air. Raises Problem 503 if that takes too long."""
    deadline = asyncio.get_running_loop().time() + PATIENCE.total_seconds()
    while contacts:
        with database_errors():
            async with transaction() as con:
                if not await holding.in_the_air(con, tenant, contacts):
                    return
        if asyncio.get_running_loop().time() > deadline:
            raise unavailable("WhatsApp, whose answer to a message that has just left is awaited,", retry_after_s=5)
        await asyncio.sleep(_EVERY_S)
