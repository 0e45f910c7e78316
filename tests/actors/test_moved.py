"""Messages that wait while their contact becomes another's, or gets another number."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from enrolled import Enrolled, enrolled
from support import NewTenant, waited_for

from harkara.actors.dispatcher import Dispatcher
from harkara.actors.enrollment import Enrollment
from harkara.actors.numbers import Number
from harkara.actors.sender import Sender
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Done, Outcome, Retry
from harkara.gateway.errors import rule_for
from harkara.gateway.protocol import Accepted, Answer, Credentials, Refused
from harkara.ids import uuid7
from harkara.schemas.commands import ReachGoal, SendMessage, StartEnrollment, StopEnrollment
from harkara.schemas.content import Content
from harkara.schemas.work import EnrollPage, Send
from harkara.storage import holding, merging, sending
from harkara.storage.models import Contact, ContactCampaignProgress, Message, PhoneNumber
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

    def wake(self, *_: Any) -> None:
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

    async def moves(self, **to: Any) -> None:
        """The contact has another number, and somebody else, who has said STOP, has theirs."""
        async with self.storage.tenant(self.one.tenant):
            await Contact.filter(id=self.one.contact).update(**to)
            await Contact.create(name="Ravi", phone=PHONE, opted_out_at=datetime.now(UTC))

    async def told_later(self) -> list[tuple[str, Any]]:
        """What the outbox says: what happened, and its body."""
        async with self.storage.tenant(self.one.tenant) as con:
            rows = await con.fetch("select subject, body::text from outbox order by id")
        return [(row[0].rpartition(".evt.")[2], msgspec.json.decode(row[1])) for row in rows]

    async def asked(self, command: Any) -> list[str]:
        """A command comes to whoever does it; what is told."""
        parts: Any = self
        d: Delivery[Any] = Delivery(
            command, self.one.tenant, str(uuid7()), "cause", 1, "s", "COMMANDS", 1, datetime.now(UTC), 1
        )
        actor = Dispatcher if isinstance(command, SendMessage) else Enrollment
        (outcome,) = await actor(self.storage, parts).handle([d])
        assert isinstance(outcome, Done)
        return [event.message.subject.rpartition(".evt.")[2] for event in outcome.events]

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


USER = "US.13491208655302741918"


@pytest.mark.parametrize("to", [{"phone": ELSEWHERE}, {"phone": None, "wa_user_id": USER}])
@pytest.mark.parametrize("lane", ["otp", "utility"])
async def test_what_is_for_a_contact_goes_to_the_number_that_it_has_when_it_leaves(
    world: World, lane: str, to: dict[str, Any]
) -> None:
    work = await world.queued(follows=True, lane=lane)
    await world.moves(**to)
    assert isinstance(await world.delivers(work), Done)
    now = to["phone"] or USER
    assert (world.sent_to, (await world.row(work)).to) == ([now], now)


async def test_a_step_goes_to_the_number_that_its_contact_has_when_it_leaves(world: World) -> None:
    await world.moves(phone=ELSEWHERE)
    work = msgspec.structs.replace(world.one.work(), follows=True)
    assert isinstance(await world.delivers(work), Done)
    assert (world.sent_to, (await world.row(work)).to) == ([ELSEWHERE], ELSEWHERE)


async def test_what_is_for_a_number_goes_there_as_long_as_it_is_the_contacts(world: World) -> None:
    further, spelled = "+5511987654321", "+551187654321"
    async with world.storage.tenant(world.one.tenant):
        number = await PhoneNumber.create(contact_id=world.one.contact, phone=further)
    for to in (PHONE, further, spelled):
        assert isinstance(await world.delivers(await world.queued(to=to)), Done)
    assert isinstance(await world.delivers(await world.queued(to=ELSEWHERE, contact_id=None)), Done)
    assert world.sent_to == [PHONE, further, spelled, ELSEWHERE]
    async with world.storage.tenant(world.one.tenant):
        await number.delete()
    assert isinstance(await world.delivers(await world.queued(to=further)), Done)
    assert world.sent_to[-1] == PHONE


@pytest.mark.parametrize("lane", ["otp", "utility"])
async def test_a_code_that_was_asked_for_a_number_goes_there_or_nowhere(world: World, lane: str) -> None:
    work = await world.queued(lane=lane)
    await world.moves(phone=ELSEWHERE)
    assert isinstance(await world.delivers(work), Done)
    row = await world.row(work)
    if lane == "otp":
        assert (world.sent_to, row.status, row.reason) == ([], "suppressed", "number_changed")
    else:
        assert (world.sent_to, row.status, row.to) == ([ELSEWHERE], "sent", ELSEWHERE)


async def test_what_is_sent_once_more_goes_to_the_number_that_its_contact_has_by_now(world: World) -> None:
    work = await world.queued(follows=True)
    async with world.storage.tenant(world.one.tenant):
        await Message.filter(id=work.message_id).update(
            status="unknown", attempts=1, resend_at=datetime.now(UTC), delivery="at_least_once"
        )
    await world.moves(phone=ELSEWHERE)
    assert isinstance(await world.delivers(work), Done)
    row = await world.row(work)
    assert (world.sent_to, row.to, row.resent, row.attempts) == ([ELSEWHERE], ELSEWHERE, True, 2)


@pytest.mark.parametrize("follows", [True, False])
async def test_what_is_for_one_who_was_merged_goes_to_the_one_that_is_left(world: World, *, follows: bool) -> None:
    work = await world.queued(follows=follows)
    await world.merged(phone=ELSEWHERE)
    assert isinstance(await world.delivers(work), Done)
    assert world.sent_to == [ELSEWHERE if follows else PHONE], "its number is a further one of theirs"


async def test_what_waits_for_a_contact_with_another_number_says_so(world: World) -> None:
    work = await world.queued(follows=True, lane="marketing")
    await world.moves(phone=ELSEWHERE, marketing_rests_until=datetime.now(UTC) + timedelta(hours=1))
    outcome = await world.delivers(work)
    assert isinstance(outcome, Retry)
    row = await world.row(work)
    assert (world.sent_to, row.status, row.reason, row.to) == ([], "queued", "contact_rests", ELSEWHERE)


@pytest.mark.parametrize(("command", "reason"), [(StopEnrollment, "by_hand"), (ReachGoal, "goal_reached")])
async def test_a_stop_that_was_accepted_for_one_who_was_merged_is_the_kept_ones(
    world: World, command: Any, reason: str
) -> None:
    stop = command(campaign_id=str(world.one.campaign), contact_id=str(world.one.contact))
    await world.merged(phone=ELSEWHERE)
    assert "enrollment.stopped" in await world.asked(stop)
    row = await world.one.row(world.storage)
    assert (row.status, row.stopped_reason) == ("stopped", reason)


@pytest.mark.parametrize("many", [True, False])
async def test_who_was_merged_after_an_enrolment_was_accepted_is_enrolled_as_the_kept_one(
    world: World, *, many: bool
) -> None:
    async with world.storage.tenant(world.one.tenant):
        await ContactCampaignProgress.all().delete()
    kept, gone, campaign = await world.merged(phone=ELSEWHERE), str(world.one.contact), str(world.one.campaign)
    page = EnrollPage(bulk_id=str(uuid4()), campaign_id=campaign, started_at=datetime.now(UTC), contact_ids=[gone])
    told = await world.asked(page if many else StartEnrollment(campaign_id=campaign, contact_id=gone))
    assert "enrollment.started" in told
    async with world.storage.tenant(world.one.tenant):
        assert [row.contact_id for row in await ContactCampaignProgress.all()] == [kept]


async def test_what_was_accepted_for_one_who_was_merged_is_sent_to_the_kept_one(world: World) -> None:
    command = SendMessage(
        sender_id=str(world.one.sender), content=Content(body="Hello"), contact_id=str(world.one.contact)
    )
    kept = await world.merged(phone=ELSEWHERE)
    assert "message.queued" in await world.asked(command)
    async with world.storage.tenant(world.one.tenant):
        row = await Message.get()
    assert (row.to, str(vars(row)["contact_id"]), row.status) == (ELSEWHERE, str(kept), "queued")
