"""Messages in doubt: left so, settled by a receipt, or sent once more, on the real database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from enrolled import Enrolled, enrolled
from support import NewTenant

from harkara.actors.budget import Place
from harkara.actors.numbers import Number
from harkara.actors.receipts import Receipts
from harkara.actors.sender import UNKNOWN_WAIT, Sender
from harkara.bus.messages import Delivery
from harkara.bus.outcomes import Done, Outcome, Retry
from harkara.gateway.errors import rule_for
from harkara.gateway.protocol import Accepted, Answer, Credentials, NotSent, Refused, Unknown
from harkara.schemas.reasons import words
from harkara.schemas.work import Inbound, Send
from harkara.storage.models import Campaign, CampaignStep, Contact, ContactCampaignProgress, Message
from harkara.storage.storage import Storage

LOST = Unknown("ServerDisconnectedError")


@dataclass
class World:
    """A number, a gateway that answers as it was told, and a webhook that nobody has read yet."""

    storage: Storage
    one: Enrolled
    answers: list[Answer] = field(default_factory=list[Answer])
    taken: int = 0
    unread: bytes = b""
    turn: Place | None = None
    freed: list[Place] = field(default_factory=list[Place])

    async def get(self, *_: Any) -> Number:
        return Number(Credentials(sender_id="1", phone_number_id="1", access_token="t"), 80)

    async def acquire(self, *_: Any) -> Place | None:
        return self.turn

    async def away(self, *_: Any) -> None:
        pass

    def give_back(self, _: str) -> None:
        pass

    async def free(self, place: Place) -> None:
        self.freed.append(place)

    async def send(self, *_: Any, **__: Any) -> Answer:
        self.taken += 1
        return self.answers.pop(0)

    async def deliver(self, *, deliveries: int = 1) -> Outcome:
        """What becomes of the message's work when it comes, for the `deliveries`-th time since it was stored."""

        async def read(tenant: str, matters: Callable[[bytes], bool]) -> bool:
            return tenant == self.one.tenant and not matters(self.unread)

        parts: Any = self
        actor = Sender(self.storage, parts, parts, parts, lambda: None, receipts_read=read)
        work = Delivery(
            self.one.work(), self.one.tenant, "id", "cause", 1, "subject", "SEND", 1, datetime.now(UTC), deliveries
        )
        (outcome,) = await actor.handle([work])
        return outcome

    async def wait_is_over(self) -> None:
        """Let the time pass for which a message in doubt waits."""
        async with self.storage.tenant(self.one.tenant):
            await Message.filter(id=self.one.message).update(resend_at=datetime.now(UTC))

    async def receipt(self, status: str, wamid: str, **more: Any) -> list[str]:
        """A status webhook comes; the events that it leads to."""
        return await self.receipts((status, wamid, more))

    async def receipts(self, *statuses: tuple[str, str, dict[str, Any]]) -> list[str]:
        """The same of several in one webhook."""
        told = [
            {
                "id": wamid,
                "status": status,
                "timestamp": str(int(datetime.now(UTC).timestamp())),
                "biz_opaque_callback_data": str(self.one.message),
            }
            | more
            for status, wamid, more in statuses
        ]
        value = {"metadata": {"phone_number_id": "1"}, "statuses": told}
        body = msgspec.json.encode({"entry": [{"id": "1", "changes": [{"field": "messages", "value": value}]}]})
        message = Inbound(source="whatsapp", sender_id=str(self.one.sender), body=msgspec.Raw(body))
        now = datetime.now(UTC)
        delivery = Delivery(message, self.one.tenant, "w", "w", 1, "t.x.in.whatsapp", "INBOUND", 1, now, 1)
        nobody: Any = None
        (outcome,) = await Receipts(self.storage, nobody).handle([delivery])
        return names(outcome)

    async def row(self) -> Message:
        async with self.storage.tenant(self.one.tenant):
            return await Message.get(id=self.one.message)

    async def enrolment(self) -> ContactCampaignProgress:
        return await self.one.row(self.storage)


def names(outcome: Outcome) -> list[str]:
    """The events of an outcome, in short."""
    assert isinstance(outcome, Done | Retry), outcome
    return [type(event.message).__name__.removeprefix("Message").lower() for event in outcome.events]


@pytest.fixture
async def world(storage: Storage, new_tenant: NewTenant) -> World:
    """One step of a campaign whose messages may arrive twice."""
    one = await enrolled(storage, await new_tenant())
    async with storage.tenant(one.tenant):
        await Campaign.filter(id=one.campaign).update(delivery="at_least_once")
    return World(storage, one)


async def in_doubt(world: World, *then: Answer) -> None:
    """The first answer is lost, and the wait for a receipt is over."""
    world.answers = [LOST, *then]
    outcome = await world.deliver()
    assert names(outcome) == ["unknown", "enrollmentcompleted"]
    await world.wait_is_over()


