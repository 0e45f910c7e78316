"""The database commits and its answer is lost: nothing comes into doubt, and nothing is left untold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from enrolled import Enrolled, enrolled
from loguru import logger
from support import Database, NewTenant

from harkara.actors.numbers import Number
from harkara.actors.sender import Sender
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Done, Outcome, Retry
from harkara.gateway.protocol import Accepted, Credentials
from harkara.schemas.work import Send
from harkara.storage import sending
from harkara.storage.models import Message
from harkara.storage.storage import Storage


class Unheard(Storage):
    """A database whose connection breaks at the end of some transactions: before they are committed, or after."""

    #: How often it breaks after a commit, and how often before one.
    after, before = 0, 0

    @asynccontextmanager
    async def batch(self, of: Iterable[str], *more: str) -> AsyncGenerator[Any]:
        async with super().batch(of, *more) as con:
            yield con
            if self.before:
                self.before -= 1
                raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle\nDETAIL:  of operation")
        if self.after:
            self.after -= 1
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")


class World:
    """All that the sender works with: a number with room, a gateway that takes everything, a database that breaks."""

    def __init__(self, storage: Unheard, *, at_intent: str = "", at_result: str = "") -> None:
        self.storage, self.at_intent, self.at_result = storage, at_intent, at_result
        self.taken = 0

    async def get(self, tenant: str, sender_id: str) -> Number:
        return Number(Credentials(sender_id=sender_id, phone_number_id="1", access_token="t"), 80)

    async def acquire(self, *_: Any) -> None:
        """The last that happens before the intent."""
        self._break(self.at_intent)

    async def away(self, *_: Any) -> None:
        pass

    def give_back(self, _: str) -> None:
        pass

    async def send(self, *_: Any, **__: Any) -> Accepted:
        """The last that happens before the result."""
        self.taken += 1
        self._break(self.at_result)
        return Accepted("wamid.1")

    def _break(self, when: str) -> None:
        if when:
            setattr(self.storage, when, 1)


@pytest.fixture
async def unheard(database: Database) -> AsyncGenerator[Unheard]:
    opened = Unheard(database.app_url, pool=4)
    await opened.open()
    yield opened
    await opened.close()


def _sender(world: World) -> Sender:
    parts: Any = world
    return Sender(world.storage, parts, parts, parts, lambda: None)


async def _send(world: World, one: Enrolled, actor: Sender | None = None) -> Outcome:
    actor, now = actor or _sender(world), datetime.now(UTC)
    delivery: Delivery[Send] = Delivery(one.work(), one.tenant, "id", "cause", 1, "subject", "SEND", 1, now, 1)
    (outcome,) = await actor.handle([delivery])
    return outcome


async def _is_done(world: World, one: Enrolled, outcome: Outcome) -> None:
    """Fail unless the message was sent once, all is written, and all is told."""
    assert isinstance(outcome, Done), outcome
    assert [type(event.message).__name__ for event in outcome.events] == ["MessageSent", "EnrollmentCompleted"]
    assert world.taken == 1
    row = await one.row(world.storage)
    assert (row.status, row.messages_sent) == ("completed", 1)


async def test_an_intent_that_was_written_unheard_is_carried_out(unheard: Unheard, new_tenant: NewTenant) -> None:
    one, world = await enrolled(unheard, await new_tenant()), World(unheard, at_intent="after")
    await _is_done(world, one, await _send(world, one))


async def test_an_intent_that_was_not_written_is_tried_again(unheard: Unheard, new_tenant: NewTenant) -> None:
    one, world = await enrolled(unheard, await new_tenant()), World(unheard, at_intent="before")
    with pytest.raises(asyncpg.ConnectionDoesNotExistError):
        await _send(world, one)
    assert world.taken == 0
    async with unheard.tenant(one.tenant):
        assert not await Message.filter(id=one.message).exists()
    world.at_intent = ""
    await _is_done(world, one, await _send(world, one))


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_result_is_written_and_told_whole(unheard: Unheard, new_tenant: NewTenant, when: str) -> None:
    one, world = await enrolled(unheard, await new_tenant()), World(unheard, at_result=when)
    await _is_done(world, one, await _send(world, one))


async def test_an_outage_is_told_once_for_all_results_that_wait_for_its_end(
    unheard: Unheard, new_tenant: NewTenant
) -> None:
    class Crowd(World):
        left = asyncio.Event()

        async def send(self, *_: Any, **__: Any) -> Accepted:
            self.taken += 1
            if self.taken == len(all_):
                self.storage.before = 3 * len(all_)
                self.left.set()
            await self.left.wait()
            return Accepted(f"wamid.{self.taken}")

    all_ = [await enrolled(unheard, await new_tenant()) for _ in range(4)]
    world, lines = Crowd(unheard), list[str]()
    actor = _sender(world)
    sink = logger.add(lambda line: lines.append(str(line).strip()), format="{message}", level="WARNING")
    try:
        outcomes = await asyncio.gather(*(_send(world, one, actor) for one in all_))
        assert all(isinstance(outcome, Done) for outcome in outcomes)
    finally:
        logger.remove(sink)
    assert unheard.before == 0
    assert lines == [
        "the database is away (connection was closed in the middle): results of messages are kept, and written once it"
        " is there"
    ]
    assert {(await one.row(unheard)).status for one in all_} == {"completed"}


async def test_a_number_that_is_held_for_long_fails_nothing(unheard: Unheard, new_tenant: NewTenant) -> None:
    class Held(World):
        async def acquire(self, *_: Any) -> None:
            raise TimeoutError("its turn has not come")

        async def away(self, *_: Any) -> None:
            pass

        def give_back(self, _: str) -> None:
            pass

    one, world = await enrolled(unheard, await new_tenant()), Held(unheard)
    outcome = await _send(world, one)
    assert isinstance(outcome, Retry)
    assert not outcome.counts
    assert world.taken == 0


async def test_work_that_comes_again_is_told_again_and_not_done(unheard: Unheard, new_tenant: NewTenant) -> None:
    one, world = await enrolled(unheard, await new_tenant()), World(unheard)
    first, second = await _send(world, one), await _send(world, one)
    assert isinstance(first, Done)
    assert second == first
    await _is_done(world, one, second)


async def test_the_end_of_a_transaction_can_be_asked_for(unheard: Unheard, new_tenant: NewTenant) -> None:
    tenant, ask = await new_tenant(), "select pg_current_xact_id()::text"

    async def there(_: Any) -> bool:
        return True

    async def gone(_: Any) -> bool:
        return False

    async with unheard.anonymous() as con:
        kept = await con.fetchval(ask)
    async with unheard.anonymous() as con:
        lost = await con.fetchval(ask)
        await con.execute("rollback")
    assert await unheard.committed(kept, tenant, there)
    assert not await unheard.committed(kept, tenant, gone)
    assert not await unheard.committed(lost, tenant, there)
    assert not await unheard.committed(str(2**40), tenant, there)  # one that a crash has made the server forget


async def test_another_transaction_of_the_same_number_is_none_of_ours(
    unheard: Unheard, new_tenant: NewTenant, admin: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a crash the number of what was lost is given away: whoever has it then is committed, and we are not."""
    one, world = await enrolled(unheard, await new_tenant()), World(unheard, at_intent="before")
    intend, numbers = sending.intend, list[str]()

    async def renumbered(con: Any, intents: Any) -> tuple[set[UUID], str | None]:
        written, _ = await intend(con, intents)
        numbers.append(await admin.fetchval("select pg_current_xact_id()::text"))
        return written, numbers[-1]

    with monkeypatch.context() as patched:
        patched.setattr(sending, "intend", renumbered)
        with pytest.raises(asyncpg.ConnectionDoesNotExistError):
            await _send(world, one)
    assert numbers
    assert world.taken == 0, "it left without an intent"
    world.at_intent = ""
    await _is_done(world, one, await _send(world, one))
