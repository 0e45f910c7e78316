"""Messages that wait while their contact becomes another's, or gets another number."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from enrolled import Enrolled, enrolled
from support import NewTenant, waited_for

from harkara.actors.numbers import Number
from harkara.actors.sender import Sender
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Done, Outcome
from harkara.gateway.errors import rule_for
from harkara.gateway.protocol import Accepted, Answer, Credentials, Refused
from harkara.ids import uuid7
from harkara.schemas.content import Content
from harkara.schemas.work import Send
from harkara.storage import holding, merging, sending
from harkara.storage.models import Contact, Message
from harkara.storage.sending import Intent
from harkara.storage.storage import Storage

PHONE = "+919876543210"
ELSEWHERE = "+14155550100"


@dataclass
class World:
    """One contact, the sender, and a gateway that takes everything, or answers as it was told."""

    storage: Storage
    one: Enrolled
    answers: list[Answer] = field(default_factory=list[Answer])
    sent_to: list[str] = field(default_factory=list[str])

    async def get(self, *_: Any) -> Number:
        return Number(Credentials(sender_id="1", phone_number_id="1", access_token="t"), 80)

    async def acquire(self, *_: Any) -> None:
        return None

    async def away(self, *_: Any) -> None:
        pass

    def give_back(self, _: str) -> None:
        pass

    async def send(self, _: Credentials, to: str, *__: Any, **___: Any) -> Answer:
        self.sent_to.append(to)
        return self.answers.pop(0) if self.answers else Accepted(f"wamid.{uuid4()}")

    async def queued(self, **changed: Any) -> Send:
        """A message to the contact that waits for its turn, and its work."""
        work = Send(
            message_id=str(uuid7()),
            sender_id=str(self.one.sender),
            lane="utility",
            contact_id=str(self.one.contact),
            to=PHONE,
            due_at=datetime.now(UTC),
            content=Content(body="Hello"),
        )
        work = msgspec.structs.replace(work, **changed)
        async with self.storage.tenant(self.one.tenant):
            await Message.create(
                id=work.message_id, contact_id=work.contact_id, sender_id=work.sender_id, lane=work.lane, to=work.to,
                content={"body": "Hello"}, status="queued", due_at=work.due_at,
            )  # fmt: skip
        return work

    async def delivers(self, work: Send) -> Outcome:
        """What becomes of a message when its work comes."""
        parts: Any = self
        d = Delivery(work, self.one.tenant, "id", "cause", 1, "subject", "SEND", 1, datetime.now(UTC), 1)
        (outcome,) = await Sender(self.storage, parts, parts, parts, lambda: None).handle([d])
        return outcome

    async def merged(self, **other: Any) -> UUID:
        """The contact becomes part of another one; who that is."""
        kept = uuid7()
        async with self.storage.tenant(self.one.tenant):
            await Contact.create(id=kept, name="Asha R.", opted_in_at=datetime.now(UTC), **other)
        async with self.storage.batch((self.one.tenant,)) as con:
            both = await merging.lock(con, self.one.tenant, [kept, self.one.contact])
            await merging.merge(con, self.one.tenant, both[kept], both[self.one.contact])
        return kept

    async def told_later(self) -> list[tuple[str, Any]]:
        """What the outbox says: what happened, and its body."""
        async with self.storage.tenant(self.one.tenant) as con:
            rows = await con.fetch("select subject, body::text from outbox order by id")
        return [(row[0].rpartition(".evt.")[2], msgspec.json.decode(row[1])) for row in rows]

    async def row(self, work: Send) -> Message:
        async with self.storage.tenant(self.one.tenant):
            return await Message.get(id=work.message_id)


@pytest.fixture
async def world(storage: Storage, new_tenant: NewTenant) -> World:
    return World(storage, await enrolled(storage, await new_tenant()))


async def test_a_stop_of_who_was_merged_waits_for_a_gate_that_looks(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = await world.queued()
    kept = await world.merged(phone=ELSEWHERE)
    holds, intend = list[asyncio.Task[Any]](), sending.intend

    async def hold() -> bool:
        async with world.storage.batch((world.one.tenant,)) as con:
            await holding.hold(con, world.one.tenant, uuid4(), [kept])
            return await holding.in_the_air(con, world.one.tenant, [kept])

    async def intends(con: Any, intents: Sequence[Intent]) -> Any:
        """Between looking and writing somebody says STOP."""
        holds.append(asyncio.create_task(hold()))
        await waited_for(con, *holds)
        return await intend(con, intents)

    monkeypatch.setattr(sending, "intend", intends)
    assert isinstance(await world.delivers(work), Done)
    await asyncio.gather(*holds)
    assert len(world.sent_to) == len(holds) == 1


async def test_who_was_merged_and_has_turned_off_marketing_has_opted_out_of_it(world: World) -> None:
    work = await world.queued(lane="marketing")
    kept = await world.merged(phone=ELSEWHERE)
    before = len(await world.told_later())
    world.answers.append(Refused(131050, "User has stopped marketing messages", "", rule_for(131050)))
    outcome = await world.delivers(work)
    assert isinstance(outcome, Done)
    assert [msgspec.to_builtins(event.message)["contact_id"] for event in outcome.events] == [str(kept)]
    async with world.storage.tenant(world.one.tenant):
        assert (await Contact.get(id=kept)).opt_outs["marketing"]["source"] == "whatsapp"
    told, bodies = zip(*(await world.told_later())[before:], strict=True)
    assert told == ("contact.opted_out", "enrollment.stopped")
    assert (bodies[0]["id"], bodies[1]["contact_id"]) == (str(kept), str(kept))