async def test_what_may_not_arrive_twice_stays_in_doubt(world: World) -> None:
    async with world.storage.tenant(world.one.tenant):
        await Campaign.filter(id=world.one.campaign).update(delivery="at_most_once")
    world.answers = [LOST]
    outcome = await world.deliver()
    assert isinstance(outcome, Done)
    assert names(await world.deliver(deliveries=2)) == ["unknown", "enrollmentcompleted"]
    row = await world.row()
    assert (row.status, row.resend_at, row.resent, world.taken) == ("unknown", None, False, 1)


@pytest.mark.parametrize(
    ("campaign", "step", "again"),
    [
        ("at_most_once", "at_least_once", True),
        ("at_least_once", "at_most_once", False),
        ("at_least_once", None, True),
    ],
)
async def test_a_step_may_say_itself_what_becomes_of_it(
    world: World, campaign: str, step: str | None, again: bool
) -> None:
    async with world.storage.tenant(world.one.tenant):
        await Campaign.filter(id=world.one.campaign).update(delivery=campaign)
        await CampaignStep.filter(id=world.one.step).update(delivery=step)
    world.answers = [LOST]
    assert isinstance(await world.deliver(), Retry if again else Done)
    assert (await world.row()).delivery == (step or campaign)


REST = timedelta(hours=24)


async def rests_until(world: World) -> datetime | None:
    async with world.storage.tenant(world.one.tenant):
        return (await Contact.get(id=world.one.contact)).marketing_rests_until


async def test_whom_whatsapp_gives_no_marketing_at_once_rests_for_a_day(world: World) -> None:
    world.answers = [Refused(131049, "healthy ecosystem", "", rule_for(131049))]
    assert names(await world.deliver()) == ["failed", "enrollmentcompleted"]
    until = await rests_until(world)
    assert until
    assert timedelta() <= datetime.now(UTC) + REST - until < timedelta(minutes=1)


async def test_whom_whatsapp_gives_no_marketing_in_a_status_rests_for_a_day(world: World) -> None:
    world.answers = [Accepted("wamid.1")]
    await world.deliver()
    at = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=1)

    def failed(at: datetime, code: int = 131049) -> dict[str, Any]:
        return {"timestamp": str(int(at.timestamp())), "errors": [{"code": code, "title": "x"}]}

    assert await world.receipt("failed", "wamid.1", **failed(at, 131026)) == ["failed"]
    assert await rests_until(world) is None
    await world.receipt("failed", "wamid.1", **failed(at))
    # One that is told late shortens no rest.
    await world.receipt("failed", "wamid.1", **failed(at - timedelta(hours=1)))
    assert await rests_until(world) == at + REST


async def test_the_wait_is_a_schedule_and_the_enrolment_goes_on_meanwhile(world: World) -> None:
    world.answers = [LOST]
    outcome = await world.deliver()
    assert isinstance(outcome, Retry)
    assert (outcome.after, outcome.counts, outcome.park) == (UNKNOWN_WAIT, False, True)
    assert (await world.enrolment()).status == "completed"
    # The process dies before it can say so: told again, and it still waits as long.
    again = await world.deliver(deliveries=2)
    assert isinstance(again, Retry)
    assert names(again) == ["unknown", "enrollmentcompleted"]
    assert again.park
    assert again.after
    assert UNKNOWN_WAIT - timedelta(minutes=1) < again.after <= UNKNOWN_WAIT
    assert world.taken == 1


async def test_it_is_sent_once_more_and_marked_so(world: World) -> None:
    await in_doubt(world, Accepted("wamid.2"))
    assert names(await world.deliver()) == ["resent", "sent"]
    row = await world.row()
    assert (row.status, row.wamid, row.attempts, row.resent) == ("sent", "wamid.2", 2, True)
    assert (await world.enrolment()).messages_sent == 1
    # Told again after a crash, and not done again.
    assert names(await world.deliver(deliveries=2)) == ["resent", "sent"]
    assert world.taken == 2


async def test_a_receipt_in_time_settles_it(world: World) -> None:
    await in_doubt(world)
    assert await world.receipt("delivered", "wamid.1") == ["sent", "delivered"]
    assert names(await world.deliver()) == []
    row = await world.row()
    assert (row.status, row.resent, world.taken) == ("delivered", False, 1)
    assert (await world.enrolment()).messages_sent == 1


def _cloud(opaque: str) -> tuple[str, Any]:
    value = {
        "statuses": [{"id": "wamid.9", "status": "delivered", "timestamp": "1", "biz_opaque_callback_data": opaque}]
    }
    return "whatsapp", {"entry": [{"id": "1", "changes": [{"field": "messages", "value": value}]}]}


_KEY = {"id": "3EB0", "remoteJid": "919876543210@s.whatsapp.net", "fromMe": True}
_ECHO = {"event": "send.message", "data": {"key": _KEY, "message": {"conversation": "Hi"}}}
_OURS = {"id": "true_919876543210@c.us_3EB0", "fromMe": True, "to": "919876543210@c.us", "body": "Hi", "source": "api"}


@pytest.mark.parametrize(
    ("sender", "webhook", "waits"),
    [
        ("ours", _cloud("ours"), True),
        # It is filed by what it says, whichever of the tenant's numbers it was sent to.
        ("another", _cloud("ours"), True),
        ("ours", _cloud("another"), False),
        ("ours", ("evolution", _ECHO), True),
        ("another", ("evolution", _ECHO), False),
        (
            "ours",
            ("evolution", {"event": "messages.update", "data": {**_KEY, "keyId": "3EB0", "status": "READ"}}),
            False,
        ),
        ("ours", ("waha", {"event": "message.any", "payload": _OURS}), True),
        ("ours", ("waha", {"event": "message.any", "payload": _OURS | {"source": "app"}}), False),
        ("ours", ("waha", {"event": 1}), False),
        ("ours", ("waha", []), False),
    ],
)
async def test_a_webhook_that_nobody_has_read_yet_is_waited_for_if_it_may_settle_it(
    world: World, sender: str, webhook: tuple[str, Any], waits: bool
) -> None:
    await in_doubt(world, Accepted("wamid.2"))
    source, body = webhook
    named = {"ours": str(world.one.sender), "another": str(world.one.contact)}[sender]
    stored = msgspec.json.encode({"source": source, "sender_id": named, "body": body})
    world.unread = stored.replace(b'"ours"', f'"{world.one.message}"'.encode())
    outcome = await world.deliver()
    if waits:
        assert isinstance(outcome, Retry)
        assert outcome.park
    else:
        assert isinstance(outcome, Done)
    assert world.taken == (1 if waits else 2)


async def test_a_second_answer_that_is_lost_too_is_the_last(world: World) -> None:
    await in_doubt(world, LOST)
    outcome = await world.deliver()
    assert isinstance(outcome, Done)
    assert names(outcome) == ["resent", "unknown"]
    await world.wait_is_over()
    assert names(await world.deliver(deliveries=2)) == ["resent", "unknown"]
    assert (world.taken, (await world.row()).status) == (2, "unknown")
    # A late receipt of either settles it, without a third.
    assert await world.receipt("delivered", "wamid.1") == ["sent", "delivered"]
    assert await world.receipt("read", "wamid.2") == ["read"]
    assert names(await world.deliver(deliveries=2)) == ["resent", "sent"]
    assert (world.taken, (await world.row()).status) == (2, "read")
    assert (await world.enrolment()).messages_sent == 1


async def test_a_receipt_after_the_second_changes_nothing_but_its_status(world: World) -> None:
    await in_doubt(world, Accepted("wamid.2"))
    await world.deliver()
    assert await world.receipt("failed", "wamid.1", errors=[{"code": 131026, "title": "Undeliverable"}]) == []
    row = await world.row()
    assert [row.status, row.reason, row.error_code, row.failed_at] == ["sent", None, None, None]
    assert await world.receipt("delivered", "wamid.2") == ["delivered"]
    assert (await world.row()).status == "delivered"
    assert (await world.enrolment()).messages_sent == 1


@pytest.mark.parametrize(
    ("answer", "given_back"),
    [
        (Accepted("wamid.1"), False),
        (LOST, False),
        (Refused(131026, "Undeliverable", "", rule_for(131026)), True),
        (Refused(131000, "Something went wrong", "", rule_for(131000)), True),
        (NotSent("refused"), True),
        (None, True),  # policy keeps it from leaving
    ],
)
async def test_who_is_not_reached_takes_nobody_s_place(world: World, answer: Answer | None, given_back: bool) -> None:
    world.turn = Place("shop", "+919876543210", 1)
    if answer is None:
        async with world.storage.tenant(world.one.tenant):
            await Contact.filter(id=world.one.contact).update(opted_out_at=datetime.now(UTC))
    world.answers = [answer] if answer else []
    await world.deliver()
    assert world.freed == ([world.turn] if given_back else [])


PASSES = {"errors": [{"code": 131000, "title": "Something went wrong"}]}
REFUSED = Refused(131000, "Something went wrong", "", rule_for(131000))


async def test_a_status_of_an_attempt_that_was_refused_at_once_fails_nothing(world: World) -> None:
    world.answers = [REFUSED, Accepted("wamid.2")]
    assert isinstance(await world.deliver(), Retry)
    assert await world.receipt("failed", "wamid.1", **PASSES) == []
    assert (await world.row()).status == "queued"
    assert names(await world.deliver()) == ["sent", "enrollmentcompleted"]
    assert await world.receipt("failed", "wamid.1", **PASSES) == []
    assert await world.receipts(("failed", "wamid.1", PASSES), ("sent", "wamid.2", {})) == []
    row = await world.row()
    assert [row.status, row.wamid, row.reason, row.failed_at] == ["sent", "wamid.2", None, None]
    # What becomes of the one that was taken is the message's, and is for good.
    assert await world.receipts(("failed", "wamid.1", PASSES), ("delivered", "wamid.2", {})) == ["delivered"]


async def test_what_was_taken_and_failed_is_not_sent_again(world: World) -> None:
    """However soon that passes: WhatsApp had it, and may yet deliver it."""
    world.answers = [Accepted("wamid.1")]
    await world.deliver()
    assert await world.receipt("failed", "wamid.1", **PASSES) == ["failed"]
    assert await world.receipt("failed", "wamid.1", **PASSES) == ["failed"]
    await world.deliver(deliveries=2)
    row = await world.row()
    assert (row.status, row.error_code, world.taken) == ("failed", 131000, 1)
    told = words(row.status, row.reason, row.error_code)
    assert told is not None
    assert told[1].todo.startswith("it is not tried again by itself: send a new message")
    assert await world.receipt("delivered", "wamid.1") == ["delivered"]
    assert (await world.row()).status == "delivered"


async def test_a_crash_during_the_second_request_is_a_doubt_for_good(world: World) -> None:
    await in_doubt(world)
    async with world.storage.tenant(world.one.tenant):
        long_ago = datetime.now(UTC) - timedelta(minutes=1)
        await Message.filter(id=world.one.message).update(status="sending", resent=True, attempted_at=long_ago)
    outcome = await world.deliver(deliveries=2)
    assert isinstance(outcome, Done)
    assert names(outcome) == ["resent", "unknown"]
    assert world.taken == 1


async def test_what_provably_did_not_leave_a_second_time_is_tried_again(world: World) -> None:
    await in_doubt(world, NotSent("connection refused"), Accepted("wamid.2"))
    outcome = await world.deliver()
    assert isinstance(outcome, Retry)
    assert names(outcome) == []
    row = await world.row()
    assert (row.status, row.resent) == ("unknown", False)
    assert names(await world.deliver()) == ["resent", "sent"]


async def test_a_second_one_that_is_refused_proves_nothing_about_the_first(world: World) -> None:
    await in_doubt(world, Refused(131026, "Message undeliverable", "", rule_for(131026)))
    assert names(await world.deliver()) == ["unknown"]
    row = await world.row()
    assert (row.status, row.error_code, row.resent) == ("unknown", 131026, False)
    assert row.reason is not None
    assert row.reason.startswith("sent once more, and refused")


@pytest.mark.parametrize(
    ("what", "against"),
    [
        ("opted_out", "opted_out"),
        ("stopped", "enrollment_stopped"),
        ("archived", "campaign_inactive"),
        ("changed", "at_most_once"),
    ],
)
async def test_what_policy_forbids_meanwhile_stays_in_doubt_and_says_why(world: World, what: str, against: str) -> None:
    await in_doubt(world)
    one, since = world.one, (await world.row()).updated_at
    async with world.storage.tenant(one.tenant):
        match what:
            case "opted_out":
                await Contact.filter(id=one.contact).update(opted_out_at=datetime.now(UTC))
            case "stopped":
                await ContactCampaignProgress.filter(id=one.id).update(status="stopped")
            case "archived":
                await Campaign.filter(id=one.campaign).update(status="archived")
            case _:
                await Campaign.filter(id=one.campaign).update(delivery="at_most_once")
    outcome = await world.deliver()
    assert isinstance(outcome, Done)
    assert names(outcome) == []
    row = await world.row()
    assert (row.status, world.taken, row.resend_at) == ("unknown", 1, None)
    assert row.updated_at == since  # the moment at which the doubt began
    assert row.reason == f"{LOST.reason}; not sent once more: {against}"
    told = words(row.status, row.reason, row.error_code)
    assert told is not None
    assert ("the contact has opted out" in told[1].text) == (what == "opted_out")


async def test_of_two_copies_one_is_sent_again(world: World) -> None:
    await in_doubt(world, Accepted("wamid.2"), Accepted("wamid.3"))
    work = world.one.work()
    parts: Any = world
    actor = Sender(world.storage, parts, parts, parts, lambda: None)
    now = datetime.now(UTC)
    copies: list[Delivery[Send]] = [
        Delivery(work, world.one.tenant, "id", "cause", 1, "subject", "SEND", seq, now, 1) for seq in (1, 2)
    ]
    await actor.handle(copies)
    assert world.taken == 2
    assert UUID(work.message_id) == (await world.row()).id
